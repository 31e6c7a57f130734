"""What an explanation is made of: numbers and names, which JSON holds too. Depends on nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Token:
    """A token that is shown.

    Attributes
    ----------
    rank : int
        Its place by falling logit, from 1, as it was edited.
    id : int
    text : str
    logit : float or None
        As the stages see it; None where it was banned.
    given_rank : int
        Its place by falling logit before the edits.
    given_logit : float
        Its logit before the edits.
    edited_by : tuple of str
        The parameters that edited it.
    model : float
        Its probability at T = 1, before the edits.
    prob : float
        Its probability at the temperature of the draw, before any stage cuts.
    final : float
        Its probability in the distribution that is drawn from; 0 if it was cut.
    cut_by : str or None
        The stage that removed it, or "edits".
    """

    rank: int
    id: int
    text: str
    logit: float | None
    given_rank: int
    given_logit: float
    edited_by: tuple[str, ...]
    model: float
    prob: float
    final: float
    cut_by: str | None


@dataclass(frozen=True)
class Stage:
    """What one stage saw and kept.

    Attributes
    ----------
    name : str
        The name of a stage; "edits" for what changes the row before any; "greedy" at T = 0, where
        no stage plays a part; "softmax" where none is on.
    value : float
        Its first number; of "edits", how many logits they change.
    numbers : tuple of float
        All of its parameters, as the table has them.
    temperature : float
        Of the probabilities that it saw; for "temperature", of those that it made.
    entered, kept : int
        How many tokens it saw, and left.
    mass : float
        Probability of what it kept, of what it saw.
    threshold : float or None
        A probability: that which a token must have; of "xtc", from which on it looks at tokens;
        of "top_p", the sum to reach; of "typical_p", that whose surprise is the entropy. None
        where the rule is another.
    coin : float or None
        Of "xtc", the uniform that has to be below its probability; None where none is needed.
    held : bool
        Whether min_tokens_to_keep made it keep more than its rule says.
    before, cumulative, after : tuple of float or None
        For each shown token: its probability as the stage saw it, that of all tokens down to it in
        the order in which the stage keeps them, and its probability afterwards. None for a token
        that is not there any more.
    """

    name: str
    value: float
    numbers: tuple[float, ...]
    temperature: float
    entered: int
    kept: int
    mass: float
    threshold: float | None
    coin: float | None
    held: bool
    before: tuple[float | None, ...]
    cumulative: tuple[float | None, ...]
    after: tuple[float | None, ...]


@dataclass(frozen=True)
class Segment:
    """A part of the line from 0 to 1 on which the uniform falls.

    Attributes
    ----------
    token : int or None
        Place in `Explanation.tokens`; None for a run of tokens that are not shown.
    count : int
        How many tokens it stands for.
    low, high : float
        The uniforms in [low, high) draw it.
    """

    token: int | None
    count: int
    low: float
    high: float


@dataclass(frozen=True)
class Draw:
    """The draw: the inverse of the cumulative distribution, by rising id, at one uniform.

    Attributes
    ----------
    seed, offset : int or None
        Where the uniform came from; None if it was given.
    u : float
        The uniform, in [0, 1).
    token : int
        Place of the drawn token in `Explanation.tokens`.
    low, high : float
        The uniforms in [low, high) draw this token, to the rounding of float32 probabilities.
    segments : tuple of Segment
        All of [0, 1), by rising id.
    """

    seed: int | None
    offset: int | None
    u: float
    token: int
    low: float
    high: float
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class Explanation:
    """What the parameters do to one row; ``dataclasses.asdict`` gives what JSON holds.

    Attributes
    ----------
    parameters : dict
        All of `sample`'s parameters of the distribution.
    edits : dict of int
        How many logits each parameter that edits the row changes.
    vocabulary, masked, kept : int
        How many tokens the row has, how many are ``-inf`` as they came, and how many can be drawn.
    mass : float
        Probability of what can be drawn, of all at the temperature of the draw.
    entropy : float
        Of the distribution that is drawn from, in bits.
    stages : tuple of Stage
        Those that are on, in the order that they run; the edits first, if there are any.
    tokens : tuple of Token
        The most probable ones, as edited and as they came, and the drawn one, by `rank`.
    draw : Draw
    """

    parameters: dict[str, Any]
    edits: dict[str, int]
    vocabulary: int
    masked: int
    kept: int
    mass: float
    entropy: float
    stages: tuple[Stage, ...]
    tokens: tuple[Token, ...]
    draw: Draw

    @property
    def leading(self) -> list[int]:
        """Places in `tokens` of the most probable ones before the edits, these first."""
        places = sorted(range(len(self.tokens)), key=lambda i: self.tokens[i].given_rank)
        return [p for i, p in enumerate(places) if self.tokens[p].given_rank == i + 1]

    @property
    def drawn(self) -> Token:
        """The drawn token."""
        return self.tokens[self.draw.token]
