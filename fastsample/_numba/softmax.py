"""Probabilities of all tokens and their logarithms: ``csrc/softmax.cpp``, equal bits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .elementary import log_of_one_and
from .row import Row, block, memory_for, scan
from .vectors import BLOCK, LANES
from .weights import LARGEST, POLYNOMIAL, SMALLEST
from .words import (
    Doubles,
    Floats32,
    Scalar,
    ShortIds,
    bitcast,
    carray,
    digest_of_sources,
    entry,
    fma,
    next_above,
    njit,
    pointer,
)

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
def folded(lanes: Doubles) -> float:
    half = LANES // 2
    while half > 0:
        for lane in range(half):
            lanes[lane] += lanes[lane + half]
        half //= 2
    return lanes[0]


@njit
def exponentials(row: Row, scale: float, out: Floats32) -> float:
    """Write the exponential of each value, and return their sum."""
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
    return folded(lanes)


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
    shift = -log_sum(row, temperature)
    scale = over(1.0, temperature)
    for b in range(row.block_max.size):
        values = block(row, b)
        for i in range(min(BLOCK, size - b * BLOCK)):
            y = fma(np.float64(values[i]) - np.float64(row.max), scale, shift)
            out[b * BLOCK + i] = np.float32(y)
    return True


class Exponent(NamedTuple):
    """How a weight is taken in float32, see ``csrc/simd/kernels.h``."""

    max: Scalar
    base: Scalar
    scale: Scalar
    scale_low: Scalar
    high: Scalar
    low: Scalar
    least: Scalar


@njit
def exponent_of(top: Scalar, temperature: float) -> Exponent:
    scale = over(LOG2E, temperature)
    at = np.float64(top) * scale
    large = not abs(at) < 4096.0
    start = 0.0 if large else at
    scale_high = np.float32(scale)
    high = np.float32((math.floor(start * 1024.0) - 1.0) / 1024.0)
    exact = max(np.float64(top) - 96.0 / scale, -np.float64(LARGEST))
    least = np.float32(exact)
    return Exponent(
        np.float32(top),
        np.float32(top) if large else np.float32(0.0),
        scale_high,
        np.float32(scale - np.float64(scale_high)),
        high,
        np.float32(start - np.float64(high)),
        next_above(least) if np.float64(least) < exact else least,
    )


@njit
def weight_of(x: Scalar, e: Exponent) -> Scalar:
    if not e.least <= x < e.max:
        return np.float32(0.0)
    d = np.float32(x - e.base)
    y = fma(d, e.scale, np.float32(-e.high))
    n = np.floor(y)
    r = fma(d, e.scale, np.float32(np.float32(-e.high) - n))
    r = np.float32(r + fma(d, e.scale_low, np.float32(-e.low)))
    p = fma(fma(fma(fma(fma(C0, r, C1), r, C2), r, C3), r, C4), r, C5)
    return bitcast(np.int32(bitcast(p) + (np.int32(n) << 23)))


@njit
def add_block(w: Floats32, lanes: Doubles) -> None:
    """Add a block's exponentials to lanes: neighbours first, then pairs, and so on."""
    step = LANES
    while step < BLOCK:
        for at in range(0, BLOCK, 2 * step):
            for k in range(at, at + LANES):
                w[k] = np.float32(w[k] + w[k + step])
        step *= 2
    for k in range(LANES):
        lanes[k] += np.float64(w[k])


@njit
def log_of(maxima: Scalar, lanes: Doubles) -> float:
    """Return ln of so many maxima and of the rest, whose lanes these are."""
    return log_of_one_and(np.float64(maxima - 1) + folded(lanes))


@njit
def log_sum_of(x: Floats32, ids: ShortIds, top: Scalar, temperature: float) -> float:
    """Return ln of the sum of exp((x - top) / temperature) over a list, whose ids rise."""
    e = exponent_of(top, temperature)
    lanes = np.zeros(LANES, np.float64)
    w = np.empty(BLOCK, np.float32)
    i = maxima = 0
    while i < ids.size:
        b = ids[i] // BLOCK
        w[:] = np.float32(0.0)
        while i < ids.size and ids[i] // BLOCK == b:
            w[ids[i] % BLOCK] = weight_of(x[i], e)
            maxima += np.int64(x[i] == e.max)
            i += 1
        add_block(w, lanes)
    return log_of(maxima, lanes)


@njit
def log_sum(row: Row, temperature: float) -> float:
    """Return the same over a row."""
    e = exponent_of(row.max, temperature)
    lanes = np.zeros(LANES, np.float64)
    w = np.empty(BLOCK, np.float32)
    maxima = 0
    for b in range(row.block_max.size):
        if row.block_max[b] >= e.least:
            values = block(row, b)
            for i in range(BLOCK):
                w[i] = weight_of(values[i], e)
                maxima += np.int64(values[i] == e.max)
            add_block(w, lanes)
    return log_of(maxima, lanes)


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
