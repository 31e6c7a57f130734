"""What Python calls: rows, and what else comes from there, are addresses.

So all dtypes and layouts share one compiled function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from .cut import SMALL_ROW, Chain, cut
from .row import (
    Kept,
    Row,
    Survivors,
    kept_mass,
    list_block,
    list_kept,
    memory_for,
    scan,
    weigh,
)
from .weights import Exp2
from .words import (
    Floats32,
    Ids,
    Scalar,
    carray,
    digest_of_sources,
    entry,
    inline,
    njit,
    philox_uniform,
    pointer,
)

# In place of a token: of a row with NaN, +inf or only -inf; of one that is written to meanwhile.
BAD, CHANGED = -1, -2


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
    token = np.int64(listed.ids[locate(weight, at)[0]])
    return token if token < row.size else CHANGED


#: What a call of `run` has in common for all rows. Arrays are addresses, strides count bytes.
JOB = np.dtype(
    [
        ("stride", np.int64),
        ("params", np.int64),
        ("params_stride", np.int64),
        ("stages", np.int64),  # in each of the records
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
    ids = carray(pointer(job.ids), weight.size, np.uint32)
    x = carray(pointer(job.x), weight.size, np.float32)
    weights = carray(pointer(job.weights), weight.size, np.int64)
    for i in range(weight.size):
        ids[i], x[i], weights[i] = listed.ids[i], listed.x[i], weight[i]
    return weight.size


@njit
def result_of(
    address: Scalar,
    dtype: Scalar,
    size: Scalar,
    job: Scalar,
    i: Scalar,
    seed: Scalar,
    offset: Scalar,
    memory: Floats32,
) -> Scalar:
    """Return the token of a row, or what takes its place.

    Listing what is kept is here too: a function apart would take as long again to compile.
    """
    row, good = scan(address, dtype, size, memory)
    if not good:
        return BAD
    chain = Chain(job.params + i * job.params_stride, job.stages)
    kept, listed, block_mass, exp2 = cut(row, chain)
    if job.ids:
        if not listed.x.size:
            listed = list_kept(row, kept)
        return write_list(listed, weigh(row, listed, exp2), job)
    u = philox_uniform(seed, 0, offset)
    if job.uniforms:
        u = carray(pointer(job.uniforms), i + 1, np.float64)[i]
    return draw(row, kept, listed, block_mass, exp2, u)


def _entries(
    sources: str,
) -> tuple[Callable[..., int], Callable[[int, int, int], float], Callable[..., int]]:
    """Return `run`, `uniform` and `uniforms`; another digest of the sources makes them anew.

    numba keeps what it compiled for as long as the function's own file and the variables of its
    closure are the same, whatever becomes of the functions that it calls.
    """

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
        """Draw for each of the rows first..last-1; return the first that is bad, or last."""
        _ = sources
        job = carray(pointer(job_address), 1, JOB)[0]
        memory = memory_for(size)  # lives as long as a call that it is given to
        for i in range(first, last):
            at = address + i * job.stride
            result = result_of(at, dtype, size, job, i, seed, offset, memory)
            if not job.tokens:
                return result
            carray(pointer(job.tokens), last, np.int64)[i] = result
            if result == CHANGED or (result == BAD and not job.mark):
                return i
        return last

    @entry
    def uniform(seed: int, stream: int, offset: int) -> float:
        """Return a uniform, of integers that are taken modulo 2**64."""
        _ = sources
        return philox_uniform(seed, stream, offset)

    @entry
    def uniforms(seeds: int, streams: int, offsets: int, out: int, count: int) -> int:
        """Write the uniforms of as many keys; all are addresses."""
        _ = sources
        u = carray(pointer(out), count, np.float64)
        for i in range(count):
            seed = carray(pointer(seeds), count, np.int64)[i]
            stream = carray(pointer(streams), count, np.int64)[i]
            offset = carray(pointer(offsets), count, np.int64)[i]
            u[i] = philox_uniform(seed, stream, offset)
        return count

    return run, uniform, uniforms


run, uniform, uniforms = _entries(digest_of_sources())


@entry
def address_of(array: npt.NDArray[Any]) -> int:
    return array.ctypes.data  # type: ignore[no-any-return, unused-ignore]
