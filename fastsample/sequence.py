"""What a sampler remembers: its tokens, the steps at which it drew them, and the state of a stage.

A backend may have a ``Sequence`` of its own, which draws, pushes what it has drawn and moves the
state in compiled code; else a backend's ``History`` is kept here beside the state.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import backend
from .inputs import states
from .plans import Plan, start_of
from .rules import Rules

Ids = npt.NDArray[np.int64]
States = npt.NDArray[np.float64]


class Past(NamedTuple):
    """All that is remembered of tokens."""

    tokens: Ids
    prompt_length: int
    steps: list[int]
    begun: int


class Memory:
    """The tokens and the state of one sampler.

    ``draw`` is a backend's fast way to the next token, after which ``drew`` has to be called.
    ``steps`` has the offset of each token that was drawn, and -1 for others; None is that no
    tokens are kept.
    """

    __slots__ = ("_begun", "_plan", "_prompt", "_state", "core", "draw", "sequence", "steps")

    def __init__(self, plan: Plan) -> None:
        rules = plan.rules if isinstance(plan.rules, Rules) else None
        self._plan = plan
        self.steps: list[int] | None = [] if rules and rules.needs_history else None
        self._begun = self._prompt = 0  # how many tokens `start` was given, and are the prompt
        self._state = start_of(plan, 1)[0] if plan.stateful is not None else None
        self.draw: Any = plan.draw
        self.core = False  # whether `sequence` is a backend's own, which moves as it draws
        make = getattr(backend.active(), "Sequence", None)
        all_rules = () if rules is None else rules.all_rules()
        if make is not None and plan.records.size == 1:
            self.sequence: Any = make(plan.records, all_rules)
            self.draw, self.core = self.sequence.draw, True
        else:
            self.sequence = backend.history(() if rules is None else rules.rules)

    # ---- the state ------------------------------------------------------------------------------

    @property
    def state(self) -> States | None:
        """A copy of the state."""
        if self._state is None:
            return None
        state: States = self.sequence.state[: self._state.size] if self.core else self._state
        return state.copy()

    def set_state(self, value: Any) -> None:
        """Take another state."""
        whole = states(value, self._plan.stateful, 1, True)[0]
        self._take(whole[: np.size(value)])

    def _take(self, state: States) -> None:
        self._state = state.copy()
        if self.core:
            self.sequence.state = self._state

    def restart(self) -> None:
        """Go back to the start of the state."""
        if self._state is not None:
            self._take(start_of(self._plan, 1)[0])

    # ---- the tokens -----------------------------------------------------------------------------

    def keep(self) -> list[int]:
        """Keep tokens from now on."""
        if self.steps is None:
            self.sequence.start(())
            self.steps = []
        return self.steps

    def start(self, ids: Ids, prompt_length: int) -> None:
        """Begin anew with these tokens."""
        self.sequence.start(ids, prompt_length)
        self.steps = [-1] * ids.size
        self._begun, self._prompt = ids.size, prompt_length
        self.restart()

    def push(self, ids: Ids) -> None:
        """Add tokens that have not been drawn."""
        steps = self.keep()
        self.sequence.push(ids)
        steps += [-1] * ids.size

    def pop(self, count: int) -> int | None:
        """Take tokens back; return the step of the first of them that was drawn, if one was."""
        if self.steps is None or count == 0:
            return None
        kept = len(self.steps) - count
        drawn = next((step for step in self.steps[kept:] if step >= 0), None)
        self._cut(kept)
        del self.steps[kept:]
        self._begun, self._prompt = min(self._begun, kept), min(self._prompt, kept)
        return drawn

    def _cut(self, kept: int) -> None:
        state = self.state
        if self.core and state is not None:  # what has a state does not go back: it begins anew
            self.sequence.start(self.tokens[:kept], min(self._prompt, kept))
            self._take(state)
        else:
            self.sequence.pop(len(self.steps or ()) - kept)

    def drew(self, token: int, offset: int) -> None:
        """Go on after a draw by the fast way."""
        if self.steps is not None:
            if not self.core:
                self.sequence.push((token,))
            self.steps.append(offset)

    def took(self, token: int, offset: int, state: States | None) -> None:
        """Go on after a draw by other means than ``draw``; -1 is no token."""
        if self.steps is not None and token >= 0:
            self.sequence.push((token,))
            self.steps.append(offset)
        if state is not None:
            self._take(state)

    def reset(self) -> None:
        """Take back what has followed the tokens of the start, and the state."""
        if self.steps is not None:
            self.sequence.start(self.tokens[: self._begun], self._prompt)
            del self.steps[self._begun :]
        self.restart()

    @property
    def tokens(self) -> Ids:
        """All tokens."""
        if self.steps is None:
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
        if self.steps is None:
            return None
        return Past(self.tokens, self._prompt, list(self.steps), self._begun)

    def resume(self, past: Past) -> None:
        """Remember what another has."""
        self.sequence.start(past.tokens, past.prompt_length)
        self.steps = list(past.steps)
        self._begun, self._prompt = past.begun, past.prompt_length
