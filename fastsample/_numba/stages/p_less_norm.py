"""Less than p-less asks for."""

from __future__ import annotations

from ..sums import sums_of
from ..weights import UNIT, Exp2
from ..words import njit
from .cutting import Cutting, count_of


@njit
def weight_of_p_less_norm(c: Cutting, exp2: Exp2) -> float:
    n = float(count_of(c))
    if n < 2.0:
        return 0.0
    mass, squares = sums_of(c.row, c.kept, c.listed, exp2, True)
    total = mass * UNIT
    return (n * (squares * UNIT) / total - total) / (n - 1.0)
