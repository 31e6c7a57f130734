"""What a logit weighs: the formula of ``csrc/simd/kernels.h``, for one value and for a block."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir

from .vectors import FLOAT, LANES, Value, call, constant, fold, splat, vectors_of
from .words import Scalar, fma, intrinsic, njit

MANTISSA_BITS = 27
UNIT_BITS = 40
UNIT = 2.0**-UNIT_BITS
LEAST_EXPONENT = MANTISSA_BITS - UNIT_BITS
REACHES = 1.0 - 2.0**-24  # what reaches p of a total weighs this times p of it at least
LIGHTEST = np.float32(-42.0)  # a weight under 2^-42 rounds to zero units
LARGEST: Scalar = np.float32(np.finfo(np.float32).max)
SMALLEST: Scalar = np.float32(np.finfo(np.float32).tiny)
# Of 2^r for r in [0, 1), by falling degree.
POLYNOMIAL = (1.87812839e-03, 8.99009965e-03, 5.58225848e-02, 2.40157411e-01, 6.93151534e-01, 1.0)


class Exp2(NamedTuple):
    """The weight of a logit is 2^((x - max) * scale)."""

    max: Scalar
    scale: Scalar


@njit
def exp2_scale(temperature: float) -> Scalar:
    return np.float32(max(SMALLEST, min(1.4426950408889634 / temperature, LARGEST)))


@njit
def block_exponent(block_max: Scalar, exp2: Exp2) -> Scalar:
    """Return the logarithm of a block's largest weight, rounded up, or the least exponent."""
    y = fma(np.float32(block_max - exp2.max), exp2.scale, np.float32(-1.0))
    least = np.float32(LEAST_EXPONENT - 1)
    return np.int32(np.int32(y if y > least else least) + 1)


def lifted_weight(
    builder: Value, x: Value, max_: Value, scale: Value, exponent: Value
) -> tuple[Value, Value]:
    """Return what becomes the integer weight of a value, or of a vector, and its logarithm.

    In a block of some exponent. It is the logarithm of half a weight.
    """
    of, integer = x.type, exponent.type
    # Not above -1, so that its fraction is exact.
    y = call(builder, "fma", builder.fsub(x, max_), scale, constant(of, -1.0))
    least = constant(of, -100.0)
    y = builder.select(builder.fcmp_ordered(">", y, least), y, least)
    n = call(builder, "floor", y)
    r = builder.fsub(y, n)
    p = constant(of, POLYNOMIAL[0])
    for c in POLYNOMIAL[1:]:
        p = call(builder, "fma", p, r, constant(of, c))
    lift = builder.sub(constant(integer, MANTISSA_BITS + 1), exponent)
    power = builder.shl(builder.add(builder.fptosi(n, integer), lift), constant(integer, 23))
    return builder.bitcast(builder.add(builder.bitcast(p, integer), power), of), y


def whole(builder: Value, w: Value, integer: Value) -> Value:
    """Return the nearest integer."""
    return builder.fptosi(call(builder, "rint", w), integer)


def weight_of(builder: Value, x: Value, max_: Value, scale: Value, exponent: Value) -> Value:
    """Return the integer weight of a value, or of a vector, in a block of some exponent."""
    w, _ = lifted_weight(builder, x, max_, scale, exponent)
    return whole(builder, w, exponent.type)


@intrinsic
def weight_in_block(context: Any, x: Any, exp2: Any, exponent: Any) -> Any:
    """Return the weight of one value in a block of some exponent."""

    def build(context: Any, builder: Value, signature: Any, values: Any) -> Value:
        max_, scale = (builder.extract_value(values[1], i) for i in range(2))
        return weight_of(builder, values[0], max_, scale, values[2])

    return numba.int32(numba.float32, exp2, numba.int32), build


@intrinsic
def mass_of_block(context: Any, x: Any, exp2: Any, exponent: Any, low: Any, high: Any) -> Any:
    """Return the sums of the weights of a block's values >= low, and of those >= high."""

    def build(context: Any, builder: Value, signature: Any, values: Any) -> Value:
        scalars = [builder.extract_value(values[1], i) for i in range(2)] + list(values[2:])
        max_, scale, exponent, *bounds = (splat(builder, scalar, LANES) for scalar in scalars)
        none = constant(exponent.type, 0)
        sums = [none for _ in bounds]
        for v in vectors_of(context, builder, x, values[0], FLOAT):
            weight = weight_of(builder, v, max_, scale, exponent)
            for i, bound in enumerate(bounds):
                part = builder.select(builder.fcmp_ordered(">=", v, bound), weight, none)
                sums[i] = builder.add(sums[i], part)  # 16 of them fit without a sign
        wide = ir.VectorType(ir.IntType(64), LANES)
        sums = [fold(builder, builder.zext(lanes, wide), builder.add) for lanes in sums]
        return context.make_tuple(builder, signature.return_type, sums)

    sums = numba.types.UniTuple(numba.int64, 2)
    return sums(x, exp2, numba.int32, numba.float32, numba.float32), build
