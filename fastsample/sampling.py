"""The public functions: validate, call the backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from . import backend
from .arrays import Logits, Row, Rows, as_rows
from .chains import checked, make_records
from .parameters import Ints, Parameters, Reals, Seeds
from .signatures import documented
from .uniforms import uniforms
from .values import integer, refuse_masked

if TYPE_CHECKING:
    from typing_extensions import Unpack

Ids: TypeAlias = npt.NDArray[np.int64]
Errors: TypeAlias = Literal["raise", "mark"]

_MAX_THREADS = 256  # FS_MAX_THREADS


def _tokens(out: Any, rows: int, single: bool) -> npt.NDArray[np.int64]:
    if out is None:
        return np.empty(rows, np.int64)
    refuse_masked("out", out)
    if isinstance(out, np.ndarray):  # a subclass may say of itself what is not so
        out = np.ndarray.view(out, np.ndarray)
    if not isinstance(out, np.ndarray) or out.dtype != np.int64:
        kind = out.dtype if isinstance(out, np.ndarray) else type(out).__name__
        raise TypeError(f"out must be an int64 array, got {kind}")
    if single or out.shape != (rows,):
        shape = "None for a single row" if single else f"of shape ({rows},)"
        raise ValueError(f"out must be {shape}, got shape {out.shape}")
    if not (out.flags.c_contiguous and out.flags.writeable):
        raise ValueError("out must be contiguous and writeable")
    if not out.flags.aligned:
        raise ValueError("out must be aligned to 8 bytes")
    return out


def mark_of(errors: Any) -> bool:
    """Whether a bad row yields -1."""
    if not isinstance(errors, str) or errors not in ("raise", "mark"):
        raise ValueError(f"errors must be 'raise' or 'mark', got {errors!r}")
    return bool(errors == "mark")


def thread_limit(threads: Any) -> int:
    """Return a number of threads, 0 for None, as backends take it."""
    if threads is None:
        return 0
    number = integer("threads", threads)
    if number < 1:
        raise ValueError(f"threads must be None or >= 1, got {threads!r}")
    return min(number, _MAX_THREADS)


@overload
def sample(
    logits: Row,
    *,
    seed: Seeds = ...,
    offset: Ints = ...,
    stream: Ints | None = ...,
    u: Reals | None = ...,
    rng: np.random.Generator | None = ...,
    errors: Errors = ...,
    out: Ids | None = ...,
    threads: int | None = ...,
    **parameters: Unpack[Parameters],
) -> int: ...
@overload
def sample(
    logits: Rows,
    *,
    seed: Seeds = ...,
    offset: Ints = ...,
    stream: Ints | None = ...,
    u: Reals | None = ...,
    rng: np.random.Generator | None = ...,
    errors: Errors = ...,
    out: Ids | None = ...,
    threads: int | None = ...,
    **parameters: Unpack[Parameters],
) -> Ids: ...
@overload
def sample(
    logits: Logits,
    *,
    seed: Seeds = ...,
    offset: Ints = ...,
    stream: Ints | None = ...,
    u: Reals | None = ...,
    rng: np.random.Generator | None = ...,
    errors: Errors = ...,
    out: Ids | None = ...,
    threads: int | None = ...,
    **parameters: Unpack[Parameters],
) -> int | Ids: ...
@documented
def sample(
    logits: Logits,
    *,
    seed: Seeds = None,
    offset: Ints = 0,
    stream: Ints | None = None,
    u: Reals | None = None,
    rng: np.random.Generator | None = None,
    errors: Errors = "raise",
    out: Ids | None = None,
    threads: int | None = None,
    **parameters: Unpack[Parameters],
) -> int | Ids:
    """Draw one token from each row of logits.

    The same as, for one row and the default order::

        x = np.where(kept, logits, -np.inf)      # kept by top_k, top_p and min_p in turn
        weights = np.exp((x - x.max()) / temperature)
        token = np.searchsorted(np.cumsum(weights), u * weights.sum(), side="right")

    Parameters
    ----------
    logits : array, shape (V,) or (B, V)
        float32, float64 (rounded to float32), float16 or bfloat16, of NumPy, PyTorch (CPU), JAX,
        ml_dtypes or anything else with ``__array__`` or ``__dlpack__``. Not copied where the last
        axis is contiguous, and never written to. ``-inf`` masks a token. 1 <= V <= 4194304.
    {parameters}
    seed : int or array of shape (B,), optional
        In [0, 2**64). With `offset`, the uniform that NumPy gives for
        ``Generator(Philox(key=[seed, stream], counter=[offset, 0, 0, 0])).random()``. A scalar
        seed uses stream = row; an array uses stream 0 in every row.
    offset : int or array of shape (B,), default 0
        The step, in [0, 2**64).
    stream : int or array of shape (B,), optional
        In [0, 2**64): which row this is to the seed, where it is not that of this batch, as in a
        piece of a larger one.
    u : float or array of shape (B,), optional
        Explicit uniforms in [0, 1).
    rng : numpy.random.Generator, optional
        Source of the uniforms: exactly ``rng.random(B)``.
    errors : {"raise", "mark"}, default "raise"
        What to do with a row that has NaN, +inf, or nothing finite: raise, or yield -1 for it.
    out : int64 array of shape (B,), optional
        Where to write the tokens of 2-D logits.
    threads : int, optional
        Share the rows out over at most this many threads, >= 1; more than 256 act as 256. They are
        started by the call, which waits for none that has taken no row, and end when no row is
        left; tokens and errors do not depend on their number. By
        default 1 for one row or less than 2**21 logits, else one per 2**20 logits, but no more than
        rows or the processors that this process may use. The reference always uses 1.

    Returns
    -------
    int or int64 array of shape (B,)
        The token of each row; an int for 1-D logits.

    Raises
    ------
    ValueError
        A parameter out of its range, a wrong shape, or (``errors="raise"``) a bad row.
    TypeError
        A wrong type or dtype.

    Notes
    -----
    With none of `seed`, `u` and `rng` the draws come from a stream of the process that the
    operating system seeds. The token is a pure function of (logits, parameters, uniform), alone or
    in a batch: the core on every instruction set and the numba backend give the same one; the
    reference, in float64, may differ where the uniform is within a rounding of a boundary.

    References
    ----------
    {references}

    Examples
    --------
    >>> import numpy as np
    >>> import fastsample
    >>> logits = np.array([3.0, 2.5, 2.0, 1.0], np.float32)
    >>> fastsample.sample(logits, temperature=0.8, top_p=0.95, seed=0)
    0
    >>> fastsample.sample(np.stack([logits, logits[::-1]]), top_k=1)
    array([0, 3])
    """
    rows, single = as_rows(logits)
    mark, limit = mark_of(errors), thread_limit(threads)
    records = make_records(len(rows), "sample", **parameters)
    tokens = _tokens(out, len(rows), single)
    drawn_with = uniforms(len(rows), seed, offset, u, rng, stream)
    backend.active().sample(rows, records, drawn_with, mark, tokens, limit)
    if single:
        return int(tokens.item())
    return tokens if out is None else out


@documented
def probs(logits: Logits, **parameters: Unpack[Parameters]) -> npt.NDArray[np.float32]:
    """Return the distribution that `sample` draws from.

    Parameters
    ----------
    logits : array, shape (V,) or (B, V)
        As in `sample`.
    {parameters}

    Returns
    -------
    float32 array of the shape of `logits`
        Probabilities; 0 for what is not kept, and for what weighs too little beside the most
        probable of its block of 256 tokens (2**-28) or of all (2**-41).

    Raises
    ------
    ValueError, TypeError
        As in `sample`.

    Examples
    --------
    >>> import fastsample
    >>> fastsample.probs([3.0, 2.5, 2.0, 1.0]).round(2)
    array([0.47, 0.29, 0.17, 0.06], dtype=float32)
    >>> fastsample.probs([3.0, 2.5, 2.0, 1.0], top_p=0.6).round(2)
    array([0.62, 0.38, 0.  , 0.  ], dtype=float32)
    """
    rows, single = as_rows(logits)
    records = make_records(len(rows), "probs", **parameters)
    out: npt.NDArray[np.float32] = backend.active().probs(rows, records)
    return out[0] if single else out


@documented
def survivors(
    logits: Logits, **parameters: Unpack[Parameters]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return what the stages keep of one row, by falling logit.

    Parameters
    ----------
    logits : array, shape (V,)
        As in `sample`, one row.
    {parameters}

    Returns
    -------
    token_ids : int64 array, shape (n,)
        Kept tokens by falling logit, the lower id first on a tie.
    probs : float32 array, shape (n,)
        Their probabilities.

    Raises
    ------
    ValueError, TypeError
        As in `sample`.

    Examples
    --------
    >>> import fastsample
    >>> ids, probs = fastsample.survivors([3.0, 2.5, 2.0, 1.0], min_p=0.5)
    >>> ids
    array([0, 1])
    >>> probs.round(2)
    array([0.62, 0.38], dtype=float32)
    """
    rows, single = as_rows(logits)
    if not single:
        raise ValueError(f"logits must be 1-D, got shape {rows.shape}")
    records = make_records(1, "survivors", **parameters)
    ids, p = backend.active().survivors(rows, records)
    return ids, p


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
    values = np.take_along_axis(rows, ids, axis=1)
    if values.dtype == np.uint16:
        values = (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    values = values.astype(np.float32)
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
    return sample(logits, temperature=0.0, u=0.0)


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
