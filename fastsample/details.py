"""What else one wants to know of a draw: its log-probability, rank, rivals, support and mass."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, TypedDict

import numpy as np
import numpy.typing as npt

from .arrays import Logits, as_rows
from .inputs import Histories, States, inputs_of
from .parameters import Ints, Parameters, Reals, Seeds, SupportsArray
from .plans import plan_of
from .sampling import Errors, draw_rows, mark_of, moved_by, thread_limit
from .signatures import documented
from .values import flag, integer

if TYPE_CHECKING:
    from typing_extensions import Unpack

Logprobs: TypeAlias = Literal["raw", "processed"]

_KINDS = (None, "raw", "processed")  # by fs_logprobs
_USUAL = {"logprobs": "raw", "top_logprobs": 0, "support": False, "log_mass": False}


class Details(TypedDict, total=False):
    """What `step` is to tell of each draw, as `draw` does with its defaults."""

    logprobs: Logprobs | None
    top_logprobs: int
    support: bool
    log_mass: bool


class Draw(NamedTuple):
    """What `draw` tells; of one row a number where there is an array of shape (B,) for several.

    What was not asked for is None.

    Attributes
    ----------
    token : int or int64 array of shape (B,)
        The token, -1 for a bad row that is marked.
    logprob : float or float32 array of shape (B,)
        Its log-probability.
    rank : int or int64 array of shape (B,)
        1 + how many logits are larger in the row that `logprobs` names.
    top_ids : int32 array of shape (n,) or (B, n)
        The ids of the n largest logits of that row, the lower id first on a tie; -1 where there are
        fewer.
    top_logprobs : float32 array of shape (n,) or (B, n)
        Their log-probabilities; -inf where there are fewer.
    support : int32 array
        The kept ids, rising, row after row.
    offsets : int64 array of shape (B + 1,)
        Row r has ``support[offsets[r] : offsets[r + 1]]``.
    log_mass : float or float64 array of shape (B,)
        The logarithm of what the kept tokens weigh of the whole row, as it is edited and masked, at
        the temperature of the draw; 0 for greedy.
    """

    token: Any
    logprob: Any = None
    rank: Any = None
    top_ids: npt.NDArray[np.int32] | None = None
    top_logprobs: npt.NDArray[np.float32] | None = None
    support: npt.NDArray[np.int32] | None = None
    offsets: npt.NDArray[np.int64] | None = None
    log_mass: Any = None


def kind_of(logprobs: Any) -> int:
    """Return the number of an ``fs_logprobs``, 0 for None."""
    if (logprobs is not None and not isinstance(logprobs, str)) or logprobs not in _KINDS:
        raise ValueError(f"logprobs must be 'raw', 'processed' or None, got {logprobs!r}")
    return _KINDS.index(logprobs)


def make_arrays(
    shape: tuple[int, ...], kind: int, top: Any, support: Any, log_mass: Any
) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays that a backend is to fill for (B, V) rows."""
    rows, vocab = shape
    count = top if type(top) is int else integer("top_logprobs", top)
    if not 0 <= count <= vocab:
        raise ValueError(f"top_logprobs must be in [0, {vocab}], got {top!r}")
    if count and not kind:
        raise ValueError(f"top_logprobs must be 0 where logprobs is None, got {top!r}")
    arrays: dict[str, npt.NDArray[Any]] = {}
    if kind:
        arrays["logprob"] = np.empty(rows, np.float32)
        arrays["rank"] = np.empty(rows, np.int64)
    if count:
        arrays["top_ids"] = np.empty((rows, count), np.int32)
        arrays["top_logprobs"] = np.empty((rows, count), np.float32)
    if flag("support", support):
        arrays["support"] = np.empty((rows, vocab), np.int32)  # of which most is never touched
        arrays["support_count"] = np.empty(rows, np.int64)
    if flag("log_mass", log_mass):
        arrays["log_mass"] = np.empty(rows, np.float64)
    return arrays


def told_of(details: Any, shape: tuple[int, ...]) -> tuple[int, dict[str, npt.NDArray[Any]]]:
    """Return the kind of log-probabilities and the arrays that `Details` ask for."""
    if not isinstance(details, Mapping):
        kind = type(details).__name__
        raise TypeError(f"details must be a dict or None, got {details!r} ({kind})")
    for name in details:
        if name not in _USUAL:
            raise ValueError(f"details must name {', '.join(_USUAL)}, got {name!r}")
    asked = {**_USUAL, **details}
    kind_ = kind_of(asked["logprobs"])
    return kind_, make_arrays(
        shape, kind_, asked["top_logprobs"], asked["support"], asked["log_mass"]
    )


def make_draw(tokens: npt.NDArray[np.int64], arrays: dict[str, Any], single: bool) -> Draw:
    """Return what a backend has filled; `single` is one row that came alone."""
    get = arrays.get
    support, offsets = _support_of(get("support"), get("support_count"))
    token: Any = tokens
    logprob, rank, log_mass = get("logprob"), get("rank"), get("log_mass")
    top_ids, top_logprobs = get("top_ids"), get("top_logprobs")
    if single:
        token = tokens.item()
        if logprob is not None and rank is not None:
            logprob, rank = logprob.item(), rank.item()
        if top_ids is not None and top_logprobs is not None:
            top_ids, top_logprobs = top_ids[0], top_logprobs[0]
        if log_mass is not None:
            log_mass = log_mass.item()
    return Draw(token, logprob, rank, top_ids, top_logprobs, support, offsets, log_mass)


def _support_of(rows: Any, counts: Any) -> tuple[Any, Any]:
    """Return what is kept of each row, one after the other, and where that of a row begins."""
    if counts is None:
        return None, None
    ends = [0, *itertools.accumulate(counts.tolist())]
    if len(ends) == 2:
        kept = rows[0, : ends[1]].copy()
    else:
        kept = np.empty(ends[-1], np.int32)
        for row, ids in enumerate(rows):
            kept[ends[row] : ends[row + 1]] = ids[: ends[row + 1] - ends[row]]
    return kept, np.array(ends, np.int64)


@documented()
def draw(
    logits: Logits,
    *,
    logprobs: Logprobs | None = "raw",
    top_logprobs: int = 0,
    support: bool = False,
    log_mass: bool = False,
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
    threads: int | None = None,
    **parameters: Unpack[Parameters],
) -> Draw:
    """Draw as `sample` does, and tell more of each draw, from the same read of the row.

    Parameters
    ----------
    logits : array, shape (V,) or (B, V)
        As in `sample`.
    {parameters}
    logprobs : {"raw", "processed"} or None, default "raw"
        Which log-probabilities: of the logits as they came, without edits, mask, temperature and
        stages; or of what the token was drawn with, where what is not kept has none. None is none.
    top_logprobs : int, default 0
        How many of the largest logits of that row to list, processed: of the kept ones. In [0, V].
        The token is not added, nor listed twice.
    support : bool, default False
        Whether to list the kept ids.
    log_mass : bool, default False
        Whether to weigh them.
    seed, offset, stream, u, rng, u_xtc, history, prompt_length, state, allowed, vocab_size
        As in `sample`.
    errors, threads
        As in `sample`. With raw log-probabilities a row must be good as it came, too.

    Returns
    -------
    Draw
        ``token`` is what `sample` gives. Log-probabilities are right to 1e-6 of their own size,
        however improbable the token, and equal bits on every backend but the reference.

    Raises
    ------
    ValueError, TypeError
        As in `sample`.

    Examples
    --------
    >>> import fastsample
    >>> logits = [3.0, 2.5, 2.0, 1.0]
    >>> drawn = fastsample.draw(logits, top_logprobs=2, top_k=3, u=0.6)
    >>> drawn.token, round(drawn.logprob, 4), drawn.rank
    (1, -1.2466, 2)
    >>> drawn.top_ids
    array([0, 1], dtype=int32)
    >>> kept = fastsample.draw(logits, logprobs="processed", support=True, top_k=3, u=0.6)
    >>> kept.support, round(kept.logprob, 4)
    (array([0, 1, 2], dtype=int32), -1.1803)
    """
    rows, single = as_rows(logits)
    mark, limit = mark_of(errors), thread_limit(threads)
    kind = kind_of(logprobs)
    arrays = make_arrays(rows.shape, kind, top_logprobs, support, log_mass)
    plan = plan_of(len(rows), "draw", parameters)
    tokens = np.empty(len(rows), np.int64)
    inputs = inputs_of(plan, rows, single, history, prompt_length, allowed, vocab_size, state)
    moved = moved_by(plan, state)
    sources = seed, offset, stream, u, rng, plan.coin, u_xtc
    draw_rows(rows, plan, inputs, sources, mark, tokens, limit, (kind, arrays), moved)
    return make_draw(tokens, arrays, single)
