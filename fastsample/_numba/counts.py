"""How often ids stand in windows of a history: a table that follows what is pushed and popped.

Its rows are the ids that stand in any window, rising. Ids that no row can have are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..arrays import MAX_VOCAB
from .words import Doubles, Ids, Scalar, entry, njit

Counters = npt.NDArray[np.int32]


@njit
def place_of(ids: Ids, used: Scalar, token: Scalar) -> Scalar:
    """Return where an id is, or would be."""
    low, high = 0, used
    while low < high:
        middle = (low + high) >> 1
        if ids[middle] < token:
            low = middle + 1
        else:
            high = middle
    return low


@njit
def add(
    ids: Ids, counts: Counters, used: Scalar, rule: Scalar, token: Scalar, by: Scalar
) -> Scalar:
    """Count an id once more, or less, by a rule; return how many rows there are then."""
    if token >= MAX_VOCAB:
        return used
    place = place_of(ids, used, token)
    if place == used or ids[place] != token:
        for i in range(used, place, -1):
            ids[i] = ids[i - 1]
            for k in range(len(counts)):
                counts[k, i] = counts[k, i - 1]
        ids[place] = token
        counts[:, place] = 0
        used += 1
    counts[rule, place] += by
    for k in range(len(counts)):
        if counts[k, place] != 0:
            return used
    for i in range(place, used - 1):
        ids[i] = ids[i + 1]
        for k in range(len(counts)):
            counts[k, i] = counts[k, i + 1]
    return used - 1


@entry
def move(
    tokens: Ids, first: int, last: int, by: int, windows: Ids, whole: npt.NDArray[np.bool_],
    prompt: int, ids: Ids, counts: Counters, used: int,
) -> int:  # fmt: skip
    """Count tokens first..last-1 as they enter at the end (by 1), or leave from there (by -1).

    The prompt counts for those rules that look at the whole.
    """
    for step in range(last - first):
        at = first + step if by > 0 else last - 1 - step
        for rule in range(windows.size):
            window, start = windows[rule], 0 if whole[rule] else prompt
            if window == 0:
                continue
            if at >= start:
                used = add(ids, counts, used, rule, tokens[at], by)
            out = at - window
            if window > 0 and out >= start:
                used = add(ids, counts, used, rule, tokens[out], -by)
    return used


LARGEST = 1.7976931348623157e308


@njit
def held(x: float) -> float:
    return min(max(x, -LARGEST), LARGEST)


@njit
def copy(to: Scalar, edit: Scalar) -> None:
    to.id, to.banned, to.factor = edit.id, edit.banned, edit.factor
    to.subtract, to.bias = edit.subtract, edit.bias


@entry
def fill(
    edits: npt.NDArray[np.void], ids: Ids, counts: Counters, kinds: Ids, values: Doubles,
    others: npt.NDArray[np.void], vocab: int,
) -> int:  # fmt: skip
    """Write what counted ids are edited by and the edits of others, as one of each id, rising.

    The kinds are those of ``COUNTING`` in history.py. Ids from ``vocab`` on are left out. Returns
    how many edits there are.
    """
    size = other = 0
    for i in range(ids.size):
        if ids[i] >= vocab:
            break
        while other < others.size and others[other].id < ids[i]:
            copy(edits[size], others[other])
            size, other = size + 1, other + 1
        edit = edits[size]
        edit.id, edit.banned, edit.factor, edit.subtract, edit.bias = ids[i], 0, 1.0, 0.0, 0.0
        for rule in range(kinds.size):
            times, kind, value = counts[rule, i], kinds[rule], values[rule]
            if times == 0:
                continue
            if kind == 0:
                edit.factor = value
            elif kind == 3:
                edit.banned = 1
            else:
                edit.subtract = held(edit.subtract + held(value * times if kind == 1 else value))
        if other < others.size and others[other].id == ids[i]:
            edit.banned |= others[other].banned
            edit.bias = others[other].bias
            edit.subtract = held(edit.subtract + others[other].subtract)
            other += 1
        size += 1
    while other < others.size and others[other].id < vocab:
        copy(edits[size], others[other])
        size, other = size + 1, other + 1
    return size


class Counts:
    """The table; ``windows`` are lengths, -1 for all, and ``whole`` whether the prompt counts."""

    def __init__(self, windows: Sequence[int], whole: Sequence[bool]) -> None:
        # A window longer than any history is all of it.
        self._windows = np.array([min(n, 2**62) for n in windows], np.int64)
        self._whole = np.array(whole, np.bool_)
        self._ids = np.empty(0, np.int64)
        self._counts = np.empty((len(windows), 0), np.int32)
        self._used = 0

    def start(self, tokens: Ids, prompt_length: int) -> None:
        """Count all tokens anew."""
        firsts = np.where(self._whole, 0, prompt_length)
        firsts = np.where(
            self._windows < 0, firsts, np.maximum(firsts, tokens.size - self._windows)
        )
        if not firsts.size:
            return
        known = tokens < MAX_VOCAB
        lowest = int(min(firsts.min(), tokens.size))
        ids = np.unique(tokens[lowest:][known[lowest:]])
        self._ids, self._used = ids, ids.size
        self._counts = np.zeros((firsts.size, ids.size), np.int32)
        for counts, first in zip(self._counts, firsts.tolist(), strict=True):
            mine = tokens[first:][known[first:]]
            counts[:] = np.bincount(np.searchsorted(ids, mine), minlength=ids.size)

    def push(self, tokens: Ids, first: int, last: int, prompt_length: int) -> None:
        """Count tokens first..last-1, which have been added."""
        self._move(tokens, first, last, 1, prompt_length)

    def pop(self, tokens: Ids, size: int, kept: int, prompt_length: int) -> None:
        """Count no longer tokens kept..size-1, which are taken from the end."""
        self._move(tokens, kept, size, -1, prompt_length)

    def _move(self, tokens: Ids, first: int, last: int, by: int, prompt_length: int) -> None:
        if not self._windows.size:
            return
        most = self._used + (last - first) * self._windows.size + 1
        if most > self._ids.size:
            room = max(most, 2 * self._ids.size)
            self._ids = np.resize(self._ids, room)
            wider = np.zeros((len(self._counts), room), np.int32)
            wider[:, : self._used] = self._counts[:, : self._used]
            self._counts = wider
        self._used = move(
            tokens, first, last, by, self._windows, self._whole, prompt_length, self._ids,
            self._counts, self._used,
        )  # fmt: skip

    def of_ids(self) -> tuple[Ids, Counters]:
        """Return the ids that are counted, rising, and how often each rule has."""
        return self._ids[: self._used], self._counts[:, : self._used]
