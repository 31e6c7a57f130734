"""What Python and other libraries hand over, as numbers; every refusal names its parameter."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from numbers import Real
from typing import Any

import numpy as np

MAX_UINT64 = 2**64 - 1


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


def is_array(value: Any) -> bool:
    """Whether a value is an array of any library, 0-d ones included, which may change."""
    kinds = ("tolist", "__dlpack__", "__array__", "__array_interface__")
    return not isinstance(value, np.generic) and any(hasattr(value, kind) for kind in kinds)


def plain(name: str, value: Any) -> Any:
    """Return an array or a scalar of any library as Python's lists and numbers."""
    if isinstance(value, (int, float, list, str)) or value is None:
        return value.tolist() if isinstance(value, np.generic) else value
    refuse_masked(name, value)
    with named(f"{name} must be readable"):
        if hasattr(value, "tolist"):
            return value.tolist()
        if hasattr(value, "__dlpack__"):
            return np.from_dlpack(value).tolist()
        if is_array(value):
            return np.asarray(value).tolist()
    return list(value) if isinstance(value, (tuple, range)) else value


def _shape_of(value: Any, values: Any) -> tuple[int, ...]:
    """Return the shape of a value, which in some libraries is a method, that became `values`."""
    shape = getattr(value, "shape", ())
    if isinstance(shape, Iterable) and (found := tuple(shape)):
        return found
    return (len(values),) if isinstance(values, list) else ()


def real(name: str, value: Any, where: str = "") -> float:
    """Return a number as a float."""
    number = value if isinstance(value, Real) else plain(name, value)
    if isinstance(number, Real) and not isinstance(number, (bool, np.bool_)):
        try:
            return float(number)
        except OverflowError:  # of an int beyond float64
            return np.inf if operator.gt(number, 0) else -np.inf
        except TypeError:  # of a duration, which NumPy has among the integers
            pass
    raise TypeError(f"{name} must be a number, got {value!r} ({type(value).__name__}){where}")


def flag(name: str, value: Any, where: str = "") -> bool:
    """Return True or False."""
    answer = plain(name, value)
    if isinstance(answer, bool):
        return answer
    raise TypeError(f"{name} must be True or False, got {value!r} ({type(value).__name__}){where}")


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
    """Return an integer, clipped to what a float64 tells from its neighbours."""
    # A count beyond them means all, or is far out of range.
    return max(-(2**53), min(any_integer(name, value, where), 2**53))


def is_word(value: Any) -> bool:
    """Whether a value is an int of 64 bits as it is."""
    return type(value) is int and 0 <= value <= MAX_UINT64


def uint64(name: str, value: Any, where: str = "") -> int:
    """Return an integer in [0, 2**64)."""
    if is_word(value):
        return int(value)
    number = any_integer(name, value, where)
    if not 0 <= number <= MAX_UINT64:
        raise ValueError(f"{name} must be in [0, 2**64), got {number}{where}")
    return number


def column(name: str, value: Any, rows: int | None, convert: Callable[[str, Any, str], Any]) -> Any:
    """Return a converted scalar, or a list of one converted value per row; None is any number."""
    values = plain(name, value)
    shape = _shape_of(value, values)
    if not shape:
        return convert(name, values, "")
    if len(shape) > 1 or shape != (rows if rows is not None else max(shape[0], 1),):
        must = f"({rows},)" if rows is not None else "(B,), B >= 1"
        raise ValueError(f"{name} must be a scalar or of shape {must}, got {shape}")
    return [convert(name, item, f" (row {row})") for row, item in enumerate(values)]
