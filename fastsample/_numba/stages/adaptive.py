"""Adaptive-p: draws tokens near a target probability, which follows what has been drawn."""

from __future__ import annotations

import math

import numpy as np

from ..elementary import exponential
from ..words import Doubles, Ids, Scalar, njit

WIDTH, SHARPNESS = 0.3, 10.0


@njit
def reweigh(weight: Ids, aim: float) -> tuple[Ids, Doubles]:
    """Return what tokens are drawn with, and how probable they were before."""
    q = weight / np.float64(weight.sum())
    bits = 0  # all of them together weigh less than 2^62
    while weight.size >> bits:
        bits += 1
    unit = math.ldexp(1.0, min(61 - bits, 52))
    redrawn = np.empty(weight.size, np.int64)
    for i in range(q.size):
        distance = abs(q[i] - aim) / WIDTH
        w = exponential(-SHARPNESS * distance * distance / (1.0 + distance))
        redrawn[i] = np.int64(unit * w + 0.5)
    return redrawn, q


@njit
def start_of(value: Scalar) -> tuple[Scalar, Scalar]:
    return value[0] / (1.0 - value[1]), 1.0 / (1.0 - value[1])


@njit
def aim_of(target: float, drawn: Scalar, count: Scalar) -> float:
    return min(max(2.0 * target - drawn / count, 0.0), 1.0)
