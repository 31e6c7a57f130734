"""The k most probable tokens: the first k by falling logit and rising id."""

from __future__ import annotations

from ..distribution import Distribution
from .stage import Stage


def apply(d: Distribution, k: float) -> Distribution:
    """Keep the first k."""
    return d.first(int(k))


STAGE = Stage(lambda k: k <= 0, apply)
