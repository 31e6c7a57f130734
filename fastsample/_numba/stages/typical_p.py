"""Locally typical: those whose surprise is nearest to the entropy, until their mass reaches p."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..elementary import LN2, natural_log
from ..lists import find_kth, find_prefix, share_of
from ..row import ALL_TIES, INFINITY, Kept, Survivors, collect, weigh
from ..sums import sums_of
from ..weights import UNIT, Exp2
from ..words import Floats32, Ids, Scalar, double_bits, njit
from .cutting import SMALL_ROW, Cutting, list_of, only
from .top_p import sample_of

DIGIT_BITS = 11


class Band(NamedTuple):
    """What the surprise of a value comes of, and how far that is from the entropy."""

    max: float
    temperature: float
    log_total: float
    entropy: float


@njit
def band_of(c: Cutting, temperature: float, mass: Scalar, surprise: Scalar) -> Band:
    log_total = natural_log(mass * UNIT)
    entropy = log_total + LN2 * (surprise / mass)
    return Band(np.float64(c.row.max), temperature, log_total, entropy)


@njit
def excess(band: Band, x: Scalar) -> float:
    """Return by how much a value's surprise is above the entropy; it falls where values rise."""
    away = (band.max - np.float64(x)) / band.temperature
    return away + band.log_total - band.entropy


@njit
def distances(band: Band, x: Floats32) -> Ids:
    """Return how far each surprise is from the entropy, as integers of the same order."""
    keys = np.empty(x.size, np.int64)
    for i in range(keys.size):
        keys[i] = double_bits(abs(excess(band, x[i])))
    return keys


@njit
def nearest_reaching(
    keys: Ids, weight: Ids, target: Scalar, least: Scalar, first: Scalar
) -> tuple[Scalar, ...]:
    """Return the largest key that is needed, and what it may take of mass and number.

    The keys' digits are found one after the other, from the highest on; what is left of the list
    gets shorter with each. It begins with the keys from `first` on, if that is not too far.
    """
    inside = nearer = np.int64(0)
    for i in range(keys.size):
        inside += weight[i] if keys[i] < first else 0
        nearer += keys[i] < first
    if target > inside or least > nearer:
        target -= inside
        least -= nearer
    else:
        first = np.int64(0)
    members, size = np.empty(keys.size, np.int64), 0
    for i in range(keys.size):
        members[size] = i
        size += keys[i] >= first
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
def weighed(c: Cutting, exp2: Exp2, band: Band, listed: Survivors) -> tuple[Survivors, Ids, Ids]:
    return listed, weigh(c.row, listed, exp2), distances(band, listed.x)


@njit
def list_enough(
    c: Cutting, exp2: Exp2, band: Band, p: float, target: Scalar, least: Scalar
) -> tuple[Survivors, Ids, Ids, Scalar]:
    """List what has all that is kept, with weights and distances.

    Of a row, if a sample can tell, what is above some value; and a distance before that of the
    last which is kept.
    """
    first = np.int64(0)
    if c.listed.x.size or c.kept.last != ALL_TIES or c.row.size <= SMALL_ROW:
        return *weighed(c, exp2, band, list_of(c)), first
    sample = sample_of(c.row, exp2)
    keys = distances(band, sample.x)
    share = share_of(max(p - (1.0 - p) * 0.2, 0.0), sample.weight.sum())
    first, _, _ = nearest_reaching(keys, sample.weight, share, 1, 0)
    for more in (0.2, 0.7):  # of what is not asked for: the sample may be wrong
        share = share_of(p + (1.0 - p) * more, sample.weight.sum())
        last, _, _ = nearest_reaching(keys, sample.weight, share, 1, 0)
        low = INFINITY
        for j in range(keys.size):
            if keys[j] <= last and sample.weight[j] > 0:
                low = min(low, sample.x[j])
        if low <= c.kept.tau or not excess(band, low) > 0.0:
            break
        found = collect(c.row, low, INFINITY, np.int64(ALL_TIES), c.row.size)
        listed, weight, away = weighed(c, exp2, band, found)
        # What is not listed is at least as far as this.
        end = double_bits(excess(band, low))
        mass = count = np.int64(0)
        for j in range(away.size):
            nearer = away[j] < end
            mass += weight[j] if nearer else 0
            count += nearer
        if mass >= target and count >= least:
            return listed, weight, away, first
    return *weighed(c, exp2, band, list_of(c)), first


@njit
def keep_typical(c: Cutting, exp2: Exp2, temperature: float, p: float, least: Scalar) -> Cutting:
    total, surprise = sums_of(c.row, c.kept, c.listed, exp2, False)
    band = band_of(c, temperature, total, surprise)
    target = share_of(p, total)
    listed, weight, keys, first = list_enough(c, exp2, band, p, target, least)
    least = min(least, weight.size)
    key, target, least = nearest_reaching(keys, weight, target, least, first)
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
