"""The public functions: validate, call the backend."""

from __future__ import annotations

import itertools
import os
import secrets
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from . import backend
from .arrays import as_rows
from .params import (
    Order,
    any_integer,
    column,
    integer,
    make_records,
    named,
    parse_order,
    plain,
    refuse_masked,
)

_MAX_UINT64 = 2**64 - 1
_MAX_THREADS = 256  # FS_MAX_THREADS


class _ProcessStream:
    """Draws without a seed: one stream of the process, seeded by the operating system."""

    def __init__(self) -> None:
        self._restart()
        if hasattr(os, "register_at_fork"):  # a child must not repeat its parent's draws
            os.register_at_fork(after_in_child=self._restart)

    def _restart(self) -> None:
        self._seed = secrets.randbits(64)
        self._steps = itertools.count()

    def next(self) -> tuple[int, int]:
        return self._seed, next(self._steps)


_process_stream = _ProcessStream()


def uint64(name: str, value: Any, where: str = "") -> int:
    """Return an integer in [0, 2**64)."""
    if type(value) is int and 0 <= value <= _MAX_UINT64:
        return value
    number = any_integer(name, value, where)
    if not 0 <= number <= _MAX_UINT64:
        raise ValueError(f"{name} must be in [0, 2**64), got {number}{where}")
    return number


def _in_unit_interval(
    name: str, values: npt.NDArray[np.float64], rows: int
) -> npt.NDArray[np.float64]:
    """Return one uniform per row, of numbers that must be in [0, 1)."""
    wrong = ~((values >= 0.0) & (values < 1.0))
    if wrong.any():
        where = f" (row {int(np.argmax(wrong))})" if values.ndim else ""
        raise ValueError(f"{name} must be in [0, 1), got {float(values[wrong][0])}{where}")
    return np.ascontiguousarray(np.broadcast_to(values, (rows,)))


def _uniforms(rows: int, seed: Any, offset: Any, u: Any, rng: Any) -> npt.NDArray[np.float64]:
    """Return one uniform per row, from whichever of the sources is given."""
    uniform = backend.active().uniform
    if seed is u is rng is None and type(offset) is int and offset == 0:
        seed, offset = _process_stream.next()
    if rows == 1 and rng is None:  # the usual kinds, which need no arrays
        if u is None and type(seed) is type(offset) is int:
            return np.array([uniform(uint64("seed", seed), 0, uint64("offset", offset))])
        if seed is None and type(u) is float and 0.0 <= u < 1.0:
            return np.array([u])
    given = [n for n, v in (("seed", seed), ("u", u), ("rng", rng)) if v is not None]
    if len(given) > 1:
        raise ValueError(f"at most one of seed, u and rng must be given, got {', '.join(given)}")
    if rng is not None:
        if not isinstance(rng, np.random.Generator):
            raise TypeError(
                f"rng must be a numpy.random.Generator, got {rng!r} ({type(rng).__name__})"
            )
        drawn = np.asarray(rng.random(rows))  # a subclass may return anything
        if drawn.dtype != np.float64 or drawn.shape != (rows,):
            raise TypeError(
                f"rng must give float64 numbers of shape ({rows},), "
                f"got {drawn.dtype} of shape {drawn.shape}"
            )
        return _in_unit_interval("rng", drawn, rows)
    if u is not None:
        refuse_masked("u", u)
        with named("u must be a number"):
            values = np.asarray(u)
        if values.size and values.dtype.kind not in "iuf":
            raise TypeError(f"u must be a number, got {u!r} ({type(u).__name__})")
        values = values.astype(np.float64)
        if values.shape not in ((), (rows,)):
            raise ValueError(f"u must be a scalar or of shape ({rows},), got {values.shape}")
        return _in_unit_interval("u", values, rows)

    if seed is None:
        if column("offset", offset, rows, uint64) != 0:
            raise ValueError(f"offset must come with a seed, got offset={offset!r} without one")
        seed, offset = _process_stream.next()  # for a 0 of another type
    seeds, offsets = column("seed", seed, rows, uint64), column("offset", offset, rows, uint64)
    # A scalar seed gives each row a stream of its own; seeds per row stand for themselves.
    streams = [0] * rows if isinstance(seeds, list) else range(rows)
    seeds = seeds if isinstance(seeds, list) else [seeds] * rows
    offsets = offsets if isinstance(offsets, list) else [offsets] * rows
    return np.array([uniform(*key) for key in zip(seeds, streams, offsets, strict=True)], float)


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


def _mark(errors: Any) -> bool:
    """Whether a bad row yields -1."""
    if not isinstance(errors, str) or errors not in ("raise", "mark"):
        raise ValueError(f"errors must be 'raise' or 'mark', got {errors!r}")
    return bool(errors == "mark")


def _thread_limit(threads: Any) -> int:
    """Return a number of threads, 0 for None, as backends take it."""
    if threads is None:
        return 0
    number = integer("threads", threads)
    if number < 1:
        raise ValueError(f"threads must be None or >= 1, got {threads!r}")
    return min(number, _MAX_THREADS)


def sample(
    logits: Any,
    *,
    temperature: Any = 1.0,
    top_k: Any = None,
    top_p: Any = 1.0,
    min_p: Any = 0.0,
    min_tokens_to_keep: Any = 1,
    order: Order = "hf",
    seed: Any = None,
    offset: Any = 0,
    u: Any = None,
    rng: np.random.Generator | None = None,
    errors: str = "raise",
    out: npt.NDArray[np.int64] | None = None,
    threads: int | None = None,
) -> Any:
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
    temperature : float or array of shape (B,), default 1.0
        Divides the logits; finite, >= 0. 0 is greedy: the largest logit, the lowest id on a tie,
        whatever else is set. Beyond 1e38 and below 1e-38 it acts as these. Logits further below
        the maximum than float32 can say count as masked.
    top_k : int, None or array of shape (B,), default None
        Keeps the k largest, the lower id on a tie [1]_. None, 0 and -1 turn it off.
    top_p : float or array of shape (B,), default 1.0
        In [0, 1]. Keeps the shortest prefix, by falling probability, whose mass reaches p of what
        the stages before have left, p * (1 - 2**-24) of it at least [2]_. 1 turns it off.
    min_p : float or array of shape (B,), default 0.0
        In [0, 1]. Keeps what is at least min_p times as probable as the most probable token [3]_.
        0 turns it off.
    min_tokens_to_keep : int or array of shape (B,), default 1
        No stage leaves fewer than this many tokens.
    order : str or tuple of str, default "hf"
        The order of the stages: a preset ("hf", "vllm", "llama.cpp", "mlx-lm", "openvino",
        "onnxruntime-genai"), or stage names, e.g. ``("top_k", "top_p", "temperature")``. A stage
        that runs before "temperature" sees temperature 1.
    seed : int or array of shape (B,), optional
        In [0, 2**64). With `offset`, the uniform that NumPy gives for
        ``Generator(Philox(key=[seed, stream], counter=[offset, 0, 0, 0])).random()``. A scalar
        seed uses stream = row; an array uses stream 0 in every row.
    offset : int or array of shape (B,), default 0
        The step, in [0, 2**64).
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
    .. [1] Fan et al., "Hierarchical Neural Story Generation", ACL 2018.
    .. [2] Holtzman et al., "The Curious Case of Neural Text Degeneration", ICLR 2020.
    .. [3] Nguyen et al., "Turning Up the Heat: Min-p Sampling for Creative and Coherent LLM
       Outputs", ICLR 2025.

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
    mark, limit = _mark(errors), _thread_limit(threads)
    records = make_records(len(rows), temperature, top_k, top_p, min_p, min_tokens_to_keep, order)
    tokens = _tokens(out, len(rows), single)
    uniforms = _uniforms(len(rows), seed, offset, u, rng)
    backend.active().sample(rows, records, uniforms, mark, tokens, limit)
    if single:
        return tokens.item()
    return tokens if out is None else out


def probs(
    logits: Any,
    *,
    temperature: Any = 1.0,
    top_k: Any = None,
    top_p: Any = 1.0,
    min_p: Any = 0.0,
    min_tokens_to_keep: Any = 1,
    order: Order = "hf",
) -> npt.NDArray[np.float32]:
    """Return the distribution that `sample` draws from.

    Parameters
    ----------
    logits : array, shape (V,) or (B, V)
        As in `sample`.
    temperature, top_k, top_p, min_p, min_tokens_to_keep, order
        As in `sample`.

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
    records = make_records(len(rows), temperature, top_k, top_p, min_p, min_tokens_to_keep, order)
    out: npt.NDArray[np.float32] = backend.active().probs(rows, records)
    return out[0] if single else out


def survivors(
    logits: Any,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    min_p: float = 0.0,
    min_tokens_to_keep: int = 1,
    order: Order = "hf",
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return what the stages keep of one row, by falling logit.

    Parameters
    ----------
    logits : array, shape (V,)
        As in `sample`, one row.
    temperature, top_k, top_p, min_p, min_tokens_to_keep, order
        As in `sample`, scalars.

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
    records = make_records(1, temperature, top_k, top_p, min_p, min_tokens_to_keep, order)
    ids, p = backend.active().survivors(rows, records)
    return ids, p


def top_k(logits: Any, k: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
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
    records = make_records(1, 1.0, size, 1.0, 0.0, 1, "hf")
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


def argmax(logits: Any) -> Any:
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


def log_softmax(logits: Any, temperature: float = 1.0) -> npt.NDArray[np.float32]:
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


def softmax(logits: Any, temperature: float = 1.0) -> npt.NDArray[np.float32]:
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


def _all_rows(function: str, logits: Any, temperature: float) -> npt.NDArray[np.float32]:
    rows, single = as_rows(logits)
    make_records(1, temperature, 0, 1.0, 0.0, 1, "hf")  # which checks it
    divisor = float(temperature)
    if divisor == 0.0:
        raise ValueError(f"temperature must be finite and > 0, got {temperature!r}")
    out: npt.NDArray[np.float32] = getattr(backend.active(), function)(rows, divisor)
    return out[0] if single else out


class Sampler:
    """A sampler with its parameters fixed: validated once, then called on row after row.

    Each call draws at the sampler's `offset` and advances it by one, so a sequence is reproduced
    by the same seed. A call on one contiguous float32 row is the fastest way to draw.

    Parameters
    ----------
    temperature, top_k, top_p, min_p, min_tokens_to_keep, order
        As in `sample`; arrays of shape (B,) serve batches of B rows.
    seed : int or array of shape (B,), optional
        As in `sample`; without it, one from the operating system, which the repr shows.
    offset : int, default 0
        The step of the first call.
    errors : {"raise", "mark"}, default "raise"
        As in `sample`.
    threads : int, optional
        As in `sample`.

    Attributes
    ----------
    seed : int or array of shape (B,)
        The seed.
    offset : int
        The step of the next call.

    Raises
    ------
    ValueError, TypeError
        As in `sample`.

    Notes
    -----
    A sampler must not be shared by threads, which could draw at the same step: give each a
    ``copy(seed=...)``. A call that raises does not advance.

    Examples
    --------
    >>> import numpy as np
    >>> import fastsample
    >>> sampler = fastsample.Sampler(temperature=0.8, top_k=2, seed=7)
    >>> logits = np.array([3.0, 2.5, 2.0, 1.0], np.float32)
    >>> [sampler(logits) for _ in range(8)]
    [1, 0, 0, 0, 0, 0, 0, 0]
    >>> sampler
    Sampler(temperature=0.8, top_k=2, seed=7, offset=8)
    >>> sampler.reset()
    >>> sampler.offset
    0
    """

    __slots__ = ("_draw", "_options", "_parameters", "_plan_of", "offset", "seed")

    offset: int
    seed: Any

    _DEFAULTS: ClassVar[dict[str, Any]] = {
        "temperature": 1.0,
        "top_k": None,
        "top_p": 1.0,
        "min_p": 0.0,
        "min_tokens_to_keep": 1,
        "order": "hf",
    }
    _OPTIONS: ClassVar[dict[str, Any]] = {"errors": "raise", "threads": None}

    def __init__(
        self,
        *,
        temperature: Any = 1.0,
        top_k: Any = None,
        top_p: Any = 1.0,
        min_p: Any = 0.0,
        min_tokens_to_keep: Any = 1,
        order: Order = "hf",
        seed: Any = None,
        offset: int = 0,
        errors: str = "raise",
        threads: int | None = None,
    ) -> None:
        _mark(errors)
        self._options: dict[str, Any] = {
            "errors": errors,
            "threads": _thread_limit(threads) or None,
        }
        given = (temperature, top_k, top_p, min_p, min_tokens_to_keep, order)
        # Arrays are copied, as lists: what was validated stays, and the repr shows all of it.
        given = (
            *map(plain, self._DEFAULTS, given[:-1]),
            order if isinstance(order, str) else parse_order(order),
        )
        self._parameters = dict(zip(self._DEFAULTS, given, strict=True))
        lengths = {len(v) for v in given[:-1] if isinstance(v, list)}
        records = make_records(lengths.pop() if lengths else 1, *given)
        # A backend may have a faster way for one row; it is of use while that backend is active.
        self._draw: Any = None
        self._plan_of = backend.active()
        if records.size == 1 and not lengths and hasattr(self._plan_of, "plan"):
            self._draw = self._plan_of.plan(records)
        self.reset(secrets.randbits(64) if seed is None else seed, offset)

    def __call__(self, logits: Any, *, out: npt.NDArray[np.int64] | None = None) -> Any:
        """Draw one token from each row of logits, as `sample` does, and advance the offset."""
        if self._draw is not None and out is None and self._plan_of is backend._active:
            token = self._draw(logits, self.seed, self.offset)
            if token >= 0:
                self.offset += 1
                return token
        offset = uint64("offset", self.offset)
        seed = uint64("seed", None) if self.seed is None else self.seed  # which None is not
        tokens = sample(
            logits, **self._parameters, **self._options, seed=seed, offset=offset, out=out
        )
        self.offset = offset + 1
        return tokens

    def reset(self, seed: Any = None, offset: int = 0) -> None:
        """Go back to `offset`, with another seed if one is given."""
        if seed is not None:
            seed = column("seed", seed, None, uint64)
        offset = uint64("offset", offset)
        if seed is not None:
            self.seed = seed
        self.offset = offset

    def copy(self, *, seed: Any = None) -> Sampler:
        """Return a sampler with the same parameters, state included unless a seed is given."""
        twin = _make_sampler(self._state(), type(self))
        if hasattr(self, "__dict__"):  # of a subclass
            vars(twin).update(vars(self))
        if seed is not None:
            twin.reset(seed)
        return twin

    __copy__ = copy

    def __deepcopy__(self, memo: Any) -> Sampler:
        return self.copy()

    def _state(self) -> dict[str, Any]:
        return {**self._parameters, "seed": self.seed, "offset": self.offset, **self._options}

    def __reduce__(self) -> Any:
        return _make_sampler, (self._state(), type(self)), getattr(self, "__dict__", None)

    def __repr__(self) -> str:
        usual = {**self._DEFAULTS, **self._OPTIONS}
        shown = {n: v for n, v in self._state().items() if n not in usual or not _same(v, usual[n])}
        return f"{type(self).__name__}({', '.join(f'{n}={v!r}' for n, v in shown.items())})"


def _same(value: Any, default: Any) -> bool:
    return type(value) is type(default) and bool(value == default)


def _make_sampler(state: dict[str, Any], kind: type[Sampler] = Sampler) -> Sampler:
    sampler = kind.__new__(kind)
    Sampler.__init__(sampler, **state | {"offset": 0})
    sampler.offset = state["offset"]  # 2**64 after the last step, with which none is made
    return sampler
