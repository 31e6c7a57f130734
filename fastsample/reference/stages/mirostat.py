"""Mirostat (Basu et al. 2021): a cut that follows the surprise of what has been drawn.

State: mu, 2 tau at the start. Version 2 keeps the tokens whose surprise is mu bits or less; version
1 estimates from the 100 most probable how many these are.
"""

from __future__ import annotations

import math

import numpy as np

from ..distribution import Distribution, State
from .stage import Stage

CONSIDERED = 100


def apply(d: Distribution, version: float, tau: float, eta: float) -> Distribution:
    """Keep what mu allows."""
    mu, *_ = d.state or start(version, tau, eta)
    if version == 2:
        return d.first(d.count_from(math.log(d.total) - mu * math.log(2.0)))
    k = estimated_count(d, mu)
    return d.first(max(1, math.floor(k))) if k < d.ids.size else d


@np.errstate(all="ignore")  # what is not a number keeps all
def estimated_count(d: Distribution, mu: float) -> float:
    """Return k of version 1: of a Zipf distribution fitted to the 100 largest."""
    x = d.x[:CONSIDERED]
    i = np.arange(x.size - 1)
    t = np.log((i + 2) / (i + 1))
    b = (x[:-1] - x[1:]) / d.temperature
    s = np.sum(t * b) / np.sum(t * t)
    e = s - 1.0
    spread = e / (1.0 - np.float64(d.vocab) ** -e) if e else 1.0 / np.log(np.float64(d.vocab))
    return float((spread * np.exp2(np.float64(mu))) ** (1.0 / s))


def start(version: float, tau: float, eta: float) -> State:
    """Return the first mu."""
    return (2.0 * tau,)


def after(d: Distribution, place: int, version: float, tau: float, eta: float) -> State:
    """Return the next mu: lower where what was drawn surprised by more than tau bits."""
    mu, *_ = d.state or start(version, tau, eta)
    return (mu - eta * (-math.log2(d.probs[place]) - tau),)


STAGE = Stage(lambda version, tau, eta: version == 0, apply, start, after)
