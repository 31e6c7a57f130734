"""Locally typical (Meister et al. 2023): those whose surprise is nearest to the entropy.

By rising abs(-ln q - H), then falling logit, then rising id: the shortest prefix whose mass reaches
p. It is a band of logits, and the most probable token may be above it.
"""

from __future__ import annotations

import math

import numpy as np

from ..distribution import Distribution, count_reaching
from .stage import Stage


def apply(d: Distribution, p: float) -> Distribution:
    """Keep the most typical ones that reach p; min_tokens_to_keep are the most typical too."""
    with np.errstate(over="ignore"):
        surprise = (d.x[0] - d.x) / d.temperature + math.log(d.total)
        distance = np.abs(surprise - d.entropy)
    by_distance = np.argsort(distance, kind="stable")
    count = count_reaching(d.weights[by_distance], p)
    stays = np.zeros(d.ids.size, np.bool_)
    stays[by_distance[: max(count, d.at_least)]] = True
    return d.where(stays)


STAGE = Stage(lambda p: p >= 1.0, apply)
