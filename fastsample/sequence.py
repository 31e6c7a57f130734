"""What a sampler remembers: the place of its next draw, its tokens, and the state of a stage.

A backend may have a ``Sequence`` of its own, which draws, pushes what it has drawn and moves on in
compiled code; else one is made here of a backend's ``History``.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Several
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import backend
from .inputs import states
from .masks import mask_words
from .plans import Plan, start_of
from .rules import Rules
from .values import MAX_UINT64, is_word, named, refuse_masked

Ids = npt.NDArray[np.int64]
States = npt.NDArray[np.float64]


class Past(NamedTuple):
    """All that is remembered of tokens; the step of one that was not drawn is None."""

    tokens: Ids
    prompt_length: int
    steps: list[int | None]
    begun: int


class _Sequence:
    """What a backend's own ``Sequence`` is, made of its history and of the draw of a plan."""

    def __init__(self, rules: Several[Any], state: States | None, draw: Any) -> None:
        self._draw = draw
        self._ready = True  # whether seed and offset of the next draw are known here
        self._history = backend.history(rules)
        self._steps: list[int | None] = []
        self.state = state
        self.seed = self.offset = 0
        self.keeps = True

    def seek(self, seed: Any, offset: Any) -> bool:
        """Go to a place, where it is one."""
        self._ready = is_word(seed) and is_word(offset)
        if self._ready:
            self.seed, self.offset = seed, offset
        return self._ready

    @property
    def draw(self) -> Any:
        """The fast way to the next token of a row, if there is one."""
        return None if self._draw is None else self._draw_next

    def _draw_next(self, row: Any, allowed: Any = None) -> int:
        """Draw, and move on; -1 with nothing moved where the general path has to look."""
        if not self._ready or allowed is not None or self.offset == MAX_UINT64:
            return -1
        token: int = self._draw(row, self.seed, self.offset)
        if token >= 0:
            if self.keeps:
                self.accept((token,), self.offset)
            self.offset += 1
        return token

    def start(self, ids: Any, prompt_length: int | None = None) -> None:
        """Begin anew with these tokens."""
        self._history.start(ids, len(ids) if prompt_length is None else prompt_length)
        self._steps = [None] * len(ids)

    def push(self, ids: Any) -> None:
        """Add tokens."""
        self._history.push(ids)
        self._steps += [None] * len(ids)

    def accept(self, ids: Any, offset: int) -> None:
        """Add tokens that were drawn at this offset and those that follow."""
        self._history.push(ids)
        self._steps += range(offset, offset + len(ids))

    def pop(self, count: int) -> int | None:
        """Take tokens back; return the step of the first of them that was drawn, if one was."""
        kept = len(self._steps) - count
        drawn = next((step for step in self._steps[kept:] if step is not None), None)
        self._history.pop(count)
        del self._steps[kept:]
        return drawn

    def __len__(self) -> int:
        return len(self._steps)

    def steps(self) -> list[int | None]:
        """Return the offset at which each token was drawn."""
        return self._steps.copy()

    def tokens(self) -> Ids:
        """Return all tokens."""
        tokens: Ids = self._history.tokens()
        return tokens

    def edits(self, vocab: int) -> npt.NDArray[np.void]:
        """Return what the rules make of the tokens."""
        made: npt.NDArray[np.void] = self._history.edits(vocab)
        return made


class Memory:
    """The place, the tokens and the state of one sampler.

    ``sequence`` has them. Its ``draw``, where it has one, is the fast way to the next token, which
    moves it on.
    """

    __slots__ = ("_begun", "_odd", "_plan", "_prompt", "sequence")

    def __init__(self, plan: Plan) -> None:
        rules = plan.rules if isinstance(plan.rules, Rules) else None
        self._plan = plan
        self._begun = self._prompt = 0  # how many tokens `start` was given, and are the prompt
        self._odd: tuple[Any, Any] | None = None  # seed and offset that are no words
        make = getattr(backend.active(), "Sequence", None)
        if make is not None and plan.records.size == 1 and not isinstance(plan.rules, list):
            self.sequence: Any = make(plan.records, () if rules is None else rules.all_rules())
        else:
            state = start_of(plan, 1)[0] if plan.stateful is not None else None
            self.sequence = _Sequence(() if rules is None else rules.rules, state, plan.draw)
        self.sequence.keeps = bool(rules and rules.needs_history)

    # ---- the place ------------------------------------------------------------------------------

    def seek(self, seed: Any, offset: Any) -> None:
        """Go to a place; what is wrong with it, or several seeds, is for the next draw to see."""
        self._odd = None if self.sequence.seek(seed, offset) else (seed, offset)

    @property
    def seed(self) -> Any:
        """The seed."""
        return self.sequence.seed if self._odd is None else self._odd[0]

    @property
    def offset(self) -> Any:
        """The step of the next draw."""
        return self.sequence.offset if self._odd is None else self._odd[1]

    def took(self, token: int, offset: int, state: States | None) -> None:
        """Go on after a draw at this offset by other means than ``draw``; -1 is no token."""
        seed = self.seed
        if self.sequence.keeps and token >= 0:
            self.sequence.accept((token,), offset)
        if state is not None:
            self._take(state)
        self.seek(seed, offset + 1)

    # ---- the state ------------------------------------------------------------------------------

    @property
    def state(self) -> States | None:
        """A copy of the state."""
        state: States | None = self.sequence.state
        return None if state is None else state.copy()

    def set_state(self, value: Any) -> None:
        """Take another state, of any real numbers; what is none is told as it came."""
        refuse_masked("state", value)
        with named("state must be numbers"):
            numbers = np.asarray(value)
        if numbers.dtype.kind in "iuf":
            numbers = numbers.astype(np.float64)
        whole = states(numbers, self._plan.stateful, 1, True)[0]
        self._take(whole[: numbers.size])

    def _take(self, state: States) -> None:
        self.sequence.state = state.copy()

    def restart(self) -> None:
        """Go back to the start of the state."""
        if self._plan.stateful is not None:
            self._take(start_of(self._plan, 1)[0])

    # ---- the tokens -----------------------------------------------------------------------------

    @property
    def keeps(self) -> bool:
        """Whether tokens are kept."""
        keeps: bool = self.sequence.keeps
        return keeps

    def _keep(self) -> None:
        if not self.sequence.keeps:
            self.sequence.start(())
            self.sequence.keeps = True

    def start(self, ids: Ids, prompt_length: int) -> None:
        """Begin anew with these tokens."""
        self._keep()
        self.sequence.start(ids, prompt_length)
        self._begun, self._prompt = ids.size, prompt_length
        self.restart()

    def push(self, ids: Ids) -> None:
        """Add tokens that have not been drawn."""
        self._keep()
        self.sequence.push(ids)

    def pop(self, count: int) -> None:
        """Take tokens back, and with those that were drawn their steps."""
        kept = len(self) - count
        seed, step = self.seed, self.sequence.pop(count)
        if step is not None:
            self.seek(seed, step)
        self._begun, self._prompt = min(self._begun, kept), min(self._prompt, kept)

    def __len__(self) -> int:
        return len(self.sequence) if self.keeps else 0

    def reset(self) -> None:
        """Take back what has followed the tokens of the start, and the state."""
        if self.keeps:
            self.sequence.start(self.tokens[: self._begun], self._prompt)
        self.restart()

    @property
    def tokens(self) -> Ids:
        """All tokens."""
        if not self.keeps:
            return np.empty(0, np.int64)
        found: Ids = self.sequence.tokens()
        return found

    def edits(self, vocab: int) -> npt.NDArray[np.void]:
        """Return what the rules make of the tokens."""
        made: npt.NDArray[np.void] = self.sequence.edits(vocab)
        return made

    # ---- copies ---------------------------------------------------------------------------------

    def past(self) -> Past | None:
        """Return what there is to remember of tokens."""
        if not self.keeps:
            return None
        return Past(self.tokens, self._prompt, self.sequence.steps(), self._begun)

    def resume(self, past: Past) -> None:
        """Remember the tokens that another has."""
        seed, offset = self.seed, self.offset
        self._keep()
        self.sequence.start(past.tokens[: past.begun], past.prompt_length)
        for place, size, step in _runs(past.steps, past.begun):
            ids = past.tokens[place : place + size]
            if step is None:
                self.sequence.push(ids)
            else:
                self.sequence.accept(ids, step)
        self._begun, self._prompt = past.begun, past.prompt_length
        self.seek(seed, offset)


def _runs(steps: list[int | None], begun: int) -> Iterator[tuple[int, int, int | None]]:
    """Yield place, length and first step of tokens whose steps follow each other, or are none."""
    places = range(begun, len(steps))
    for _, run in groupby(places, lambda i: None if steps[i] is None else steps[i] - i):  # type: ignore[operator]
        first, *others = run
        yield first, 1 + len(others), steps[first]


def step_quickly(samplers: Any, logits: Any) -> Ids | None:
    """Let the backend draw for all, if it can without a look at anything; else nothing has moved.

    These are samplers, or else it cannot.
    """
    step = getattr(backend.active(), "step_quickly", None)
    if step is None or not isinstance(samplers, (list, tuple)):
        return None
    try:
        sequences = [sampler._sequence for sampler in samplers]
    except AttributeError:  # no samplers, which is worded elsewhere
        return None
    tokens: Ids | None = step(sequences, logits)
    return tokens


def step_at_once(
    sequences: list[Any],
    rows: npt.NDArray[Any],
    single: bool,
    mark: bool,
    tokens: Ids,
    limit: int,
    allowed: Any,
    told: tuple[int, dict[str, npt.NDArray[Any]]] | None,
) -> bool:
    """Let the backend draw for all, and move them; where it cannot, nothing has moved."""
    step = getattr(backend.active(), "step", None)
    if step is None:
        return False
    if allowed is not None:
        allowed = mask_words(allowed, len(rows), single, rows.shape[1])
    return bool(step(sequences, rows, mark, tokens, limit, allowed, *(told or ())))
