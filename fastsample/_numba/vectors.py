"""Vectors in LLVM's own words, for the loops over a block that numba makes slow ones of.

Nothing here is of one instruction set: LLVM splits a vector that is wider than the machine's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir

from .words import intrinsic

BLOCK = 256
LANES = 16  # of a vector
GROUP = 4  # vectors side by side: each step of a sum waits for the one before

Value = Any  # of llvmlite, which has no types
FLOAT, INT, HALF = ir.FloatType(), ir.IntType(32), ir.IntType(16)


def constant(like: Value, number: float) -> Value:
    """Return a number in every lane of such a type."""
    if isinstance(like, ir.VectorType):
        return ir.Constant(like, [ir.Constant(like.element, number)] * like.count)
    return ir.Constant(like, number)


def splat(builder: Value, x: Value, lanes: int) -> Value:
    """Return a vector of one value."""
    vector = builder.insert_element(
        ir.Constant(ir.VectorType(x.type, lanes), ir.Undefined), x, ir.Constant(INT, 0)
    )
    return shuffle(builder, vector, [0] * lanes)


def shuffle(builder: Value, v: Value, places: list[int]) -> Value:
    mask = ir.Constant(ir.VectorType(INT, len(places)), [ir.Constant(INT, i) for i in places])
    return builder.shuffle_vector(v, v, mask)


def fold(builder: Value, v: Value, combine: Callable[[Value, Value], Value]) -> Value:
    """Return all lanes combined into one, half with half."""
    lanes = v.type.count
    while lanes > 1:
        lanes //= 2
        places = list(range(lanes))
        v = combine(shuffle(builder, v, places), shuffle(builder, v, [lanes + i for i in places]))
    return builder.extract_element(v, ir.Constant(INT, 0))


def combined(parts: list[Value], combine: Callable[[Value, Value], Value]) -> Value:
    """Return one vector of several."""
    while len(parts) > 1:
        half = len(parts) // 2
        parts = [combine(a, b) for a, b in zip(parts[:half], parts[half:], strict=True)]
    return parts[0]


def place(context: Any, builder: Value, array_type: Any, array: Value, i: Value, v: Value) -> Value:
    """Return where an array has a vector of such a type, from its value i on."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [i]), v.as_pointer())


def vectors_of(
    context: Any, builder: Value, array_type: Any, array: Value, element: Value
) -> list[Value]:
    """Return the vectors of a block of such elements."""
    vector = ir.VectorType(element, LANES)
    starts = (ir.Constant(ir.IntType(64), i) for i in range(0, BLOCK, LANES))
    places = (place(context, builder, array_type, array, i, vector) for i in starts)
    return [builder.load(at, align=2 if element == HALF else 4) for at in places]


def call(builder: Value, name: str, *arguments: Value) -> Value:
    """Call what LLVM has for every type."""
    of = arguments[0].type
    lanes = f"v{of.count}" if isinstance(of, ir.VectorType) else ""
    function = ir.FunctionType(of, [of] * len(arguments))
    return builder.call(
        builder.module.declare_intrinsic(f"llvm.{name}.{lanes}f32", (), function), arguments
    )


def larger(builder: Value) -> Callable[[Value, Value], Value]:
    """Return a maximum that every machine has: the second where one is NaN."""
    return lambda a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b)


@intrinsic
def mask_within(context: Any, x: Any, start: Any, low: Any, high: Any) -> Any:
    """Return in bit i whether x[start + i] is in [low, high), for 64 values."""

    def build(context: Any, builder: Value, signature: Any, values: Any) -> Value:
        at = place(context, builder, x, *values[:2], ir.VectorType(FLOAT, 64))
        v = builder.load(at, align=4)
        from_, to = (splat(builder, bound, 64) for bound in values[2:])
        inside = builder.and_(
            builder.fcmp_ordered(">=", v, from_), builder.fcmp_ordered("<", v, to)
        )
        return builder.bitcast(inside, ir.IntType(64))

    return numba.uint64(x, numba.int64, numba.float32, numba.float32), build


@intrinsic
def scan_block(context: Any, x: Any, lane_max: Any) -> Any:
    """Write the maximum of every lane of a block; return whether there is a NaN."""

    def build(context: Any, builder: Value, signature: Any, values: Any) -> Value:
        vectors = vectors_of(context, builder, x, values[0], FLOAT)
        # A NaN gets lost in a maximum. One comparison looks for it in two vectors.
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        numbers = [builder.fcmp_ordered("ord", a, b) for a, b in pairs]
        good = numbers[0]
        for more in numbers[1:]:
            good = builder.and_(good, more)
        zero = ir.Constant(ir.IntType(64), 0)
        vector = ir.VectorType(FLOAT, LANES)
        builder.store(
            combined(vectors, larger(builder)),
            place(context, builder, lane_max, values[1], zero, vector),
            align=4,
        )
        bits = ir.IntType(LANES)
        return builder.icmp_unsigned("!=", builder.bitcast(good, bits), ir.Constant(bits, -1))

    return numba.boolean(x, lane_max), build


@intrinsic
def scan_block_of_halves(context: Any, x: Any, lane_max: Any, inf: Any) -> Any:
    """Do the same to signs and magnitudes of 16 bits, of which `inf` and larger ones are no number.

    As integers with a sign the largest is the maximum, if it is positive. The smallest of those
    without a sign is the maximum where all are negative.
    """

    def build(context: Any, builder: Value, signature: Any, values: Any) -> Value:
        def pick(compare: Any, how: str) -> Value:
            return combined(vectors, lambda a, b: builder.select(compare(how, a, b), a, b))

        vectors = vectors_of(context, builder, x, values[0], HALF)
        signed = pick(builder.icmp_signed, ">")
        largest = pick(builder.icmp_unsigned, ">")
        smallest = pick(builder.icmp_unsigned, "<")
        positive = builder.icmp_signed(">=", signed, constant(signed.type, 0))
        zero = ir.Constant(ir.IntType(64), 0)
        builder.store(
            builder.select(positive, signed, smallest),
            place(context, builder, lane_max, values[1], zero, signed.type),
            align=2,
        )
        sign = ir.Constant(HALF, -0x8000)
        plus, minus = (splat(builder, v, LANES) for v in (values[2], builder.or_(values[2], sign)))
        nan = builder.or_(
            builder.icmp_signed(">", signed, plus), builder.icmp_unsigned(">", largest, minus)
        )
        bits = ir.IntType(LANES)
        return builder.icmp_unsigned("!=", builder.bitcast(nan, bits), ir.Constant(bits, 0))

    return numba.boolean(x, lane_max, numba.int16), build


@intrinsic
def largest_lane(context: Any, lanes: Any) -> Any:
    """Return the maximum of a vector without NaN."""

    def build(context: Any, builder: Value, signature: Any, values: Any) -> Value:
        zero = ir.Constant(ir.IntType(64), 0)
        at = place(context, builder, lanes, values[0], zero, ir.VectorType(FLOAT, LANES))
        return fold(builder, builder.load(at, align=4), larger(builder))

    return numba.float32(lanes), build
