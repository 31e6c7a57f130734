"""What stages that keep the largest values have in common."""

from __future__ import annotations

import numpy as np

from ..elementary import natural_log
from ..row import Kept, keep, list_kept
from ..weights import LARGEST
from ..words import Scalar, njit
from .cutting import Cutting
from .top_k import keep_top_k


@njit
def place_of_log(max_: Scalar, temperature: float, log_weight: float) -> Scalar:
    """Return the logit of a weight whose logarithm is given."""
    return np.float32(max(max_ + temperature * log_weight, -LARGEST))


@njit
def place_of(max_: Scalar, temperature: float, weight: float) -> Scalar:
    """Return the logit of a weight; that of the maximum is 1."""
    if not weight > 0.0:  # less than any
        return -LARGEST
    return place_of_log(max_, temperature, natural_log(weight))


@njit
def keep_floor(c: Cutting, end: Kept, least: Scalar) -> Cutting:
    """Keep what is before a place, and the largest values that are missing to `least`."""
    if not c.listed.x.size:
        ties = end.tau == c.kept.tau and end.last < c.kept.last
        fewer = end if ties or end.tau > c.kept.tau else c.kept
        if least == 1 and end.tau <= c.row.max:
            return Cutting(c.row, fewer, c.listed)
        short = list_kept(c.row, fewer)
    else:
        short = keep(c.listed, end)
    if short.x.size < least:
        short = keep_top_k(c.row, c.kept, c.listed, least)
    return Cutting(c.row, c.kept, short)
