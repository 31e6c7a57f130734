"""The twin of ``_core`` for platforms without the extension: the same functions, equal bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..arrays import MAX_VOCAB
from ..records import KINDS, Records
from ..reference import Floats, Ids, Rows, find_defect, to_float32
from ..reference.details import tell_nothing
from ..reference.inputs import Inputs, as_drawn_from, defect_of, of_row
from ..reference.verification import Draft, Side, row_of
from . import draw as compiled
from .details import RAW, Listed, tell
from .draw import address_of, run
from .history import History
from .row import BFLOAT16, FLOAT16, FLOAT32, FLOAT64
from .softmax import write
from .threads import available_threads, share_out
from .verification import verify_lists

__all__ = [
    "History",
    "log_softmax",
    "plan",
    "probs",
    "sample",
    "sample_details",
    "softmax",
    "survivors",
    "uniform",
    "uniforms",
    "verify",
]

_DTYPES = {
    np.dtype(np.float32): FLOAT32,
    np.dtype(np.float16): FLOAT16,
    np.dtype(np.uint16): BFLOAT16,  # as the public functions hand it on
    np.dtype(np.float64): FLOAT64,
}
_TYPED = (FLOAT32, FLOAT64)  # numba has no arrays of the others
_FLOAT32 = np.dtype(np.float32)
_READY = 0x101  # of the flags of an array: NPY_ARRAY_C_CONTIGUOUS and NPY_ARRAY_ALIGNED
#: Values that are worth a thread of their own: about a millisecond.
_WORTH_A_THREAD = 2_000_000


def _signed(number: int) -> int:
    # Compiled code takes one type of integer, and wraps it back.
    return number if number < 2**63 else number - 2**64


def uniform(seed: int, stream: int, offset: int) -> float:
    """Return the uniform in [0, 1) of a seed, a stream and a step: NumPy's own."""
    return compiled.uniform(_signed(seed), _signed(stream), _signed(offset))


def uniforms(
    seeds: npt.NDArray[np.uint64],
    streams: npt.NDArray[np.uint64],
    offsets: npt.NDArray[np.uint64],
    use: int = 0,
) -> Floats:
    """Return one uniform of each seed, stream and step, and of one use."""
    out = np.empty(seeds.size)
    compiled.uniforms(*(a.ctypes.data for a in (seeds, streams, offsets, out)), out.size, use)
    return out


def _defect(rows: Rows, i: int, inputs: Inputs) -> ValueError:
    changed = f"logits row {i} must not change while it is sampled"
    row = as_drawn_from(to_float32(rows[i]), inputs, i)
    return ValueError(defect_of(row, rows[i], inputs, i, i) or changed)


def _thread_count(threads: int, rows: Rows) -> int:
    return min(len(rows), threads or min(available_threads(), rows.size // _WORTH_A_THREAD))


def _job(params: Records, **arrays: npt.NDArray[Any]) -> npt.NDArray[np.void]:
    """Return what compiled code is told; the arrays must live as long as it is used."""
    job = np.zeros(1, compiled.JOB)
    job["params_stride"] = 0 if params.size == 1 else params.itemsize
    job["stages"] = params.dtype["stages"].shape[0]
    for name, array in {"params": params, **arrays}.items():
        job[name] = array.ctypes.data
    return job


#: The last of the kinds that all chains share.
_SHARED = KINDS.index("min_p") + 1


class _Extra(NamedTuple):
    """What some rows have beside their parameters; the arrays live as long as it does."""

    record: npt.NDArray[np.void]
    inputs: Inputs


def _needs_extra(params: Records, inputs: Inputs) -> bool:
    kind, value = params["stages"]["kind"], params["stages"]["value"]
    dynamic = (kind == KINDS.index("temperature") + 1) & (value[..., 1] != 0.0)
    return "edits" in inputs or "allowed" in inputs or bool(np.any(dynamic | (kind > _SHARED)))


def _extra(params: Records, inputs: Inputs) -> _Extra | None:
    """Return it, or None where there is nothing: then less has to be compiled."""
    if not _needs_extra(params, inputs):
        return None
    record = np.zeros(1, compiled.EXTRA)
    for name, array in inputs.items():
        record[name] = array.ctypes.data
    if "allowed" in inputs:
        record["words"] = inputs["allowed"].shape[1]
    return _Extra(record, inputs)


def _address(extra: _Extra | None) -> int | None:
    return None if extra is None else extra.record.ctypes.data


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

    0 threads are as many as pay. What is drawn does not depend on them. The inputs are those of
    ``reference/inputs.py``; a state is moved where the whole call succeeds.
    """
    drawn = np.empty_like(tokens)
    state = inputs.get("state")
    if state is not None:
        inputs["state"] = state.copy()
    extra = _extra(params, inputs)
    extra_at = _address(extra)
    job = _job(params, uniforms=u, tokens=drawn)
    job["mark"] = mark
    job["stride"] = rows.strides[0]
    fixed = rows.ctypes.data, _DTYPES[rows.dtype], rows.shape[1], job.ctypes.data, 0, 0

    bad: list[int] = []

    def draw(first: int, last: int) -> None:
        reached = run(*fixed, first, last, extra_at)
        if reached < last:
            bad.append(reached)

    share_out(len(rows), _thread_count(threads, rows), threads == 0, draw)
    if bad:
        raise _defect(rows, min(bad), inputs)
    tokens[:] = drawn
    if state is not None:
        state[:] = inputs["state"]


def _record(params: Records, i: int) -> Records:
    return params if params.size == 1 else params[i : i + 1]


def _list(rows: Rows, params: Records, i: int, inputs: Inputs) -> Listed:
    size, row = rows.shape[1], rows[i]
    ids, x = np.empty(size, np.uint32), np.empty(size, np.float32)
    weights = np.empty(size, np.int64)
    record = _record(params, i)
    facts = np.zeros(2)
    job = _job(record, ids=ids, x=x, weights=weights, facts=facts)
    at = row.ctypes.data, _DTYPES[row.dtype], size, job.ctypes.data
    extra = _extra(record, of_row(inputs, i))
    count = run(*at, 0, 0, 0, 1, _address(extra))
    if count < 1 or ids[:count].max() >= size:
        raise _defect(rows, i, inputs)
    return Listed(ids[:count], x[:count], weights[:count], *facts.tolist())


def _first_defects(rows: Rows, mark: bool, inputs: Inputs) -> dict[int, str]:
    """Return what is wrong with rows as they came, where they are good as they are drawn from."""
    wrong = {}
    for i, row in enumerate(rows):
        as_it_came = to_float32(row)
        edited = as_drawn_from(as_it_came, inputs, i)
        defect = defect_of(edited, row, inputs, i, i)
        if defect is None:
            defect = find_defect(as_it_came, i, row)
            if defect is not None:
                wrong[i] = defect
        if defect is not None and not mark:
            raise ValueError(defect)
    return wrong


def sample_details(
    rows: Rows,
    params: Records,
    u: Floats,
    mark: bool,
    tokens: Ids,
    threads: int,
    logprobs: int,
    details: dict[str, npt.NDArray[Any]],
    **inputs: Any,
) -> None:
    """Draw as `sample` does, and write what is asked for of each draw.

    The arrays and `logprobs` are those of ``reference/details.py``.
    """
    changes = "edits" in inputs or "allowed" in inputs
    wrong = _first_defects(rows, mark, inputs) if changes and logprobs == RAW else {}
    before = dict(inputs)
    if "state" in inputs:
        before["state"] = inputs["state"].copy()
    sample(rows, params, u, mark, tokens, threads, **inputs)
    for i in wrong:
        tokens[i] = -1
        if "state" in inputs:
            inputs["state"][i] = before["state"][i]
    for i, token in enumerate(tokens.tolist()):
        if token < 0:
            tell_nothing(details, i)
            continue
        as_it_came = to_float32(rows[i])
        listed = _list(rows[i : i + 1], _record(params, i), 0, of_row(before, i))
        row = as_drawn_from(as_it_came, before, i)
        tell(details, i, listed, token, logprobs, np.ascontiguousarray(row), as_it_came)


def probs(rows: Rows, params: Records, **inputs: Any) -> npt.NDArray[np.float32]:
    """Return the distribution that `sample` draws from."""
    out = np.zeros(rows.shape, np.float32)
    for i in range(len(rows)):
        ids, _, weight, *_ = _list(rows, params, i, inputs)
        out[i, ids] = weight / weight.sum()
    return out


def survivors(rows: Rows, params: Records, **inputs: Any) -> tuple[Ids, npt.NDArray[np.float32]]:
    """Return ids and probabilities of what is kept of one row, by falling probability."""
    ids, x, weight, *_ = _list(rows, params, 0, inputs)
    falling = np.argsort(-x, kind="stable")
    p = (weight / weight.sum()).astype(np.float32)
    return ids[falling].astype(np.int64), p[falling]


def _write(rows: Rows, temperature: float, logarithm: bool) -> npt.NDArray[np.float32]:
    out = np.empty(rows.shape, np.float32)
    for i, row in enumerate(rows):
        to = out.ctypes.data + i * out.strides[0]
        if not write(row.ctypes.data, _DTYPES[rows.dtype], row.size, temperature, logarithm, to):
            raise _defect(rows, i, {})
    return out


def softmax(rows: Rows, temperature: float) -> npt.NDArray[np.float32]:
    """Return the probabilities of all tokens."""
    return _write(rows, temperature, False)


def log_softmax(rows: Rows, temperature: float) -> npt.NDArray[np.float32]:
    """Return the logarithms of the probabilities of all tokens."""
    return _write(rows, temperature, True)


def plan(params: Records) -> Callable[[Any, Any, Any], int]:
    """Return the low-latency path: parameters held ready, one contiguous row."""
    params = params.copy()
    job = _job(params)
    job_at = job.ctypes.data
    extra = _extra(params, {})
    extra_at = _address(extra)

    def draw(row: Any, seed: Any, offset: Any, *, alive: object = (params, job, extra)) -> int:
        # The token, or -1 where the general path has to look at the arguments.
        if type(row) is not np.ndarray or type(seed) is not int or type(offset) is not int:
            return -1
        size, dtype = row.size, row.dtype
        if row.ndim != 1 or row.flags.num & _READY != _READY or not 0 < size <= MAX_VOCAB:
            return -1
        if not (0 <= seed < 2**64 and 0 <= offset < 2**64):
            return -1
        if dtype is _FLOAT32:  # no look into a table, and no call: this takes little time, too
            address, number = address_of(row), FLOAT32
        else:
            number = _DTYPES.get(dtype, BFLOAT16)
            if number == BFLOAT16 and dtype.name != "bfloat16":
                return -1
            address = address_of(row if number in _TYPED else row.view(np.uint16))
        seed = seed if seed < 2**63 else seed - 2**64
        offset = offset if offset < 2**63 else offset - 2**64
        token = run(address, number, size, job_at, seed, offset, 0, 1, extra_at)
        return token if token >= 0 else -1

    return draw


def _kept(side: Side, i: int, name: str) -> Listed:
    row_of(side, i, name)  # raises what is wrong with it, by that name
    return _list(side.rows[i : i + 1], _record(side.params, i), 0, of_row(side.inputs, i))


def verify(
    tokens: Ids, target: Side, draft: Draft, method: int, key: tuple[int, int, int], out: Ids
) -> int:
    """Verify the drafts of one sequence, as ``reference/verification.py`` says."""
    return verify_lists(_kept, tokens, target, draft, method, key, out)
