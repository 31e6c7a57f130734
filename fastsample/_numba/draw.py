"""What Python calls: rows, and what else comes from there, are addresses.

So all dtypes and layouts share one compiled function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from .cut import ADAPTIVE, MIROSTAT, Chain, State, cut, stage_at
from .edits import copy_edited
from .row import (
    FLOAT32,
    Survivors,
    kept_mass,
    list_block,
    memory_for,
    row_at,
    scan,
    weigh,
)
from .stages.adaptive import aim_of, reweigh, start_of
from .stages.cutting import SMALL_ROW, Cutting, list_of
from .stages.mirostat import next_mu
from .weights import Exp2, exp2_scale
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
def draw(c: Cutting, block_mass: Ids, exp2: Exp2, u: float) -> tuple[Scalar, float]:
    """Return the token where the cumulative weight exceeds u, and its probability.

    CHANGED where there is none.
    """
    row, listed = c.row, c.listed
    if not listed.x.size and not block_mass.size and row.size <= SMALL_ROW:
        listed = list_of(c)
    if listed.x.size:
        weight = weigh(row, listed, exp2)
        total = weight.sum()
        at = min(np.int64(u * total), total - 1)
    else:
        if not block_mass.size:
            block_mass = kept_mass(row, exp2, c.kept)
        total = block_mass.sum()
        b, at = locate(block_mass, min(np.int64(u * total), total - 1))
        listed = list_block(row, b, c.kept)
        weight = weigh(row, listed, exp2)
    if not weight.size:  # something has written to the row meanwhile
        return CHANGED, 0.0
    i, _ = locate(weight, at)
    token = np.int64(listed.ids[i])
    return (token if token < row.size else CHANGED), weight[i] / np.float64(total)


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
        ("facts", np.int64),  # with them: the temperature, and what they weighed unless redrawn
    ]
)
#: The same of chains with more than the four stages that all share.
EXTRA = np.dtype(
    [
        ("coin", np.int64),  # uniforms of the coins, or 0: none is needed
        ("state", np.int64),  # two numbers a row, which are moved, or 0: all at their start
        ("edits", np.int64),  # records, with the places where those of each row begin; or 0
        ("edit_offsets", np.int64),
        ("allowed", np.int64),  # so many words a row, or 0: all are
        ("words", np.int64),
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
def write_facts(job: Scalar, temperature: float, before: Scalar) -> None:
    facts = carray(pointer(job.facts), 2, np.float64)
    facts[0], facts[1] = temperature, np.float64(before)


@njit
def find_stateful(chain: Chain) -> Scalar:
    """Return which stage has a state, or -1."""
    for i in range(chain.stages):
        stage = stage_at(chain, i)
        if stage.kind in (MIROSTAT, ADAPTIVE) and stage.value[0] > 0.0:
            return i
    return -1


@njit
def state_of(extra: Scalar, i: Scalar) -> State:
    coin = carray(pointer(extra.coin), i + 1, np.float64)[i] if extra.coin else 0.0
    if not extra.state:
        return State(coin, False, 0.0, 0.0)
    numbers = carray(pointer(extra.state), (i + 1, 2), np.float64)
    return State(coin, True, numbers[i, 0], numbers[i, 1])


@njit
def result_of(
    address: Scalar,
    dtype: Scalar,
    size: Scalar,
    job: Scalar,
    extra: Scalar,
    i: Scalar,
    seed: Scalar,
    offset: Scalar,
    memory: Floats32,
    copy: Floats32,
) -> Scalar:
    """Return the token of a row, or what takes its place.

    Listing what is kept is here too: a function apart would take as long again to compile.
    """
    if extra is not None:  # noqa: SIM102 - one condition is not seen to be constant
        if copy.size:
            copy_edited(row_at(address, dtype, size, memory), copy, extra, i)
            address, dtype = np.int64(copy.ctypes.data), np.int64(FLOAT32)
    row, good = scan(address, dtype, size, memory)
    if not good:
        return BAD
    chain = Chain(job.params + i * job.params_stride, job.stages)
    if extra is None:
        c, block_mass, divisor = cut(row, chain, None)
    else:
        state = state_of(extra, i)
        c, block_mass, divisor = cut(row, chain, state)
    if divisor == 0.0 and c.listed.ids.size and not job.ids:  # greedy: one is left
        token = np.int64(c.listed.ids[0])
        return token if token < size else CHANGED
    u = philox_uniform(seed, 0, offset, 0)
    if job.uniforms:
        u = carray(pointer(job.uniforms), i + 1, np.float64)[i]
    exp2 = Exp2(c.row.max, exp2_scale(divisor if divisor > 0.0 else 1.0))
    if extra is not None:
        at = find_stateful(chain) if divisor > 0.0 else -1
        stage = stage_at(chain, max(at, 0))
        if at >= 0 and stage.kind == ADAPTIVE:
            return adapted(c, exp2, divisor, stage.value, state, u, job, extra, i)
    if job.ids:
        listed = list_of(c)
        write_facts(job, divisor, 0)
        return write_list(listed, weigh(c.row, listed, exp2), job)
    token, q = draw(c, block_mass, exp2, u)
    if extra is not None:  # noqa: SIM102 - one condition is not seen to be constant
        if at >= 0 and extra.state and token >= 0:
            mu = next_mu(state.first, stage.value[1], stage.value[2], q)
            carray(pointer(extra.state), (i + 1, 2), np.float64)[i, 0] = mu
    return token


@njit
def adapted(
    c: Cutting,
    exp2: Exp2,
    divisor: float,
    value: Scalar,
    state: State,
    u: float,
    job: Scalar,
    extra: Scalar,
    i: Scalar,
) -> Scalar:
    """Do the rest of the same where tokens are drawn with other weights than those of logits."""
    drawn, count = (state.first, state.second) if state.known else start_of(value)
    listed = list_of(c)
    before = weigh(c.row, listed, exp2)
    weight, q = reweigh(before, aim_of(value[0], drawn, count))
    if job.ids:
        write_facts(job, divisor, before.sum())
        return write_list(listed, weight, job)
    total = weight.sum()
    place, _ = locate(weight, min(np.int64(u * total), total - 1))
    if extra.state:
        numbers = carray(pointer(extra.state), (i + 1, 2), np.float64)
        numbers[i, 0] = q[place] + value[1] * drawn
        numbers[i, 1] = 1.0 + value[1] * count
    return min(np.int64(listed.ids[place]), c.row.size - 1)


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
        extra_address: int | None,
    ) -> int:
        """Draw for each of the rows first..last-1; return the first that is bad, or last."""
        _ = sources
        job = carray(pointer(job_address), 1, JOB)[0]
        # Memory lives as long as a call that it is given to.
        memory = memory_for(size)
        if extra_address is None:
            extra = None
            copy = carray(pointer(0), 0, np.float32)
        else:
            extra = carray(pointer(extra_address), 1, EXTRA)[0]
            copy = np.empty(size if extra.edits or extra.allowed else 0, np.float32)
        for i in range(first, last):
            at = address + i * job.stride
            result = result_of(at, dtype, size, job, extra, i, seed, offset, memory, copy)
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
        return philox_uniform(seed, stream, offset, 0)

    @entry
    def uniforms(seeds: int, streams: int, offsets: int, out: int, count: int, use: int) -> int:
        """Write the uniforms of a use, of as many keys; these are addresses."""
        _ = sources
        u = carray(pointer(out), count, np.float64)
        for i in range(count):
            seed = carray(pointer(seeds), count, np.int64)[i]
            stream = carray(pointer(streams), count, np.int64)[i]
            offset = carray(pointer(offsets), count, np.int64)[i]
            u[i] = philox_uniform(seed, stream, offset, use)
        return count

    return run, uniform, uniforms


run, uniform, uniforms = _entries(digest_of_sources())


@entry
def address_of(array: npt.NDArray[Any]) -> int:
    return array.ctypes.data  # type: ignore[no-any-return, unused-ignore]
