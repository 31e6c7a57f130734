"""What all compiled code shares: options of compilation, constants, and words numba lacks."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

import numba
import numba.extending
import numpy as np
import numpy.typing as npt
from llvmlite import ir

Scalar: TypeAlias = Any  # a number whose width the compiled code keeps
Floats32 = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
ShortIds = npt.NDArray[np.uint32]
carray: Callable[..., Any] = numba.carray
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


def digest_of_sources() -> str:
    """Return a digest of all that is compiled."""
    package = Path(__file__).parent
    files = [*sorted(package.rglob("*.py")), package.parent / "records.py"]
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def entry(function: Function) -> Function:
    """Compile a function that Python calls; keep the result where a directory can be written to."""
    try:
        return cast(Function, numba.njit(**_OPTIONS, cache=True)(function))
    except RuntimeError:  # numba found no place for its cache
        return cast(Function, numba.njit(**_OPTIONS)(function))


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
def double_bits(context: Any, x: Any) -> Any:
    """Return the int64 of a float64's bits, or the other way round."""
    to = numba.int64 if x == numba.float64 else numba.float64
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
def lowest_bit(context: Any, word: Any) -> Any:
    """Return the number of a word's lowest bit that is set."""
    return numba.int64(numba.uint64), lambda context, builder, signature, values: builder.cttz(
        *values, ir.Constant(ir.IntType(1), 1)
    )


@njit
def multiply_high(a: Scalar, b: Scalar) -> Scalar:
    half, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    a0, a1, b0, b1 = a & low, a >> half, b & low, b >> half
    mid = a1 * b0 + (a0 * b0 >> half)
    return a1 * b1 + (mid >> half) + ((a0 * b1 + (mid & low)) >> half)


@njit
def philox_uniform(seed: Scalar, stream: Scalar, offset: Scalar, use: Scalar) -> float:
    """Return what NumPy draws of Philox(key=[seed, stream], counter=[offset, use, 0, 0])."""
    one, zero = np.uint64(1), np.uint64(0)
    k0, k1 = np.uint64(seed), np.uint64(stream)
    c0, c2, c3 = np.uint64(offset) + one, zero, zero
    c1 = np.uint64(use) + (one if c0 == zero else zero)  # uses are small: no carry goes on
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
