"""Which of some drafted tokens stay, and what follows them, so that the text is the target's own.

p_i is what the target draws from at position i, q_i what the draft was drawn from: of logits, of a
list of ids and weights, or the token alone. Positions that cannot matter any more are not looked
at.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..records import Records, steps
from .chain import Step, uniform, walk
from .distribution import Floats, Ids
from .inputs import Inputs, as_drawn_from, coin_of, defect_of
from .row import Floats32, Rows, to_float32

TOKEN, EXACT, BLOCK = 1, 2, 3
DRAWN, ACCEPTED, REFUSED = 0, 2, 3  # what uniforms are for


class Side(NamedTuple):
    """Rows of logits, and what is drawn from them with."""

    rows: Rows
    params: Records
    inputs: Inputs


class Lists(NamedTuple):
    """For each position ids and weights, which need not sum to 1."""

    ids: npt.NDArray[np.int32]
    weights: Floats
    offsets: npt.NDArray[np.int64]

    def at(self, i: int) -> tuple[npt.NDArray[np.int32], Floats]:
        """Return those of one position."""
        mine = slice(self.offsets[i], self.offsets[i + 1])
        return self.ids[mine], self.weights[mine]


#: What drafts were drawn from; None is the drafted token itself.
Draft = Side | Lists | None


def probs_of(side: Side, i: int, name: str) -> Floats:
    """Return what row i is drawn from."""
    row = row_of(side, i, name)
    p = side.params[0 if side.params.size == 1 else i]
    chain = [Step(*step) for step in steps(p)]
    d = walk(row, chain, int(p["min_tokens_to_keep"]), coin=coin_of(side.inputs, i))
    probs = np.zeros(row.size)
    probs[d.ids] = d.probs
    return probs


def row_of(side: Side, i: int, name: str) -> Floats32:
    """Return row i as it is edited and masked."""
    row = as_drawn_from(to_float32(side.rows[i]), side.inputs, i)
    defect = defect_of(row, side.rows[i], side.inputs, i, i)
    if defect is not None:
        raise ValueError(defect.replace("logits", name, 1))
    return row


class Verification:
    """A sequence of drafts, its target and its uniforms; here of probabilities for all ids.

    Whoever has distributions of another kind says anew what is done to one.
    """

    def __init__(self, tokens: Ids, target: Side, draft: Draft, key: tuple[int, int, int]) -> None:
        self.tokens = tokens.tolist()
        self.target, self.draft, self.key = target, draft, key

    # ---- what is done to a distribution ----

    def p(self, i: int) -> Any:
        """Return what the target draws from at position i."""
        return probs_of(self.target, i, "target")

    def q(self, i: int) -> Any:
        """Return what the draft at position i was drawn from."""
        if isinstance(self.draft, Side):
            return probs_of(self.draft, i, "draft")
        probs = np.zeros(self.target.rows.shape[1])
        if self.draft is None:
            probs[self.tokens[i]] = 1.0
        else:
            ids, weights = self.draft.at(i)
            probs[ids] = weights / weights.sum()
        return probs

    def of(self, distribution: Any, token: int) -> float:
        """Return the probability of a token."""
        return float(distribution[token])

    def residual(self, p: Any, q: Any, reached: float) -> tuple[float, Any]:
        """Return the mass of what is left of a part of p, and weights of the token after that.

        Where nothing is left, these are p's.
        """
        left = np.maximum(reached * p - q, 0.0)
        mass = float(left.sum())
        return mass, left if mass > 0.0 else p

    def drawn(self, weights: Any, u: float) -> int:
        """Return the token of a uniform: the inverse CDF in the order of the ids."""
        ids = np.flatnonzero(weights)
        cumulative = np.cumsum(weights[ids])
        place = int(np.searchsorted(cumulative, u * cumulative[-1], side="right"))
        return int(ids[min(place, ids.size - 1)])

    # ---- the methods ----

    def u(self, i: int, use: int) -> float:
        """Return the uniform of a use at position i."""
        seed, stream, offset = self.key
        return uniform(seed, stream, offset + i, use)

    def by_token(self) -> list[int]:
        """Accept drafts one by one (Leviathan et al. 2023)."""
        for i, token in enumerate(self.tokens):
            p, q = self.p(i), self.q(i)
            if not self.u(i, ACCEPTED) * self.of(q, token) < self.of(p, token):
                _, left = self.residual(p, q, 1.0)
                return [*self.tokens[:i], self.drawn(left, self.u(i, REFUSED))]
        return self.with_next()

    def exactly(self) -> list[int]:
        """Draw at each position, as long as that gives the drafts."""
        for i, token in enumerate(self.tokens):
            own = self.drawn(self.p(i), self.u(i, DRAWN))
            if own != token:
                return [*self.tokens[:i], own]
        return self.with_next()

    def by_block(self) -> list[int]:
        """Accept the longest block that may be (Sun et al. 2024)."""
        count = len(self.tokens)
        reached, accepted, after = 1.0, 0, None
        for i, token in enumerate(self.tokens):
            p, q = self.p(i), self.q(i)
            mass, left = self.residual(p, q, reached)
            rest = mass + 1.0 - reached
            share = mass / rest if rest > 0.0 else 1.0  # of the block before this position
            if i == 0 or self.u(i - 1, ACCEPTED) < share:
                accepted, after = i, left
            of_p, of_q = self.of(p, token), self.of(q, token)
            ratio = of_p / of_q if of_q > 0.0 else float(of_p > 0.0)
            reached = min(reached * ratio, 1.0)
            if reached == 0.0:
                break
        if count == 0 or (reached > 0.0 and self.u(count - 1, ACCEPTED) < reached):
            return self.with_next()
        return [*self.tokens[:accepted], self.drawn(after, self.u(accepted, REFUSED))]

    def with_next(self) -> list[int]:
        """Return all drafts and the token after them, as `sample` draws it."""
        count = len(self.tokens)
        return [*self.tokens, self.drawn(self.p(count), self.u(count, DRAWN))]


def emitted(one: Verification, method: int, out: Ids) -> int:
    """Write what a sequence emits, padded with -1; return how many drafts are accepted."""
    tokens = {TOKEN: one.by_token, EXACT: one.exactly, BLOCK: one.by_block}[method]()
    out[:] = -1
    out[: len(tokens)] = tokens
    return len(tokens) - 1


def verify(
    tokens: Ids, target: Side, draft: Draft, method: int, key: tuple[int, int, int], out: Ids
) -> int:
    """Verify the drafts of one sequence.

    `key` is seed, stream and offset; `out` has room for one token more than there are drafts.
    """
    return emitted(Verification(tokens, target, draft, key), method, out)
