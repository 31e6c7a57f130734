"""Tokens of at least a times the square of the largest probability."""

from __future__ import annotations

from ..distribution import Distribution
from .stage import Stage


def apply(d: Distribution, a: float) -> Distribution:
    """Keep q >= a * qmax^2; q is weight / total, and the largest weight is 1."""
    return d.floor(a / d.total)


STAGE = Stage(lambda a: a <= 0.0, apply)
