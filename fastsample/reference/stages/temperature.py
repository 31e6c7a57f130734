"""Temperature: divides the logits; dynatemp makes it follow the entropy of what is kept.

T becomes lo + (hi - lo) * (H / ln n)^e, lo = max(0, T - r), hi = T + r, with H the entropy of the n
tokens kept at T = 1. T = 0, set or computed, is greedy.
"""

from __future__ import annotations

import sys

import numpy as np

from ..distribution import Distribution, entropy_of
from .stage import Stage

LARGEST = sys.float_info.max


def apply(
    d: Distribution, temperature: float, spread: float = 0.0, exponent: float = 1.0
) -> Distribution:
    """Set the temperature of what follows."""
    if temperature > 0.0 and spread > 0.0 and d.ids.size > 1:
        weights = d.weights_at(1.0)
        share = entropy_of(weights / weights.sum()) / np.log(d.ids.size)
        low = max(0.0, temperature - spread)
        span = min(temperature + spread, LARGEST) - low  # which rounding may lose
        with np.errstate(over="ignore", divide="ignore"):  # of no entropy to a negative power
            more = float(span * np.power(share, exponent)) if span > 0.0 else 0.0
        temperature = min(low + more, LARGEST)
    d = d._replace(temperature=temperature)
    return d if temperature > 0.0 else d.where(np.arange(d.ids.size) == 0)


def off(temperature: float, spread: float = 0.0, exponent: float = 1.0) -> bool:
    """Where it divides by 1."""
    return temperature == 1.0 and spread == 0.0


STAGE = Stage(off, apply)
