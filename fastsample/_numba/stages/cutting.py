"""A row on its way through the stages, and what stages ask about what is left of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..row import (
    ALL_TIES,
    FLOAT32,
    INFINITY,
    Kept,
    Row,
    Survivors,
    block,
    copy_floats,
    count_at_least,
    kept_mass,
    list_kept,
    weigh,
)
from ..vectors import BLOCK, largest_lane, scan_floats
from ..weights import LARGEST, Exp2
from ..words import Scalar, ShortIds, njit

SMALL_ROW = 512  # up to here a list of all is faster than a search


class Cutting(NamedTuple):
    """What is kept of a row: what is before a place, or a list unless that is empty."""

    row: Row
    kept: Kept
    listed: Survivors


@njit
def list_of(c: Cutting) -> Survivors:
    return c.listed if c.listed.x.size else list_kept(c.row, c.kept)


@njit
def mass_of(c: Cutting, exp2: Exp2) -> Scalar:
    if c.listed.x.size:
        return weigh(c.row, c.listed, exp2).sum()
    return kept_mass(c.row, exp2, c.kept).sum()


@njit
def count_of(c: Cutting) -> Scalar:
    if c.listed.x.size or c.kept.last != ALL_TIES:
        return list_of(c).x.size
    count = 0
    for b in range(c.row.block_max.size):
        if c.row.block_max[b] >= c.kept.tau:
            count += count_at_least(block(c.row, b), c.kept.tau)
    return count


@njit
def only(c: Cutting, stays: Scalar, listed: Survivors) -> Cutting:
    """Keep those of a list of all that is kept whose place is set in `stays`.

    What is above may be gone: the maxima become those of what is left.
    """
    size = 0
    for i in range(stays.size):
        size += stays[i]
    ids, x = np.empty(size, np.uint32), np.empty(size, np.float32)
    size = 0
    maxima = c.row.block_max
    maxima[:] = -INFINITY
    row_max = -INFINITY
    for i in range(stays.size):
        if stays[i]:
            ids[size], x[size] = listed.ids[i], listed.x[i]
            b = ids[size] // BLOCK
            maxima[b] = max(maxima[b], x[size])
            row_max = max(row_max, x[size])
            size += 1
    r = c.row
    row = Row(r.address, r.dtype, r.size, r.scratch, r.lane_max, maxima, row_max)
    return Cutting(row, Kept(-LARGEST, ALL_TIES), Survivors(ids, x))


@njit
def without(row: Row, ids: ShortIds) -> Row:
    """Return a row that lacks some tokens: a copy of what it read, with the maxima of what is left.

    The copy lives as long as the array that its scratch is a part of.
    """
    memory = np.empty(BLOCK + row.size, np.float32)
    scratch, x = memory[:BLOCK], memory[BLOCK:]
    copy_floats(row, x)
    for i in range(ids.size):
        x[ids[i]] = -INFINITY
    at = np.int64(x.ctypes.data)
    maxima, lane_max = row.block_max, row.lane_max
    without_max = Row(at, np.int64(FLOAT32), row.size, scratch, lane_max, maxima, row.max)
    for i in range(ids.size):
        b = ids[i] // BLOCK
        scan_floats(block(without_max, b), lane_max[b])
        maxima[b] = largest_lane(lane_max[b])
    row_max = maxima.max()
    return Row(at, np.int64(FLOAT32), row.size, scratch, lane_max, maxima, row_max)
