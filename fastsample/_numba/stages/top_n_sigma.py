"""Logits within some standard deviations of the largest."""

from __future__ import annotations

import math

import numpy as np

from ..sums import moments_of
from ..vectors import LANES
from ..weights import LARGEST
from ..words import Scalar, njit
from .cutting import Cutting


@njit
def bound_of_sigma(c: Cutting, s: float) -> Scalar:
    moments, count = moments_of(c.row, c.kept, c.listed)
    width = LANES // 2
    while width:
        for i in range(width):
            moments.sum[i] += moments.sum[i + width]
            moments.squares[i] += moments.squares[i + width]
        width //= 2
    mean = moments.sum[0] / count
    variance = max(moments.squares[0] / count - mean * mean, 0.0)
    return np.float32(max(c.row.max - s * math.sqrt(variance), -LARGEST))
