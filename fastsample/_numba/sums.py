"""What stages ask for beside a mass: entropy, squares and moments, of a row or of a list.

The second sums of ``csrc/simd/mass.inl``: terms that are rounded to integers as weights are.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir

from .elementary import LN2, natural_log
from .row import ALL_TIES, Kept, Row, Survivors, block, list_block, list_kept
from .vectors import BLOCK, FLOAT, LANES, Value, constant, fold, larger, splat, vectors_of
from .weights import (
    LARGEST,
    LEAST_EXPONENT,
    LIGHTEST,
    MANTISSA_BITS,
    UNIT,
    Exp2,
    block_exponent,
    lifted_weight,
    whole,
)
from .words import Doubles, Floats32, Scalar, intrinsic, next_above, njit

#: Of the entropy, lighter weights have more than they have of the mass.
LIGHTEST_OF_ALL = np.float32(LIGHTEST - 6)


@njit
def square_exponent(e: Scalar) -> Scalar:
    """Return the exponent that squares of a block's weights have, as weights have e."""
    return np.int32(max(2 * e, LEAST_EXPONENT))


@njit
def second_factor(e: Scalar, squares: bool) -> Scalar:
    """Return what the second term of a weight is made with."""
    if squares:
        return np.float32(math.ldexp(1.0, 2 * e - square_exponent(e) - MANTISSA_BITS))
    return np.float32(e - 1)


@njit
def in_units(second: Scalar, mass: Scalar, e: Scalar, squares: bool) -> Scalar:
    """Return second terms in units, given what the weights are that they belong to."""
    if squares:
        return np.int64(second) << (square_exponent(e) - LEAST_EXPONENT)
    return (np.int64(second) - np.int64(mass) * e) << (e - LEAST_EXPONENT)


def terms_of(
    builder: Value, x: Value, exp2: list[Value], exponent: Value, factor: Value, squares: Value
) -> tuple[Value, ...]:
    """Return the integer weight of a value, or of a vector, and its second term."""
    w, y = lifted_weight(builder, x, exp2[0], exp2[1], exponent)
    surprise = builder.fmul(w, builder.fsub(factor, y))
    # Held above what would be a subnormal then.
    held = larger(builder)(w, constant(x.type, 2.0**-20))
    square = builder.fmul(builder.fmul(held, held), factor)
    second = builder.select(squares, square, surprise)
    return tuple(whole(builder, v, exponent.type) for v in (w, second))


@intrinsic
def terms_in_block(context: Any, x: Any, exp2: Any, e: Any, factor: Any, squares: Any) -> Any:
    """Return the weight of one value in a block of exponent e, and its second term."""

    def build(context: Any, builder: Value, signature: Any, values: Any) -> Value:
        pair = [builder.extract_value(values[1], i) for i in range(2)]
        terms = terms_of(builder, values[0], pair, *values[2:])
        return context.make_tuple(builder, signature.return_type, terms)

    terms = numba.types.UniTuple(numba.int32, 2)
    return terms(numba.float32, exp2, numba.int32, numba.float32, numba.boolean), build


@intrinsic
def terms_of_block(
    context: Any, x: Any, exp2: Any, e: Any, factor: Any, squares: Any, low: Any
) -> Any:
    """Return the sums of both for a block's values >= low."""

    def build(context: Any, builder: Value, signature: Any, values: Any) -> Value:
        pair = [splat(builder, builder.extract_value(values[1], i), LANES) for i in range(2)]
        exponent, factor, bound = (splat(builder, values[i], LANES) for i in (2, 3, 5))
        none = constant(exponent.type, 0)
        sums = [none, none]
        for v in vectors_of(context, builder, x, values[0], FLOAT):
            there = builder.fcmp_ordered(">=", v, bound)
            terms = terms_of(builder, v, pair, exponent, factor, values[4])
            # 16 of them fit without a sign.
            sums = [
                builder.add(total, builder.select(there, term, none))
                for total, term in zip(sums, terms, strict=True)
            ]
        wide = ir.VectorType(ir.IntType(64), LANES)
        sums = [fold(builder, builder.zext(lanes, wide), builder.add) for lanes in sums]
        return context.make_tuple(builder, signature.return_type, sums)

    sums = numba.types.UniTuple(numba.int64, 2)
    return sums(x, exp2, numba.int32, numba.float32, numba.boolean, numba.float32), build


@njit
def sums_of_list(row: Row, listed: Survivors, exp2: Exp2, squares: bool) -> tuple[Scalar, Scalar]:
    """Return the mass of a list, and its entropy or squares, in units."""
    mass = total = np.int64(0)
    for i in range(listed.x.size):
        e = block_exponent(row.block_max[listed.ids[i] // BLOCK], exp2)
        w, second = terms_in_block(listed.x[i], exp2, e, second_factor(e, squares), squares)
        mass += np.int64(w) << (e - LEAST_EXPONENT)
        total += in_units(second, w, e, squares)
    return mass, total


@njit
def sums_of(
    row: Row, kept: Kept, listed: Survivors, exp2: Exp2, squares: bool
) -> tuple[Scalar, Scalar]:
    """Return the mass of what is kept, which is listed unless the list is empty, and the other."""
    if listed.x.size:
        return sums_of_list(row, listed, exp2, squares)
    mass = total = np.int64(0)
    for b in range(row.block_max.size):
        light = not (row.block_max[b] - exp2.max) * exp2.scale > LIGHTEST_OF_ALL
        if light or row.block_max[b] < kept.tau:
            continue
        e = block_exponent(row.block_max[b], exp2)
        if b * BLOCK <= kept.last < (b + 1) * BLOCK:  # the ties end inside
            w, second = sums_of_list(row, list_block(row, b, kept), exp2, squares)
        else:
            low = kept.tau if b * BLOCK < kept.last else next_above(kept.tau)
            factor = second_factor(e, squares)
            w, rest = terms_of_block(block(row, b), exp2, e, factor, squares, low)
            second = in_units(rest, w, e, squares)
            w <<= e - LEAST_EXPONENT
        mass += w
        total += second
    return mass, total


class Moments(NamedTuple):
    """Sums of how far values are from the maximum, and of the squares: id i in lane i % 16."""

    sum: Doubles
    squares: Doubles


@njit
def add_moments(
    moments: Moments, values: Floats32, lane: Scalar, low: Scalar, top: Scalar
) -> Scalar:
    """Add values >= low, of which the first is of some lane; return how many these are."""
    count = 0
    for i in range(values.size):
        there = values[i] >= low
        d = np.float64(values[i] if there else top) - np.float64(top)
        moments.sum[(lane + i) % LANES] += d
        moments.squares[(lane + i) % LANES] += d * d
        count += there
    return count


@njit
def moments_of(row: Row, kept: Kept, listed: Survivors) -> tuple[Moments, Scalar]:
    """Return the moments of what is kept, which is listed unless the list is empty; and its size.

    What is not there adds 0, so that a list has the sums of a row.
    """
    moments, count = Moments(np.zeros(LANES), np.zeros(LANES)), 0
    if not listed.x.size and kept.last != ALL_TIES:
        listed = list_kept(row, kept)
    if listed.x.size:
        for i in range(listed.x.size):
            lane = listed.ids[i] % LANES
            count += add_moments(moments, listed.x[i : i + 1], lane, -LARGEST, row.max)
        return moments, count
    for b in range(row.block_max.size):
        if row.block_max[b] >= kept.tau:
            count += add_moments(moments, block(row, b), 0, kept.tau, row.max)
    return moments, count


@njit
def entropy_of(row: Row, kept: Kept, listed: Survivors, exp2: Exp2) -> tuple[float, float]:
    """Return the total weight of what is kept, and its entropy in nats."""
    mass, surprise = sums_of(row, kept, listed, exp2, False)
    total = mass * UNIT
    return total, natural_log(total) + LN2 * (surprise / mass)
