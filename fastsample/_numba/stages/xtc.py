"""Exclude top choices: of the tokens above a threshold only the last stays."""

from __future__ import annotations

import numpy as np

from ..row import ALL_TIES, INFINITY, collect, keep
from ..weights import LARGEST, UNIT, Exp2
from ..words import Scalar, njit
from .cutting import Cutting, count_of, mass_of, only, without
from .floor import place_of


@njit
def exclude_top(c: Cutting, exp2: Exp2, temperature: float, t: float, least: Scalar) -> Cutting:
    bound = -LARGEST
    if t > 0.0:
        bound = place_of(c.row.max, temperature, t * (mass_of(c, exp2) * UNIT))
    all_listed = c.listed.x.size > 0
    listed = c.listed
    if not all_listed:  # those that are probable enough will do
        low = max(bound, c.kept.tau)
        listed = keep(collect(c.row, low, INFINITY, np.int64(ALL_TIES), c.row.size), c.kept)
    count, lowest, last = 0, c.row.max, 0
    for i in range(listed.x.size):
        if listed.x[i] >= bound:
            count += 1
            if listed.x[i] <= lowest:
                lowest, last = listed.x[i], i
    if count < 2 or (least > 1 and count_of(c) - (count - 1) < least):
        return c
    if not all_listed:
        gone = np.empty(count, np.uint32)
        gone[:last] = listed.ids[:last]
        gone[last:-1] = listed.ids[last + 1 :]
        return Cutting(without(c.row, gone[:-1]), c.kept, c.listed)
    stays = np.empty(listed.x.size, np.bool_)
    for i in range(stays.size):
        stays[i] = listed.x[i] < lowest or i == last
    return only(c, stays, listed)
