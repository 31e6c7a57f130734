"""Edits and masks: the row is copied, and the copy is what all else reads."""

from __future__ import annotations

import numpy as np

from ..records import EDIT
from .row import INFINITY, Row, copy_floats
from .vectors import clear_forbidden
from .words import Floats32, Scalar, carray, njit, pointer


@njit
def edited(x: Scalar, edit: Scalar) -> Scalar:
    """Return what an edit makes of a value: in float64, rounded once. What is -inf stays so."""
    if edit.banned or x == -INFINITY:
        return -INFINITY
    v = np.float64(x) + edit.bias
    v = v / edit.factor if v > 0.0 else v * edit.factor
    return np.float32(v - edit.subtract)


@njit
def copy_edited(row: Row, to: Floats32, extra: Scalar, i: Scalar) -> None:
    """Write row i as float32, with its edits and with -inf for what is not allowed."""
    copy_floats(row, to)
    if extra.edits:
        ends = carray(pointer(extra.edit_offsets), i + 2, np.int64)
        edits = carray(pointer(extra.edits), ends[i + 1], EDIT)
        for k in range(ends[i], ends[i + 1]):
            at = edits[k].id
            if 0 <= at < row.size:
                to[at] = edited(to[at], edits[k])
    if extra.allowed:
        words = carray(pointer(extra.allowed), (i + 1, extra.words), np.uint32)[i]
        whole = min(words.size, row.size // 32)
        for w in range(whole):
            clear_forbidden(to, 32 * w, words[w])
        for j in range(32 * whole, row.size):
            word = words[j >> 5] if j >> 5 < words.size else np.uint32(0)
            if not (word >> np.uint32(j & 31)) & np.uint32(1):
                to[j] = -INFINITY
