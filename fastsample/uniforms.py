"""The uniforms of a call: from seeds and steps, from numbers, from a generator, or the process's.

Every uniform of a seed is NumPy's own: ``Generator(Philox(key=[seed, stream], counter=[offset, use,
0, 0])).random()``. Use 0 is the draw of a token, 1 the coin of the stage "xtc".
"""

from __future__ import annotations

import itertools
import os
import secrets
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import backend
from .values import column, is_word, named, plain, refuse_masked, uint64

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


def words(name: str, value: Any, rows: int) -> _Words | None:
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
    usual = words(name, value, rows)
    if usual is not None:
        return usual
    found = column(name, value, rows, uint64)
    return np.array(found, np.uint64) if isinstance(found, list) else found


class Keys(NamedTuple):
    """Where the uniforms of each row are."""

    seeds: _Words
    streams: _Words
    offsets: _Words

    def uniforms(self) -> Uniforms:
        """Return the uniforms of the draws."""
        u: Uniforms = backend.active().uniforms(*self)
        return u

    def coins(self) -> Uniforms:
        """Return those of the coins."""
        u: Uniforms = backend.active().uniforms(*self, 1)
        return u


def keys_of(rows: int, seed: Any, offset: Any, stream: Any) -> Keys:
    """Return the keys of seeds and steps; a row without a seed draws the process's own."""
    if rows == 1 and stream is None and is_word(seed) and is_word(offset):
        one = np.array([(seed,), (0,), (offset,)], np.uint64)
        return Keys(*one)
    unseeded = None
    seeds = words("seed", seed, rows)
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
    return Keys(seeds, streams, offsets)


def refuse_unseeded(rows: int, offset: Any, stream: Any) -> None:
    """Refuse the place of a draw without the seed that it is a place of."""
    if stream is not None:
        raise ValueError(f"stream must come with a seed, got stream={stream!r} without one")
    if column("offset", offset, rows, uint64) != 0:
        raise ValueError(f"offset must come with a seed, got offset={offset!r} without one")


def _from_generator(rng: Any, rows: int) -> Uniforms:
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a numpy.random.Generator, got {rng!r} ({type(rng).__name__})")
    drawn = np.asarray(rng.random(rows))  # a subclass may return anything
    if drawn.dtype != np.float64 or drawn.shape != (rows,):
        raise TypeError(
            f"rng must give float64 numbers of shape ({rows},), "
            f"got {drawn.dtype} of shape {drawn.shape}"
        )
    return _in_unit_interval("rng", drawn, rows)


def _explicit(name: str, u: Any, rows: int) -> Uniforms:
    refuse_masked(name, u)
    with named(f"{name} must be a number"):
        values = np.asarray(u)
    if values.size and values.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be a number, got {u!r} ({type(u).__name__})")
    values = values.astype(np.float64)
    if values.shape not in ((), (rows,)):
        raise ValueError(f"{name} must be a scalar or of shape ({rows},), got {values.shape}")
    return _in_unit_interval(name, values, rows)


def uniforms(
    rows: int,
    seed: Any,
    offset: Any = 0,
    stream: Any = None,
    u: Any = None,
    rng: Any = None,
    coin: bool = False,
    u_xtc: Any = None,
) -> tuple[Uniforms, Uniforms | None]:
    """Return one uniform per row, from whichever of the sources is given, and one of its coin."""
    if stream is not None and seed is None:
        raise ValueError(f"stream must come with a seed, got stream={stream!r} without one")
    coins = None if u_xtc is None else _explicit("u_xtc", u_xtc, rows)
    coin = coin and coins is None
    if seed is u is rng is None and type(offset) is int and offset == 0:
        seed, offset = process_stream.next()
    if rows == 1 and rng is stream is None and not coin:  # the usual kinds, which need no arrays
        if u is None and type(seed) is type(offset) is int:
            uniform = backend.active().uniform
            return np.array([uniform(uint64("seed", seed), 0, uint64("offset", offset))]), coins
        if seed is None and type(u) is float and 0.0 <= u < 1.0:
            return np.array([u]), coins
    given = [n for n, v in (("seed", seed), ("u", u), ("rng", rng)) if v is not None]
    if len(given) > 1:
        raise ValueError(f"at most one of seed, u and rng must be given, got {', '.join(given)}")
    if rng is not None:
        drawn = _from_generator(rng, rows)
        return drawn, _from_generator(rng, rows) if coin else coins
    if u is not None:
        drawn = _explicit("u", u, rows)
        if coin:
            raise ValueError("u_xtc must be given with u, where xtc_probability needs a coin")
        return drawn, coins
    if seed is None:
        refuse_unseeded(rows, offset, stream)
        seed, offset = process_stream.next()  # for a 0 of another type
    keys = keys_of(rows, seed, offset, stream)
    return keys.uniforms(), keys.coins() if coin else coins


def coins(rows: int, seed: Any, offset: Any, stream: Any, u_xtc: Any) -> Uniforms:
    """Return the coin of each row, of the draw that is asked about."""
    if u_xtc is not None:
        return _explicit("u_xtc", u_xtc, rows)
    if seed is None:
        raise ValueError("seed or u_xtc must be given, where xtc_probability needs a coin")
    return keys_of(rows, seed, offset, stream).coins()
