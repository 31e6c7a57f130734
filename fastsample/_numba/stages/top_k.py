"""The k first of the total order."""

from __future__ import annotations

import numpy as np

from ..lists import find_kth, highest_reaching
from ..row import INFINITY, Kept, Row, Survivors, collect, keep
from ..vectors import LANES
from ..weights import LARGEST
from ..words import Scalar, njit


@njit
def bound_of_top_k(row: Row, k: Scalar) -> Scalar:
    """Return a value that at least k values reach, if so many are finite."""
    # k blocks, or lanes, hold at least one value each that reaches the k-th largest maximum.
    lowest = -INFINITY
    if k <= row.block_max.size:
        lowest = highest_reaching(row.block_max, None, k)
    if k > row.lane_max.size:
        return -LARGEST
    maxima = np.empty(row.lane_max.size, np.float32)
    size = 0
    for b in range(row.block_max.size):
        if row.block_max[b] >= lowest:
            for lane in range(LANES):
                maxima[size + lane] = row.lane_max[b, lane]
            size += LANES
    return max(highest_reaching(maxima[:size], None, k), -LARGEST)


@njit
def keep_top_k(row: Row, kept: Kept, listed: Survivors, k: Scalar) -> Survivors:
    """List the k largest values of what is kept, which is listed unless the list is empty."""
    if not listed.x.size:
        low = max(bound_of_top_k(row, k), kept.tau)
        listed = keep(collect(row, low, INFINITY, k, row.size), kept)
    return listed if k >= listed.x.size else keep(listed, find_kth(listed, k))
