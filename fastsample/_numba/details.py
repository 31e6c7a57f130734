"""What else one wants to know of a draw: ``csrc/details.cpp``, equal bits.

What is kept comes as a list, and a row as it came is one of all; sums of a list are those of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .elementary import LN2, natural_log
from .row import INFINITY, mass, memory_for, scan
from .softmax import log_sum_of, over
from .weights import LARGEST, Exp2, exp2_scale
from .words import (
    Floats32,
    Ids,
    Scalar,
    ShortIds,
    carray,
    digest_of_sources,
    entry,
    fma,
    njit,
    pointer,
)

RAW = 1


class Listed(NamedTuple):
    """What is kept of a row, by rising id."""

    ids: npt.NDArray[np.uint32]
    x: npt.NDArray[np.float32]
    weight: Ids
    temperature: float  # of the draw; 0 is greedy
    before: float  # what they weighed before a stage gave them other weights, or 0


@njit
def sum_of_row(address: Scalar, dtype: Scalar, size: Scalar, T: float, memory: Floats32) -> Scalar:
    row, _ = scan(address, dtype, size, memory)
    return mass(row, Exp2(row.max, exp2_scale(T)), -LARGEST, INFINITY)[0].sum()


def _entries(
    sources: str,
) -> tuple[Callable[..., int], Callable[[float], float], Callable[..., int], Callable[..., float]]:
    """Return the functions below; another digest of the sources makes them anew (``draw.py``)."""

    @entry
    def logprobs(
        ids: int,
        x: int,
        size: int,
        top: float,
        temperature: float,
        places: int,
        count: int,
        to: int,
    ) -> int:
        """Write the log-probabilities at some places of a list."""
        _ = sources
        values = carray(pointer(x), size, np.float32)
        listed: ShortIds = carray(pointer(ids), size, np.uint32)
        total = log_sum_of(values, listed, np.float32(top), temperature)
        out = carray(pointer(to), count, np.float32)
        scale = over(1.0, temperature)
        for i in range(count):
            at = carray(pointer(places), count, np.int64)[i]
            y = np.float32(fma(np.float64(values[at]) - top, scale, -total))
            out[i] = np.float32(y + np.float32(0.0))  # +0, whichever zero the maximum is
        return count

    @entry
    def logarithm(share: float) -> float:
        _ = sources
        return natural_log(share) if share > 0.0 else -np.inf

    @entry
    def row_mass(address: int, dtype: int, size: int, temperature: float) -> int:
        """Return what a row weighs in all."""
        _ = sources
        return sum_of_row(address, dtype, size, temperature, memory_for(size))

    @entry
    def log_mass(kept: float, whole: float, lower: float, temperature: float) -> float:
        """Return the logarithm of a part; its maximum is so much lower than that of the whole."""
        _ = sources
        scale = np.float64(exp2_scale(temperature))
        return min(0.0, natural_log(kept / whole) + lower * scale * LN2)

    return logprobs, logarithm, row_mass, log_mass


_logprobs, _logarithm, _row_mass, _log_mass = _entries(digest_of_sources())


def largest(x: npt.NDArray[np.float32], count: int) -> Ids:
    """Return the places of the largest, by falling value and rising place."""
    if count < x.size:
        bound = np.partition(x, x.size - count)[x.size - count] if count else np.inf
        places = np.flatnonzero(x >= bound)
    else:
        places = np.arange(x.size)
    return places[np.argsort(-x[places], kind="stable")][:count]


def logprobs_of(listed: Listed, places: Ids) -> npt.NDArray[np.float32]:
    """Return the logarithms of what tokens of a list are drawn with."""
    out = np.zeros(places.size, np.float32)
    if listed.before > 0.0:
        total, weight = float(listed.weight.sum()), listed.weight[places]
        return np.array([_logarithm(w / total) for w in weight.tolist()], np.float32)
    if listed.temperature > 0.0:
        places = np.ascontiguousarray(places, np.int64)
        at = listed.ids.ctypes.data, listed.x.ctypes.data, listed.x.size
        scale = float(listed.x.max()), listed.temperature
        _logprobs(*at, *scale, places.ctypes.data, places.size, out.ctypes.data)
    return out


def as_list(row: npt.NDArray[np.float32]) -> Listed:
    """Return a row as it came, at temperature 1."""
    ids = np.flatnonzero(row > -INFINITY)
    return Listed(ids.astype(np.uint32), row[ids], ids[:0], 1.0, 0.0)


def mass_of(listed: Listed, row: npt.NDArray[np.float32]) -> float:
    """Return the logarithm of what a list weighs of its row, as that is edited and masked."""
    if listed.temperature == 0.0:
        return 0.0
    whole = _row_mass(row.ctypes.data, 0, row.size, listed.temperature)
    kept = listed.before or float(listed.weight.sum())
    lower = float(listed.x.max()) - float(row.max())
    return _log_mass(kept, float(whole), lower, listed.temperature)


def tell(
    arrays: Mapping[str, npt.NDArray[Any]],
    i: int,
    listed: Listed,
    token: int,
    kind: int,
    row: npt.NDArray[np.float32],
    as_it_came: npt.NDArray[np.float32],
) -> None:
    """Write what is asked for of row i, of which this token was drawn."""
    if kind:
        of = as_list(as_it_came) if kind == RAW else listed
        first = largest(of.x, arrays["top_ids"].shape[1] if "top_ids" in arrays else 0)
        place = np.searchsorted(of.ids, np.uint32(token))
        logarithms = logprobs_of(of, np.append(first, place))
        if "logprob" in arrays:
            arrays["logprob"][i] = logarithms[-1]
        if "rank" in arrays:
            arrays["rank"][i] = 1 + np.count_nonzero(of.x > of.x[place])
        if "at_least" in arrays:
            arrays["at_least"][i] = np.count_nonzero(of.x >= of.x[place])
        if "top_ids" in arrays:
            arrays["top_ids"][i], arrays["top_logprobs"][i] = -1, -np.inf
            arrays["top_ids"][i, : first.size] = of.ids[first]
            arrays["top_logprobs"][i, : first.size] = logarithms[:-1]
    if "support" in arrays:
        arrays["support"][i, : listed.ids.size] = listed.ids
        arrays["support_count"][i] = listed.ids.size
    if "log_mass" in arrays:
        arrays["log_mass"][i] = mass_of(listed, row)
