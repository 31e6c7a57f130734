"""As many of the 100 most probable tokens as make a share of their entropy."""

from __future__ import annotations

import numpy as np

from ..elementary import exponential, natural_log
from ..words import Scalar, njit
from .cutting import Cutting
from .head import largest_values

CONSIDERED = 100


@njit
def count_of_top_h(c: Cutting, temperature: float, h: float) -> Scalar:
    x = largest_values(c, CONSIDERED)
    weight = np.empty(x.size)
    total = 0.0
    for i in range(x.size):
        weight[i] = exponential(-(x[0] - x[i]) / temperature)
        total += weight[i]
    log_total = natural_log(total)
    entropy = np.empty(x.size)  # up to each
    entropies = 0.0
    for i in range(x.size):
        surprise = (x[0] - x[i]) / temperature + log_total
        if weight[i] > 0.0:
            entropies += weight[i] / total * surprise
        entropy[i] = entropies
    count = 1
    while entropies > 0.0 and count < x.size and entropy[count] <= h * entropies:
        count += 1
    return count
