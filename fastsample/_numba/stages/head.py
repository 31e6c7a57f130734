"""The largest values of what is kept, in order."""

from __future__ import annotations

import numpy as np

from ..words import Doubles, Scalar, njit
from .cutting import Cutting
from .top_k import keep_top_k


@njit
def largest_values(c: Cutting, n: Scalar) -> Doubles:
    """Return the n largest by falling value, or all where they are fewer."""
    x = keep_top_k(c.row, c.kept, c.listed, n).x
    falling = np.empty(x.size)
    for i in range(x.size):  # put in its place: there are few
        j = i
        while j > 0 and falling[j - 1] < x[i]:
            falling[j] = falling[j - 1]
            j -= 1
        falling[j] = x[i]
    return falling
