"""The next token of many sequences, each with its own sampler, in one call: a server's loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import backend
from .arrays import Logits, as_rows
from .masks import mask
from .parameters import SupportsArray
from .reference import to_float32
from .reference.inputs import as_drawn_from, defect_of
from .sampler import Sampler
from .sampling import Errors, Ids, mark_of, thread_limit
from .uniforms import words


def step(
    samplers: Sequence[Sampler],
    logits: Logits,
    *,
    threads: int | None = None,
    errors: Errors = "raise",
    allowed: SupportsArray | None = None,
) -> Ids:
    """Draw the next token of each of B sequences, as its own sampler would.

    Parameters
    ----------
    samplers : sequence of B Samplers
        No two of them the same. Each moves as it does where it is called with its row.
    logits : array, shape (B, V)
        As in `sample`; row i is for sampler i.
    threads : int, optional
        As in `sample`.
    errors : {"raise", "mark"}, default "raise"
        What to do with a bad row: raise, after which no sampler has moved, or yield -1 for it,
        after which its sampler has not.
    allowed : bool array, shape (V,) or (B, V), or packed, optional
        As in `sample`.

    Returns
    -------
    int64 array of shape (B,)
        The token of each row.

    Raises
    ------
    ValueError, TypeError
        As in `sample`; no sampler has moved then.

    Examples
    --------
    >>> import numpy as np
    >>> import fastsample
    >>> greedy = fastsample.Sampler(temperature=0.0, repetition_penalty=2.0)
    >>> samplers = [fastsample.Sampler(top_k=2, seed=7), greedy]
    >>> logits = np.array([[3.0, 2.5, 2.0], [3.0, 2.5, 2.0]], np.float32)
    >>> fastsample.step(samplers, logits)
    array([1, 0])
    >>> fastsample.step(samplers, logits)
    array([0, 1])
    """
    rows, single = as_rows(logits)
    mark, limit = mark_of(errors), thread_limit(threads)
    several = _checked(samplers, rows, single)
    masks = None if allowed is None else mask(allowed, len(rows), False, rows.shape[1])
    tokens = np.empty(len(rows), np.int64)
    if masks is None and _at_once(several, rows, mark, tokens, limit):
        return tokens
    after = []
    for i, sampler in enumerate(several):
        row = rows[i : i + 1]
        inputs = sampler._inputs_of(row, True, None if masks is None else masks[i])
        state = sampler._drawn(row, inputs, True, tokens[i : i + 1], limit)
        if tokens[i] < 0 and not mark:
            edited = as_drawn_from(to_float32(rows[i]), inputs, 0)
            raise ValueError(defect_of(edited, rows[i], inputs, 0, i))
        after.append(state)
    for sampler, token, state in zip(several, tokens.tolist(), after, strict=True):
        if token >= 0:
            sampler._advance(token, state)
    return tokens


def _at_once(
    samplers: list[Sampler], rows: npt.NDArray[Any], mark: bool, tokens: Ids, limit: int
) -> bool:
    """Let the backend draw for all, if it can; else nothing has moved."""
    module = backend.active()
    if not hasattr(module, "Sequence"):
        return False
    sequences = [sampler._sequence for sampler in samplers]
    if None in sequences:
        sequences = [sampler._make_sequence() for sampler in samplers]
    seeds = words("seed", [sampler.seed for sampler in samplers], len(samplers))
    places = [sampler.offset for sampler in samplers]
    offsets = words("offset", places, len(samplers))
    if None in sequences or seeds is None or offsets is None:
        return False
    if not module.step(sequences, rows, seeds, offsets, mark, tokens, limit):
        return False
    for sampler, token, offset in zip(samplers, tokens.tolist(), places, strict=True):
        if token >= 0:
            sampler.offset = offset + 1
            steps = sampler._memory.steps  # type: ignore[union-attr]
            if steps is not None:
                steps.append(offset)
    return True


def _checked(samplers: Any, rows: npt.NDArray[Any], single: bool) -> list[Sampler]:
    """Return the samplers, which have one row each."""
    if single:
        raise ValueError(f"logits must be of shape (B, V), got {rows.shape[1:]}")
    if not isinstance(samplers, (list, tuple)):
        kind = type(samplers).__name__
        raise TypeError(f"samplers must be a list of Samplers, got {samplers!r} ({kind})")
    if len(samplers) != len(rows):
        raise ValueError(f"samplers must be {len(rows)}, one for each row, got {len(samplers)}")
    for i, sampler in enumerate(samplers if set(map(type, samplers)) != {Sampler} else ()):
        if not isinstance(sampler, Sampler):
            kind = type(sampler).__name__
            raise TypeError(f"samplers must hold Samplers, got {sampler!r} ({kind}) (row {i})")
    if len(set(map(id, samplers))) != len(samplers):
        raise ValueError("samplers must not hold the same one twice")
    return list(samplers)
