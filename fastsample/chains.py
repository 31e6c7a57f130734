"""From parameters to the chains that a backend runs: what is valid, and which stages are on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from . import backend
from .orders import flat, parse_order
from .parameters import DEFAULT_ORDER, NAMES, OF_STAGE, TABLE
from .records import KINDS, STAGE, Records, record_type
from .values import column, flag, integer, is_array

_ARRAYS: dict[Any, str] = {integer: "iu", flag: "b"}  # kinds of dtypes

Numbers = npt.NDArray[np.float64]


def refuse_unknown(function: str, names: Iterable[str]) -> None:
    """Refuse what is no parameter, with the one that may have been meant."""
    for name in names:
        if name not in NAMES:
            near = get_close_matches(name, NAMES, n=1)
            hint = f": did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}{hint}")


def checked(name: str, value: Any, where: str = "") -> Any:
    """Return one valid number."""
    rule = TABLE[name]
    if value is None and rule.none is not None:
        return rule.none
    number = rule.convert(name, value, where)
    if not rule.low <= number <= rule.high:  # as NaN is not
        raise ValueError(f"{name} must be {rule.requirement}, got {value!r}{where}")
    return number


def stages_on(parameters: Mapping[str, Any]) -> list[str]:
    """Return the stages that scalar parameters turn on, in the order that they run."""
    values = {
        n: np.array([checked(n, v)], float)
        for n, v in parameters.items()
        if n in TABLE and TABLE[n].stage is not None
    }
    order = parse_order(parameters.get("order", DEFAULT_ORDER))
    on = _rows_on(values)
    return [stage for stage, _ in flat(order) if stage in on and on[stage].any()]


def numbers_of(name: str, value: Any, rows: int) -> Numbers:
    """Return valid numbers, shape (1,) or (rows,)."""
    rule = TABLE[name]
    quick = getattr(backend.active(), "take_numbers", None)
    if quick is not None and rule.convert is not flag:  # a look at each in compiled code
        out = np.empty(rows)
        if quick(value, out, rule.low, rule.high, rule.convert is integer):
            return out
    kinds = _ARRAYS.get(rule.convert, "fiu")
    if type(value) is np.ndarray and value.shape == (rows,) and value.dtype.kind in kinds:
        out = value.astype(np.float64)
        if ((out >= rule.low) & (out <= rule.high)).all():
            return out
    number = column(name, value, rows, checked)
    return np.array(number if isinstance(number, list) else [number], np.float64)


def _rows_on(values: Mapping[str, Numbers]) -> dict[str, npt.NDArray[np.bool_]]:
    """Return in which rows the stages of these parameters are on."""
    on: dict[str, npt.NDArray[np.bool_]] = {}
    for name, numbers in values.items():
        rule = TABLE[name]
        if rule.off is None or rule.stage is None:
            continue
        low, high = rule.off
        rows_on = numbers != low if low == high else numbers > high
        on[rule.stage] = on[rule.stage] | rows_on if rule.stage in on else rows_on
    return on


@lru_cache(maxsize=256)
def _template(given: tuple[str, ...], order: Any) -> tuple[bytes, int, list[tuple[str, int, int]]]:
    """Return a record of the stages of some parameters, their number, and each one's place."""
    stages = {TABLE[name].stage for name in given}
    chain, joint = [], False
    for name, follows in flat(parse_order(order)):
        joint = joint and follows
        if name in stages:
            chain.append((name, joint))
            joint = True
    record = np.zeros(1, record_type(len(chain)))
    places = []
    for i, (stage, follows) in enumerate(chain):
        filled = record["stages"][:, i]
        filled["struct_size"], filled["joint"] = STAGE.itemsize, follows
        filled["kind"] = KINDS.index(stage) + 1
        for name in OF_STAGE[stage]:
            rule = TABLE[name]
            filled["value"][:, rule.slot] = rule.none if rule.default is None else rule.default
            if name in given:
                places.append((name, i, rule.slot))
    return record.tobytes(), len(chain), places


def _refuse(values: Mapping[str, Numbers], order: Any) -> str | None:
    """Refuse stages that do not go together; return one that has to be added to the order."""
    names = [name for name, _ in flat(parse_order(order))]
    rows_on = _rows_on(values)
    on = [stage for stage in OF_STAGE if stage in rows_on and rows_on[stage].any()]
    sampled = values["temperature"] != 0.0 if "temperature" in values else np.True_
    for stage in on:
        if stage not in names and (rows_on[stage] & sampled).any():
            raise ValueError(f"order must name {stage}, which is active")
    chain = [name for name in names if name in on]
    if "mirostat" in chain and "adaptive" in chain:
        raise ValueError("adaptive_target must be None where mirostat is on")
    beside = [name for name in chain if name not in ("temperature", "mirostat")]
    if "mirostat" in chain and beside and order == "llama.cpp":
        name = OF_STAGE[beside[0]][0]
        raise ValueError(f"{name} must be off where mirostat is on in the order of llama.cpp")
    if "adaptive" in chain and chain[-1] != "adaptive":
        raise ValueError(f"order must have adaptive last, got {chain[-1]} after it")
    # A greedy row is greedy whatever the order.
    return "temperature" if "temperature" in on and "temperature" not in names else None


def _fill(values: Mapping[str, Numbers], at_least: Any, order: Any, rows: int) -> Records:
    if isinstance(order, list):
        order = parse_order(order)
    try:
        template, stages, places = _template(tuple(values), order)
    except (TypeError, ValueError):  # lists in it, or a mistake
        order = parse_order(order)
        template, stages, places = _template(tuple(values), order)
    if len(places) < len(values) or not _PLAIN.issuperset(values):
        missing = _refuse(values, order)
        if missing is not None:
            template, stages, places = _template(tuple(values), (*parse_order(order), missing))
    records = np.frombuffer(bytearray(template * rows), record_type(stages))
    records["min_tokens_to_keep"] = at_least
    numbers = records["stages"]["value"]
    for name, i, slot in places:
        numbers[:, i, slot] = values[name]
    return records


_OFF = np.zeros(1, np.bool_)

#: What needs no second look where its stage is in the order.
_PLAIN = frozenset(TABLE).difference(*(OF_STAGE[stage] for stage in ("mirostat", "adaptive")))


@lru_cache(maxsize=1024, typed=True)
def scalar_record(**parameters: Any) -> Records:
    """Return the one record of scalar parameters, read-only."""
    order = parameters.pop("order", DEFAULT_ORDER)
    if any(is_array(value) for value in parameters.values()):
        raise TypeError("an array, which may change, is no key")
    at_least = parameters.pop("min_tokens_to_keep", 1)
    values = {n: np.array([checked(n, v)], float) for n, v in parameters.items()}
    on = _rows_on(values)  # of parameters that do not change, what is off is left out
    values = {n: v for n, v in values.items() if on.get(TABLE[n].stage or "", _OFF).all()}
    records = _fill(values, checked("min_tokens_to_keep", at_least), order, 1)
    records.flags.writeable = False
    return records


def make_records(rows: int, function: str = "sample", /, **parameters: Any) -> Records:
    """Return one record for all rows, or one per row where a parameter is an array."""
    try:
        return scalar_record(**parameters)
    except (TypeError, ValueError, KeyError):
        pass  # no key: an array, a memoryview that may be written to; or a mistake, worded below
    refuse_unknown(function, parameters)
    order = parameters.pop("order", DEFAULT_ORDER)
    at_least = parameters.pop("min_tokens_to_keep", 1)
    values = {name: numbers_of(name, value, rows) for name, value in parameters.items()}
    if type(at_least) is not int or at_least < 1:
        at_least = column("min_tokens_to_keep", at_least, rows, checked)
    per_row = isinstance(at_least, list) or any(v.size != 1 for v in values.values())
    return _fill(values, at_least, order, rows if per_row else 1)
