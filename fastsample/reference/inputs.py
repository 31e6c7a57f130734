"""What a draw has beside logits, parameters and u: the keywords that every backend takes.

``coin`` (B,), ``state`` (B, 2), ``edits`` (records of ``EDIT``) with ``edit_offsets`` (B + 1,), and
``allowed`` (B, words) of uint32. Each of them may be missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from . import edits, mask
from .distribution import State
from .edits.edit import Edit
from .row import Floats32, find_defect, to_float32

Inputs = Mapping[str, Any]


def of_rows(inputs: Inputs, first: int, last: int) -> dict[str, Any]:
    """Return the inputs of rows first to last - 1, as those of a batch of their own."""
    mine = {
        name: inputs[name][first:last] for name in ("coin", "state", "allowed") if name in inputs
    }
    if "edits" in inputs:
        ends = inputs["edit_offsets"][first : last + 1]
        mine["edits"] = inputs["edits"][ends[0] : ends[-1]]
        mine["edit_offsets"] = ends - ends[0]
    return mine


def of_row(inputs: Inputs, i: int) -> dict[str, Any]:
    """Return the inputs of one row, as those of a batch of one."""
    return of_rows(inputs, i, i + 1)


def edits_at(inputs: Inputs, i: int) -> npt.NDArray[np.void]:
    """Return the edits of one row, records of ``EDIT``, of inputs that have edits."""
    first, last = inputs["edit_offsets"][i : i + 2]
    mine: npt.NDArray[np.void] = inputs["edits"][first:last]
    return mine


def _edits_of(inputs: Inputs, i: int) -> list[Edit]:
    if "edits" not in inputs:
        return []
    return [
        Edit(int(e["id"]), e["factor"], e["subtract"], e["bias"], bool(e["banned"]))
        for e in edits_at(inputs, i)
    ]


def as_drawn_from(row: Floats32, inputs: Inputs, i: int) -> Floats32:
    """Return a row as it is edited and masked."""
    if "edits" in inputs:
        row = edits.apply(row, _edits_of(inputs, i))
    if "allowed" in inputs:
        row = mask.apply(row, mask.allowed_of(row.size, inputs["allowed"][i]))
    return row


def defect_of(
    row: Floats32, given: npt.NDArray[Any], inputs: Inputs, i: int, index: int
) -> str | None:
    """Say what is wrong with a row as it is drawn from, or None; its number is `index`."""
    mine = inputs["allowed"][i] if "allowed" in inputs else None
    none_allowed = mine is not None and not mask.allowed_of(row.size, mine).any()
    infinite = np.flatnonzero(row == np.inf)
    if infinite.size and not np.isnan(row).any():
        token = int(infinite[0])
        value = to_float32(given[token : token + 1])[0]
        for edit in _edits_of(inputs, i):
            if edit.id == token and value < np.inf:
                return edits.beyond_float32(index, float(edits.exactly(value, *edit[1:])), token)
    return find_defect(row, index, given, none_allowed=none_allowed)


def coin_of(inputs: Inputs, i: int) -> float | None:
    """Return the uniform of a row's coin, if there is one."""
    return float(inputs["coin"][i]) if "coin" in inputs else None


def state_of(inputs: Inputs, i: int) -> State:
    """Return a row's state; none is the start."""
    return tuple(inputs["state"][i].tolist()) if "state" in inputs else ()
