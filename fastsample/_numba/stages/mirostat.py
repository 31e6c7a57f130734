"""Mirostat: a cut that follows the surprise of what has been drawn.

Version 2 is a floor, and stands with these in ``cut.py``.
"""

from __future__ import annotations

import numpy as np

from ..elementary import LN2, exponential, natural_log, power
from ..words import Scalar, njit
from .cutting import Cutting
from .head import largest_values

CONSIDERED = 100


@njit
def count_of_mirostat(c: Cutting, temperature: float, mu: float, size: Scalar) -> Scalar:
    """Return how many version 1 keeps of so many; where it is not a number, all."""
    if size < 2:
        return size
    x = largest_values(c, CONSIDERED)
    tb, tt = 0.0, 0.0
    for i in range(x.size - 1):
        t = natural_log((i + 2.0) / (i + 1.0))
        tb += t * ((x[i] - x[i + 1]) / temperature)
        tt += t * t
    s = tb / tt
    e = s - 1.0
    log_vocab = natural_log(np.float64(c.row.size))
    spread = e / (1.0 - exponential(-e * log_vocab)) if e != 0.0 else 1.0 / log_vocab
    k = power(spread * exponential(mu * LN2), 1.0 / s)
    return np.int64(max(k, 1.0)) if k < size else size


@njit
def next_mu(mu: float, tau: float, eta: float, q: float) -> float:
    """Return mu after the draw of a token of this probability."""
    return mu - eta * (-natural_log(q) / LN2 - tau)
