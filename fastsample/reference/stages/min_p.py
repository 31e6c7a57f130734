"""Tokens at least m times as probable as the most probable one."""

from __future__ import annotations

from ..distribution import Distribution
from .stage import Stage


def apply(d: Distribution, m: float) -> Distribution:
    """Keep q >= m * qmax."""
    return d.floor(m)


STAGE = Stage(lambda m: m <= 0.0, apply)
