"""Logits within s standard deviations of the largest (Tang et al. 2024), at any temperature."""

from __future__ import annotations

import numpy as np

from ..distribution import Distribution
from .stage import Stage


def apply(d: Distribution, s: float) -> Distribution:
    """Keep x >= max - s * sd, sd the population standard deviation of what is kept."""
    with np.errstate(over="ignore"):
        threshold = np.float32(d.x[0] - s * float(np.std(d.x)))
    return d.first(int(np.sum(d.x >= threshold)))


STAGE = Stage(lambda s: s <= 0.0, apply)
