"""What a valid parameter is, and the chain that parameters make.

The stages of ``csrc/stages/`` state the same rules for callers of the C ABI.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from numbers import Real
from typing import Any, TypeAlias

import numpy as np

from .records import KINDS, STAGE, Records, record_type

Order: TypeAlias = "str | Sequence[str]"

#: The value that turns a stage off.
OFF: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
STAGES = tuple(OFF)

#: In which order real runtimes run the stages.
ORDERS: dict[str, tuple[str, ...]] = {
    "hf": ("temperature", "top_k", "top_p", "min_p"),
    "vllm": ("temperature", "min_p", "top_k", "top_p"),
    "llama.cpp": ("top_k", "top_p", "min_p", "temperature"),
    "mlx-lm": ("top_p", "min_p", "top_k", "temperature"),
    "openvino": ("top_k", "temperature", "min_p", "top_p"),
    "onnxruntime-genai": ("top_k", "temperature", "top_p"),
}


def stages_on(parameters: dict[str, Any]) -> list[str]:
    """Return the stages that are not off, in the order that they run."""
    return [s for s in parameters["order"] if parameters[s] not in (OFF[s], -1)]


@contextmanager
def named(requirement: str) -> Iterator[None]:
    """Begin the message of whatever goes wrong in another library with what was required."""
    try:
        yield
    except (MemoryError, RecursionError):
        raise
    except Exception as error:
        raise TypeError(f"{requirement}: {error}") from error


def refuse_masked(name: str, value: Any) -> None:
    """Refuse a masked array, of which no backend would see the mask."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} must not be a masked array")


def plain(name: str, value: Any) -> Any:
    """Return an array or a scalar of any library as Python's lists and numbers."""
    refuse_masked(name, value)
    if hasattr(value, "tolist") and hasattr(value, "shape"):
        with named(f"{name} must be readable"):
            return value.tolist()
    return list(value) if isinstance(value, (tuple, range)) else value


def _real(name: str, value: Any, where: str) -> float:
    if isinstance(value, Real) and not isinstance(value, (bool, np.bool_)):
        try:
            return float(value)
        except OverflowError:  # of an int beyond float64
            return np.inf if operator.gt(value, 0) else -np.inf
    raise TypeError(f"{name} must be a number, got {value!r} ({type(value).__name__}){where}")


def any_integer(name: str, value: Any, where: str = "") -> int:
    """Return an integer of any size."""
    cause = None
    try:
        number = plain(name, value)
        if not isinstance(number, (bool, np.bool_)):
            return int(operator.index(number))
    except (MemoryError, RecursionError):
        raise
    except Exception as error:
        cause = error
    got = f"got {value!r} ({type(value).__name__}){where}"
    raise TypeError(f"{name} must be an integer, {got}") from cause


def integer(name: str, value: Any, where: str = "") -> int:
    """Return an integer, clipped to what 64 bits hold."""
    # A count beyond int64 keeps everything, or is far out of range.
    return max(-(2**63), min(any_integer(name, value, where), 2**63 - 1))


# name: (default, conversion, requirement, test)
_RULES: dict[str, tuple[Any, Callable[[str, Any, str], Any], str, Callable[[Any], bool]]] = {
    "temperature": (1.0, _real, "finite and >= 0", lambda v: 0.0 <= v < np.inf),
    "top_k": (0, integer, "None, -1, 0 or >= 1", lambda v: v >= -1),
    "top_p": (1.0, _real, "in [0, 1]", lambda v: 0.0 <= v <= 1.0),
    "min_p": (0.0, _real, "in [0, 1]", lambda v: 0.0 <= v <= 1.0),
    "min_tokens_to_keep": (1, integer, ">= 1", lambda v: v >= 1),
}

# A stage that is left out of the order must be off.
_OFF: dict[str, Callable[[Any], Any]] = {
    "temperature": lambda v: v == 1.0,
    "top_k": lambda v: v <= 0,
    "top_p": lambda v: v == 1.0,
    "min_p": lambda v: v == 0.0,
}


def parse_order(order: Order) -> tuple[str, ...]:
    """Return the stages that a preset's name or a sequence of stage names stands for."""
    if isinstance(order, str):
        if order not in ORDERS:
            raise ValueError(
                f"order must be one of {', '.join(map(repr, ORDERS))} or a tuple of stage names, "
                f"got {order!r}"
            )
        return ORDERS[order]
    if not isinstance(order, (tuple, list)):
        raise TypeError(
            f"order must be a string or a tuple of stage names, got {order!r} "
            f"({type(order).__name__})"
        )
    stages = tuple(order)
    for stage in stages:
        if not isinstance(stage, str) or stage not in STAGES:
            raise ValueError(f"order must be made of {', '.join(STAGES)}, got {stage!r}")
        if stages.count(stage) > 1:
            raise ValueError(f"order must not name a stage twice, got {stage}")
    return stages


def _checked(name: str, value: Any, where: str = "") -> Any:
    """Return one valid scalar."""
    _, convert, requirement, valid = _RULES[name]
    if name == "top_k" and value is None:
        return 0
    number = convert(name, value, where)
    if not valid(number):
        raise ValueError(f"{name} must be {requirement}, got {value!r}{where}")
    return number


def _column(name: str, value: Any, rows: int) -> Any:
    """Return a valid scalar, or a list of one valid value per row."""
    return column(name, value, rows, _checked)


def column(name: str, value: Any, rows: int | None, convert: Callable[[str, Any, str], Any]) -> Any:
    """Return a converted scalar, or a list of one converted value per row; None is any number."""
    values = plain(name, value)
    shape = tuple(getattr(value, "shape", ()))
    if not shape and isinstance(values, list):
        shape = (len(values),)
    if not shape:
        return convert(name, values, "")
    if len(shape) > 1 or shape != (rows if rows is not None else max(shape[0], 1),):
        must = f"({rows},)" if rows is not None else "(B,), B >= 1"
        raise ValueError(f"{name} must be a scalar or of shape {must}, got {shape}")
    return [convert(name, item, f" (row {row})") for row, item in enumerate(values)]


def _fill(values: dict[str, Any], order: Order, rows: int) -> Records:
    stages = parse_order(order)
    sampled = np.asarray(values["temperature"]) != 0.0
    for stage in STAGES:
        off = _OFF[stage](np.asarray(values[stage]))
        if stage not in stages and not np.all(off | ~sampled):
            raise ValueError(f"order must name {stage}, which is active")
    on = [s for s in stages if not np.all(_OFF[s](np.asarray(values[s])))]
    if not np.all(sampled) and "temperature" not in on:  # greedy whatever the order
        on.append("temperature")
    records = np.zeros(rows, record_type(len(on)))
    records["min_tokens_to_keep"] = values["min_tokens_to_keep"]
    for i, stage in enumerate(on):
        column = records["stages"][:, i]
        column["struct_size"] = STAGE.itemsize
        column["kind"] = KINDS.index(stage) + 1
        column["value"][:, 0] = values[stage]
        if stage == "temperature":
            column["value"][:, 2] = 1.0
    return records


@lru_cache(maxsize=256, typed=True)
def scalar_record(
    temperature: float,
    top_k: int | None,
    top_p: float,
    min_p: float,
    min_tokens_to_keep: int,
    order: str | tuple[str, ...],
) -> Records:
    """Return the one record of scalar parameters, read-only."""
    given = (temperature, top_k, top_p, min_p, min_tokens_to_keep)
    if any(hasattr(v, "tolist") and not isinstance(v, np.generic) for v in given):
        raise TypeError("an array, which may change, is no key")
    values = {name: _checked(name, v) for name, v in zip(_RULES, given, strict=True)}
    records = _fill(values, order, 1)
    records.flags.writeable = False
    return records


def make_records(
    rows: int,
    temperature: Any,
    top_k: Any,
    top_p: Any,
    min_p: Any,
    min_tokens_to_keep: Any,
    order: Order,
) -> Records:
    """Return one record for all rows, or one per row where a parameter is an array."""
    if not isinstance(order, str) and isinstance(order, Sequence):
        order = tuple(order)
    given = (temperature, top_k, top_p, min_p, min_tokens_to_keep)
    try:
        return scalar_record(*given, order)
    except TypeError:
        pass  # an unhashable value: an array, or a mistake that is worded below
    values = {name: _column(name, v, rows) for name, v in zip(_RULES, given, strict=True)}
    per_row = any(isinstance(v, list) for v in values.values())
    return _fill(values, order, rows if per_row else 1)
