"""What each stage does to one row of logits, as numbers. Depends on NumPy and the package alone.

`fastsample explain` shows them on a terminal (``cli/explain_text.py``) or as a picture
(``cli/explain_plot.py``). Nothing here samples by rules of its own: what a stage keeps is what
`fastsample.survivors` returns with the later stages off, and the token is `fastsample.sample`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from .arrays import as_rows
from .chains import stages_on
from .orders import Order, parse_order
from .parameters import OFF
from .reference import to_float32, uniform
from .sampling import sample, survivors
from .values import integer


@dataclass(frozen=True)
class Token:
    """A token that is shown.

    Attributes
    ----------
    rank : int
        Its place by falling logit, from 1.
    id : int
    text : str
    logit : float
    model : float
        Its probability at T = 1.
    prob : float
        Its probability at the temperature of the draw, before anything is cut.
    final : float
        Its probability in the distribution that is drawn from; 0 if it was cut.
    cut_by : str or None
        The stage that removed it.
    """

    rank: int
    id: int
    text: str
    logit: float
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
        "temperature", "top_k", "top_p", "min_p"; "greedy" at T = 0, where no other plays a part;
        "softmax" where no stage is on.
    value : float
        Its parameter.
    temperature : float
        Of the probabilities that it saw; for "temperature", of those that it made.
    entered, kept : int
        How many tokens it saw, and left.
    mass : float
        Probability of what it kept, of what it saw.
    threshold : float or None
        top_p: the cumulative probability to reach; min_p: the least probability to have.
    held : bool
        Whether min_tokens_to_keep made it keep more than its rule says.
    before, cumulative, after : tuple of float or None
        For each shown token: its probability as the stage saw it, that of all tokens down to it,
        and its probability afterwards. None for a token that is not there any more.
    """

    name: str
    value: float
    temperature: float
    entered: int
    kept: int
    mass: float
    threshold: float | None
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
    vocabulary, masked, kept : int
        How many tokens the row has, how many are ``-inf``, and how many can be drawn.
    mass : float
        Probability of what can be drawn, of all at the temperature of the draw.
    entropy : float
        Of the distribution that is drawn from, in bits.
    stages : tuple of Stage
        Those that are on, in the order that they run.
    tokens : tuple of Token
        The most probable ones, by falling logit; the drawn one last if it is not among them.
    draw : Draw
    """

    parameters: dict[str, Any]
    vocabulary: int
    masked: int
    kept: int
    mass: float
    entropy: float
    stages: tuple[Stage, ...]
    tokens: tuple[Token, ...]
    draw: Draw

    @property
    def drawn(self) -> Token:
        """The drawn token."""
        return self.tokens[self.draw.token]


Ids = npt.NDArray[np.int64]
Probs = npt.NDArray[np.float64]

# What the rule alone keeps, of falling probabilities. Only to tell whether min_tokens_to_keep held
# more, which is asked where a stage kept exactly that many.
_RULE: dict[str, Callable[[Probs, float], float]] = {
    "top_k": lambda p, k: k,
    "top_p": lambda p, mass: float(1 + np.sum(np.cumsum(p) < mass)),
    "min_p": lambda p, share: float(np.sum(p >= share * p[0])),
}


def running_stages(parameters: dict[str, Any]) -> list[str]:
    """Return the stages that are on, in the order that they run."""
    if parameters["temperature"] == 0:
        return ["temperature"]  # no other plays a part
    return stages_on(parameters)


def _survivors(row: npt.NDArray[np.float32], parameters: dict[str, Any]) -> tuple[Ids, Probs]:
    ids, probs = survivors(row, **parameters)
    return ids, probs / probs.sum(dtype=np.float64)


def _stage(name: str, parameters: dict[str, Any], seen: Probs, left: Probs, ranks: Ids) -> Stage:
    """Describe a stage by the probabilities before and after it, both by falling logit."""
    value = float(parameters.get(name, 1.0))
    rule = _RULE.get(name)
    at_least = parameters["min_tokens_to_keep"]
    cumulative = np.cumsum(seen)

    def shown(values: Probs) -> tuple[float | None, ...]:
        # Every stage keeps a prefix of the ranking.
        return tuple(float(values[r]) if r < values.size else None for r in ranks)

    return Stage(
        name="greedy" if name == "temperature" and value == 0 else name,
        value=value,
        temperature=parameters["temperature"] or 1.0,
        entered=seen.size,
        kept=left.size,
        mass=min(float(cumulative[left.size - 1]), 1.0),
        threshold={"top_p": value, "min_p": value * float(seen[0])}.get(name),
        held=rule is not None and left.size == at_least and rule(seen, value) < at_least,
        before=shown(seen),
        cumulative=shown(np.minimum(cumulative, 1.0)),
        after=shown(left),
    )


def _segments(final: Ids, probs: Probs, shown: list[int]) -> tuple[Segment, ...]:
    """Return the line from 0 to 1 by rising id, with runs of tokens that are not shown as one."""
    by_id = np.argsort(final)
    places = {token: place for place, token in enumerate(shown)}
    # A shown token is a group of its own, whatever stands beside it.
    groups = groupby(
        zip(final[by_id].tolist(), probs[by_id].tolist(), strict=True),
        key=lambda pair: places.get(pair[0]),
    )
    segments, high = [], 0.0
    for place, group in groups:
        weights = [p for _, p in group]
        low, high = high, high + sum(weights)
        segments.append(Segment(place, len(weights), low, high))
    segments[-1] = Segment(segments[-1].token, segments[-1].count, segments[-1].low, 1.0)
    return tuple(segments)


def explain(
    logits: Any,
    names: Sequence[str] | Callable[[int], str] = str,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    min_p: float = 0.0,
    min_tokens_to_keep: int = 1,
    order: Order = "hf",
    seed: int | None = None,
    offset: int = 0,
    u: float | None = None,
    top: int = 10,
) -> Explanation:
    """Explain one draw: what each stage sees, keeps and removes, and where the uniform fell.

    Parameters
    ----------
    logits : array, shape (V,)
        As in `sample`, one row.
    names : sequence of V str, or function from id to str, default str
        What the tokens are called.
    temperature, top_k, top_p, min_p, min_tokens_to_keep, order
        As in `sample`, scalars.
    seed : int, optional
        As in `sample`; 0 where `u` is not given either.
    offset : int, default 0
        As in `sample`.
    u : float, optional
        The uniform itself, in [0, 1).
    top : int, default 10
        How many of the most probable tokens to list; >= 1.

    Returns
    -------
    Explanation

    Raises
    ------
    ValueError, TypeError
        As in `sample`; or `names` are not V, or `top` is out of range.

    Examples
    --------
    >>> from fastsample.explain import explain
    >>> report = explain([3.0, 2.5, 2.0, 1.0], "ABCD", top_k=3, top_p=0.8, u=0.4)
    >>> [(stage.name, stage.entered, stage.kept) for stage in report.stages]
    [('top_k', 4, 3), ('top_p', 3, 2)]
    >>> report.drawn.text, round(report.drawn.final, 2)
    ('A', 0.62)
    """
    rows, single = as_rows(logits)
    if not single:
        raise ValueError(f"logits must be 1-D, got shape {rows.shape}")
    row = to_float32(rows)[0]
    if not callable(names):
        if len(names) != row.size:
            raise ValueError(f"names must be {row.size}, one for each logit, got {len(names)}")
        names = names.__getitem__
    if integer("top", top) < 1:
        raise ValueError(f"top must be >= 1, got {top}")
    parameters: dict[str, Any] = {
        "temperature": temperature,
        "top_k": 0 if top_k is None else top_k,
        "top_p": top_p,
        "min_p": min_p,
        "min_tokens_to_keep": min_tokens_to_keep,
        "order": parse_order(order),
    }
    if u is None and seed is None:
        seed = 0
    drawn = sample(row, **parameters, seed=seed, offset=offset, u=u)

    on = running_stages(parameters)
    chain = [parameters | OFF | {s: parameters[s] for s in on[:i]} for i in range(len(on) + 1)]
    results = [_survivors(row, setting) for setting in chain]
    ranking, model = results[0]
    final, probs = results[-1]
    _, tempered = _survivors(row, parameters | OFF | {"temperature": temperature or 1.0})

    leading = np.arange(min(top, ranking.size))
    ranks = np.union1d(leading, np.flatnonzero(ranking == drawn))
    shown = ranking[ranks].tolist()
    stages = [
        _stage(stage, setting, seen, left, ranks)
        for stage, setting, (_, seen), (_, left) in zip(
            on, chain[1:], results[:-1], results[1:], strict=True
        )
    ]
    tokens = tuple(
        Token(
            rank=rank + 1,
            id=token,
            text=names(token),
            logit=float(row[token]),
            model=float(model[rank]),
            prob=float(tempered[rank]),
            final=float(probs[rank]) if rank < final.size else 0.0,
            cut_by=next((stage.name for stage in stages if rank >= stage.kept), None),
        )
        for rank, token in zip(ranks.tolist(), shown, strict=True)
    )
    segments = _segments(final, probs, shown)
    place = shown.index(drawn)
    own = next(segment for segment in segments if segment.token == place)
    drawable = probs[probs > 0]
    return Explanation(
        parameters=parameters,
        vocabulary=row.size,
        masked=row.size - ranking.size,
        kept=final.size,
        mass=min(float(tempered[: final.size].sum()), 1.0),
        entropy=max(float(-drawable @ np.log2(drawable)), 0.0),
        stages=tuple(stages) or (_stage("softmax", parameters, probs, probs, ranks),),
        tokens=tokens,
        draw=Draw(
            seed=seed,
            offset=None if seed is None else offset,
            u=float(u) if u is not None else uniform(cast(int, seed), 0, offset),
            token=place,
            low=own.low,
            high=own.high,
            segments=segments,
        ),
    )
