"""Functions of rows without the parameters of a draw: the largest logits, and all probabilities."""

from __future__ import annotations

from typing import overload

import numpy as np
import numpy.typing as npt

from . import backend
from .arrays import Logits, Row, Rows, as_rows, widen
from .chains import checked, make_records
from .sampling import Ids, sample
from .values import integer


def top_k(logits: Logits, k: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return the k largest logits and their ids.

    Parameters
    ----------
    logits : array, shape (V,) or (B, V)
        As in `sample`. Every row must have at least `k` finite values.
    k : int
        1 <= k <= V.

    Returns
    -------
    values : float32 array, shape (k,) or (B, k)
        By falling value.
    ids : int64 array, shape (k,) or (B, k)
        Their places; the lower one first on a tie.

    Raises
    ------
    ValueError
        `k` is out of range, or a row has too few finite values.
    TypeError
        `k` is not an integer.

    Examples
    --------
    >>> import fastsample
    >>> fastsample.top_k([1.0, 3.0, 2.0, 3.0], 3)
    (array([3., 3., 2.], dtype=float32), array([1, 3, 2]))
    """
    from .reference import to_float32

    rows, single = as_rows(logits)
    size = integer("k", k)
    if not 1 <= size <= rows.shape[1]:
        raise ValueError(f"k must be in [1, {rows.shape[1]}], got {k!r}")
    records = make_records(1, top_k=size)
    argmax(logits)  # raises what is wrong with a row, under its number in the batch
    ids = np.empty((len(rows), size), np.int64)
    for i in range(len(rows)):
        kept, _ = backend.active().survivors(rows[i : i + 1], records)
        if kept.size != size:
            finite = int(np.isfinite(to_float32(rows[i])).sum())
            if finite < size:
                raise ValueError(
                    f"k must be at most the {finite} finite logits of row {i}, got {k}"
                )
            raise ValueError(f"logits row {i} must not change while it is read")
        ids[i] = kept
    values = widen(np.take_along_axis(rows, ids, axis=1)).astype(np.float32)
    return (values[0], ids[0]) if single else (values, ids)


@overload
def argmax(logits: Row) -> int: ...
@overload
def argmax(logits: Rows) -> Ids: ...
@overload
def argmax(logits: Logits) -> int | Ids: ...
def argmax(logits: Logits) -> int | Ids:
    """Return the largest logit's id in each row, the lowest on a tie: greedy decoding.

    Parameters
    ----------
    logits : array, shape (V,) or (B, V)
        As in `sample`.

    Returns
    -------
    int or int64 array of shape (B,)

    Raises
    ------
    ValueError, TypeError
        As in `sample`.

    Examples
    --------
    >>> import fastsample
    >>> fastsample.argmax([1.0, 3.0, 3.0])
    1
    """
    return sample(logits, temperature=0.0, seed=0)


def log_softmax(logits: Logits, temperature: float = 1.0) -> npt.NDArray[np.float32]:
    """Return log-probabilities, accurate for the least probable token too.

    Parameters
    ----------
    logits : array, shape (V,) or (B, V)
        As in `sample`.
    temperature : float, default 1.0
        Finite, > 0.

    Returns
    -------
    float32 array of the shape of `logits`
        ``x - log(sum(exp(x)))`` with ``x = logits / temperature``, right to 1e-6 of its own size,
        and equal bits on every backend but the reference.

    Raises
    ------
    ValueError, TypeError
        As in `sample`; `temperature` must not be 0.

    Examples
    --------
    >>> import fastsample
    >>> fastsample.log_softmax([0.0, 0.0]).round(4)
    array([-0.6931, -0.6931], dtype=float32)
    """
    return _all_rows("log_softmax", logits, temperature)


def softmax(logits: Logits, temperature: float = 1.0) -> npt.NDArray[np.float32]:
    """Return probabilities, accurate for the least probable token too.

    Parameters
    ----------
    logits : array, shape (V,) or (B, V)
        As in `sample`.
    temperature : float, default 1.0
        Finite, > 0.

    Returns
    -------
    float32 array of the shape of `logits`
        ``exp(x) / sum(exp(x))`` with ``x = logits / temperature``, right to 1e-6 of its own size,
        and equal bits on every backend but the reference. `probs` are what `sample` draws from.

    Raises
    ------
    ValueError, TypeError
        As in `sample`; `temperature` must not be 0.

    Examples
    --------
    >>> import fastsample
    >>> fastsample.softmax([3.0, 2.5, 2.0, 1.0]).round(2)
    array([0.47, 0.29, 0.17, 0.06], dtype=float32)
    """
    return _all_rows("softmax", logits, temperature)


def _all_rows(function: str, logits: Logits, temperature: float) -> npt.NDArray[np.float32]:
    rows, single = as_rows(logits)
    divisor = float(checked("temperature", temperature))
    if divisor == 0.0:
        raise ValueError(f"temperature must be finite and > 0, got {temperature!r}")
    out: npt.NDArray[np.float32] = getattr(backend.active(), function)(rows, divisor)
    return out[0] if single else out
