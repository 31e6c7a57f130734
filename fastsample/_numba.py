"""The twin of ``_core`` for platforms without the extension: the same functions, equal bits."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _numba_kernels as kernels
from .arrays import MAX_VOCAB
from .params import RECORD, Records
from .reference import Floats, Ids, Rows, find_defect, to_float32

__all__ = ["Plan", "probs", "sample", "survivors", "uniform"]

_DTYPES = {
    np.dtype(np.float32): kernels.FLOAT32,
    np.dtype(np.float16): kernels.FLOAT16,
    np.dtype(np.uint16): kernels.BFLOAT16,  # as the public functions hand it on
    np.dtype(np.float64): kernels.FLOAT64,
}
#: Values that are worth a thread of their own: about a millisecond.
_WORTH_A_THREAD = 2_000_000


class _Scratch(threading.local):
    """A thread's own memory, for one row as float32."""

    size = address = 0

    def at_least(self, size: int) -> int:
        """Return the address of room for a row of `size` values in whole blocks."""
        if size > self.size:
            self.size = -(-size // kernels.BLOCK) * kernels.BLOCK
            self._memory = np.empty(self.size + 16, np.float32)
            self.address = -(-self._memory.ctypes.data // 64) * 64
        return self.address


_scratch = _Scratch()


def _signed(number: int) -> int:
    # One type for compiled code, which wraps it back.
    return number if number < 2**63 else number - 2**64


def uniform(seed: int, stream: int, offset: int) -> float:
    """Return the uniform in [0, 1) of a seed, a stream and a step: NumPy's own."""
    return kernels.uniform(_signed(seed), _signed(stream), _signed(offset))


def _defect(rows: Rows, i: int) -> ValueError:
    changed = f"logits row {i} must not change while it is sampled"
    return ValueError(find_defect(to_float32(rows[i]), i) or changed)


def _thread_count(threads: int, rows: Rows) -> int:
    if threads == 0:
        affinity = getattr(os, "sched_getaffinity", None)
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1
        threads = min(cores, rows.size // _WORTH_A_THREAD)
    return max(1, min(threads, len(rows)))


def sample(
    rows: Rows, params: Records, u: Floats, mark: bool, tokens: Ids, threads: int = 0
) -> None:
    """Draw one token per row into `tokens`: the inverse CDF of u, in index order.

    0 threads are as many as pay; what is drawn does not depend on them.
    """
    count, size = rows.shape
    if not count:
        return
    drawn = np.empty_like(tokens)
    addresses = [array.ctypes.data for array in (rows, params, u, drawn)]
    row_at, params_at, u_at, drawn_at = addresses
    stride = 0 if params.size == 1 else RECORD.itemsize

    def draw(first: int, last: int) -> int:
        """Return the first row that is bad, or `last`."""
        return kernels.run(
            row_at, _DTYPES[rows.dtype], size, rows.strides[0], params_at, stride, u_at, drawn_at,
            first, last, mark, _scratch.at_least(size), 0, 0, 0,
        )  # fmt: skip

    parts = _thread_count(threads, rows)
    ends = [count * i // parts for i in range(parts + 1)]
    if parts == 1:
        reached = [draw(0, count)]
    else:
        with ThreadPoolExecutor(parts) as pool:
            reached = list(pool.map(draw, ends[:-1], ends[1:]))
    for end, i in zip(ends[1:], reached, strict=True):
        if i < end:
            raise _defect(rows, i)
    tokens[:] = drawn


def _list_row(rows: Rows, params: Records, i: int) -> tuple[Any, Any, Any]:
    record = params[0 if params.size == 1 else i :][:1]
    size = rows.shape[1]
    listed = np.empty(size, np.uint32), np.empty(size, np.float32), np.empty(size, np.int64)
    count, u = np.empty(1, np.int64), np.zeros(1)
    addresses = [a.ctypes.data for a in listed]
    if not kernels.run(
        rows[i].ctypes.data, _DTYPES[rows.dtype], size, 0, record.ctypes.data, 0, u.ctypes.data, count.ctypes.data,
        0, 1, False, _scratch.at_least(size), *addresses): raise _defect(rows, i)
    n = int(count[0])
    return listed[0][:n], listed[1][:n], listed[2][:n]


def probs(rows: Rows, params: Records) -> npt.NDArray[np.float32]:
    """Return the distribution that `sample` draws from."""
    out = np.zeros(rows.shape, np.float32)
    for i in range(len(rows)):
        ids, _, weight = _list_row(rows, params, i)
        out[i, ids] = weight / weight.sum()
    return out


def survivors(rows: Rows, params: Records) -> tuple[Ids, npt.NDArray[np.float32]]:
    """Return ids and probabilities of what is kept of one row, by falling probability."""
    ids, x, weight = _list_row(rows, params, 0)
    falling = np.argsort(-x, kind="stable")
    p = (weight / weight.sum()).astype(np.float32)
    return ids[falling].astype(np.int64), p[falling]


class Plan:
    """The low-latency path: parameters held ready, one contiguous row."""

    def __init__(self, params: Records) -> None:
        self._params = params.copy()
        self._u = np.empty(1)
        self._token = np.empty(1, np.int64)
        self._addresses = [a.ctypes.data for a in (self._params, self._u, self._token)]

    def draw(self, row: Any, seed: Any, offset: Any) -> int:
        """Return the token, or -1 where the general path has to look at the row."""
        if type(row) is not np.ndarray or row.ndim != 1 or type(seed) is not int:
            return -1
        dtype = _DTYPES.get(row.dtype)
        flags = row.flags
        if dtype is None or dtype == 2 or not (flags.c_contiguous and flags.aligned): return -1
        size = row.size
        if not 1<=size<=MAX_VOCAB: return -1
        params, u, token = self._addresses
        self._u[0] = uniform(seed, 0, offset)
        at = kernels.address_of(row.view(np.uint16) if dtype==1 else row)
        kernels.run(at, dtype, size, 0, params, 0, u, token, 0, 1, True, _scratch.at_least(size), 0, 0, 0)
        return max(-1, int(self._token[0]))
