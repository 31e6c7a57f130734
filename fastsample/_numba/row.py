"""A row: reading it in blocks, and the weights of its values."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .vectors import BLOCK, LANES, largest_lane, mask_within, scan_floats, scan_halves
from .weights import LEAST_EXPONENT, LIGHTEST, Exp2, block_exponent, mass_of_block, weight_in_block
from .words import (
    Floats32,
    Ids,
    Scalar,
    ShortIds,
    bitcast,
    carray,
    inline,
    lowest_bit,
    next_above,
    njit,
    pointer,
)

INFINITY = np.float32(np.inf)
ALL_TIES = 2**32
FLOAT32, FLOAT16, BFLOAT16, FLOAT64 = range(4)


class Row(NamedTuple):
    """A row, and what the scan found in it."""

    address: Scalar
    dtype: Scalar
    size: Scalar
    scratch: Floats32  # one block
    lane_max: Floats32  # (blocks, lanes)
    block_max: Floats32
    max: Scalar


@njit
def from_float16(bits: Scalar) -> Scalar:
    bits = np.int32(bits)
    magnitude = np.int32((bits & 0x7FFF) << 13)
    scaled = bitcast(np.float32(bitcast(magnitude) * np.float32(2.0**112)))
    special = 0x7F800000 if magnitude >= 0x7C00 << 13 else 0  # inf and NaN
    return bitcast(np.int32(scaled | special | ((bits & 0x8000) << 16)))


@njit
def from_bfloat16(bits: Scalar) -> Scalar:
    return bitcast(np.int32(np.int32(bits) << 16))


@njit
def read_block(row: Row, b: Scalar) -> None:
    """Write a block of the row as float32 to its scratch, padded with -inf."""
    to, start = row.scratch, b * BLOCK
    n = min(row.size - start, BLOCK)
    if n < BLOCK:
        # All of it: numba would ask at each place of a rest whether it counts from the end.
        for i in range(BLOCK):
            to[i] = -INFINITY
    if row.dtype in (FLOAT16, BFLOAT16):
        halves = carray(pointer(row.address + 2 * start), n, np.int16)
        if row.dtype == FLOAT16:
            for i in range(n):
                to[i] = from_float16(halves[i])
        else:
            for i in range(n):
                to[i] = from_bfloat16(halves[i])
    elif row.dtype == FLOAT64:
        doubles = carray(pointer(row.address + 8 * start), n, np.float64)
        for i in range(n):
            to[i] = np.float32(doubles[i])
    else:
        floats = carray(pointer(row.address + 4 * start), n, np.float32)
        for i in range(n):
            to[i] = floats[i]


@njit
def block(row: Row, b: Scalar) -> Floats32:
    """Return a block of the row as float32, good until the next one is asked for."""
    if row.dtype == FLOAT32 and (b + 1) * BLOCK <= row.size:
        return carray(pointer(row.address + 4 * b * BLOCK), BLOCK, np.float32)
    read_block(row, b)
    return row.scratch


@njit
def copy_floats(row: Row, to: Floats32) -> None:
    """Write all of the row as float32."""
    if row.dtype == FLOAT32:
        to[:] = carray(pointer(row.address), row.size, np.float32)
        return
    for b in range((row.size + BLOCK - 1) // BLOCK):
        read_block(row, b)
        start = b * BLOCK
        for j in range(min(BLOCK, row.size - start)):
            to[start + j] = row.scratch[j]


@njit
def scan_block_of_halves(row: Row, b: Scalar) -> bool:
    """Do to a whole block of 16 bits what `scan_floats` does to one of floats."""
    values = carray(pointer(row.address + 2 * b * BLOCK), BLOCK, np.int16)
    half = row.dtype == FLOAT16
    top = carray(pointer(row.scratch.ctypes.data), LANES, np.int16)
    nan = scan_halves(values, top, np.int16(0x7C00 if half else 0x7F80))
    for lane in range(LANES):
        bits = top[lane]
        row.lane_max[b, lane] = from_float16(bits) if half else from_bfloat16(bits)
    return nan


@inline
def memory_for(size: Scalar) -> Floats32:
    """Return what the scan of a row of this size writes to."""
    return np.empty(BLOCK + (size + BLOCK - 1) // BLOCK * (LANES + 1), np.float32)


@inline
def row_at(address: Scalar, dtype: Scalar, size: Scalar, memory: Floats32) -> Row:
    """Return a row that has not been scanned, good while the memory lives."""
    blocks = (size + BLOCK - 1) // BLOCK
    # Arrays of addresses: at every step into a function numba counts the references to others.
    at = memory.ctypes.data
    scratch = carray(pointer(at), BLOCK, np.float32)
    lane_max = carray(pointer(at + 4 * BLOCK), (blocks, LANES), np.float32)
    block_max = carray(pointer(at + 4 * (BLOCK + blocks * LANES)), blocks, np.float32)
    return Row(address, dtype, size, scratch, lane_max, block_max, -INFINITY)


@njit
def scan(address: Scalar, dtype: Scalar, size: Scalar, memory: Floats32) -> tuple[Row, bool]:
    """Return the scanned row, good while the memory lives, and whether it can be sampled from."""
    row = row_at(address, dtype, size, memory)
    lane_max, block_max = row.lane_max, row.block_max
    whole_halves = size // BLOCK if dtype in (FLOAT16, BFLOAT16) else 0
    row_max = -INFINITY
    nan = False
    for b in range(block_max.size):
        lanes = lane_max[b]
        if b < whole_halves:
            nan |= scan_block_of_halves(row, b)
        else:
            nan |= scan_floats(block(row, b), lanes)
        top = largest_lane(lanes)
        block_max[b] = top
        row_max = max(row_max, top)
    row = Row(address, dtype, size, row.scratch, lane_max, block_max, row_max)
    return row, np.isfinite(row_max) and not nan


class Kept(NamedTuple):
    """A place in the total order (value falling, id rising): what is before it is kept."""

    tau: Scalar  # values above tau,
    last: Scalar  # and those equal to it up to this id


class Survivors(NamedTuple):
    """A list of tokens by rising id."""

    ids: ShortIds
    x: Floats32


@njit
def count_at_least(x: Floats32, tau: Scalar) -> Scalar:
    count = np.int32(0)
    for i in range(x.size):
        count = np.int32(count + np.int32(x[i] >= tau))
    return np.int64(count)


@njit
def collect(row: Row, low: Scalar, high: Scalar, enough: Scalar, limit: Scalar) -> Survivors:
    """List the values in [low, high); with `enough` listed, no more of those equal to low.

    Stops with more than `limit` listed.
    """
    most = min(count_at_least(row.block_max, low) * BLOCK, limit + BLOCK) + 1
    ids, x = np.empty(most, np.uint32), np.empty(most, np.float32)
    size = np.uint64(0)  # unsigned: no index counts from the end
    for b in range(row.block_max.size):
        bound = low if np.int64(size) < enough else next_above(low)
        if row.block_max[b] >= bound:
            values = block(row, b)
            for start in range(0, BLOCK, 64):
                mask = mask_within(values, start, bound, high)
                while mask:
                    j = start + lowest_bit(mask)
                    ids[size], x[size] = b * BLOCK + j, values[j]
                    size += np.uint64(1)
                    mask &= mask - np.uint64(1)
            if np.int64(size) > limit:
                break
    return Survivors(ids[: np.int64(size)], x[: np.int64(size)])


@njit
def keep(listed: Survivors, kept: Kept) -> Survivors:
    """List what of a list is kept."""
    ids, x = np.empty(listed.ids.size + 1, np.uint32), np.empty(listed.ids.size + 1, np.float32)
    size = np.uint64(0)
    above = next_above(kept.tau)
    for i in range(listed.ids.size):
        ids[size], x[size] = listed.ids[i], listed.x[i]
        size += np.uint8(listed.x[i] >= (kept.tau if listed.ids[i] <= kept.last else above))
    return Survivors(ids[: np.int64(size)], x[: np.int64(size)])


@njit
def list_kept(row: Row, kept: Kept) -> Survivors:
    listed = collect(row, kept.tau, INFINITY, np.int64(ALL_TIES), row.size)
    return listed if kept.last == ALL_TIES else keep(listed, kept)


@njit
def weigh(row: Row, listed: Survivors, exp2: Exp2) -> Ids:
    """Return the weight of every token of a list, as its block of the row weighs it."""
    block_max = np.empty(listed.ids.size, np.float32)
    for i in range(block_max.size):  # apart: the loop below becomes vectors, this one does not
        block_max[i] = row.block_max[listed.ids[i] // BLOCK]
    weight = np.empty(block_max.size, np.int64)
    for i in range(weight.size):
        exponent = block_exponent(block_max[i], exp2)
        w = np.int64(weight_in_block(listed.x[i], exp2, exponent))
        weight[i] = w << (exponent - LEAST_EXPONENT)
    return weight


@njit
def list_block(row: Row, b: Scalar, kept: Kept) -> Survivors:
    ids = np.empty(BLOCK, np.uint32)
    for j in range(BLOCK):
        ids[j] = b * BLOCK + j
    return keep(Survivors(ids, block(row, b)), kept)


@njit
def count_lower(values: Floats32, top: Scalar) -> tuple[Scalar, Scalar]:
    """Return of a block of two values, as masks give them, the lower one and its number, or -1.

    The upper one is `top`. A block of one value has none of the other.
    """
    if not (values[0] == values[1] or values[1] == values[2] or values[0] == values[2]):
        return top, -1  # most random blocks
    low = top
    for lane in range(LANES):
        low = min(low, values[lane])
    tops = lows = np.int32(0)
    for j in range(BLOCK):
        tops = np.int32(tops + np.int32(values[j] == top))
        lows = np.int32(lows + np.int32(values[j] == low))
    lows = lows if low < top else np.int32(0)
    return low, np.int64(lows) if tops + lows == BLOCK else -1


@njit
def mass(row: Row, exp2: Exp2, low: Scalar, high: Scalar) -> tuple[Ids, Ids]:
    """Return per block the mass of the values >= low, and that of those >= high."""
    from_low = np.zeros(row.block_max.size, np.int64)
    from_high = np.zeros(row.block_max.size, np.int64)
    for b in range(row.block_max.size):
        top = row.block_max[b]
        if not (top - exp2.max) * exp2.scale > LIGHTEST or top < low:
            continue
        values = block(row, b)
        exponent = block_exponent(top, exp2)
        other, lower = count_lower(values, top)
        if lower >= 0:
            of_top = (BLOCK - lower) * np.int64(weight_in_block(top, exp2, exponent))
            of_lower = lower * np.int64(weight_in_block(other, exp2, exponent))
            sum_low = of_top + (of_lower if other >= low else 0)
            sum_high = (of_top if top >= high else 0) + (of_lower if other >= high else 0)
        else:
            sum_low, sum_high = mass_of_block(values, exp2, exponent, low, high)
        from_low[b] = sum_low << (exponent - LEAST_EXPONENT)
        from_high[b] = sum_high << (exponent - LEAST_EXPONENT)
    return from_low, from_high


@njit
def kept_mass(row: Row, exp2: Exp2, kept: Kept) -> Ids:
    """Return per block the mass of what is kept."""
    block_mass, above = mass(row, exp2, kept.tau, next_above(kept.tau))
    b = kept.last // BLOCK
    if b < block_mass.size:  # the ties end inside
        for i in range(b, block_mass.size):
            block_mass[i] = above[i]
        block_mass[b] = weigh(row, list_block(row, b, kept), exp2).sum()
    return block_mass
