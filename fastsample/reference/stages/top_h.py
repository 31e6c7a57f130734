"""As many of the 100 most probable tokens as make a share h of their entropy."""

from __future__ import annotations

import numpy as np

from ..distribution import Distribution
from .stage import Stage

CONSIDERED = 100


def apply(d: Distribution, h: float) -> Distribution:
    """Keep the longest prefix whose sum of -r ln r stays within h of that of all 100.

    r are their probabilities among themselves. At least one token stays, and where the whole sum
    is 0 it is one.
    """
    r = d.weights[:CONSIDERED]
    r = r / r.sum()
    # 0 ln 0 is 0.
    cumulative = np.cumsum(-r * np.log(np.where(r > 0.0, r, 1.0)))
    if cumulative[-1] <= 0.0:
        return d.first(1)
    return d.first(max(1, int(np.sum(cumulative <= h * cumulative[-1]))))


STAGE = Stage(lambda h: h <= 0.0, apply)
