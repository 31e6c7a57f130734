"""Tokens at least as probable as a token drawn twice is drawn the same."""

from __future__ import annotations

from ..sums import sums_of
from ..weights import Exp2
from ..words import njit
from .cutting import Cutting


@njit
def weight_of_p_less(c: Cutting, exp2: Exp2) -> float:
    mass, squares = sums_of(c.row, c.kept, c.listed, exp2, True)
    return squares / mass
