"""Probabilities of all tokens and their logarithms: ``csrc/softmax.cpp``, equal bits."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .elementary import natural_log
from .row import Row, block, memory_for, scan
from .vectors import BLOCK, LANES
from .weights import LARGEST, POLYNOMIAL, SMALLEST
from .words import Floats32, Scalar, bitcast, carray, digest_of_sources, entry, fma, njit, pointer

LOG2E = 1.4426950408889634
LIFT, LOWEST_POWER = 96, -200.0
_C = [np.float32(c) for c in POLYNOMIAL]
C0, C1, C2, C3, C4, C5 = _C


@njit
def exponential(x: Scalar, top: float, scale: float) -> Scalar:
    """Return 2^((x - top) * scale + LIFT)."""
    y = max((np.float64(x) - top) * scale, LOWEST_POWER)
    n = math.floor(y)
    r = np.float32(y - n)
    p = fma(fma(fma(fma(fma(C0, r, C1), r, C2), r, C3), r, C4), r, C5)
    power = np.int32((np.int32(n) + np.int32(LIFT)) << 23)
    return bitcast(np.int32(bitcast(p) + power))


@njit
def exponentials(row: Row, scale: float, out: Floats32) -> float:
    """Write the exponential of each value, unless `out` is empty, and return their sum."""
    lanes = np.zeros(LANES, np.float64)
    top = np.float64(row.max)
    w = np.empty(BLOCK, np.float32)
    for b in range(row.block_max.size):
        values = block(row, b)
        for i in range(BLOCK):
            w[i] = exponential(values[i], top, scale)
        for start in range(0, BLOCK, LANES):
            for lane in range(LANES):
                lanes[lane] += np.float64(w[start + lane])
        for i in range(min(BLOCK, out.size - b * BLOCK)):
            out[b * BLOCK + i] = w[i]
    half = LANES // 2
    while half > 0:
        for lane in range(half):
            lanes[lane] += lanes[lane + half]
        half //= 2
    return lanes[0]


@njit
def over(factor: float, temperature: float) -> float:
    return max(np.float64(SMALLEST), min(factor / temperature, np.float64(LARGEST)))


@njit
def write_row(
    address: Scalar,
    dtype: Scalar,
    size: Scalar,
    temperature: float,
    logarithm: bool,
    out: Floats32,
    memory: Floats32,
) -> bool:
    """Do what `write` does, in memory that lives as long as the call."""
    row, good = scan(address, dtype, size, memory)
    if not good:
        return False
    if not logarithm:
        factor = np.float32(1.0 / exponentials(row, over(LOG2E, temperature), out))
        for i in range(size):
            out[i] *= factor
        return True
    total = exponentials(row, over(LOG2E, temperature), out[:0])
    shift = -natural_log(total * 2.0**-LIFT)
    scale = over(1.0, temperature)
    for b in range(row.block_max.size):
        values = block(row, b)
        for i in range(min(BLOCK, size - b * BLOCK)):
            y = fma(np.float64(values[i]) - np.float64(row.max), scale, shift)
            out[b * BLOCK + i] = np.float32(y)
    return True


def _entries(sources: str) -> Callable[[int, int, int, float, bool, int], bool]:
    """Return `write`; another digest of the sources makes it anew (see ``draw.py``)."""

    @entry
    def write(
        address: int, dtype: int, size: int, temperature: float, logarithm: bool, to: int
    ) -> bool:
        """Write the probabilities of a row, or their logarithms; say whether the row is good."""
        _ = sources
        out = carray(pointer(to), size, np.float32)
        # A row holds addresses, for which numba keeps nothing alive: what they point to has to be
        # an argument of the call that uses them.
        memory = memory_for(size)
        return write_row(address, dtype, size, temperature, logarithm, out, memory)

    return write


write = _entries(digest_of_sources())
