"""Tokens of probability e or more (Hewitt et al. 2022)."""

from __future__ import annotations

from ..distribution import Distribution
from .stage import Stage


def apply(d: Distribution, e: float) -> Distribution:
    """Keep q >= e."""
    return d.floor(e * d.total)


STAGE = Stage(lambda e: e <= 0.0, apply)
