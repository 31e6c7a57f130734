"""Nucleus: the shortest prefix of the total order whose mass reaches its share."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..lists import find_prefix, highest_reaching, mass_at_least, share_of
from ..row import (
    ALL_TIES,
    INFINITY,
    Kept,
    Row,
    Survivors,
    block,
    collect,
    count_at_least,
    keep,
    list_block,
    mass,
    weigh,
)
from ..vectors import BLOCK
from ..weights import Exp2
from ..words import Floats32, Ids, Scalar, from_key, next_above, njit, to_key

ATTEMPTS = 8  # to find a cut with the help of a sample
PIECES, PIECE = 128, 16  # of which a sample is made


class Sample(NamedTuple):
    """Some values of a row, with the mass that each stands for."""

    x: Floats32
    weight: Ids
    each: Scalar  # of how many values the first ones speak
    size: Scalar  # how many these are; block maxima follow, which speak for themselves


@njit
def sample_of(row: Row, exp2: Exp2) -> Sample:
    """Take pieces of blocks that are spread over the row, and the maxima of all blocks.

    Where a row is peaked its mass is in a few of these.
    """
    blocks = row.block_max.size
    pieces = min(PIECES, blocks)
    size, each = pieces * PIECE, (blocks * BLOCK) // (pieces * PIECE)
    ids, x = np.empty(size + blocks, np.uint32), np.empty(size + blocks, np.float32)
    for i in range(pieces):
        b, start = (2 * i + 1) * blocks // (2 * pieces), i * PIECE % BLOCK
        values = block(row, b)
        for j in range(PIECE):
            ids[i * PIECE + j], x[i * PIECE + j] = b * BLOCK, values[start + j]
    for b in range(blocks):
        ids[size + b], x[size + b] = b * BLOCK, row.block_max[b]
    weight = weigh(row, Survivors(ids, x), exp2)
    for i in range(size):
        weight[i] *= 0 if x[i] == row.block_max[ids[i] // BLOCK] else each
    return Sample(x, weight, each, size)


@njit
def beside(sample: Sample, v: Scalar, mass_between: Scalar) -> Scalar:
    """Return the value that has a mass between itself and v: above v where that is negative."""
    wanted = min(max(mass_at_least(sample.x, sample.weight, v) + mass_between, 1.0), 2.0**62)
    x = highest_reaching(sample.x, sample.weight, np.int64(wanted))
    return next_above(x) if mass_between < 0 else x


@njit
def add_per_block(block_mass: Ids, listed: Survivors, weight: Ids, add: Scalar) -> None:
    """Add the weights of a list to the mass per block, or take them away."""
    for i in range(weight.size):
        block_mass[listed.ids[i] // BLOCK] += weight[i] if add else -weight[i]


@njit
def take_ties(
    row: Row, exp2: Exp2, tau: Scalar, missing: Scalar, with_ties: Ids, block_mass: Ids
) -> Scalar:
    """Add values equal to tau to the mass of those above until they fill what is missing.

    Return the last of them.
    """
    last = np.int64(0)
    for b in range(block_mass.size):
        tied = with_ties[b] - block_mass[b]
        if 0 < tied < missing:
            block_mass[b] += tied
            missing -= tied
        elif tied > 0 and missing > 0:
            listed = list_block(row, b, Kept(tau, ALL_TIES))
            weight = weigh(row, listed, exp2)
            for i in range(weight.size):
                if listed.x[i] == tau and missing > 0:
                    block_mass[b] += weight[i]
                    missing -= weight[i]
                    last = np.int64(listed.ids[i])
    return last


@njit
def cut_top_p(row: Row, exp2: Exp2, p: float, tau: Scalar) -> tuple[Kept, Ids]:
    """Find where the mass of the values >= tau reaches its share, and the mass kept per block.

    The mass of the values >= low reaches it, that of those >= high does not. These two masses are
    exact; a sample guesses which values between to list, or to weigh from, in order to move one.
    """
    sample = sample_of(row, exp2)
    v = highest_reaching(sample.x, sample.weight, share_of(p, sample.weight.sum()))
    v = max(v, tau)
    low, high = tau, next_above(row.max)
    at_low, at_v = mass(row, exp2, low, v)
    at_high = np.zeros_like(at_v)
    target = share_of(p, at_low.sum())
    for attempt in range(ATTEMPTS + 1):
        reached = at_v.sum()
        up = reached >= target
        if up:
            low, at_low = v, at_v
        else:
            high, at_high = v, at_v
        if not next_above(low) < high:
            break

        missing = np.float64(target - reached)
        edge = beside(sample, v, 1.5 * 4.0**attempt * missing)
        start, end, limit = max(edge, low), min(edge, high), max(4096, row.size // 16)
        if up:
            start = low
        else:
            end = high
        if attempt == ATTEMPTS:  # however badly the sample fits the row, the search ends
            start, end, limit = low, high, row.size
        seen = sample.x[: sample.size]
        expected = (count_at_least(seen, start) - count_at_least(seen, end)) * sample.each
        if expected <= 2 * limit:
            listed = collect(row, start, end, np.int64(ALL_TIES), limit)
            if listed.x.size <= limit:
                weight = weigh(row, listed, exp2)
                at_v = at_low if up else at_high
                add_per_block(at_v, listed, weight, not up)
                at_end = at_v.sum() if up else reached
                if at_end < target <= at_end + weight.sum():
                    kept = find_prefix(listed, weight, target - at_end)
                    if not up:
                        add_per_block(at_v, listed, weight, bool(up))
                    listed = keep(listed, kept)
                    add_per_block(at_v, listed, weigh(row, listed, exp2), True)
                    return kept, at_v
                v = end if up else start
                continue
        v = beside(sample, v, missing)
        if attempt > 3 or not low < v < high:
            v = from_key((np.int64(to_key(low)) + to_key(high)) >> 1)
        at_v, _ = mass(row, exp2, v, INFINITY)
    last = take_ties(row, exp2, low, target - at_high.sum(), at_low, at_high)
    return Kept(low, last), at_high
