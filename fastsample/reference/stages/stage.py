"""What the table has of each stage. Depends on ``distribution.py`` alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..distribution import Distribution, State


class Stage(NamedTuple):
    """A row of the table; every function takes the stage's own numbers last.

    Attributes
    ----------
    off
        Whether these numbers change nothing.
    apply
        What is left of a distribution.
    start
        The state that it starts with, of a stage that has one.
    after
        The state after the draw of the token at a place of a distribution.
    """

    off: Callable[..., bool]
    apply: Callable[..., Distribution]
    start: Callable[..., State] | None = None
    after: Callable[..., State] | None = None
