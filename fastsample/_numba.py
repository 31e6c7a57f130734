"""The twin of ``_core`` for platforms without the extension: the same functions, equal bits.

Every weight is a whole number (``csrc/simd/kernels.h`` says of what), so only the arithmetic of one
weight has to be repeated operation by operation; sums may be taken in any order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

import numba.extending  # type: ignore[import-not-found, import-untyped, unused-ignore]
import numpy as np
import numpy.typing as npt

from .params import STAGES, Records
from .reference import Floats, Ids, Rows, find_defect, to_float32, uniform

__all__ = ["probs", "sample", "survivors", "uniform"]

Scalar: TypeAlias = Any  # a number whose width the compiled code keeps
Floats32 = npt.NDArray[np.float32]
ShortIds = npt.NDArray[np.uint32]
Function = TypeVar("Function", bound=Callable[..., Any])

# Without fastmath, LLVM neither reorders float operations nor contracts a * b + c.
njit = cast(
    Callable[[Function], Function],
    numba.njit(cache=True, nogil=True, fastmath=False, error_model="numpy"),
)
intrinsic: Callable[[Function], Any] = numba.extending.intrinsic

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


# ---- weights ------------------------------------------------------------------------------------


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
    """A row in blocks, padded with -inf, and what the scan found in it."""

    blocks: Floats32
    lane_max: Floats32  # (blocks, lanes)
    block_max: Floats32
    max: Scalar


@njit
def scan(blocks: Floats32) -> tuple[Row, bool]:
    """Return the scanned row, and whether it can be sampled from."""
    lane_max = np.empty((len(blocks), LANES), np.float32)
    block_max = np.empty(len(blocks), np.float32)
    row_max = -INFINITY
    nan = False
    for b in range(len(blocks)):
        for lane in range(LANES):  # a vector, once compiled
            top = -INFINITY
            for j in range(0, BLOCK, LANES):
                x = blocks[b, j + lane]
                top = x if x > top else top
                nan |= x != x
            lane_max[b, lane] = top
        top = -INFINITY
        for lane in range(LANES):
            top = max(top, lane_max[b, lane])
        block_max[b] = top
        row_max = max(row_max, top)
    return Row(blocks, lane_max, block_max, row_max), np.isfinite(row_max) and not nan


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
def take(row: Row, ids: ShortIds) -> Survivors:
    """List the given tokens."""
    values = row.blocks.ravel()
    x = np.empty(ids.size, np.float32)
    for i in range(ids.size):
        x[i] = values[ids[i]]
    return Survivors(ids, x)


@njit
def collect(row: Row, low: Scalar, high: Scalar, enough: int) -> Survivors:
    """List the values in [low, high); with `enough` listed, no more of those equal to low."""
    ids = np.empty(at_least(row.block_max, None, low) * BLOCK + 1, np.uint32)
    size = np.uint64(0)  # unsigned: no index counts from the end
    mask = np.empty(BLOCK, np.uint8)
    words = mask.view(np.uint64)
    for b in range(len(row.blocks)):
        bound = low if np.int64(size) < enough else next_above(low)
        if row.block_max[b] >= bound:
            for j in range(BLOCK):
                mask[j] = (row.blocks[b, j] >= bound) & (row.blocks[b, j] < high)
            for w in range(words.size):
                if words[w]:
                    for j in range(8 * w, 8 * w + 8):  # a branch would be anyone's guess
                        ids[size] = b * BLOCK + j
                        size += mask[j]
    return take(row, ids[: np.int64(size)])


@njit
def keep(listed: Survivors, kept: Kept) -> Survivors:
    """List what of a list is kept."""
    ids = np.empty(listed.ids.size + 1, np.uint32)
    x = np.empty(ids.size, np.float32)
    size = np.uint64(0)
    for i in range(listed.ids.size):
        ids[size], x[size] = listed.ids[i], listed.x[i]
        tau = kept.tau if ids[size] <= kept.last else next_above(kept.tau)
        size += np.uint8(x[size] >= tau)
    return Survivors(ids[: np.int64(size)], x[: np.int64(size)])


@njit
def list_kept(row: Row, kept: Kept) -> Survivors:
    return keep(collect(row, kept.tau, INFINITY, ALL_TIES), kept)


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
def list_block(row: Row, b: int, kept: Kept) -> Survivors:
    return keep(take(row, (b * BLOCK + np.arange(BLOCK)).astype(np.uint32)), kept)


@njit
def mass(row: Row, kept: Kept, exp2: Exp2) -> Ids:
    """Return the mass of what is kept, per block."""
    block_mass = np.zeros(len(row.blocks), np.int64)
    for b in range(len(row.blocks)):
        weighty = (row.block_max[b] - exp2.max) * exp2.scale > LIGHTEST
        if weighty and row.block_max[b] >= kept.tau:
            tau = kept.tau if b * BLOCK <= kept.last else next_above(kept.tau)
            exponent = block_exponent(row.block_max[b], exp2)
            total = 0
            for j in range(BLOCK):
                x = row.blocks[b, j]
                w = weight_in_block(x, exp2, exponent)
                total += w if x >= tau else 0
            block_mass[b] = total << (exponent - LEAST_EXPONENT)
    b = kept.last // BLOCK
    if b < len(row.blocks):  # the ties end inside
        block_mass[b] = weigh(row, list_block(row, b, kept), exp2).sum()
    return block_mass


# ---- cut ----------------------------------------------------------------------------------------


@njit
def to_key(x: Scalar) -> Scalar:
    """Return an integer that orders as the float does (-0 just below +0)."""
    bits = bitcast(x)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@njit
def from_key(key: Scalar) -> Scalar:
    return bitcast(np.int32(key ^ ((key >> 31) & 0x7FFFFFFF)))


@njit
def next_above(x: Scalar) -> Scalar:
    return from_key(to_key(x + np.float32(0.0)) + 1)


@njit
def at_least(x: Floats32, weight: Ids | None, tau: Scalar) -> Scalar:
    """Return the mass of the values >= tau, or their number where no weights are given."""
    total = 0
    for i in range(x.size):
        w = 1 if weight is None else weight[i]
        total += w if x[i] >= tau else 0
    return total


@njit
def highest_reaching(x: Floats32, weight: Ids | None, target: Scalar) -> Scalar:
    """Return the largest tau such that the values >= tau reach the target."""
    low, high = to_key(x.min()), to_key(x.max()) + 1
    while high - low > 1:
        middle = (low + high) >> 1
        if at_least(x, weight, from_key(middle)) >= target:
            low = middle
        else:
            high = middle
    return from_key(low)


@njit
def find_prefix(listed: Survivors, weight: Ids | None, target: int) -> Kept:
    """Return the place where the mass, or number, of the largest values reaches the target."""
    tau = highest_reaching(listed.x, weight, target)
    reached = at_least(listed.x, weight, next_above(tau))
    last: Scalar = -1
    for i in range(listed.x.size):
        if reached < target and listed.x[i] == tau:
            # Equal values in different blocks may differ in the last bits of their weights.
            reached += 1 if weight is None else weight[i]
            last = np.int64(listed.ids[i])
    return Kept(tau, last)


@njit
def keep_top_k(row: Row, kept: Kept, listed: Survivors, k: int) -> Survivors:
    """List the k largest values of what is kept, which is listed unless the list is empty."""
    if not listed.x.size:
        # k blocks, or lanes, hold at least one value each that reaches the k-th largest maximum.
        maxima = row.block_max if k <= row.block_max.size else row.lane_max.ravel()
        low = highest_reaching(maxima, None, k) if k <= maxima.size else -LARGEST
        listed = keep(collect(row, max(low, kept.tau), INFINITY, k), kept)
    return listed if k >= listed.x.size else keep(listed, find_prefix(listed, None, k))


@njit
def share_of(p: float, total: int) -> Scalar:
    return max(1, min(math.ceil(p * total), total))


@njit
def cut_top_p(row: Row, exp2: Exp2, p: float) -> tuple[Kept, Ids]:
    """Find where the mass reaches its share among the values near a guess; also return the mass."""
    total = mass(row, Kept(-LARGEST, ALL_TIES), exp2).sum()
    target = share_of(p, total)
    for attempt in range(4):
        low, high, enough = -LARGEST, INFINITY, ALL_TIES
        if attempt == 0:  # a peaked row has its mass in a few blocks
            low = highest_reaching(row.block_max, None, min(row.block_max.size, 32))
            enough = 4096
        elif attempt < 3:  # a flat one has a tail that a sample tells
            step = max(1, row.blocks.size // 2048)
            sample = take(row, np.arange(0, row.blocks.size, step).astype(np.uint32))
            weight = weigh(row, sample, exp2)
            tail = (total - target) / step
            slack = 0.1 * attempt**2
            low = highest_reaching(sample.x, weight, weight.sum() - int((1 - slack) * tail))
            high = highest_reaching(sample.x, weight, weight.sum() - int((1 + slack) * tail))
            high = next_above(high)
        block_mass = mass(row, Kept(high, ALL_TIES), exp2)
        missing = target - block_mass.sum()
        listed = collect(row, max(low, -LARGEST), high, enough)
        weight = weigh(row, listed, exp2)
        if 0 < missing <= weight.sum():
            break
    kept = find_prefix(listed, weight, missing)
    listed = keep(listed, kept)
    weight = weigh(row, listed, exp2)
    for i in range(weight.size):
        block_mass[listed.ids[i] // BLOCK] += weight[i]
    return kept, block_mass


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
def cut(row: Row, params: tuple[Any, ...]) -> tuple[Kept, Survivors, Exp2, Ids]:
    """Run the stages. The list of what is kept, or its mass per block, is empty if not known."""
    temperature, k, p, m, least, order = params
    unknown = block_mass = np.empty(0, np.int64)
    kept = Kept(-LARGEST, ALL_TIES)
    listed = Survivors(np.empty(0, np.uint32), np.empty(0, np.float32))
    if temperature == 0.0:
        b = np.argmax(row.block_max)
        kept = Kept(row.max, b * BLOCK + np.argmax(row.blocks[b]))
        return kept, listed, Exp2(row.max, exp2_scale(1.0)), block_mass

    divisor = 1.0
    for stage in order:
        if stage == TEMPERATURE:
            divisor, block_mass = temperature, unknown
            continue
        exp2 = Exp2(row.max, exp2_scale(divisor))
        if stage == TOP_K and 0 < k < row.blocks.size:
            listed = keep_top_k(row, kept, listed, max(k, least))
            continue
        if stage == TOP_P and p < 1.0:
            if kept.tau > -LARGEST and not listed.x.size:
                listed = list_kept(row, kept)
            if listed.x.size:
                weight = weigh(row, listed, exp2)
                fewer = find_prefix(listed, weight, share_of(p, weight.sum()))
            else:
                fewer, block_mass = cut_top_p(row, exp2, p)
        elif stage == MIN_P and m > 0.0:
            tau = np.float32(max(row.max + divisor * natural_log(m), -LARGEST))
            fewer = Kept(tau, ALL_TIES) if tau > kept.tau else kept
            block_mass = unknown
        else:
            continue
        if listed.x.size or least > 1:
            short = keep(listed, fewer) if listed.x.size else list_kept(row, fewer)
            listed = short if short.x.size >= least else keep_top_k(row, kept, listed, least)
        else:
            kept = fewer
    return kept, listed, Exp2(row.max, exp2_scale(divisor)), block_mass


# ---- draw ---------------------------------------------------------------------------------------


@njit
def position(u: float, total: int) -> Scalar:
    return min(int(u * total), total - 1)


@njit
def locate(weight: Ids, at: Scalar) -> tuple[int, Scalar]:
    """Return the first place whose cumulative weight exceeds `at`, and what is left inside."""
    i = 0
    while i + 1 < weight.size and at >= weight[i]:
        at -= weight[i]
        i += 1
    return i, at


@njit
def draw(blocks: Floats32, params: tuple[Any, ...], u: float) -> Scalar:
    """Return the token of a row, or -1 where the row cannot be sampled from."""
    row, good = scan(blocks)
    if not good:
        return -1
    kept, listed, exp2, block_mass = cut(row, params)
    if listed.x.size:
        weight = weigh(row, listed, exp2)
        at = position(u, weight.sum())
    else:
        if not block_mass.size:
            block_mass = mass(row, kept, exp2)
        b, at = locate(block_mass, position(u, block_mass.sum()))
        listed = list_block(row, b, kept)
        weight = weigh(row, listed, exp2)
    return np.int64(listed.ids[locate(weight, at)[0]])


@njit
def list_row(blocks: Floats32, params: tuple[Any, ...]) -> tuple[ShortIds, Floats32, Ids]:
    """Return ids, values and weights of what is kept; none where the row cannot be sampled from."""
    row, good = scan(blocks)
    if not good:
        return np.empty(0, np.uint32), np.empty(0, np.float32), np.empty(0, np.int64)
    kept, listed, exp2, _ = cut(row, params)
    if not listed.x.size:
        listed = list_kept(row, kept)
    return listed.ids, listed.x, weigh(row, listed, exp2)


def _arguments(rows: Rows, params: Records, i: int) -> tuple[Floats32, tuple[Any, ...]]:
    """Return a row in blocks and its parameters, of one type whatever they came as."""
    x: Floats32 = rows[i] if rows.dtype == np.float32 else to_float32(rows[i])
    if x.size % BLOCK:
        x = np.append(x, np.full(-x.size % BLOCK, -INFINITY))
    x = x.reshape(-1, BLOCK)
    x.flags.writeable = False
    _, *scalars, order = params[0 if params.size == 1 else i].item()
    return x, (*scalars, order.tobytes())


def sample(
    rows: Rows, params: Records, u: Floats, mark: bool, tokens: Ids, threads: int = 0
) -> None:
    """Draw one token per row into `tokens`: the inverse CDF of u, in index order."""
    drawn = np.empty_like(tokens)
    for i in range(len(rows)):
        drawn[i] = draw(*_arguments(rows, params, i), u[i])
        if drawn[i] < 0 and not mark:
            raise ValueError(find_defect(to_float32(rows[i]), i))
    tokens[:] = drawn


def probs(rows: Rows, params: Records) -> Floats32:
    """Return the distribution that `sample` draws from."""
    out = np.zeros(rows.shape, np.float32)
    for i in range(len(rows)):
        ids, _, weight = list_row(*_arguments(rows, params, i))
        if not ids.size:
            raise ValueError(find_defect(to_float32(rows[i]), i))
        out[i, ids] = weight / weight.sum()
    return out


def survivors(rows: Rows, params: Records) -> tuple[Ids, Floats32]:
    """Return ids and probabilities of what is kept of one row, by falling probability."""
    ids, x, weight = list_row(*_arguments(rows, params, 0))
    if not ids.size:
        raise ValueError(find_defect(to_float32(rows[0]), 0))
    falling = np.argsort(-x, kind="stable")
    p = (weight / weight.sum()).astype(np.float32)
    return ids[falling].astype(np.int64), p[falling]
