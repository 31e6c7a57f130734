"""Exclude top choices: of the tokens above a threshold only the last stays."""

from __future__ import annotations

import numpy as np

from ..weights import LARGEST, UNIT, Exp2
from ..words import Scalar, njit
from .cutting import Cutting, list_of, mass_of, only
from .floor import place_of


@njit
def exclude_top(c: Cutting, exp2: Exp2, temperature: float, t: float, least: Scalar) -> Cutting:
    bound = -LARGEST
    if t > 0.0:
        bound = place_of(c.row.max, temperature, t * (mass_of(c, exp2) * UNIT))
    listed = list_of(c)
    count, lowest, last = 0, c.row.max, 0
    for i in range(listed.x.size):
        if listed.x[i] >= bound:
            count += 1
            if listed.x[i] <= lowest:
                lowest, last = listed.x[i], i
    if count < 2 or listed.x.size - (count - 1) < least:
        return c
    stays = np.empty(listed.x.size, np.bool_)
    for i in range(stays.size):
        stays[i] = listed.x[i] < lowest or i == last
    return only(c, stays, listed)
