"""The uniforms of a call: from seeds and steps, from numbers, from a generator, or the process's.

Every uniform of a seed is NumPy's own: ``Generator(Philox(key=[seed, stream], counter=[offset, 0,
0, 0])).random()``.
"""

from __future__ import annotations

import itertools
import os
import secrets
from typing import Any

import numpy as np
import numpy.typing as npt

from . import backend
from .values import column, named, plain, refuse_masked, uint64

Uniforms = npt.NDArray[np.float64]
_Words = npt.NDArray[np.uint64]


class _ProcessStream:
    """Draws without a seed: one stream of the process, seeded by the operating system."""

    def __init__(self) -> None:
        self._restart()
        if hasattr(os, "register_at_fork"):  # a child must not repeat its parent's draws
            os.register_at_fork(after_in_child=self._restart)

    def _restart(self) -> None:
        self.process = secrets.randbits(64)
        self._steps = itertools.count()

    def next(self) -> tuple[int, int]:
        return self.process, next(self._steps)


process_stream = _ProcessStream()


def _in_unit_interval(name: str, values: Uniforms, rows: int) -> Uniforms:
    """Return one uniform per row, of numbers that must be in [0, 1)."""
    wrong = ~((values >= 0.0) & (values < 1.0))
    if wrong.any():
        where = f" (row {int(np.argmax(wrong))})" if values.ndim else ""
        raise ValueError(f"{name} must be in [0, 1), got {float(values[wrong][0])}{where}")
    return np.ascontiguousarray(np.broadcast_to(values, (rows,)))


def _words(name: str, value: Any, rows: int) -> _Words | None:
    """Return a usual list or array of one 64-bit number per row at once; None is another thing."""
    quick = getattr(backend.active(), "take_words", None)
    if quick is not None:  # a look at each in compiled code
        out = np.empty(rows, np.uint64)
        if quick(value, out):
            return out
    if type(value) is np.ndarray and value.shape == (rows,) and value.dtype.kind == "u":
        return value.astype(np.uint64)
    return None


def _column(name: str, value: Any, rows: int) -> Any:
    """Return a 64-bit number, or an array of one per row."""
    words = _words(name, value, rows)
    if words is not None:
        return words
    found = column(name, value, rows, uint64)
    return np.array(found, np.uint64) if isinstance(found, list) else found


def _from_seeds(rows: int, seed: Any, offset: Any, stream: Any) -> Uniforms:
    """Return the uniforms of seeds and steps; a row without a seed draws the process's own."""
    unseeded = None
    seeds = _words("seed", seed, rows)
    if seeds is None:
        values = plain("seed", seed)
        if isinstance(values, list) and any(v is None for v in values):
            unseeded = np.array([v is None for v in values])
            seed = [0 if v is None else v for v in values]
        seeds = _column("seed", seed, rows)
    offsets = _column("offset", offset, rows)
    # A scalar seed gives each row a stream of its own; seeds per row stand for themselves.
    streams = np.zeros(rows, np.uint64)
    if not isinstance(seeds, np.ndarray):
        seeds, streams = np.full(rows, seeds, np.uint64), np.arange(rows, dtype=np.uint64)
    if stream is not None:
        streams = np.array(np.broadcast_to(_column("stream", stream, rows), (rows,)), np.uint64)
    if not isinstance(offsets, np.ndarray):
        offsets = np.full(rows, offsets, np.uint64)
    if unseeded is not None:
        process, step = process_stream.next()
        seeds[unseeded] = process
        streams[unseeded] = np.flatnonzero(unseeded)
        offsets = np.where(unseeded, np.uint64(step), offsets)
    u: Uniforms = backend.active().uniforms(seeds, streams, offsets)
    return u


def uniforms(rows: int, seed: Any, offset: Any, u: Any, rng: Any, stream: Any = None) -> Uniforms:
    """Return one uniform per row, from whichever of the sources is given."""
    if stream is not None and seed is None:
        raise ValueError(f"stream must come with a seed, got stream={stream!r} without one")
    if seed is u is rng is None and type(offset) is int and offset == 0:
        seed, offset = process_stream.next()
    if rows == 1 and rng is stream is None:  # the usual kinds, which need no arrays
        if u is None and type(seed) is type(offset) is int:
            uniform = backend.active().uniform
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
        seed, offset = process_stream.next()  # for a 0 of another type
    return _from_seeds(rows, seed, offset, stream)
