"""What else one wants to know of a draw: log-probabilities, rank, the most probable, the support.

They go into arrays, of which each may be missing: ``logprob`` (B,) of the token, ``rank`` (B,),
``at_least`` (B,), a rank for which ties count, ``top_ids`` and ``top_logprobs`` (B, n),
``support`` (B, V) with ``support_count`` (B,), and ``log_mass`` (B,).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .distribution import Distribution, Floats, Ids
from .row import Floats32

Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]
RAW, PROCESSED = 1, 2


def log_softmax(x: Floats, temperature: float) -> Floats:
    """Return the logarithms of probabilities, of which the first logit is the largest."""
    with np.errstate(over="ignore"):  # what is too far below the maximum has no probability
        y = (x - x[0]) / temperature
    logarithms: Floats = y - np.log1p(np.exp(y[1:]).sum())
    return logarithms


def raw(row: Floats32) -> tuple[Ids, Floats, Floats]:
    """Return ids by falling logit, the logits, and their log-probabilities."""
    ids = np.lexsort((np.arange(row.size), -row))
    ids = ids[np.isfinite(row[ids])]
    x = row[ids].astype(np.float64)
    return ids, x, log_softmax(x, 1.0)


def processed(d: Distribution) -> tuple[Ids, Floats, Floats]:
    """Return the same of what a token is drawn from, and with."""
    if d.temperature == 0.0:
        return d.ids, d.x, np.zeros(1)
    if d.redrawn is None:
        return d.ids, d.x, log_softmax(d.x, d.temperature)
    with np.errstate(divide="ignore"):
        return d.ids, d.x, np.log(d.probs)


def log_mass(d: Distribution, row: Floats32) -> float:
    """Return the logarithm of what the kept tokens weigh of a row as it is edited and masked."""
    if d.temperature == 0.0:
        return 0.0
    with np.errstate(over="ignore", under="ignore"):
        x, top = row[np.isfinite(row)].astype(np.float64), float(row.max())
        whole = np.exp((x - top) / d.temperature).sum()
        kept = np.exp((d.x - d.x[0]) / d.temperature).sum()
        return min(0.0, float(np.log(kept / whole) + (d.x[0] - top) / d.temperature))


def tell(
    arrays: Arrays,
    i: int,
    d: Distribution,
    token: int,
    kind: int,
    row: Floats32,
    as_it_came: Floats32,
) -> None:
    """Write what is asked for of row i, of whose distribution this token was drawn."""
    if kind:
        ids, x, logarithms = raw(as_it_came) if kind == RAW else processed(d)
        place = int(np.flatnonzero(ids == token)[0])
        if "logprob" in arrays:
            arrays["logprob"][i] = logarithms[place]
        if "rank" in arrays:
            arrays["rank"][i] = 1 + np.sum(x > x[place])
        if "at_least" in arrays:
            arrays["at_least"][i] = np.sum(x >= x[place])
        if "top_ids" in arrays:
            write_top(arrays, i, ids, logarithms)
    if "support" in arrays:
        arrays["support"][i, : d.ids.size] = np.sort(d.ids)
        arrays["support_count"][i] = d.ids.size
    if "log_mass" in arrays:
        arrays["log_mass"][i] = log_mass(d, row)


def write_top(arrays: Arrays, i: int, ids: Ids, logarithms: Floats) -> None:
    """Write the first ones; where there are fewer, -1 and -inf."""
    count = min(ids.size, arrays["top_ids"].shape[1])
    arrays["top_ids"][i], arrays["top_logprobs"][i] = -1, -np.inf
    arrays["top_ids"][i, :count] = ids[:count]
    arrays["top_logprobs"][i, :count] = logarithms[:count]


def tell_nothing(arrays: Arrays, i: int) -> None:
    """Write what stands for a row that nothing was drawn from."""
    nothing = {"rank": 0, "at_least": 0, "top_ids": -1, "support_count": 0}
    for name, array in arrays.items():
        if name != "support":
            array[i] = nothing.get(name, np.nan)
