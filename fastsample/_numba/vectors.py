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

Value = Any  # of llvmlite, which has no types
Combine = Callable[[Value, Value], Value]
FLOAT, HALF, INT, LONG = ir.FloatType(), ir.IntType(16), ir.IntType(32), ir.IntType(64)


def constant(like: Value, number: float) -> Value:
    """Return a number of some type, in every lane if that is a vector."""
    if isinstance(like, ir.VectorType):
        return ir.Constant(like, [ir.Constant(like.element, number)] * like.count)
    return ir.Constant(like, number)


def shuffle(builder: Value, v: Value, lanes: list[int]) -> Value:
    """Return a vector of some lanes of another."""
    mask = ir.Constant(ir.VectorType(INT, len(lanes)), [ir.Constant(INT, lane) for lane in lanes])
    return builder.shuffle_vector(v, v, mask)


def splat(builder: Value, x: Value, lanes: int = LANES) -> Value:
    """Return a vector of one value."""
    none = ir.Constant(ir.VectorType(x.type, lanes), None)
    return shuffle(builder, builder.insert_element(none, x, INT(0)), [0] * lanes)


def fold(builder: Value, v: Value, combine: Combine) -> Value:
    """Return one value of all lanes: half of them combined with the other half, and so on."""
    lanes = list(range(v.type.count))
    while len(lanes) > 1:
        half = len(lanes) // 2
        low, high = (shuffle(builder, v, part) for part in (lanes[:half], lanes[half:]))
        v, lanes = combine(low, high), lanes[:half]
    return builder.extract_element(v, INT(0))


def merge(vectors: list[Value], combine: Combine) -> Value:
    """Return one vector of several, in the same way."""
    while len(vectors) > 1:
        half = len(vectors) // 2
        pairs = zip(vectors[:half], vectors[half:], strict=True)
        vectors = [combine(a, b) for a, b in pairs]
    return vectors[0]


def place(context: Any, builder: Value, of: Any, array: Value, start: Value, to: Value) -> Value:
    """Return a pointer to what of an array of type `of` begins at `start`, as one of type `to`."""
    data = context.make_array(of)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [start]), to.as_pointer())


def vectors_of(context: Any, builder: Value, of: Any, array: Value, element: Value) -> list[Value]:
    """Return the vectors of a block."""
    to, bytes_ = ir.VectorType(element, LANES), 2 if element == HALF else 4
    return [
        builder.load(place(context, builder, of, array, LONG(start), to), align=bytes_)
        for start in range(0, BLOCK, LANES)
    ]


def call(builder: Value, name: str, *arguments: Value) -> Value:
    """Call an intrinsic of LLVM that takes floats, or vectors of them, and returns the same."""
    of = arguments[0].type
    suffix = f"v{of.count}f32" if isinstance(of, ir.VectorType) else "f32"
    function = ir.FunctionType(of, [of] * len(arguments))
    declared = builder.module.declare_intrinsic(f"llvm.{name}.{suffix}", (), function)
    return builder.call(declared, arguments)


def any_lane(builder: Value, mask: Value) -> Value:
    bits = ir.IntType(mask.type.count)
    return builder.icmp_unsigned("!=", builder.bitcast(mask, bits), bits(0))


def larger(builder: Value) -> Combine:
    """Return a maximum that takes one instruction: the second where one is NaN."""
    return lambda a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b)


@intrinsic
def mask_within(context: Any, x: Any, start: Any, low: Any, high: Any) -> Any:
    """Return in bit i whether x[start + i] is in [low, high), for 64 values."""

    def build(context: Any, builder: Value, signature: Any, values: Any) -> Value:
        at = place(context, builder, x, values[0], values[1], ir.VectorType(FLOAT, 64))
        v = builder.load(at, align=4)
        from_, to = (splat(builder, bound, 64) for bound in values[2:])
        inside = builder.and_(
            builder.fcmp_ordered(">=", v, from_), builder.fcmp_ordered("<", v, to)
        )
        return builder.bitcast(inside, LONG)

    return numba.uint64(x, numba.int64, numba.float32, numba.float32), build


@intrinsic
def clear_forbidden(context: Any, x: Any, start: Any, word: Any) -> Any:
    """Make those of 32 values from `start` on -inf whose bit is not set."""

    def build(context: Any, builder: Value, signature: Any, values: Any) -> Value:
        floats = ir.VectorType(FLOAT, 32)
        at = place(context, builder, x, values[0], values[1], floats)
        allowed = builder.bitcast(values[2], ir.VectorType(ir.IntType(1), 32))
        own, none = builder.load(at, align=4), constant(floats, float("-inf"))
        builder.store(builder.select(allowed, own, none), at, align=4)
        return context.get_dummy_value()

    return numba.void(x, numba.int64, numba.uint32), build


@intrinsic
def scan_floats(context: Any, x: Any, lane_max: Any) -> Any:
    """Write the maximum of every lane of a block; return whether there is a NaN."""

    def build(context: Any, builder: Value, signature: Any, values: Any) -> Value:
        vectors = vectors_of(context, builder, x, values[0], FLOAT)
        top = merge(vectors, larger(builder))
        at = place(context, builder, lane_max, values[1], LONG(0), top.type)
        builder.store(top, at, align=4)
        # A NaN gets lost in a maximum. One comparison looks for it in two vectors.
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        nans = [builder.fcmp_unordered("uno", a, b) for a, b in pairs]
        return any_lane(builder, merge(nans, builder.or_))

    return numba.boolean(x, lane_max), build


@intrinsic
def scan_halves(context: Any, x: Any, lane_max: Any, infinity: Any) -> Any:
    """Do the same to values of 16 bits, as integers: sign and magnitude.

    Of those without a sign the largest is the largest integer; of those with one alone, the
    smallest without its sign. A NaN lies beyond the infinity of its sign.
    """

    def build(context: Any, builder: Value, signature: Any, values: Any) -> Value:
        vectors = vectors_of(context, builder, x, values[0], HALF)

        def extreme(compare: Any, how: str) -> Value:
            return merge(vectors, lambda a, b: builder.select(compare(how, a, b), a, b))

        highest = extreme(builder.icmp_signed, ">")
        largest = extreme(builder.icmp_unsigned, ">")
        smallest = extreme(builder.icmp_unsigned, "<")
        negative = builder.icmp_signed("<", highest, constant(highest.type, 0))
        top = builder.select(negative, smallest, highest)
        at = place(context, builder, lane_max, values[1], LONG(0), top.type)
        builder.store(top, at, align=2)
        plus, minus = (
            splat(builder, v) for v in (values[2], builder.or_(values[2], HALF(-0x8000)))
        )
        beyond = builder.icmp_signed(">", highest, plus)
        return any_lane(builder, builder.or_(beyond, builder.icmp_unsigned(">", largest, minus)))

    return numba.boolean(x, lane_max, numba.int16), build


@intrinsic
def largest_lane(context: Any, lanes: Any) -> Any:
    """Return the maximum of the lanes of a vector without NaN."""

    def build(context: Any, builder: Value, signature: Any, values: Any) -> Value:
        vector = ir.VectorType(FLOAT, LANES)
        at = place(context, builder, lanes, values[0], LONG(0), vector)
        return fold(builder, builder.load(at, align=4), larger(builder))

    return numba.float32(lanes), build
