"""The specification: every parameter's meaning in plain NumPy, float64, sorted and obvious.

It has the functions of every backend, and is slow on purpose. ``survivors_of`` is the part to read.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from .params import STAGES, Records

Rows = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]

#: What reaches p of a total weighs this times p of it at least. Half of what float32 tells apart at
#: 1 is forgiven, so that probabilities which sum to p on paper reach it, however their logarithms
#: were rounded.
REACHES = 1.0 - 2.0**-24


def to_float32(rows: Rows) -> npt.NDArray[np.float32]:
    """Return rows as every backend sees them: bfloat16 (as uint16) widened, float64 rounded."""
    if rows.dtype == np.uint16:
        return (rows.astype(np.uint32) << np.uint32(16)).view(np.float32)
    with np.errstate(over="ignore"):
        return rows.astype(np.float32)


def find_defect(row: npt.NDArray[np.float32], index: int) -> str | None:
    """Say what is wrong with a row of logits, or None."""
    must = f"logits row {index} must"
    for name, wrong in (("NaN", np.isnan(row)), ("+inf", row == np.inf)):
        if wrong.any():
            return f"{must} not contain {name}, got one at token {int(np.argmax(wrong))}"
    if row.max() == -np.inf:
        return f"{must} have a finite value, got only -inf"
    return None


@np.errstate(over="ignore")  # what overflows is far below the maximum, and weighs nothing
def survivors_of(row: npt.NDArray[np.float32], p: np.void) -> tuple[Ids, Floats]:
    """Return what is kept of a row: ids by falling value and rising id, and their probabilities."""
    ids = np.lexsort((np.arange(row.size), -row))  # value descending, index ascending
    ids = ids[np.isfinite(row[ids])]
    x = row[ids].astype(np.float64)
    if p["temperature"] == 0.0:
        return ids[:1], np.ones(1)

    temperature, kept, at_least = 1.0, ids.size, int(p["min_tokens_to_keep"])
    for stage in (STAGES[code - 1] for code in p["order"] if code):
        weights = np.exp((x[:kept] - x[0]) / temperature)
        if stage == "temperature":
            temperature = float(p["temperature"])
            continue
        if stage == "top_k" and p["top_k"] > 0:
            keep = int(p["top_k"])
        elif stage == "top_p" and p["top_p"] < 1.0:
            cumulative = np.cumsum(weights)
            keep = 1 + int(np.sum(cumulative < REACHES * p["top_p"] * cumulative[-1]))
        elif stage == "min_p" and p["min_p"] > 0.0:
            threshold = np.float32(x[0] + temperature * math.log(p["min_p"]))
            keep = int(np.sum(x[:kept] >= threshold))
        else:
            continue
        kept = min(kept, max(keep, at_least))
    weights = np.exp((x[:kept] - x[0]) / temperature)
    return ids[:kept], weights / weights.sum()


def _record(params: Records, row: int) -> np.void:
    record: np.void = params[0 if params.size == 1 else row]
    return record


def sample(
    rows: Rows, params: Records, u: Floats, mark: bool, tokens: Ids, threads: int = 0
) -> None:
    """Draw one token per row into `tokens`: the inverse CDF of u, in index order."""
    drawn = np.empty_like(tokens)
    for i, row in enumerate(to_float32(rows)):
        defect = find_defect(row, i)
        if defect is not None:
            if not mark:
                raise ValueError(defect)
            drawn[i] = -1
            continue
        ids, probs = survivors_of(row, _record(params, i))
        by_id = np.argsort(ids)
        cumulative = np.cumsum(probs[by_id])
        place = np.searchsorted(cumulative, u[i] * cumulative[-1], side="right")
        drawn[i] = ids[by_id][min(int(place), ids.size - 1)]
    tokens[:] = drawn


def probs(rows: Rows, params: Records) -> npt.NDArray[np.float32]:
    """Return the distribution that `sample` draws from."""
    rows = to_float32(rows)
    out = np.zeros(rows.shape, np.float32)
    for i in range(len(rows)):
        ids, p = survivors(rows[i : i + 1], params[i : i + 1] if params.size > 1 else params, i)
        out[i, ids] = p
    return out


def survivors(rows: Rows, params: Records, index: int = 0) -> tuple[Ids, npt.NDArray[np.float32]]:
    """Return ids and probabilities of what is kept of one row, by falling probability."""
    row = to_float32(rows)[0]
    defect = find_defect(row, index)
    if defect is not None:
        raise ValueError(defect)
    ids, p = survivors_of(row, _record(params, 0))
    return ids, p.astype(np.float32)


def uniform(seed: int, stream: int, offset: int) -> float:
    """Return the uniform in [0, 1) of a seed, a stream and a step: NumPy's own."""
    bits = np.random.Philox(
        key=np.array([seed, stream], np.uint64), counter=np.array([offset, 0, 0, 0], np.uint64)
    )
    return float(np.random.Generator(bits).random())
