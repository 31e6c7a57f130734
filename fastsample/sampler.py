"""A sampler with its parameters fixed, whose draws follow one another."""

from __future__ import annotations

import os
import secrets
import weakref
from typing import TYPE_CHECKING, Any, ClassVar, overload

from . import backend
from .arrays import Logits, Row, Rows
from .chains import make_records
from .orders import parse_order
from .parameters import DEFAULTS, Parameters, Seeds
from .sampling import Errors, Ids, mark_of, sample, thread_limit
from .signatures import documented_class
from .values import column, plain, uint64

if TYPE_CHECKING:
    from typing_extensions import Unpack


@documented_class
class Sampler:
    """A sampler with its parameters fixed: validated once, then called on row after row.

    Each call draws at the sampler's `offset` and advances it by one, so a sequence is reproduced
    by the same seed. A call on one contiguous float32 row is the fastest way to draw.

    Parameters
    ----------
    {parameters}
    seed : int or array of shape (B,), optional
        As in `sample`; without it, one from the operating system, which the repr shows. A process
        that is forked then goes on with another one.
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

    __slots__ = ("__weakref__", "_draw", "_options", "_own", "_parameters", "_plan_of", "offset",
                 "seed")  # fmt: skip

    offset: int
    seed: Any

    _OPTIONS: ClassVar[dict[str, Any]] = {"errors": "raise", "threads": None}

    def __init__(
        self,
        *,
        seed: Seeds = None,
        offset: int = 0,
        errors: Errors = "raise",
        threads: int | None = None,
        **parameters: Unpack[Parameters],
    ) -> None:
        mark_of(errors)
        self._options: dict[str, Any] = {
            "errors": errors,
            "threads": thread_limit(threads) or None,
        }
        # Arrays are copied, as lists: what was validated stays, and the repr shows all of it.
        given: dict[str, Any] = {name: _kept(name, value) for name, value in parameters.items()}
        self._parameters = {n: given[n] for n in (*DEFAULTS, *given) if n in given}
        lengths = {len(v) for n, v in given.items() if n != "order" and isinstance(v, list)}
        records = make_records(lengths.pop() if lengths else 1, type(self).__name__, **given)
        # A backend may have a faster way for one row; it is of use while that backend is active.
        self._draw: Any = None
        self._plan_of = backend.active()
        if records.size == 1 and not lengths and hasattr(self._plan_of, "plan"):
            plan = self._plan_of.plan(records)
            self._draw = getattr(plan, "draw", plan)
        self._own: int | None = None
        if seed is None:
            self._own = seed = secrets.randbits(64)
            _unseeded.add(self)
        self.reset(seed, offset)

    @overload
    def __call__(self, logits: Row, *, out: Ids | None = ...) -> int: ...
    @overload
    def __call__(self, logits: Rows, *, out: Ids | None = ...) -> Ids: ...
    @overload
    def __call__(self, logits: Logits, *, out: Ids | None = ...) -> int | Ids: ...
    def __call__(self, logits: Logits, *, out: Ids | None = None) -> int | Ids:
        """Draw one token from each row of logits, as `sample` does, and advance the offset."""
        if self._draw is not None and out is None and self._plan_of is backend._active:
            token = self._draw(logits, self.seed, self.offset)
            if token >= 0:
                self.offset += 1
                return token  # type: ignore[no-any-return]
        offset = uint64("offset", self.offset)
        seed = uint64("seed", None) if self.seed is None else self.seed  # which None is not
        tokens = sample(
            logits, **self._parameters, **self._options, seed=seed, offset=offset, out=out
        )
        self.offset = offset + 1
        return tokens

    def reset(self, seed: Seeds = None, offset: int = 0) -> None:
        """Go back to `offset`, with another seed if one is given."""
        if seed is not None:
            seed = column("seed", seed, None, uint64)
        offset = uint64("offset", offset)
        if seed is not None:
            self.seed = seed
        self.offset = offset

    def _reseed(self) -> None:
        """Take another seed, unless somebody has given one."""
        if self._own is not None and self.seed == self._own:
            self._own = self.seed = secrets.randbits(64)

    def copy(self, *, seed: Seeds = None) -> Sampler:
        """Return a sampler with the same parameters, state included unless a seed is given."""
        twin = _make_sampler(self._state(), type(self))
        if self._own is not None and self.seed == self._own:
            twin._own = self._own
            _unseeded.add(twin)
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
        usual = {**DEFAULTS, **self._OPTIONS}
        shown = {n: v for n, v in self._state().items() if n not in usual or not _same(v, usual[n])}
        return f"{type(self).__name__}({', '.join(f'{n}={v!r}' for n, v in shown.items())})"


def _same(value: Any, default: Any) -> bool:
    return type(value) is type(default) and bool(value == default)


def _make_sampler(state: dict[str, Any], kind: type[Sampler] = Sampler) -> Sampler:
    sampler = kind.__new__(kind)
    Sampler.__init__(sampler, **state | {"offset": 0})
    sampler.offset = state["offset"]  # 2**64 after the last step, with which none is made
    return sampler


def _kept(name: str, value: Any) -> Any:
    if name == "order":
        return value if isinstance(value, str) else parse_order(value)
    return plain(name, value)


# Samplers without a seed of the user's: a child that is forked must not repeat its parent's draws.
_unseeded: weakref.WeakSet[Sampler] = weakref.WeakSet()


def _reseed_all() -> None:
    for sampler in list(_unseeded):
        sampler._reseed()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reseed_all)
