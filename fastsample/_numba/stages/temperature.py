"""Temperature, which may follow the entropy of what is kept."""

from __future__ import annotations

from ..elementary import natural_log, power
from ..sums import entropy_of
from ..weights import Exp2, exp2_scale
from ..words import njit
from .cutting import Cutting, count_of

LARGEST_DOUBLE = 1.7976931348623157e308


@njit
def dynamic(c: Cutting, temperature: float, spread: float, exponent: float) -> float:
    count = count_of(c)
    if spread == 0.0 or count < 2:
        return temperature
    _, entropy = entropy_of(c.row, c.kept, c.listed, Exp2(c.row.max, exp2_scale(1.0)))
    low = max(0.0, temperature - spread)
    span = min(temperature + spread, LARGEST_DOUBLE) - low
    more = span * power(entropy / natural_log(count), exponent) if span > 0.0 else 0.0
    return min(low + more, LARGEST_DOUBLE)
