"""Compiled half of ``_numba``: the core's rooms (scan, cut, draw) again, of equal bits.

Every weight is a whole number (``csrc/simd/kernels.h`` says of what), so only the arithmetic of one
weight has to be repeated operation by operation; sums may be taken in any order. Loops are written
so that LLVM makes vectors of them. Rows and what else comes from Python are addresses, so that all
dtypes and layouts share one compiled function.

All compiled code is in this one file, since numba's cache compares the date of no other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

import numba.extending  # type: ignore[import-not-found, import-untyped, unused-ignore]
import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-not-found, import-untyped, unused-ignore]

from .params import RECORD, STAGES

Scalar: TypeAlias = Any  # a number whose width the compiled code keeps
Floats32 = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
ShortIds = npt.NDArray[np.uint32]
Function = TypeVar("Function", bound=Callable[..., Any])

# Without fastmath, LLVM neither reorders float operations nor contracts a * b + c.
_OPTIONS = {"nogil": True, "fastmath": False, "error_model": "numpy"}
# Called by compiled code only: numba need not make them callable from Python.
njit = cast(
    Callable[[Function], Function],
    numba.njit(**_OPTIONS, no_cpython_wrapper=True, no_cfunc_wrapper=True),
)
inline = cast(Callable[[Function], Function], numba.njit(**_OPTIONS, inline="always"))
intrinsic: Callable[[Function], Any] = numba.extending.intrinsic


def entry(function: Function) -> Function:
    """Compile a function that Python calls; keep the result where a directory can be written to."""
    try:
        return cast(Function, numba.njit(**_OPTIONS, cache=True)(function))
    except RuntimeError:  # numba found no place for its cache
        return cast(Function, numba.njit(**_OPTIONS)(function))


BLOCK = 256
LANES = 16
MANTISSA_BITS = 27
UNIT_BITS = 40
LEAST_EXPONENT = MANTISSA_BITS - UNIT_BITS
LIGHTEST = np.float32(-42.0)  # a weight under 2^-42 rounds to zero units
INFINITY = np.float32(np.inf)
LARGEST: Scalar = np.float32(np.finfo(np.float32).max)
SMALLEST: Scalar = np.float32(np.finfo(np.float32).tiny)
ALL_TIES = 2**32
ROUND = np.float32(12582912.0)  # 1.5 * 2^23: adding it leaves no fraction bits
POLYNOMIAL = tuple(
    np.float32(c)
    for c in (1.3224551e-03, 9.671721e-03, 5.550896e-02, 2.4022238e-01, 6.931468e-01, 1.0)
)
TEMPERATURE, TOP_K, TOP_P, MIN_P = range(1, len(STAGES) + 1)
FLOAT32, FLOAT16, BFLOAT16, FLOAT64 = range(4)
SAMPLE = 2048  # values of a row that tell of the rest
ATTEMPTS = 8  # to find a cut with the help of the sample
BAD, CHANGED = (
    -1,
    -2,
)  # in place of a token: of a row with NaN, +inf or only -inf; of one written to
SMALL_ROW = 512  # up to here a list of all is faster than a search


# ---- what numba lacks ---------------------------------------------------------------------------


@intrinsic
def fma(context: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a * b + c, rounded once."""
    return a(a, b, c), lambda context, builder, signature, values: builder.fma(*values)


@intrinsic
def bitcast(context: Any, x: Any) -> Any:
    """Return the int32 of a float32's bits, or the other way round."""
    to = numba.int32 if x == numba.float32 else numba.float32
    return to(x), lambda context, builder, signature, values: builder.bitcast(
        *values, context.get_value_type(to)
    )


@intrinsic
def pointer(context: Any, address: Any) -> Any:
    """Return an address as what `carray` takes."""
    to = numba.types.voidptr
    return to(address), lambda context, builder, signature, values: builder.inttoptr(
        *values, context.get_value_type(to)
    )


@intrinsic
def mask_within(context: Any, x: Any, start: Any, low: Any, high: Any) -> Any:
    """Return in bit i whether x[start + i] is in [low, high), for 64 values."""

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        array = context.make_array(x)(context, builder, values[0])
        vector = ir.VectorType(ir.FloatType(), 64)
        at = builder.bitcast(builder.gep(array.data, [values[1]]), vector.as_pointer())
        v = builder.load(at, align=4)
        first, zeros = (
            ir.Constant(ir.IntType(32), 0),
            ir.Constant(ir.VectorType(ir.IntType(32), 64), None),
        )
        bounds = [
            builder.insert_element(ir.Constant(vector, ir.Undefined), b, first) for b in values[2:]
        ]
        from_, to = (builder.shuffle_vector(b, b, zeros) for b in bounds)
        inside = builder.and_(
            builder.fcmp_ordered(">=", v, from_), builder.fcmp_ordered("<", v, to)
        )
        return builder.bitcast(inside, ir.IntType(64))

    return numba.uint64(x, numba.int64, numba.float32, numba.float32), build


@intrinsic
def lowest_bit(context: Any, word: Any) -> Any:
    """Return the number of a word's lowest bit that is set."""
    return numba.int64(numba.uint64), lambda context, builder, signature, values: builder.cttz(
        *values, ir.Constant(ir.IntType(1), 1)
    )


# ---- uniforms -----------------------------------------------------------------------------------


@njit
def multiply_high(a: Scalar, b: Scalar) -> Scalar:
    half, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    a0, a1, b0, b1 = a & low, a >> half, b & low, b >> half
    mid = a1 * b0 + (a0 * b0 >> half)
    return a1 * b1 + (mid >> half) + ((a0 * b1 + (mid & low)) >> half)


@njit
def philox_uniform(seed: Scalar, stream: Scalar, offset: Scalar) -> float:
    """Return the uniform that NumPy draws of Philox(key=[seed, stream], counter=[offset, 0...])."""
    one, zero = np.uint64(1), np.uint64(0)
    k0, k1 = np.uint64(seed), np.uint64(stream)
    c0, c2, c3 = np.uint64(offset) + one, zero, zero
    c1 = one if c0 == zero else zero
    for _ in range(10):
        m0, m1 = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)
        c0, c1, c2, c3 = (
            multiply_high(m1, c2) ^ c1 ^ k0,
            m1 * c2,
            multiply_high(m0, c0) ^ c3 ^ k1,
            m0 * c0,
        )
        k0 += np.uint64(0x9E3779B97F4A7C15)
        k1 += np.uint64(0xBB67AE8584CAA73B)
    return np.int64(c0 >> np.uint64(11)) * 2.0**-53


# ---- weights ------------------------------------------------------------------------------------


class Exp2(NamedTuple):
    """The weight of a logit is 2^((x - max) * scale)."""

    max: Scalar
    scale: Scalar


@njit
def exp2_scale(temperature: float) -> Scalar:
    return np.float32(max(SMALLEST, min(1.4426950408889634 / temperature, LARGEST)))


@njit
def block_exponent(block_max: Scalar, exp2: Exp2) -> Scalar:
    y = (block_max - exp2.max) * exp2.scale
    return np.int32(np.rint(y if y > np.float32(LEAST_EXPONENT) else np.float32(LEAST_EXPONENT)))


@njit
def weight_in_block(x: Scalar, exp2: Exp2, exponent: Scalar) -> Scalar:
    y = (x - exp2.max) * exp2.scale
    y = y if y > np.float32(-100.0) else np.float32(-100.0)
    rounded = y + ROUND  # the integer is in its low bits
    r = y - (rounded - ROUND)
    p = POLYNOMIAL[0]
    for c in POLYNOMIAL[1:]:
        p = fma(p, r, c)
    lift = MANTISSA_BITS - exponent
    w = bitcast(np.int32(bitcast(p) + ((bitcast(rounded) + lift) << 23)))
    return np.int32(np.rint(w))


# ---- scan ---------------------------------------------------------------------------------------


class Row(NamedTuple):
    """A row in blocks, and what the scan found in it."""

    x: Floats32  # in whole blocks
    tail: Floats32  # the block after these, padded with -inf
    memory: Floats32  # what the two may be views of
    size: Scalar
    lane_max: Floats32  # (blocks, lanes)
    block_max: Floats32
    max: Scalar


@njit
def read_block(address: Scalar, dtype: Scalar, start: Scalar, size: Scalar, to: Floats32) -> None:
    """Write values of a row from `start` on as float32, padded with -inf."""
    n = min(size - start, BLOCK)
    at = pointer(address)
    if dtype == FLOAT16:
        halves = numba.carray(at, size, np.uint16)[start : start + n]
        for i in range(n):
            bits = np.int32(halves[i])
            magnitude = np.int32((bits & 0x7FFF) << 13)
            scaled = bitcast(np.float32(bitcast(magnitude) * np.float32(2.0**112)))
            special = 0x7F800000 if magnitude >= 0x7C00 << 13 else 0  # inf and NaN
            to[i] = bitcast(np.int32(scaled | special | ((bits & 0x8000) << 16)))
    elif dtype == BFLOAT16:
        halves = numba.carray(at, size, np.uint16)[start : start + n]
        for i in range(n):
            to[i] = bitcast(np.int32(np.int32(halves[i]) << 16))
    elif dtype == FLOAT64:
        doubles = numba.carray(at, size, np.float64)[start : start + n]
        for i in range(n):
            to[i] = np.float32(doubles[i])
    else:
        floats = numba.carray(at, size, np.float32)[start : start + n]
        for i in range(n):
            to[i] = floats[i]
    for i in range(n, BLOCK):
        to[i] = -INFINITY


@njit
def block(row: Row, b: Scalar) -> Floats32:
    return row.x[b * BLOCK : (b + 1) * BLOCK] if b * BLOCK < row.x.size else row.tail


@njit
def scan(address: Scalar, dtype: Scalar, size: Scalar) -> tuple[Row, bool]:
    """Return the scanned row, and whether it can be sampled from.

    It is read in place if it is float32, but for a ragged end.
    """
    blocks = (size + BLOCK - 1) // BLOCK
    in_place = size - size % BLOCK if dtype == FLOAT32 else 0
    memory = np.empty(blocks * BLOCK - in_place, np.float32)
    # By its address, and so without counting references to it block by block.
    room = numba.carray(pointer(memory.ctypes.data), memory.size, np.float32)
    x = numba.carray(pointer(address), in_place, np.float32) if in_place else room
    lane_max = np.empty((blocks, LANES), np.float32)
    block_max = np.empty(blocks, np.float32)
    row_max = -INFINITY
    nan = False
    for b in range(blocks):
        values = x[b * BLOCK : (b + 1) * BLOCK] if b * BLOCK < x.size else room
        if b * BLOCK >= in_place:
            read_block(address, dtype, b * BLOCK, size, values)
        for lane in range(LANES):  # a vector, once compiled
            top = -INFINITY
            for j in range(0, BLOCK, LANES):
                v = values[j + lane]
                top = v if v > top else top
                nan |= v != v
            lane_max[b, lane] = top
        top = -INFINITY
        for lane in range(LANES):
            top = max(top, lane_max[b, lane])
        block_max[b] = top
        row_max = max(row_max, top)
    row = Row(x, room, memory, size, lane_max, block_max, row_max)
    return row, np.isfinite(row_max) and not nan


# ---- what is kept -------------------------------------------------------------------------------


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
    weight = np.empty(BLOCK, np.int32)
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
            for j in range(BLOCK):
                w = weight_in_block(values[j], exp2, exponent)
                weight[j] = w if values[j] >= low else np.int32(0)
            sum_low = add_up(weight)
            sum_high = 0
            if top >= high:
                for j in range(BLOCK):
                    weight[j] = weight[j] if values[j] >= high else np.int32(0)
                sum_high = add_up(weight)
        from_low[b] = sum_low << (exponent - LEAST_EXPONENT)
        from_high[b] = sum_high << (exponent - LEAST_EXPONENT)
    return from_low, from_high


@njit
def add_up(weight: npt.NDArray[np.int32]) -> Scalar:
    """Return the sum of a block of weights."""
    total = 0
    for lane in range(LANES):
        part = np.uint32(0)  # has room for 16 of them
        for j in range(0, BLOCK, LANES):
            part = np.uint32(part + np.uint32(weight[j + lane]))
        total += np.int64(part)
    return total


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


# ---- cut ----------------------------------------------------------------------------------------


@njit
def to_key(x: Scalar) -> Scalar:
    """Return an integer that orders as the float does (-0 just below +0)."""
    bits = bitcast(x)
    return np.int32(bits ^ ((bits >> 31) & 0x7FFFFFFF))


@njit
def from_key(key: Scalar) -> Scalar:
    return bitcast(np.int32(key ^ ((key >> 31) & 0x7FFFFFFF)))


@njit
def next_above(x: Scalar) -> Scalar:
    return from_key(to_key(x + np.float32(0.0)) + 1)


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
    return max(1, min(math.ceil(p * total), total))


class Sample(NamedTuple):
    """Some values of a row, with the mass that each stands for."""

    x: Floats32
    weight: Ids
    each: Scalar  # of how many values the first ones speak
    size: Scalar  # how many these are; block maxima follow, which speak for themselves


@njit
def sample_of(row: Row, exp2: Exp2) -> Sample:
    each = max((row.x.size + SAMPLE - 1) // SAMPLE, 32)
    size = (row.x.size + each - 1) // each
    blocks = row.block_max.size
    ids, x = np.empty(size + blocks, np.uint32), np.empty(size + blocks, np.float32)
    for i in range(size):
        ids[i], x[i] = i * each, row.x[i * each]
    for b in range(blocks):  # the mass of a peaked row is in a few of them
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
        elif 0 < tied and 0 < missing:
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
    b = 0
    while row.block_max[b] < row.max:
        b += 1
    values, j = block(row, b), 0
    while values[j] < row.max and j < BLOCK - 1:
        j += 1
    ids = np.empty(1, np.uint32)
    ids[0] = b * BLOCK + j
    return Survivors(ids, values[j : j + 1])


@inline
def cut(row: Row, params: Scalar) -> tuple[Kept, Survivors, Ids, Exp2]:
    """Run the stages.

    Return what is kept, the list of it, its mass per block, and how the draw weighs. List and mass
    are empty where they are not known.
    """
    unknown = block_mass = numba.carray(pointer(0), 0, np.int64)
    kept = Kept(-LARGEST, ALL_TIES)
    if params.temperature == 0.0:
        return kept, first_of_max(row), unknown, Exp2(row.max, exp2_scale(1.0))

    none = pointer(0)
    listed = Survivors(numba.carray(none, 0, np.uint32), numba.carray(none, 0, np.float32))

    least = params.min_tokens_to_keep
    divisor = 1.0
    for stage in params.order:
        exp2 = Exp2(row.max, exp2_scale(divisor))
        if stage == TEMPERATURE:
            divisor, block_mass = params.temperature, unknown
            continue
        if stage == TOP_K and 0 < params.top_k < row.size:
            listed = keep_top_k(row, kept, listed, max(params.top_k, least))
            continue
        if stage == TOP_P and params.top_p < 1.0:
            if not listed.x.size and row.size <= SMALL_ROW:
                listed = list_kept(row, kept)
            if listed.x.size:
                weight = weigh(row, listed, exp2)
                fewer = find_prefix(listed, weight, share_of(params.top_p, weight.sum()))
            else:
                fewer, block_mass = cut_top_p(row, exp2, params.top_p, kept.tau)
        elif stage == MIN_P and params.min_p > 0.0:
            tau = np.float32(max(row.max + divisor * natural_log(params.min_p), -LARGEST))
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


# ---- draw ---------------------------------------------------------------------------------------


@njit
def locate(weight: Ids, at: Scalar) -> tuple[int, Scalar]:
    """Return the first place whose cumulative weight exceeds `at`, and what is left inside."""
    i = 0
    while i + 1 < weight.size and at >= weight[i]:
        at -= weight[i]
        i += 1
    return i, at


@inline
def draw(row: Row, kept: Kept, listed: Survivors, block_mass: Ids, exp2: Exp2, u: float) -> Scalar:
    """Return the token where the cumulative weight exceeds u; CHANGED where there is none."""
    if not listed.x.size and not block_mass.size and row.size <= SMALL_ROW:
        listed = list_kept(row, kept)
    if listed.x.size:
        weight = weigh(row, listed, exp2)
        total = weight.sum()
        at = min(np.int64(u * total), total - 1)
    else:
        if not block_mass.size:
            block_mass = kept_mass(row, exp2, kept)
        total = block_mass.sum()
        b, at = locate(block_mass, min(np.int64(u * total), total - 1))
        listed = list_block(row, b, kept)
        weight = weigh(row, listed, exp2)
    if not weight.size:  # something has written to the row meanwhile
        return CHANGED
    return np.int64(listed.ids[locate(weight, at)[0]])


#: What a call of `run` has in common for all rows. Arrays are addresses, strides count bytes.
JOB = np.dtype(
    [
        ("stride", np.int64),
        ("params", np.int64),
        ("params_stride", np.int64),
        ("uniforms", np.int64),  # or 0: seed and offset give one
        ("tokens", np.int64),  # or 0: the first row's token, or number of kept ones, is returned
        ("mark", np.int64),
        ("ids", np.int64),  # what is kept of the first row goes here, or 0
        ("x", np.int64),
        ("weights", np.int64),
    ]
)


@njit
def write_list(listed: Survivors, weight: Ids, job: Scalar) -> Scalar:
    ids = numba.carray(pointer(job.ids), weight.size, np.uint32)
    x = numba.carray(pointer(job.x), weight.size, np.float32)
    weights = numba.carray(pointer(job.weights), weight.size, np.int64)
    for i in range(weight.size):
        ids[i], x[i], weights[i] = listed.ids[i], listed.x[i], weight[i]
    return weight.size


@entry
def run(
    address: int,
    dtype: int,
    size: int,
    job_address: int,
    seed: int,
    offset: int,
    first: int,
    last: int,
) -> int:
    """Draw a token for each of the rows first..last-1; return the first that is bad, or last.

    Listing what is kept is here too: a function apart would take as long again to compile.
    """
    job = numba.carray(pointer(job_address), 1, JOB)[0]
    for i in range(first, last):
        row, good = scan(address + i * job.stride, dtype, size)
        result = BAD
        if good:
            params = numba.carray(pointer(job.params + i * job.params_stride), 1, RECORD)[0]
            kept, listed, block_mass, exp2 = cut(row, params)
            if job.ids:
                if not listed.x.size:
                    listed = list_kept(row, kept)
                return write_list(listed, weigh(row, listed, exp2), job)
            u = philox_uniform(seed, 0, offset)
            if job.uniforms:
                u = numba.carray(pointer(job.uniforms), last, np.float64)[i]
            result = draw(row, kept, listed, block_mass, exp2, u)
        if not job.tokens:
            return result
        numba.carray(pointer(job.tokens), last, np.int64)[i] = result
        if result == CHANGED or (result == BAD and not job.mark):
            return i
    return last


@entry
def uniform(seed: int, stream: int, offset: int) -> float:
    """Return a uniform, of integers that are taken modulo 2**64."""
    return philox_uniform(seed, stream, offset)


@entry
def address_of(array: npt.NDArray[Any]) -> int:
    return array.ctypes.data  # type: ignore[no-any-return, unused-ignore]
