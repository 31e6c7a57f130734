"""The walk of a row through a chain, and the draw at its end. Depends on the stages alone.

``walk`` is the part to read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .distribution import Distribution, State
from .row import Floats32
from .stages import TABLE


class Step(NamedTuple):
    """A stage of a chain with its numbers.

    A joint one cuts the same distribution as the step before it, and a token stays where all of
    them keep it: for floors, which keep the first of the total order.
    """

    stage: str
    value: tuple[float, ...]
    joint: bool = False


Chain = Sequence[Step]


def walk(
    row: Floats32,
    chain: Chain,
    at_least: int = 1,
    *,
    coin: float | None = None,
    state: State = (),
) -> Distribution:
    """Return what is kept of a row, which has been edited and masked, and is without defects."""
    ids = np.lexsort((np.arange(row.size), -row))  # value descending, index ascending
    ids = ids[np.isfinite(row[ids])]
    d = before = Distribution(
        ids, row[ids].astype(np.float64), row.size, at_least, coin=coin, state=state
    )
    if is_greedy(chain):
        return TABLE["temperature"].apply(d, 0.0)
    for step in chain:
        stage = TABLE[step.stage]
        if not step.joint:
            before = d
        if before.temperature == 0.0 or stage.off(*step.value):
            continue
        cut = stage.apply(before, *step.value)
        d = cut if not step.joint or cut.ids.size < d.ids.size else d
    return d


def is_greedy(chain: Chain) -> bool:
    """Whether a temperature of 0 makes all else meaningless."""
    return any(step.stage == "temperature" and step.value[0] == 0.0 for step in chain)


def draw(d: Distribution, u: float) -> int:
    """Return the place in a distribution that u draws: the inverse CDF in the order of the ids."""
    by_id = np.argsort(d.ids)
    cumulative = np.cumsum(d.probs[by_id])
    place = int(np.searchsorted(cumulative, u * cumulative[-1], side="right"))
    return int(by_id[min(place, by_id.size - 1)])


def state_after(chain: Chain, d: Distribution, place: int) -> State:
    """Return the state after the draw of the token at that place; greedy leaves it as it is."""
    if d.temperature == 0.0:
        return d.state
    for step in chain:
        stage = TABLE[step.stage]
        if stage.after is not None and not stage.off(*step.value):
            return stage.after(d, place, *step.value)
    return d.state


def uniform(seed: int, stream: int, offset: int, use: int = 0) -> float:
    """Return the uniform in [0, 1) of a seed, a stream, a step and a use: NumPy's own.

    Use 0 is the draw, 1 the coin of a stage.
    """
    bits = np.random.Philox(
        key=np.array([seed, stream], np.uint64), counter=np.array([offset, use, 0, 0], np.uint64)
    )
    return float(np.random.Generator(bits).random())
