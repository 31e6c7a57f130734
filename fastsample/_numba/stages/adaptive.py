"""Adaptive-p: draws tokens near a target probability, which follows what has been drawn."""

from __future__ import annotations

import math

import numpy as np

from ..words import Doubles, Ids, Scalar, double_bits, njit

WIDTH, SHARPNESS = 0.3, 10.0
LOG2_E, LN_2 = 1.4426950408889634, 0.69314718055994531
WHOLE, ROUNDED = 2.0**52, 1.5 * 2.0**52
TERMS = tuple(1.0 / math.factorial(k) for k in range(9, -1, -1))


@njit
def reweigh(weight: Ids, aim: float) -> tuple[Ids, Doubles]:
    """Return what tokens are drawn with, and how probable they were before.

    By the operations of ``csrc/simd/lists.inl``, of which LLVM makes vectors too.
    """
    total = np.float64(weight.sum())
    bits = 0  # all of them together weigh less than 2^62
    while weight.size >> bits:
        bits += 1
    unit = math.ldexp(1.0, min(61 - bits, 52))
    per_total, steepness = 1.0 / total, SHARPNESS / WIDTH
    redrawn = np.empty(weight.size, np.int64)
    for i in range(weight.size):
        q = (double_bits(weight[i] | double_bits(WHOLE)) - WHOLE) * per_total
        a = abs(q - aim)
        y = -steepness * (a * a / (a + WIDTH))
        lifted = y * LOG2_E + ROUNDED
        r = y - (lifted - ROUNDED) * LN_2
        e = 1.0 / 3628800.0
        for term in TERMS:
            e = e * r + term
        scaled = double_bits(double_bits(e) + (double_bits(lifted) << 52))
        redrawn[i] = double_bits(scaled * unit + WHOLE) - double_bits(WHOLE)
    return redrawn, weight / total


@njit
def start_of(value: Scalar) -> tuple[Scalar, Scalar]:
    return value[0] / (1.0 - value[1]), 1.0 / (1.0 - value[1])


@njit
def aim_of(target: float, drawn: Scalar, count: Scalar) -> float:
    return min(max(2.0 * target - drawn / count, 0.0), 1.0)
