"""Tokens at least as probable as a token drawn twice is drawn the same: q >= sum of q^2."""

from __future__ import annotations

import numpy as np

from ..distribution import Distribution
from .stage import Stage


def apply(d: Distribution, on: float) -> Distribution:
    """Keep q >= sum of q^2, which is weight >= sum of weight^2 / total."""
    return d.floor(float(np.sum(d.weights**2)) / d.total)


STAGE = Stage(lambda on: not on, apply)
