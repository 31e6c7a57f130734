"""The public functions: validate, call the backend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from . import backend
from .arrays import Logits, Row, Rows, as_rows
from .inputs import Histories, States, inputs_of
from .parameters import Ints, Parameters, Reals, Seeds, SupportsArray
from .plans import Plan, make_plan, plan_of, plan_of_scalars
from .records import Records
from .signatures import documented
from .uniforms import coins, uniforms
from .values import integer, refuse_masked

if TYPE_CHECKING:
    from typing_extensions import Unpack

Ids: TypeAlias = npt.NDArray[np.int64]
Errors: TypeAlias = Literal["raise", "mark"]

_MAX_THREADS = 256  # FS_MAX_THREADS


def tokens_for(out: Any, rows: int, single: bool) -> npt.NDArray[np.int64]:
    """Return where the tokens of a call go."""
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


class Options(Parameters, total=False):
    """What `sample` takes beside logits."""

    seed: Seeds
    offset: Ints
    stream: Ints | None
    u: Reals | None
    rng: np.random.Generator | None
    u_xtc: Reals | None
    history: Histories
    prompt_length: Ints | None
    state: States | None
    allowed: SupportsArray | None
    vocab_size: int | None
    errors: Errors
    out: Ids | None
    threads: int | None


@overload
def sample(logits: Row, **options: Unpack[Options]) -> int: ...
@overload
def sample(logits: Rows, **options: Unpack[Options]) -> Ids: ...
@overload
def sample(logits: Logits, **options: Unpack[Options]) -> int | Ids: ...
@documented()
def sample(
    logits: Logits,
    *,
    seed: Seeds = None,
    offset: Ints = 0,
    stream: Ints | None = None,
    u: Reals | None = None,
    rng: np.random.Generator | None = None,
    u_xtc: Reals | None = None,
    history: Histories = None,
    prompt_length: Ints | None = None,
    state: States | None = None,
    allowed: SupportsArray | None = None,
    vocab_size: int | None = None,
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
        Source of the uniforms: exactly ``rng.random(B)``, then as many again where a coin is
        needed.
    {u_xtc}
    {history}
    state : float64 array, shape (S,) or (B, S), optional
        The state of `mirostat`, (mu,), which begins with (2 * tau,), or of `adaptive_target` a
        with decay d, the two sums, which begin with (a / (1 - d), 1 / (1 - d)). It must be given
        where one of them is on, and is moved in place where the whole call succeeds.
    {allowed}
    errors : {"raise", "mark"}, default "raise"
        What to do with a row that has NaN, +inf, or nothing finite: raise, or yield -1 for it.
    out : int64 array of shape (B,), optional
        Where to write the tokens of 2-D logits.
    threads : int, optional
        Share the rows out over at most this many threads, >= 1; more than 256 act as 256. They are
        started by the call, which waits for none that has taken no row, and end when no row is
        left; tokens and errors do not depend on their number. By default 1 for one row or less than
        2**21 logits, else one per 2**20 logits, but no more than rows or the processors that this
        process may use, and on Linux no more than one beside the calling thread for each processor
        that is idle. The reference always uses 1.

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
    plan = plan_of_scalars(parameters)
    usual = (
        stream is None
        and u is None
        and rng is None
        and u_xtc is None
        and history is None
        and prompt_length is None
        and state is None
        and allowed is None
        and vocab_size is None
        and out is None
        and threads is None
    )
    if usual and plan is not None and plan.draw is not None and plan.module is backend._active:
        token = plan.draw(logits, seed, offset)
        if token >= 0 and not mark_of(errors):
            return token
    rows, single = as_rows(logits)
    mark, limit = mark_of(errors), thread_limit(threads)
    plan = plan or make_plan(len(rows), "sample", parameters)
    tokens = tokens_for(out, len(rows), single)
    inputs = inputs_of(plan, rows, single, history, prompt_length, allowed, vocab_size, state)
    moved = moved_by(plan, state)
    sources = seed, offset, stream, u, rng, plan.coin, u_xtc
    draw_rows(rows, plan, inputs, sources, mark, tokens, limit, moved=moved)
    if single:
        return int(tokens.item())
    return tokens if out is None else out


def draw_rows(
    rows: npt.NDArray[Any],
    plan: Plan,
    inputs: dict[str, Any],
    sources: tuple[Any, ...],
    mark: bool,
    tokens: Ids,
    limit: int,
    told: tuple[int, dict[str, npt.NDArray[Any]]] | None = None,
    moved: States | None = None,
) -> None:
    """Draw a token of each row into `tokens`; a state among the inputs is moved.

    `told` is the kind of log-probabilities, and the arrays of ``details.py`` that are filled;
    `moved` is an array of the caller's that the state is written to.
    """
    drawn_with, flips = uniforms(len(rows), *sources)
    if flips is not None:
        inputs["coin"] = flips
    given = rows, plan.records, drawn_with, mark, tokens, limit
    if told is None:
        backend.active().sample(*given, **inputs)
    else:
        backend.active().sample_details(*given, *told, **inputs)
    if moved is not None:
        moved[...] = inputs["state"][..., : moved.shape[-1]]


def moved_by(plan: Plan, state: Any) -> States | None:
    """Return the array that a draw is to move, if there is one."""
    if not plan.moves:
        return None
    if not isinstance(state, np.ndarray):
        raise TypeError(
            "state must be a float64 array, which is moved, where mirostat or adaptive_target is "
            f"on, got {state!r}"
        )
    if not state.flags.writeable:
        raise ValueError("state must be writeable")
    return state


def _kept(
    function: str,
    rows: Any,
    single: bool,
    parameters: Mapping[str, Any],
    of_rows: tuple[Any, ...],
    key: tuple[Any, ...],
) -> tuple[Records, dict[str, Any]]:
    """Return the chains of rows that are not drawn from, and their inputs."""
    plan = plan_of(len(rows), function, parameters)
    inputs = inputs_of(plan, rows, single, *of_rows)
    if plan.coin:
        inputs["coin"] = coins(len(rows), *key)
    return plan.records, inputs


@documented()
def probs(
    logits: Logits,
    *,
    seed: Seeds = None,
    offset: Ints = 0,
    stream: Ints | None = None,
    u_xtc: Reals | None = None,
    history: Histories = None,
    prompt_length: Ints | None = None,
    state: SupportsArray | None = None,
    allowed: SupportsArray | None = None,
    vocab_size: int | None = None,
    **parameters: Unpack[Parameters],
) -> npt.NDArray[np.float32]:
    """Return the distribution that `sample` draws from.

    Parameters
    ----------
    logits : array, shape (V,) or (B, V)
        As in `sample`.
    {parameters}
    seed : int or array of shape (B,), optional
        With `offset`, says which draw of `sample` is meant, where a coin is needed.
    offset, stream
        As in `sample`.
    {u_xtc}
    {history}
    state : float64 array, shape (S,) or (B, S), optional
        As in `sample`, but it is not moved; by default the start.
    {allowed}

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
    of_rows = history, prompt_length, allowed, vocab_size, state
    key = seed, offset, stream, u_xtc
    records, inputs = _kept("probs", rows, single, parameters, of_rows, key)
    out: npt.NDArray[np.float32] = backend.active().probs(rows, records, **inputs)
    return out[0] if single else out


@documented()
def survivors(
    logits: Logits,
    *,
    seed: Seeds = None,
    offset: Ints = 0,
    stream: Ints | None = None,
    u_xtc: Reals | None = None,
    history: Histories = None,
    prompt_length: Ints | None = None,
    state: SupportsArray | None = None,
    allowed: SupportsArray | None = None,
    vocab_size: int | None = None,
    **parameters: Unpack[Parameters],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return what the stages keep of one row, by falling logit.

    Parameters
    ----------
    logits : array, shape (V,)
        As in `sample`, one row.
    {parameters}
    seed : int or array of shape (B,), optional
        With `offset`, says which draw of `sample` is meant, where a coin is needed.
    offset, stream
        As in `sample`.
    {u_xtc}
    {history}
    state : float64 array, shape (S,) or (B, S), optional
        As in `sample`, but it is not moved; by default the start.
    {allowed}

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
    of_rows = history, prompt_length, allowed, vocab_size, state
    key = seed, offset, stream, u_xtc
    records, inputs = _kept("survivors", rows, single, parameters, of_rows, key)
    ids, p = backend.active().survivors(rows, records, **inputs)
    return ids, p
