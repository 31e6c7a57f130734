"""Searches in lists: where values, taken from the largest on, reach a mass or a number."""

from __future__ import annotations

import math

import numpy as np

from .row import Kept, Survivors, count_at_least
from .weights import REACHES
from .words import Floats32, Ids, Scalar, from_key, next_above, njit, to_key

FEW = 16


@njit
def mass_at_least(x: Floats32, weight: Ids, tau: Scalar) -> Scalar:
    total = 0
    for i in range(x.size):
        total += weight[i] if x[i] >= tau else 0
    return total


@njit
def highest_reaching(x: Floats32, weight: Ids | None, target: Scalar) -> Scalar:
    """Return the largest tau such that the values >= tau reach the target, by mass or by number."""
    if x.size <= FEW:  # each of them tried: less than a search takes
        best = x[0]
        found = False
        for i in range(x.size):
            if found and x[i] <= best:
                continue
            tau = x[i]
            reached = count_at_least(x, tau) if weight is None else mass_at_least(x, weight, tau)
            if reached >= target:
                best, found = tau, True
        if found:
            return best
    low = high = to_key(x[0])
    for i in range(x.size):
        key = to_key(x[i])
        low, high = min(low, key), max(high, key)
    a, b = np.int64(low), np.int64(high) + 1
    while b - a > 1:
        middle = (a + b) >> 1
        tau = from_key(middle)
        reached = count_at_least(x, tau) if weight is None else mass_at_least(x, weight, tau)
        if reached >= target:
            a = middle
        else:
            b = middle
    return from_key(a)


@njit
def find_prefix(listed: Survivors, weight: Ids, target: Scalar) -> Kept:
    """Return the place where the mass of the largest values reaches the target."""
    tau = highest_reaching(listed.x, weight, target)
    reached = mass_at_least(listed.x, weight, next_above(tau))
    last: Scalar = -1
    for i in range(listed.x.size):
        # Equal values in different blocks may differ in the last bits of their weights.
        if reached < target and listed.x[i] == tau:
            reached += weight[i]
            last = np.int64(listed.ids[i])
    return Kept(tau, last)


@njit
def find_kth(listed: Survivors, k: Scalar) -> Kept:
    """Return the place of the k-th largest value."""
    tau = highest_reaching(listed.x, None, k)
    missing = k - count_at_least(listed.x, next_above(tau))
    last: Scalar = -1
    for i in range(listed.x.size):
        if missing > 0 and listed.x[i] == tau:
            missing -= 1
            last = np.int64(listed.ids[i])
    return Kept(tau, last)


@njit
def share_of(p: float, total: Scalar) -> Scalar:
    """Return what reaches p of a total, in whole units."""
    return max(1, min(math.ceil(REACHES * p * total), total))
