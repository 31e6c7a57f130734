"""Ids and sequences of ids that Python hands over, as arrays; every refusal names its parameter.

Depends on ``values.py`` alone. What is made of an array, a list, a tuple, a range or a set of any
library's integers is an int64 array; of sequences, with or without biases, ``Sequences``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .values import any_integer, named, plain, real, refuse_masked

Ids = npt.NDArray[np.int64]

END = 2**31  # of ids, wherever they stand


class Sequences(NamedTuple):
    """Sequences of ids, one after the other, each with a bias for its last id; -inf bans it."""

    ids: npt.NDArray[np.int32]
    offsets: Ids
    weights: npt.NDArray[np.float64]


def _items(value: Any, name: str, must: str, where: str) -> list[Any]:
    """Return the items of a list, or of what is one."""
    items = plain(name, value)
    if isinstance(items, (set, frozenset)):
        with named(f"{name} must be {must}{where}"):
            items = sorted(items)
    if not isinstance(items, list):
        raise TypeError(f"{name} must be {must}, got {value!r} ({type(value).__name__}){where}")
    return items


def ids_of(name: str, value: Any, where: str = "", must: str = "a list of ids") -> Ids:
    """Return ids as an array of shape (n,)."""
    refuse_masked(name, value)
    if type(value) is np.ndarray and value.ndim == 1 and value.dtype.kind in "iu":
        ids = value.astype(np.int64)
        if ids.size and value.dtype == np.uint64 and value.max() >= END:
            ids = np.minimum(value, END).astype(np.int64)
    else:
        items = _items(value, name, must, where)
        if not all(type(item) is int for item in items):
            items = [any_integer(f"an id of {name}", item, where) for item in items]
        ids = np.array([min(max(item, -1), END) for item in items], np.int64)
    if ids.size and (ids.min() < 0 or ids.max() >= END):
        place = int(np.argmax((ids < 0) | (ids >= END)))
        got = plain(name, value)
        got = list(got)[place] if isinstance(got, list) else int(ids[place])
        raise ValueError(f"an id of {name} must be in [0, 2**31), got {got}{where}")
    return ids


def one_or_more_ids(name: str, value: Any, where: str = "") -> Ids:
    """Return one id, or a list of them."""
    items = plain(name, value)
    if isinstance(items, int) and not isinstance(items, bool):
        items = [items]
    return ids_of(name, items if isinstance(items, list) else value, where)


def _weight(name: str, value: Any, where: str) -> float:
    weight = real(f"a bias of {name}", value, where)
    if not weight < np.inf:  # as NaN is not
        raise ValueError(f"a bias of {name} must be finite or -inf, got {value!r}{where}")
    return weight


def _sequences(parts: list[Ids], weights: Iterable[float]) -> Sequences:
    sizes = np.array([part.size for part in parts], np.int64)
    ids = np.concatenate(parts) if parts else np.empty(0, np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return Sequences(ids.astype(np.int32), offsets, np.array(list(weights), np.float64))


def _singles(ids: Ids, weights: npt.NDArray[np.float64]) -> Sequences:
    return Sequences(ids.astype(np.int32), np.arange(ids.size + 1, dtype=np.int64), weights)


def joined(many: Iterable[Sequences]) -> Sequences:
    """Return all sequences as one list of them."""
    given = [s for s in many if s.weights.size]
    starts = np.cumsum([0, *(s.ids.size for s in given)])
    return Sequences(
        np.concatenate([np.empty(0, np.int32), *(s.ids for s in given)]),
        np.concatenate([[0], *(s.offsets[1:] + at for s, at in zip(given, starts, strict=False))])
        .astype(np.int64),
        np.concatenate([np.empty(0), *(s.weights for s in given)]),
    )  # fmt: skip


def bans(name: str, value: Any, where: str = "") -> Sequences:
    """Return single ids that are banned."""
    ids = ids_of(name, value, where)
    return _singles(ids, np.full(ids.size, -np.inf))


def biases(name: str, value: Any, where: str = "") -> Sequences:
    """Return single ids with their biases, of {id: bias} or (ids, biases)."""
    if isinstance(value, Mapping):
        keys, numbers = list(value), list(value.values())
    elif isinstance(value, tuple) and len(value) == 2:
        keys, numbers = value[0], _items(value[1], name, "{id: bias} or (ids, biases)", where)
    else:
        got = f"got {value!r} ({type(value).__name__}){where}"
        raise TypeError(f"{name} must be {{id: bias}} or (ids, biases), {got}")
    ids = ids_of(name, keys, where)
    if ids.size != len(numbers):
        raise ValueError(f"{name} must have a bias for each of {ids.size} ids, got {len(numbers)}")
    return _singles(ids, np.array([_weight(name, number, where) for number in numbers]))


def _not_empty(name: str, value: Any, where: str) -> Ids:
    ids = ids_of(name, value, where, "made of sequences of ids")
    if not ids.size:
        raise ValueError(f"{name} must not have an empty sequence{where}")
    return ids


def sequences(name: str, value: Any, where: str = "") -> Sequences:
    """Return sequences whose last ids are banned."""
    items = _items(value, name, "a list of sequences of ids", where)
    if not items:
        raise ValueError(f"{name} must not be empty{where}")
    return _sequences([_not_empty(name, item, where) for item in items], [-np.inf] * len(items))


def sequence_biases(name: str, value: Any, where: str = "") -> Sequences:
    """Return sequences with their biases, of {ids: bias}."""
    if not isinstance(value, Mapping):
        raise TypeError(
            f"{name} must be {{ids: bias}}, got {value!r} ({type(value).__name__}){where}"
        )
    parts = [_not_empty(name, ids, where) for ids in value]
    return _sequences(parts, [_weight(name, number, where) for number in value.values()])


def _depth(value: Any) -> int:
    """Return how deep lists are nested, as far as their first items tell."""
    if hasattr(value, "ndim"):
        return int(value.ndim)
    if not isinstance(value, (list, tuple)):
        return 0
    return 1 + (_depth(value[0]) if value else 0)


#: How deep one list of each kind is nested.
_NESTED = {ids_of: 1, one_or_more_ids: 1, bans: 1, sequences: 2}


def is_per_row(value: Any, convert: Callable[..., Any]) -> bool:
    """Whether a list has one list, or None, for each row."""
    if isinstance(value, tuple) and convert is biases:
        return False
    if hasattr(value, "ndim"):
        return bool(value.ndim > _NESTED.get(convert, 1))
    if not isinstance(value, (list, tuple)):
        return False
    nested = _NESTED.get(convert, 0)
    return any(v is None or isinstance(v, Mapping) or 0 < nested <= _depth(v) for v in value)


def column_of_lists(
    name: str,
    value: Any,
    rows: int | None,
    convert: Callable[[str, Any, str], Any],
    like: Callable[..., Any] | None = None,
) -> Any:
    """Return one converted list, or a Python list of one for each row.

    `like` converts lists that are nested as deeply, where `convert` is none of those here.
    """
    if not is_per_row(value, like or convert):
        return convert(name, value, "")
    if rows is not None and len(value) != rows:
        raise ValueError(f"{name} must be one list or {rows}, one for each row, got {len(value)}")
    return [
        None if item is None else convert(name, item, f" (row {row})")
        for row, item in enumerate(value)
    ]
