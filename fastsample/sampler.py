"""A sampler with its parameters fixed, whose draws follow one another: a sequence."""

from __future__ import annotations

import os
import secrets
import weakref
from collections.abc import Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, ClassVar, overload

import numpy as np
import numpy.typing as npt

from . import backend
from .arrays import Logits, Row, Rows, as_rows
from .details import Draw, Logprobs, kind_of, make_arrays, make_draw
from .inputs import edits_of, states, together
from .lists import ids_of, is_per_row
from .masks import masks
from .orders import parse_order
from .parameters import DEFAULTS, TABLE, Ints, Parameters, Seeds, SupportsArray
from .plans import Plan, make_plan, plan_of
from .records import STATES as SIZES
from .rules import Rules, check_ids
from .sampling import Errors, Ids, draw_rows, mark_of, thread_limit, tokens_for
from .sequence import Memory, Past, step_at_once
from .signatures import documented_class
from .values import MAX_UINT64, any_integer, column, is_word, named, plain, uint64

if TYPE_CHECKING:
    from typing_extensions import Unpack

States = npt.NDArray[np.float64]


@documented_class
class Sampler:
    """A sequence with its parameters fixed: validated once, then called on row after row.

    Each call draws at the sampler's `offset` and advances it by one, so a sequence is reproduced
    by the same seed. A call on one contiguous float32 row is the fastest way to draw.

    Where a parameter looks at the history, the sampler keeps it: `start` gives it the prompt, each
    call adds the token that it draws, `push` adds others, and `rollback` takes tokens back. Where a
    stage has a state, the sampler keeps that too. A sampler with a history or a state draws from
    one row at a time, any other from a batch as well.

    Parameters
    ----------
    {parameters}
    seed : int or array of shape (B,), optional
        As in `sample`; without it, one from the operating system, which the repr shows. A process
        that is forked then goes on with another one. A row whose own is None draws as in `sample`.
    offset : int, default 0
        The step of the first call.
    state : float64 array, shape (S,), optional
        As `state` below; by default the start.
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
    state : float64 array, shape (S,), or None
        A copy of the state of `mirostat`, (mu,), or of `adaptive_target`, two sums; it can be set.
    history : int64 array, shape (n,)
        A copy of the tokens so far. Without a parameter that looks at them they are kept from the
        first `start` or `push` on.

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
    >>> sampler = fastsample.Sampler(temperature=0.0, repetition_penalty=1.5)
    >>> sampler.start([0])
    >>> [sampler(logits) for _ in range(3)]
    [1, 0, 0]
    >>> sampler.history
    array([0, 1, 0, 0])
    >>> sampler.rollback(3)
    >>> sampler(logits)
    1
    """

    __slots__ = (
        "__weakref__", "_draw", "_memory", "_module", "_options", "_own", "_parameters", "_plan",
        "_rows", "_sequence", "_tell",
    )  # fmt: skip

    _OPTIONS: ClassVar[dict[str, Any]] = {"errors": "raise", "threads": None}

    def __init__(
        self,
        *,
        seed: Seeds = None,
        offset: int = 0,
        state: SupportsArray | Sequence[float] | None = None,
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
        self._rows = _rows_of(given)
        self._plan = _plan_of(type(self).__name__, given, self._rows)
        self._memory = Memory(self._plan)
        self._sequence = self._memory.sequence
        # A backend may have a faster way for one row; it is of use while that backend is active.
        self._draw, self._module = self._sequence.draw, backend.active()
        self._tell = getattr(self._sequence, "tell", None)
        if state is not None:
            self.state = state
        self._own: int | None = None
        if seed is None:
            self._own = seed = secrets.randbits(64)
            _unseeded.add(self)
        self._move(seed, offset)

    # ---- draws ----------------------------------------------------------------------------------

    @overload
    def __call__(
        self, logits: Row, *, out: Ids | None = ..., allowed: SupportsArray | None = ...
    ) -> int: ...
    @overload
    def __call__(
        self, logits: Rows, *, out: Ids | None = ..., allowed: SupportsArray | None = ...
    ) -> Ids: ...
    @overload
    def __call__(
        self, logits: Logits, *, out: Ids | None = ..., allowed: SupportsArray | None = ...
    ) -> int | Ids: ...
    def __call__(
        self,
        logits: Logits,
        *,
        out: Ids | None = None,
        allowed: SupportsArray | None = None,
    ) -> int | Ids:
        """Draw one token from each row of logits, as `sample` does, and advance the offset.

        The token is added to the history, if there is one; -1 of a bad row is not.
        """
        quick = self._draw is not None and out is None
        if quick and self._module is backend._active:
            token: int = self._draw(logits) if allowed is None else self._draw(logits, allowed)
            if token >= 0:
                return token
        rows, single = as_rows(logits)
        tokens = tokens_for(out, len(rows), single)
        self._take(rows, single, allowed, tokens)
        if single:
            return int(tokens.item())
        return tokens if out is None else out

    def draw(
        self,
        logits: Logits,
        *,
        logprobs: Logprobs | None = "raw",
        top_logprobs: int = 0,
        support: bool = False,
        log_mass: bool = False,
        allowed: SupportsArray | None = None,
    ) -> Draw:
        """Draw as a call does, and tell more of each draw, as `fastsample.draw` does."""
        if self._tell is not None and allowed is None and self._module is backend._active:
            told = self._tell(logits, logprobs, top_logprobs, support, log_mass)
            if told is not None:
                return tuple.__new__(Draw, told)
        rows, single = as_rows(logits)
        kind = kind_of(logprobs)
        arrays = make_arrays(rows.shape, kind, top_logprobs, support, log_mass)
        tokens = np.empty(len(rows), np.int64)
        self._take(rows, single, allowed, tokens, (kind, arrays))
        return make_draw(tokens, arrays, single)

    def _take(
        self,
        rows: npt.NDArray[Any],
        single: bool,
        allowed: Any,
        tokens: Ids,
        told: Any = None,
    ) -> None:
        """Draw tokens and go on."""
        limit = thread_limit(self._options["threads"])
        # A bad row that is marked counts as a step here.
        if len(rows) == 1 and step_at_once(
            [self._sequence], rows, single, False, tokens, limit, allowed, told
        ):
            return
        inputs = self._inputs_of(rows, single, allowed)
        mark = mark_of(self._options["errors"])
        after = self._drawn(rows, inputs, mark, tokens, limit, told)
        self._advance(int(tokens[0]) if len(rows) else -1, after)

    def _inputs_of(self, rows: npt.NDArray[Any], single: bool, allowed: Any) -> dict[str, Any]:
        """Return what a backend takes beside rows, records, uniforms and coins."""
        count, vocab = rows.shape
        memory = self._memory
        if count != 1 and (memory.keeps or self._plan.stateful):
            kept = "a history" if memory.keeps else "a state"
            raise ValueError(f"logits must be one row for a sampler with {kept}, got {count} rows")
        if self._rows not in (None, count):
            make_plan(count, type(self).__name__, self._parameters)  # words what is wrong
        plan, inputs = self._plan, dict[str, Any]()
        if plan.rules is not None:
            check_ids(plan.rules, vocab)
        if isinstance(plan.rules, Rules):
            inputs |= together([memory.edits(vocab)] * count)
        elif plan.rules is not None:
            inputs |= edits_of(plan.rules, None, count, vocab)
        inputs |= masks(plan.rules, allowed, None, count, single, vocab)
        if plan.stateful is not None:
            inputs["state"] = states(memory.state, plan.stateful, 1, True)
        return inputs

    def _drawn(
        self,
        rows: npt.NDArray[Any],
        inputs: dict[str, Any],
        mark: bool,
        tokens: Ids,
        limit: int,
        told: Any = None,
    ) -> States | None:
        """Draw tokens and return the state after them; nothing is moved."""
        offset = uint64("offset", self.offset)
        if self._memory.keeps and offset == MAX_UINT64:
            raise ValueError("offset must be less than 2**64 - 1, which has no next one")
        seed = uint64("seed", None) if self.seed is None else self.seed  # which None is not
        sources = seed, offset, None, None, None, self._plan.coin
        draw_rows(rows, self._plan, inputs, sources, mark, tokens, limit, told)
        moved: States | None = inputs.get("state")
        return None if moved is None else moved[0, : SIZES[str(self._plan.stateful)]]

    def _advance(self, token: int, state: States | None) -> None:
        """Go on after a token that was drawn at the offset; -1 is of a bad row, or of several."""
        self._memory.took(token, uint64("offset", self.offset), state)

    # ---- the history ----------------------------------------------------------------------------

    def start(
        self,
        prompt_ids: Sequence[int | np.integer[Any]] | SupportsArray,
        *,
        prompt_length: int | None = None,
    ) -> None:
        """Begin anew with a prompt.

        Parameters
        ----------
        prompt_ids : int array, shape (n,)
            The tokens so far.
        prompt_length : int, optional
            How many of them are the prompt; by default all.

        Notes
        -----
        A state goes back to its start. Seed and offset stay as they are.
        """
        ids = ids_of("prompt_ids", prompt_ids)
        length = ids.size if prompt_length is None else any_integer("prompt_length", prompt_length)
        if not 0 <= length <= ids.size:
            raise ValueError(f"prompt_length must be in [0, {ids.size}], got {length}")
        self._kept_memory().start(ids, length)

    def push(self, ids: Ints) -> None:
        """Add tokens, an id or several, that the sampler has not drawn itself."""
        more = ids_of("ids", [ids] if isinstance(ids, (int, np.integer)) else ids)
        self._kept_memory().push(more)

    def rollback(self, n: int) -> None:
        """Take the last n tokens back, and with those that the sampler drew their steps.

        It draws the same again then. Where a stage has a state, which cannot go back, this is
        refused.
        """
        count, have = any_integer("n", n), len(self._memory)
        if not 0 <= count <= have:
            raise ValueError(f"n must be in [0, {have}], the tokens of the history, got {count}")
        if count == 0:
            return
        if self._plan.moves:
            raise ValueError(f"rollback must not be used where {self._plan.stateful} has a state")
        self._memory.pop(count)

    @property
    def history(self) -> Ids:
        """The tokens so far."""
        return self._memory.tokens

    def _kept_memory(self) -> Memory:
        """Return what can keep tokens."""
        if _is_several(self._plan):
            raise ValueError("a sampler with parameters of several rows has no history")
        return self._memory

    # ---- the state, and the beginning -----------------------------------------------------------

    @property
    def state(self) -> States | None:
        """The numbers of the stage that has a state, of which there is one at most."""
        return self._memory.state

    @state.setter
    def state(self, value: SupportsArray | Sequence[float]) -> None:
        self._memory.set_state(value)

    @property
    def seed(self) -> Any:
        """The seed."""
        return self._memory.seed

    @seed.setter
    def seed(self, value: Seeds) -> None:
        self._memory.seek(value, self.offset)

    @property
    def offset(self) -> int:
        """The step of the next call."""
        offset: int = self._memory.offset
        return offset

    @offset.setter
    def offset(self, value: int) -> None:
        self._memory.seek(self.seed, value)

    def reset(self, seed: Seeds = None, offset: int = 0) -> None:
        """Go back to `offset`, with another seed if one is given.

        What has followed the tokens that `start` was given is taken back; a state goes back to its
        start.
        """
        self._move(seed, offset)
        self._memory.reset()

    def _move(self, seed: Seeds, offset: int) -> None:
        seed = self.seed if seed is None else column("seed", seed, None, _seed_of)
        self._memory.seek(seed, uint64("offset", offset))

    def _reseed(self) -> None:
        """Take another seed, unless somebody has given one."""
        if self._is_unseeded():
            self._own = self.seed = secrets.randbits(64)

    def _is_unseeded(self) -> bool:
        return self._own is not None and is_word(self.seed) and bool(self.seed == self._own)

    # ---- copies ---------------------------------------------------------------------------------

    def copy(self, *, seed: Seeds = None) -> Sampler:
        """Return a sampler that goes on as this one, or with a seed begins as this one did."""
        twin = _make_sampler(*self._made_of())
        if hasattr(self, "__dict__"):  # of a subclass
            vars(twin).update(vars(self))
        if seed is not None:
            twin.reset(seed)
        return twin

    __copy__ = copy

    def __deepcopy__(self, memo: Any) -> Sampler:
        return self.copy()

    def _arguments(self) -> dict[str, Any]:
        state = self.state
        moved = {} if state is None else {"state": state.tolist()}
        place = {"seed": self.seed, "offset": self.offset}
        return {**self._parameters, **place, **moved, **self._options}

    def _made_of(self) -> tuple[dict[str, Any], type[Sampler], Past | None, bool]:
        return self._arguments(), type(self), self._memory.past(), self._is_unseeded()

    def __reduce__(self) -> Any:
        return _make_sampler, self._made_of(), getattr(self, "__dict__", None)

    def __repr__(self) -> str:
        usual = {**DEFAULTS, **self._OPTIONS}
        shown = {
            n: v for n, v in self._arguments().items() if n not in usual or not _same(v, usual[n])
        }
        return f"{type(self).__name__}({', '.join(f'{n}={v!r}' for n, v in shown.items())})"


def _seed_of(name: str, value: Any, where: str) -> int | None:
    """Return a seed, or the None of one row among others, which draws as `sample` does without."""
    return None if value is None and where else uint64(name, value, where)


def _same(value: Any, default: Any) -> bool:
    return type(value) is type(default) and bool(value == default)


def _rows_of(given: dict[str, Any]) -> int | None:
    """Return of how many rows the parameters speak; None is any number."""
    lengths = {len(v) for n, v in given.items() if _is_per_row(n, v)}
    return lengths.pop() if lengths else None


def _plan_of(function: str, given: dict[str, Any], rows: int | None) -> Plan:
    plan = plan_of(1 if rows is None else rows, function, given)
    if not _is_several(plan):
        return plan
    rules = [plan.rules] if isinstance(plan.rules, Rules) else plan.rules or ()
    remembers = any(r.needs_history for r in rules)
    if remembers or plan.stateful is not None:  # which a sampler has but once
        name = next(n for n, v in given.items() if _is_per_row(n, v))
        kept = "a history" if remembers else "a state"
        raise ValueError(
            f"{name} must be one value for a sampler with {kept}, got one for each row"
        )
    return plan


def _is_several(plan: Plan) -> bool:
    """Whether rows have parameters of their own."""
    return plan.records.size > 1 or isinstance(plan.rules, list)


def _is_per_row(name: str, value: Any) -> bool:
    if name == "order" or not isinstance(value, (list, tuple)):
        return False
    rule = TABLE.get(name)
    return rule is None or not rule.listed or is_per_row(value, rule.convert)


def _make_sampler(
    arguments: dict[str, Any],
    kind: type[Sampler] = Sampler,
    past: Past | None = None,
    unseeded: bool = False,
) -> Sampler:
    sampler = kind.__new__(kind)
    Sampler.__init__(sampler, **arguments | {"offset": 0})
    sampler.offset = arguments["offset"]  # 2**64 after the last step, with which none is made
    if past is not None:
        sampler._kept_memory().resume(past)
    if unseeded:
        sampler._own = sampler.seed
        _unseeded.add(sampler)
    return sampler


def _kept(name: str, value: Any) -> Any:
    if name == "order":
        return value if isinstance(value, str) else parse_order(value)
    if name in TABLE and TABLE[name].listed and not hasattr(value, "tolist"):
        with named(f"{name} must be {TABLE[name].requirement}"):  # of a generator, say
            return deepcopy(value)
    return plain(name, value)


# Samplers without a seed of the user's: a child that is forked must not repeat its parent's draws.
_unseeded: weakref.WeakSet[Sampler] = weakref.WeakSet()


def _reseed_all() -> None:
    for sampler in list(_unseeded):
        sampler._reseed()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reseed_all)
