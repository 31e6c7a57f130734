"""What a sampler that is ready for one row is. Depends on ``works.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from .works import Params

#: What most samplers have, and what turns it off.
FOUR: Params = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
LACKS = "it has no "
#: What is no stage and no edit.
BESIDE = frozenset({"order", "history", "prompt_length"})


class Prepared(NamedTuple):
    """A sampler made ready for one row and its parameters; `draw` takes its own uniform."""

    draw: Callable[[], Any]
    before: Callable[[], object] | None = None  # before each draw, not timed: no part of sampling
    build: Callable[[], object] | None = None  # a part of `draw` that is also shown apart

    def next(self) -> Any:
        """Draw once, from where each draw begins."""
        if self.before:
            self.before()
        return self.draw()


def refuse_others(params: Params, known: Iterable[str] = FOUR) -> None:
    """Refuse parameters that a sampler does not know."""
    for name in params:
        if name not in BESIDE and name not in known:
            raise NotImplementedError(f"{LACKS}{name}")
