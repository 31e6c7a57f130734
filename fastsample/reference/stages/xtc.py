"""Exclude top choices: by a coin, of the tokens of probability t or more only the last stays."""

from __future__ import annotations

import math

import numpy as np

from ..distribution import Distribution
from .stage import Stage


def apply(d: Distribution, probability: float, threshold: float) -> Distribution:
    """Drop all tokens of q >= t but the least probable of them, with that probability.

    Nothing happens where there are fewer than two, or too few would be left.
    """
    if probability < 1.0:
        assert d.coin is not None
        if d.coin >= probability:
            return d
    count = d.count_from(math.log(threshold * d.total)) if threshold > 0.0 else d.ids.size
    if count < 2 or d.ids.size - (count - 1) < d.at_least:
        return d
    return d.where(np.arange(d.ids.size) >= count - 1)


STAGE = Stage(lambda probability, threshold: probability <= 0.0, apply)
