"""Tokens of a least probability that is lower where the entropy is high."""

from __future__ import annotations

import math

from ..elementary import exponential
from ..sums import entropy_of
from ..weights import Exp2
from ..words import njit
from .cutting import Cutting


@njit
def weight_of_eta(c: Cutting, exp2: Exp2, e: float) -> float:
    total, entropy = entropy_of(c.row, c.kept, c.listed, exp2)
    return min(e, math.sqrt(e) * exponential(-entropy)) * total
