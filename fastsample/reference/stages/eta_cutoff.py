"""Tokens of probability e or more, or less where the entropy is high (Hewitt et al. 2022)."""

from __future__ import annotations

import math

from ..distribution import Distribution
from .stage import Stage


def apply(d: Distribution, e: float) -> Distribution:
    """Keep q >= min(e, sqrt(e) * exp(-H))."""
    return d.floor(min(e, math.sqrt(e) * math.exp(-d.entropy)) * d.total)


STAGE = Stage(lambda e: e <= 0.0, apply)
