"""Every truncation is a threshold: turns the parameters into one, stage after stage."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..records import KINDS, STAGE
from .row import (
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
    list_kept,
    mass,
    weigh,
)
from .vectors import BLOCK, LANES
from .weights import LARGEST, REACHES, Exp2, exp2_scale
from .words import (
    Floats32,
    Ids,
    Scalar,
    carray,
    from_key,
    inline,
    next_above,
    njit,
    pointer,
    to_key,
)

TEMPERATURE, TOP_K, TOP_P, MIN_P = (
    KINDS.index(name) + 1 for name in ("temperature", "top_k", "top_p", "min_p")
)
SMALL_ROW = 512  # up to here a list of all is faster than a search
ATTEMPTS = 8  # to find a cut with the help of a sample
PIECES, PIECE = 128, 16  # of which a sample is made


@njit
def mass_at_least(x: Floats32, weight: Ids, tau: Scalar) -> Scalar:
    total = 0
    for i in range(x.size):
        total += weight[i] if x[i] >= tau else 0
    return total


@njit
def highest_reaching(x: Floats32, weight: Ids | None, target: Scalar) -> Scalar:
    """Return the largest tau such that the values >= tau reach the target, by mass or by number."""
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
def bound_of_top_k(row: Row, k: Scalar) -> Scalar:
    """Return a value that at least k values reach, if so many are finite."""
    # k blocks, or lanes, hold at least one value each that reaches the k-th largest maximum.
    lowest = -INFINITY
    if k <= row.block_max.size:
        lowest = highest_reaching(row.block_max, None, k)
    if k > row.lane_max.size:
        return -LARGEST
    maxima = np.empty(row.lane_max.size, np.float32)
    size = 0
    for b in range(row.block_max.size):
        if row.block_max[b] >= lowest:
            for lane in range(LANES):
                maxima[size + lane] = row.lane_max[b, lane]
            size += LANES
    return max(highest_reaching(maxima[:size], None, k), -LARGEST)


@njit
def keep_top_k(row: Row, kept: Kept, listed: Survivors, k: Scalar) -> Survivors:
    """List the k largest values of what is kept, which is listed unless the list is empty."""
    if not listed.x.size:
        low = max(bound_of_top_k(row, k), kept.tau)
        listed = keep(collect(row, low, INFINITY, k, row.size), kept)
    return listed if k >= listed.x.size else keep(listed, find_kth(listed, k))


@njit
def share_of(p: float, total: Scalar) -> Scalar:
    """Return what reaches p of a total, in whole units."""
    return max(1, min(math.ceil(REACHES * p * total), total))


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


@njit
def natural_log(m: float) -> float:
    f, e = math.frexp(m)
    if f < 0.70710678118654752:
        f *= 2.0
        e -= 1
    z = (f - 1.0) / (f + 1.0)
    series = 0.0
    for k in range(23, 0, -2):
        series = series * (z * z) + 1.0 / k
    return e * 0.69314718055994531 + 2.0 * z * series


@njit
def first_of_max(row: Row) -> Survivors:
    # Bounded, should something write to the row meanwhile; the draw refuses an id beyond it.
    b = 0
    while row.block_max[b] < row.max and b < row.block_max.size - 1:
        b += 1
    values, j = block(row, b), 0
    while values[j] < row.max and j < BLOCK - 1:
        j += 1
    ids = np.empty(1, np.uint32)
    ids[0] = b * BLOCK + j
    return Survivors(ids, values[j : j + 1])


class Chain(NamedTuple):
    """A record of a chain: min_tokens_to_keep, then so many stages."""

    address: Scalar
    stages: Scalar


@njit
def stage_at(chain: Chain, i: Scalar) -> Scalar:
    return carray(pointer(chain.address + 8), chain.stages, STAGE)[i]


@njit
def is_greedy(chain: Chain) -> bool:
    for i in range(chain.stages):
        stage = stage_at(chain, i)
        if stage.kind == TEMPERATURE and stage.value[0] == 0.0:
            return True
    return False


@inline
def cut(row: Row, chain: Chain) -> tuple[Kept, Survivors, Ids, Exp2]:
    """Run the stages.

    Return what is kept, the list of it, its mass per block, and how the draw weighs. List and mass
    are empty where they are not known.
    """
    unknown = block_mass = carray(pointer(0), 0, np.int64)
    kept = Kept(-LARGEST, ALL_TIES)
    if is_greedy(chain):
        return kept, first_of_max(row), unknown, Exp2(row.max, exp2_scale(1.0))

    none = pointer(0)
    listed = Survivors(carray(none, 0, np.uint32), carray(none, 0, np.float32))

    least = carray(pointer(chain.address), 1, np.int64)[0]
    divisor = 1.0
    for i in range(chain.stages):
        stage = stage_at(chain, i)
        kind, value = stage.kind, stage.value[0]
        exp2 = Exp2(row.max, exp2_scale(divisor))
        if kind == TEMPERATURE:
            if value != 1.0:
                divisor, block_mass = value, unknown
            continue
        if kind == TOP_K and 0 < value < row.size:
            listed = keep_top_k(row, kept, listed, max(np.int64(value), least))
            continue
        if kind == TOP_P and value < 1.0:
            if not listed.x.size and row.size <= SMALL_ROW:
                listed = list_kept(row, kept)
            if listed.x.size:
                weight = weigh(row, listed, exp2)
                fewer = find_prefix(listed, weight, share_of(value, weight.sum()))
            else:
                fewer, block_mass = cut_top_p(row, exp2, value, kept.tau)
        elif kind == MIN_P and value > 0.0:
            tau = np.float32(max(row.max + divisor * natural_log(value), -LARGEST))
            fewer = Kept(tau, ALL_TIES) if tau > kept.tau else kept
            block_mass = unknown
        else:
            continue
        if listed.x.size or least > 1:
            short = keep(listed, fewer) if listed.x.size else list_kept(row, fewer)
            listed = short if short.x.size >= least else keep_top_k(row, kept, listed, least)
        else:
            kept = fewer
    return kept, listed, block_mass, Exp2(row.max, exp2_scale(divisor))
