"""All that the parameters of a call say: its chains, its rules, and what else they ask for.

A call whose parameters are scalars looks its plan up at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import backend
from .chains import make_records, refuse_unknown
from .parameters import EDITING
from .records import KINDS, NUMBERS, STATES, Records
from .reference.stages import TABLE
from .rules import Rules, make_rules
from .values import is_array

_EDITING = frozenset(EDITING)
_TEMPERATURE, _XTC = KINDS.index("temperature") + 1, KINDS.index("xtc") + 1
#: Parameters that ask for more than a uniform.
_ASKING = frozenset({"xtc_probability", "mirostat", "adaptive_target"})


class Plan(NamedTuple):
    """What rows are drawn with, whichever rows these are."""

    records: Records
    rules: Rules | Sequence[Rules] | None = None
    coin: bool = False  # whether a row needs one
    stateful: str | None = None  # the stage that has a state
    moves: bool = False  # whether a draw would move one
    draw: Callable[[Any, Any, Any], int] | None = None  # a backend's fast way for one row
    module: Any = None  # that backend


def _asks(records: Records) -> tuple[bool, str | None, bool]:
    """Return whether a row needs a coin, the stage with a state, and whether a row moves it."""
    kind, first = records["stages"]["kind"], records["stages"]["value"][..., 0]
    sampled = ~((kind == _TEMPERATURE) & (first == 0.0)).any(axis=1)
    flips = ((kind == _XTC) & (first > 0.0) & (first < 1.0)).any(axis=1)
    for name in STATES:
        on = ((kind == KINDS.index(name) + 1) & (first > 0.0)).any(axis=1)
        if on.any():
            return bool((flips & sampled).any()), name, bool((on & sampled).any())
    return bool((flips & sampled).any()), None, False


def make_plan(rows: int, function: str, parameters: Mapping[str, Any]) -> Plan:
    """Return the plan of a call; its parameters may be one value for each row."""
    editing = {n: v for n, v in parameters.items() if n in _EDITING}
    chain = {n: v for n, v in parameters.items() if n not in editing}
    records = make_records(rows, function, **chain)
    rules = make_rules(rows, editing) if editing else None
    asks = (False, None, False) if _ASKING.isdisjoint(chain) else _asks(records)
    return Plan(records, rules, *asks)


@lru_cache(maxsize=1024, typed=True)
def _scalar_plan(module: Any, /, **parameters: Any) -> Plan:
    for name, value in parameters.items():
        if isinstance(value, tuple) and name != "order":
            raise TypeError("a list is no scalar")
        if is_array(value):
            raise TypeError("an array, which may change, is no key")
    refuse_unknown("", parameters)
    plan = make_plan(1, "", parameters)
    if plan.rules is not None or plan.coin or plan.moves or not hasattr(module, "plan"):
        return plan
    return plan._replace(draw=module.plan(plan.records), module=module)


def plan_of_scalars(parameters: Mapping[str, Any]) -> Plan | None:
    """Return the plan of a call whose parameters are all scalars, or None."""
    try:
        return _scalar_plan(backend.active(), **parameters)
    except (TypeError, ValueError):  # lists or arrays, or a mistake that is worded elsewhere
        return None


def plan_of(rows: int, function: str, parameters: Mapping[str, Any]) -> Plan:
    """Return the plan of a call, looked up where it can be."""
    return plan_of_scalars(parameters) or make_plan(rows, function, parameters)


def start_of(plan: Plan, rows: int) -> npt.NDArray[np.float64]:
    """Return the states, (rows, S), with which the stage that has one begins."""
    assert plan.stateful is not None
    kind, size = KINDS.index(plan.stateful) + 1, STATES[plan.stateful]
    states = np.zeros((rows, size))
    for row in range(rows):
        stages = plan.records[row if plan.records.size > 1 else 0]["stages"]
        value = stages["value"][stages["kind"] == kind][0][: NUMBERS[plan.stateful]]
        start = TABLE[plan.stateful].start
        assert start is not None
        states[row] = start(*value.tolist())
    return states
