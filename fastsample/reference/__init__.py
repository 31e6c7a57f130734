"""The specification: every parameter's meaning in plain NumPy, float64, sorted and obvious.

It has the functions of every backend, and is slow on purpose. A row is read in ``row.py``, edited
by the rules in ``edits/``, masked in ``mask.py``, and walks through its chain in ``chain.py``; what
a stage keeps stands in its file in ``stages/``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..records import Records, steps
from . import details as told
from .chain import Step, draw, state_after, uniform, walk
from .distribution import Distribution, Floats, Ids
from .history import History
from .inputs import Inputs, as_drawn_from, coin_of, defect_of, of_row, state_of
from .row import Rows, find_defect, to_float32
from .verification import verify

__all__ = [
    "Floats",
    "History",
    "Ids",
    "Rows",
    "find_defect",
    "log_softmax",
    "probs",
    "sample",
    "sample_details",
    "softmax",
    "survivors",
    "survivors_of",
    "to_float32",
    "uniform",
    "uniforms",
    "verify",
]


def chain_of(p: np.void) -> list[Step]:
    """Return the chain that a record stands for."""
    return [Step(*step) for step in steps(p)]


def _row(rows: Rows, i: int, inputs: Inputs) -> npt.NDArray[np.float32]:
    return as_drawn_from(to_float32(rows[i]), inputs, i)


def _walk(row: npt.NDArray[np.float32], params: Records, i: int, inputs: Inputs) -> Distribution:
    p = params[0 if params.size == 1 else i]
    at_least = int(p["min_tokens_to_keep"])
    return walk(row, chain_of(p), at_least, coin=coin_of(inputs, i), state=state_of(inputs, i))


def survivors_of(row: npt.NDArray[np.float32], p: np.void) -> tuple[Ids, Floats]:
    """Return what is kept of a row: ids by falling value and rising id, and their probabilities."""
    d = walk(row, chain_of(p), int(p["min_tokens_to_keep"]))
    return d.ids, d.probs


def sample(
    rows: Rows,
    params: Records,
    u: Floats,
    mark: bool,
    tokens: Ids,
    threads: int = 0,
    **inputs: Any,
) -> None:
    """Draw one token per row into `tokens`: the inverse CDF of u, in index order.

    The inputs are those of ``inputs.py``; a state is moved where the whole call succeeds.
    """
    sample_details(rows, params, u, mark, tokens, threads, 0, {}, **inputs)


def sample_details(
    rows: Rows,
    params: Records,
    u: Floats,
    mark: bool,
    tokens: Ids,
    threads: int,
    logprobs: int,
    details: told.Arrays,
    **inputs: Any,
) -> None:
    """Do the same, and write what is asked for of each draw (see ``details.py``).

    `logprobs` is RAW or PROCESSED, or 0 where they are not asked for.
    """
    drawn = np.empty_like(tokens)
    states = np.array(inputs.get("state", ()))
    for i in range(len(rows)):
        row = _row(rows, i, inputs)
        as_it_came = to_float32(rows[i])
        defect = defect_of(row, rows[i], inputs, i, i)
        if logprobs == told.RAW and defect is None:
            defect = find_defect(as_it_came, i, rows[i])
        if defect is not None:
            if not mark:
                raise ValueError(defect)
            drawn[i] = -1
            told.tell_nothing(details, i)
            continue
        d = _walk(row, params, i, inputs)
        place = draw(d, u[i])
        drawn[i] = d.ids[place]
        told.tell(details, i, d, int(drawn[i]), logprobs, row, as_it_came)
        if states.size:
            after = state_after(chain_of(params[0 if params.size == 1 else i]), d, place)
            states[i, : len(after)] = after
    tokens[:] = drawn
    if states.size:
        inputs["state"][:] = states


def probs(rows: Rows, params: Records, **inputs: Any) -> npt.NDArray[np.float32]:
    """Return the distribution that `sample` draws from."""
    out = np.zeros(rows.shape, np.float32)
    for i in range(len(rows)):
        one = params[i : i + 1] if params.size > 1 else params
        ids, p = survivors(rows[i : i + 1], one, i, **of_row(inputs, i))
        out[i, ids] = p
    return out


def _logarithms(rows: Rows, temperature: float) -> Floats:
    x = to_float32(rows)
    for i, row in enumerate(x):
        defect = find_defect(row, i, rows[i])
        if defect is not None:
            raise ValueError(defect)
    with np.errstate(over="ignore"):  # what is too far below the maximum has no probability
        y: Floats = (x.astype(np.float64) - x.max(axis=1, keepdims=True)) / temperature
    y -= np.log(np.exp(y).sum(axis=1, keepdims=True))
    return y


def softmax(rows: Rows, temperature: float) -> npt.NDArray[np.float32]:
    """Return the probabilities of all tokens."""
    return np.exp(_logarithms(rows, temperature)).astype(np.float32)


def log_softmax(rows: Rows, temperature: float) -> npt.NDArray[np.float32]:
    """Return the logarithms of the probabilities of all tokens."""
    with np.errstate(over="ignore"):
        return _logarithms(rows, temperature).astype(np.float32)


def survivors(
    rows: Rows, params: Records, index: int = 0, **inputs: Any
) -> tuple[Ids, npt.NDArray[np.float32]]:
    """Return ids and probabilities of what is kept of one row, by falling logit and rising id."""
    row = _row(rows, 0, inputs)
    defect = defect_of(row, rows[0], inputs, 0, index)
    if defect is not None:
        raise ValueError(defect)
    d = _walk(row, params, 0, inputs)
    return d.ids, d.probs.astype(np.float32)


def uniforms(
    seeds: npt.NDArray[np.uint64],
    streams: npt.NDArray[np.uint64],
    offsets: npt.NDArray[np.uint64],
    use: int = 0,
) -> Floats:
    """Return one uniform of each seed, stream and step, and of one use."""
    keys = zip(seeds.tolist(), streams.tolist(), offsets.tolist(), strict=True)
    return np.array([uniform(*key, use) for key in keys], np.float64)
