"""Less than p-less asks for: q >= (n * sum of q^2 - 1) / (n - 1)."""

from __future__ import annotations

import numpy as np

from ..distribution import Distribution
from .stage import Stage


def apply(d: Distribution, on: float) -> Distribution:
    """Keep what reaches the threshold, of n tokens; a single one stays."""
    n = d.ids.size
    if n < 2:
        return d
    total = d.total
    return d.floor((n * float(np.sum(d.weights**2)) / total - total) / (n - 1))


STAGE = Stage(lambda on: not on, apply)
