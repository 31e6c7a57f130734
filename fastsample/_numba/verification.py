"""Drafts verified by whole weights: ``csrc/verification.cpp``, equal bits.

A probability is the quotient of a weight and a total. What is left of one distribution after
another is a difference of whole numbers of 2^-60.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..reference.verification import Draft, Side, Verification, emitted
from .details import Listed
from .words import Doubles, Ids

ONE = 2.0**60


class Shares(NamedTuple):
    """A distribution by rising id; without weights it is only compared with another."""

    ids: npt.NDArray[Any]
    q: Doubles
    weight: Ids | None = None


class Weights(NamedTuple):
    """Whole numbers that a token is drawn with, by rising id."""

    ids: npt.NDArray[Any]
    weight: Ids


class ByWeights(Verification):
    """A sequence of drafts whose distributions are lists; `kept` lists a row's."""

    kept: Callable[[Side, int, str], Listed]

    def p(self, i: int) -> Shares:
        return self._shares(self.target, i, "target")

    def q(self, i: int) -> Shares:
        if isinstance(self.draft, Side):
            return self._shares(self.draft, i, "draft")
        if self.draft is None:
            return Shares(np.array(self.tokens[i : i + 1]), np.ones(1))
        ids, weights = self.draft.at(i)
        rising = np.argsort(ids)
        total = np.add.accumulate(weights)[-1]  # one after the other
        return Shares(ids[rising], weights[rising] / total)

    def of(self, distribution: Shares, token: int) -> float:
        place = int(np.searchsorted(distribution.ids, token))
        found = place < distribution.ids.size and distribution.ids[place] == token
        return float(distribution.q[place]) if found else 0.0

    def residual(self, p: Shares, q: Shares, reached: float) -> tuple[float, Weights]:
        left = np.rint(reached * p.q * ONE).astype(np.int64)
        places = np.searchsorted(q.ids, p.ids)
        found = np.append(q.ids, -1)[places] == p.ids
        other = np.where(found, np.append(q.q, 0.0)[places], 0.0)
        left = np.maximum(left - np.rint(other * ONE).astype(np.int64), 0)
        mass = int(left.sum())
        if mass == 0:
            left = np.rint(p.q * ONE).astype(np.int64)
        return float(mass) / ONE, Weights(p.ids, left)

    def drawn(self, weights: Shares | Weights, u: float) -> int:
        assert weights.weight is not None
        cumulative = np.cumsum(weights.weight)
        total = int(cumulative[-1])
        at = min(int(u * float(total)), total - 1)
        return int(weights.ids[np.searchsorted(cumulative, at, side="right")])

    def _shares(self, side: Side, i: int, name: str) -> Shares:
        listed = self.kept(side, i, name)
        total = float(listed.weight.sum())
        return Shares(listed.ids.astype(np.int64), listed.weight / total, listed.weight)


def verify_lists(
    kept: Callable[[Side, int, str], Listed],
    tokens: Ids,
    target: Side,
    draft: Draft,
    method: int,
    key: tuple[int, int, int],
    out: Ids,
) -> int:
    """Verify the drafts of one sequence, as ``reference/verification.py`` says."""
    one = ByWeights(tokens, target, draft, key)
    one.kept = kept
    return emitted(one, method, out)
