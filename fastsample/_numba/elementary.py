"""Logarithm, exponential and power of ``csrc/elementary.h``: the same operations, the same bits."""

from __future__ import annotations

import math

import numpy as np

from .words import njit

LN2 = 0.69314718055994531
INFINITE = np.inf


@njit
def twice_artanh(z: float) -> float:
    series = 0.0
    for k in range(23, 0, -2):
        series = series * (z * z) + 1.0 / k
    return 2.0 * z * series


@njit
def natural_log(m: float) -> float:
    """Return ln(m) for m > 0."""
    f, e = math.frexp(m)
    if f < 0.70710678118654752:
        f *= 2.0
        e -= 1
    return e * LN2 + twice_artanh((f - 1.0) / (f + 1.0))


@njit
def log_of_one_and(x: float) -> float:
    """Return ln(1 + x) for x >= 0, with all digits of a small one."""
    return twice_artanh(x / (2.0 + x)) if x < 0.25 else natural_log(1.0 + x)


@njit
def exponential(x: float) -> float:
    """Return e^x."""
    if not x > -745.2:
        return 0.0
    if x > 709.8:
        return INFINITE
    n = math.floor(x * 1.4426950408889634 + 0.5)
    r = (x - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10
    series = 1.0
    for k in range(14, 0, -1):
        series = 1.0 + series * r * (1.0 / k)
    return math.ldexp(series, int(n))


@njit
def power(base: float, e: float) -> float:
    """Return base^e for base >= 0."""
    if e == 0.0 or base == 1.0:
        return 1.0
    if not base > 0.0:
        return 0.0 if e > 0.0 else INFINITE
    if base == INFINITE:
        return INFINITE if e > 0.0 else 0.0
    return exponential(e * natural_log(base))
