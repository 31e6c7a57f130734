"""The specification: every parameter's meaning in plain NumPy, float64, sorted and obvious.

It has the functions of every backend, and is slow on purpose. A row is read in ``row.py``, edited
by the rules in ``edits/``, masked in ``mask.py``, and walks through its chain in ``chain.py``; what
a stage keeps stands in its file in ``stages/``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..records import Records, steps
from .chain import Step, draw, uniform, walk
from .distribution import Distribution, Floats, Ids
from .row import Rows, find_defect, to_float32

__all__ = [
    "Floats",
    "Ids",
    "Rows",
    "find_defect",
    "probs",
    "sample",
    "survivors",
    "survivors_of",
    "to_float32",
    "uniform",
    "uniforms",
]


def chain_of(p: np.void) -> list[Step]:
    """Return the chain that a record stands for."""
    return [Step(*step) for step in steps(p)]


def _walk(row: npt.NDArray[np.float32], params: Records, i: int) -> Distribution:
    p = params[0 if params.size == 1 else i]
    return walk(row, chain_of(p), int(p["min_tokens_to_keep"]))


def survivors_of(row: npt.NDArray[np.float32], p: np.void) -> tuple[Ids, Floats]:
    """Return what is kept of a row: ids by falling value and rising id, and their probabilities."""
    d = walk(row, chain_of(p), int(p["min_tokens_to_keep"]))
    return d.ids, d.probs


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
        d = _walk(row, params, i)
        drawn[i] = d.ids[draw(d, u[i])]
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
    d = _walk(row, params, 0)
    return d.ids, d.probs.astype(np.float32)


def uniforms(
    seeds: npt.NDArray[np.uint64],
    streams: npt.NDArray[np.uint64],
    offsets: npt.NDArray[np.uint64],
) -> Floats:
    """Return one uniform of each seed, stream and step."""
    keys = zip(seeds.tolist(), streams.tolist(), offsets.tolist(), strict=True)
    return np.array([uniform(*key) for key in keys], np.float64)
