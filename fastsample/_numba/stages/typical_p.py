"""Locally typical: those whose surprise is nearest to the entropy, until their mass reaches p."""

from __future__ import annotations

import numpy as np

from ..elementary import LN2, natural_log
from ..lists import find_kth, find_prefix, share_of
from ..row import Kept, Survivors, weigh
from ..sums import sums_of_list
from ..weights import UNIT, Exp2
from ..words import Ids, Scalar, double_bits, njit
from .cutting import Cutting, list_of, only

DIGIT_BITS = 11


@njit
def distances(c: Cutting, listed: Survivors, exp2: Exp2, temperature: float) -> Ids:
    """Return how far each surprise is from the entropy, as integers of the same order."""
    mass, surprise = sums_of_list(c.row, listed, exp2, False)
    log_total = natural_log(mass * UNIT)
    entropy = log_total + LN2 * (surprise / mass)
    keys = np.empty(listed.x.size, np.int64)
    for i in range(keys.size):
        away = (np.float64(c.row.max) - np.float64(listed.x[i])) / temperature
        keys[i] = double_bits(abs(away + log_total - entropy))
    return keys


@njit
def nearest_reaching(keys: Ids, weight: Ids, target: Scalar, least: Scalar) -> tuple[Scalar, ...]:
    """Return the largest key that is needed, and what it may take of mass and number.

    The keys' digits are found one after the other, from the highest on; what is left of the list
    gets shorter with each.
    """
    size = keys.size
    members = np.arange(size)
    mass = np.zeros(1 << DIGIT_BITS, np.int64)
    number = np.zeros(1 << DIGIT_BITS, np.int64)
    found = np.int64(0)
    for shift in range(66 - DIGIT_BITS, -1, -DIGIT_BITS):
        mass[:] = 0
        number[:] = 0
        for j in range(size):
            digit = (keys[members[j]] >> shift) & ((1 << DIGIT_BITS) - 1)
            mass[digit] += weight[members[j]]
            number[digit] += 1
        digit = 0
        while digit + 1 < mass.size and (target > mass[digit] or least > number[digit]):
            target -= mass[digit]
            least -= number[digit]
            digit += 1
        found |= np.int64(digit) << shift
        left = 0
        for j in range(size):
            i = members[j]
            if (keys[i] >> shift) & ((1 << DIGIT_BITS) - 1) == digit:
                members[left] = i
                left += 1
        size = left
    return found, target, least


@njit
def before(listed: Survivors, i: Scalar, end: Kept) -> bool:
    x = listed.x[i]
    return x > end.tau or (x == end.tau and listed.ids[i] <= end.last)


@njit
def keep_typical(c: Cutting, exp2: Exp2, temperature: float, p: float, least: Scalar) -> Cutting:
    listed = list_of(c)
    weight = weigh(c.row, listed, exp2)
    keys = distances(c, listed, exp2, temperature)
    target = share_of(p, weight.sum())
    least = min(least, weight.size)
    key, target, least = nearest_reaching(keys, weight, target, least)
    stays = keys < key
    # Of those as far as the last: the first of the total order.
    tied = np.flatnonzero(keys == key)
    same = Survivors(listed.ids[tied], listed.x[tied])
    if target > 0:
        end = find_prefix(same, weight[tied], target)
        for i in tied:
            stays[i] |= before(listed, i, end)
    if least > 0:
        end = find_kth(same, least)
        for i in tied:
            stays[i] |= before(listed, i, end)
    return only(c, stays, listed)
