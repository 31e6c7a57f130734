"""Nucleus (Holtzman et al. 2020): the fewest most probable tokens whose mass reaches p."""

from __future__ import annotations

from ..distribution import Distribution, count_reaching
from .stage import Stage


def apply(d: Distribution, p: float) -> Distribution:
    """Keep the shortest prefix that reaches p of what is kept."""
    return d.first(count_reaching(d.weights, p))


STAGE = Stage(lambda p: p >= 1.0, apply)
