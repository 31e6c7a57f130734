"""The next token of many sequences, each with its own sampler, in one call: a server's loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from .arrays import Logits, as_rows
from .details import Details, Draw, make_draw, told_of
from .masks import mask
from .parameters import SupportsArray
from .reference import find_defect, to_float32
from .reference.inputs import as_drawn_from, defect_of
from .sampler import Sampler
from .sampling import Errors, Ids, mark_of, thread_limit
from .sequence import step_at_once, step_quickly


@overload
def step(
    samplers: Sequence[Sampler],
    logits: Logits,
    *,
    threads: int | None = ...,
    errors: Errors = ...,
    allowed: SupportsArray | None = ...,
    details: None = ...,
) -> Ids: ...
@overload
def step(
    samplers: Sequence[Sampler],
    logits: Logits,
    *,
    threads: int | None = ...,
    errors: Errors = ...,
    allowed: SupportsArray | None = ...,
    details: Details,
) -> Draw: ...
def step(
    samplers: Sequence[Sampler],
    logits: Logits,
    *,
    threads: int | None = None,
    errors: Errors = "raise",
    allowed: SupportsArray | None = None,
    details: Details | None = None,
) -> Ids | Draw:
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
    details : dict, optional
        What else to tell of the draws: ``logprobs``, ``top_logprobs``, ``support`` and
        ``log_mass``, with the meaning and the defaults that they have in `draw`; ``{}`` asks for
        raw log-probabilities and ranks.

    Returns
    -------
    int64 array of shape (B,), or Draw
        The token of each row; with `details` what `draw` returns of several rows.

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
    >>> drawn = fastsample.step(samplers, logits, details={"top_logprobs": 2})
    >>> drawn.token, drawn.rank
    (array([0, 1]), array([1, 2]))
    >>> drawn.top_logprobs.round(2)
    array([[-0.68, -1.18],
           [-0.68, -1.18]], dtype=float32)
    """
    usual = threads is None and allowed is None and details is None
    if usual and type(errors) is str and errors == "raise":
        drawn = step_quickly(samplers, logits)
        if drawn is not None:
            return drawn
    rows, single = as_rows(logits)
    mark, limit = mark_of(errors), thread_limit(threads)
    told = None if details is None else told_of(details, rows.shape)
    tokens = np.empty(len(rows), np.int64)
    if single or not _at_once(samplers, rows, mark, tokens, limit, allowed, told):
        _one_by_one(_checked(samplers, rows, single), rows, mark, tokens, limit, allowed, told)
    return tokens if told is None else make_draw(tokens, told[1], False)


def _at_once(samplers: Any, rows: npt.NDArray[Any], *given: Any) -> bool:
    """Let the backend draw for all, if it can; else nothing has moved."""
    if not isinstance(samplers, (list, tuple)):
        return False
    try:
        sequences = [sampler._sequence for sampler in samplers]
    except AttributeError:  # no samplers, which is worded elsewhere
        return False
    return len(sequences) == len(rows) and step_at_once(sequences, rows, False, *given)


@contextmanager
def _of_row(i: int) -> Iterator[None]:
    """Let what is wrong with a sampler say whose it is."""
    try:
        yield
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{error} (row {i})") from None


def _one_by_one(
    samplers: list[Sampler],
    rows: npt.NDArray[Any],
    mark: bool,
    tokens: Ids,
    limit: int,
    allowed: Any,
    told: tuple[int, dict[str, npt.NDArray[Any]]] | None,
) -> None:
    """Draw for one after the other, and move them when all have drawn."""
    masks = None if allowed is None else mask(allowed, len(rows), False, rows.shape[1])
    after = []
    for i, sampler in enumerate(samplers):
        row = slice(i, i + 1)
        mine = told and (told[0], {name: array[row] for name, array in told[1].items()})
        with _of_row(i):
            inputs = sampler._inputs_of(rows[row], True, None if masks is None else masks[i])
            state = sampler._drawn(rows[row], inputs, True, tokens[row], limit, mine)
        if tokens[i] < 0 and not mark:
            as_it_came = to_float32(rows[i])
            edited = as_drawn_from(as_it_came, inputs, 0)
            wrong = defect_of(edited, rows[i], inputs, 0, i)
            raise ValueError(wrong or find_defect(as_it_came, i, rows[i]))
        after.append(state)
    for sampler, token, state in zip(samplers, tokens.tolist(), after, strict=True):
        if token >= 0:
            sampler._advance(token, state)


def _checked(samplers: Any, rows: npt.NDArray[Any], single: bool) -> list[Sampler]:
    """Return the samplers, which have one row each."""
    if single:
        raise ValueError(f"logits must be of shape (B, V), got {rows.shape[1:]}")
    if not isinstance(samplers, (list, tuple)):
        kind = type(samplers).__name__
        raise TypeError(f"samplers must be a list of Samplers, got {samplers!r} ({kind})")
    if len(samplers) != len(rows):
        raise ValueError(f"samplers must be {len(rows)}, one for each row, got {len(samplers)}")
    for i, sampler in enumerate(samplers):
        if not isinstance(sampler, Sampler):
            kind = type(sampler).__name__
            raise TypeError(f"samplers must hold Samplers, got {sampler!r} ({kind}) (row {i})")
    if len(set(map(id, samplers))) != len(samplers):
        raise ValueError("samplers must not hold the same one twice")
    return list(samplers)
