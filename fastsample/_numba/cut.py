"""Every truncation is a cut in one total order: walks a row through its chain of stages."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..records import KINDS, STAGE
from .elementary import LN2, natural_log
from .lists import find_prefix, share_of
from .row import (
    ALL_TIES,
    Kept,
    Row,
    Survivors,
    block,
    keep,
    list_kept,
    weigh,
)
from .stages.cutting import SMALL_ROW, Cutting, count_of, mass_of
from .stages.eta_cutoff import weight_of_eta
from .stages.floor import keep_floor, place_of, place_of_log
from .stages.mirostat import count_of_mirostat
from .stages.p_less import weight_of_p_less
from .stages.p_less_norm import weight_of_p_less_norm
from .stages.temperature import dynamic
from .stages.top_h import count_of_top_h
from .stages.top_k import keep_top_k
from .stages.top_n_sigma import bound_of_sigma
from .stages.top_p import cut_top_p
from .stages.typical_p import keep_typical
from .stages.xtc import exclude_top
from .vectors import BLOCK
from .weights import LARGEST, UNIT, Exp2, exp2_scale
from .words import Ids, Scalar, carray, njit, pointer

(
    TEMPERATURE,
    TOP_K,
    TOP_P,
    MIN_P,
    TYPICAL_P,
    EPSILON_CUTOFF,
    ETA_CUTOFF,
    TOP_A,
    P_LESS,
    TOP_N_SIGMA,
    TOP_H,
    XTC,
    MIROSTAT,
    ADAPTIVE,
    P_LESS_NORM,
) = range(1, len(KINDS) + 1)


class Chain(NamedTuple):
    """A record of a chain: min_tokens_to_keep, then so many stages."""

    address: Scalar
    stages: Scalar


@njit
def stage_at(chain: Chain, i: Scalar) -> Scalar:
    return carray(pointer(chain.address + 8), i + 1, STAGE)[i]


@njit
def is_greedy(chain: Chain) -> bool:
    for i in range(chain.stages):
        stage = stage_at(chain, i)
        if stage.kind == TEMPERATURE and stage.value[0] == 0.0:
            return True
    return False


class State(NamedTuple):
    """What a draw has beside its parameters: the uniform of a coin, and the numbers of a stage."""

    coin: Scalar
    known: Scalar  # or the stage is at its start
    first: Scalar
    second: Scalar


@njit
def bound_of(c: Cutting, exp2: Exp2, temperature: float, stage: Scalar, mu: float) -> Scalar:
    """Return the least value that a floor keeps."""
    kind, value = stage.kind, stage.value[0]
    if kind == TOP_N_SIGMA:
        return bound_of_sigma(c, value)
    if kind == P_LESS:
        weight = weight_of_p_less(c, exp2)
    elif kind == P_LESS_NORM:
        weight = weight_of_p_less_norm(c, exp2)
    elif kind == ETA_CUTOFF:
        weight = weight_of_eta(c, exp2, value)
    else:
        total = mass_of(c, exp2) * UNIT
        if kind == MIROSTAT:
            return place_of_log(c.row.max, temperature, natural_log(total) - mu * LN2)
        weight = value * total if kind == EPSILON_CUTOFF else value / total  # or top_a
    return place_of(c.row.max, temperature, weight)


@njit
def run_stage(
    c: Cutting, exp2: Exp2, temperature: float, stage: Scalar, state: State, least: Scalar
) -> Cutting:
    """Return what a stage keeps that only some chains have."""
    kind, value = stage.kind, stage.value
    count = size = c.row.size
    mu = state.first if state.known else 2.0 * value[1]
    if kind == TYPICAL_P:
        return keep_typical(c, exp2, temperature, value[0], least)
    if kind == XTC:
        return exclude_top(c, exp2, temperature, value[1], least) if state.coin < value[0] else c
    if kind == TOP_H:
        count = count_of_top_h(c, temperature, value[0])
    elif kind == MIROSTAT and value[0] == 1.0:
        size = count_of(c)
        count = count_of_mirostat(c, temperature, mu, size)
    else:
        bound = bound_of(c, exp2, temperature, stage, mu)
        return keep_floor(c, Kept(bound, ALL_TIES), least)
    if count >= size:
        return c
    return Cutting(c.row, c.kept, keep_top_k(c.row, c.kept, c.listed, max(count, least)))


@njit
def is_off(stage: Scalar, size: Scalar) -> bool:
    kind, value = stage.kind, stage.value[0]
    if kind == TEMPERATURE:
        return value == 1.0 and stage.value[1] == 0.0
    if kind == TOP_K:
        return value <= 0 or value >= size
    if kind in (TOP_P, TYPICAL_P):
        return value >= 1.0
    return value <= 0.0 or kind == ADAPTIVE  # which changes nothing until the draw


@njit
def stricter(a: Cutting, b: Cutting) -> Cutting:
    """Return what both keep, of floors that cut the same."""
    if a.listed.x.size:
        if b.listed.x.size:
            return a if a.listed.x.size < b.listed.x.size else b
        return Cutting(a.row, a.kept, keep(a.listed, b.kept))
    if b.listed.x.size:
        return Cutting(a.row, b.kept, keep(b.listed, a.kept))
    below = a.kept.tau < b.kept.tau or (a.kept.tau == b.kept.tau and a.kept.last > b.kept.last)
    return b if below else a


@njit
def first_of_max(row: Row) -> Survivors:
    # Bounded, should something write to the row meanwhile; the draw refuses an id beyond it.
    b = 0
    while row.block_max[b] < row.max and b < row.block_max.size - 1:
        b += 1
    values, j = block(row, b), 0
    while values[j] < row.max and j < BLOCK - 1:
        j += 1
    ids = np.empty(1, np.uint32)
    ids[0] = b * BLOCK + j
    return Survivors(ids, values[j : j + 1])


@njit
def cut(row: Row, chain: Chain, state: State | None) -> tuple[Cutting, Ids, float]:
    """Run the stages; without a state, these are the four that all chains share.

    Return what is kept, its mass per block where that is known, else empty, and the temperature of
    the draw, 0 where it is greedy. What no chain of its kind has is not compiled: that takes long.
    """
    unknown = block_mass = carray(pointer(0), 0, np.int64)
    none = pointer(0)
    listed = Survivors(carray(none, 0, np.uint32), carray(none, 0, np.float32))
    c = before = Cutting(row, Kept(-LARGEST, ALL_TIES), listed)
    if is_greedy(chain):
        return Cutting(row, c.kept, first_of_max(row)), unknown, 0.0

    least = carray(pointer(chain.address), 1, np.int64)[0]
    divisor = 1.0
    for i in range(chain.stages):
        stage = stage_at(chain, i)
        kind, value = stage.kind, stage.value[0]
        if not stage.joint:
            before = c
        if is_off(stage, row.size):
            continue
        after = before
        exp2 = Exp2(before.row.max, exp2_scale(divisor))
        block_mass = unknown
        if kind == TEMPERATURE:
            divisor = value
            if state is not None:
                divisor = dynamic(c, value, stage.value[1], stage.value[2])
                if divisor == 0.0:
                    listed = keep_top_k(c.row, c.kept, c.listed, 1)
                    return Cutting(c.row, c.kept, listed), unknown, 0.0
        elif kind == TOP_K:
            k = max(np.int64(value), least)
            after = Cutting(c.row, c.kept, keep_top_k(before.row, before.kept, before.listed, k))
        elif kind == MIN_P:
            place = Kept(place_of(before.row.max, divisor, value), ALL_TIES)
            after = keep_floor(before, place, least)
        elif kind == TOP_P:
            if not before.listed.x.size and row.size <= SMALL_ROW:
                listed = list_kept(before.row, before.kept)
                before = Cutting(before.row, before.kept, listed)
            if before.listed.x.size:
                weight = weigh(before.row, before.listed, exp2)
                place = find_prefix(before.listed, weight, share_of(value, weight.sum()))
            else:
                place, block_mass = cut_top_p(before.row, exp2, value, before.kept.tau)
            after = keep_floor(before, place, least)
            if stage.joint or after.listed.x.size:
                block_mass = unknown
        elif state is not None:
            after = run_stage(before, exp2, divisor, stage, state, least)
        c = stricter(c, after) if stage.joint else after
    return c, block_mass, divisor
