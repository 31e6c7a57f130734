"""Histories and states of rows, as a backend takes them. Depends on ``rules.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from . import backend
from .lists import Ids, ids_of
from .masks import masks
from .parameters import IdLists
from .plans import Plan
from .records import EDIT
from .records import STATES as SIZES
from .rules import Rules, check_ids
from .values import any_integer, column, named, plain, refuse_masked

States: TypeAlias = npt.NDArray[np.float64]
Edits: TypeAlias = dict[str, npt.NDArray[Any]]
#: The tokens so far: ids, or those of each row.
Histories: TypeAlias = IdLists


class History(NamedTuple):
    """The tokens of a row so far, and how many of them are its prompt."""

    tokens: Ids
    prompt_length: int


def histories(rows: int, single: bool, history: Any, prompt_length: Any) -> list[History] | None:
    """Return the history of each row."""
    if history is None:
        if prompt_length is not None:
            raise ValueError("prompt_length must come with a history")
        return None
    refuse_masked("history", history)
    if single:
        tokens = [ids_of("history", history)]
    else:
        several = isinstance(history, np.ndarray) and history.ndim > 0
        given = history if several else plain("history", history)
        if not isinstance(given, (list, np.ndarray)) or len(given) != rows:
            count = str(len(given)) if hasattr(given, "__len__") else repr(history)
            raise ValueError(
                f"history must have a list of ids for each of {rows} rows, got {count}"
            )
        tokens = [ids_of("history", ids, f" (row {row})") for row, ids in enumerate(given)]
    lengths = column("prompt_length", 0 if prompt_length is None else prompt_length, rows,
                     any_integer)  # fmt: skip
    made = []
    for row, ids in enumerate(tokens):
        length = lengths[row] if isinstance(lengths, list) else lengths
        if not 0 <= length <= ids.size:
            where = "" if single else f" (row {row})"
            raise ValueError(f"prompt_length must be in [0, {ids.size}], got {length}{where}")
        made.append(History(ids, length))
    return made


def edits_of(
    rules: Rules | Sequence[Rules], past: Sequence[History] | None, rows: int, vocab: int
) -> Edits:
    """Return the edits of each row."""
    made = []
    for row in range(rows):
        mine = rules if isinstance(rules, Rules) else rules[row]
        if mine.needs_history and past is None:
            where = "" if isinstance(rules, Rules) else f" (row {row})"
            raise ValueError(f"history must be given where {mine.needs_history} is on{where}")
        if not mine.rules:
            made.append(np.empty(0, EDIT))
            continue
        history = backend.history(mine.rules)
        if past is not None:
            history.start(*past[row])
        made.append(history.edits(vocab))
    return together(made)


def together(made: Sequence[npt.NDArray[np.void]]) -> Edits:
    """Return the edits of each row as a backend takes those of all."""
    ends = np.cumsum([0, *(len(mine) for mine in made)], dtype=np.int64)
    if not ends[-1]:
        return {}
    if len(made) == 1:
        return {"edits": made[0], "edit_offsets": ends}
    # As numbers: of records NumPy copies field by field, ten times slower.
    whole = np.concatenate([mine.view(np.float64) for mine in made])
    return {"edits": whole.view(EDIT), "edit_offsets": ends}


def states(value: Any, stateful: str | None, rows: int, single: bool) -> States:
    """Return a copy of states, (B, 2), as backends take them."""
    if stateful is None:
        raise ValueError("state must be None where no stage has one")
    size = SIZES[stateful]
    refuse_masked("state", value)
    with named("state must be numbers"):
        array = np.asarray(value)
    if array.dtype != np.float64:
        raise TypeError(f"state must be float64, got {array.dtype}")
    shape = (size,) if single else (rows, size)
    if array.shape != shape:
        raise ValueError(f"state must be of shape {shape}, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"state must be finite, got {array.tolist()}")
    if stateful == "adaptive" and not (array[..., 1] > 0.0).all():
        raise ValueError(f"state must have a positive second number, got {array.tolist()}")
    whole = np.zeros((rows, 2))
    whole[:, :size] = array
    return whole


def inputs_of(
    plan: Plan,
    rows: npt.NDArray[Any],
    single: bool,
    history: Any,
    prompt_length: Any,
    allowed: Any,
    vocab_size: Any,
    state: Any,
) -> dict[str, Any]:
    """Return what a backend takes beside rows, records, uniforms and coins."""
    count, vocab = rows.shape
    inputs: dict[str, Any] = {}
    past = histories(count, single, history, prompt_length)
    if plan.rules is not None:
        check_ids(plan.rules, vocab)
        inputs |= edits_of(plan.rules, past, count, vocab)
    if plan.rules is not None or allowed is not None or vocab_size is not None:
        inputs |= masks(plan.rules, allowed, vocab_size, count, single, vocab)
    if state is not None:
        inputs["state"] = states(state, plan.stateful, count, single)
    return inputs
