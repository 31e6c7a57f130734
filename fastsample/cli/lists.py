"""Lists of ids as options take them: ``5,17``, ``5+17,3``, ``5:-1.5``. Depends on ``..lists``.

Items have commas between; one is an id, or several that follow one another, joined by ``+``, and
may have a bias after a colon.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..lists import bans, biases, ids_of, one_or_more_ids, sequence_biases, sequences


class Form(NamedTuple):
    """How a list is written, and what it becomes; ``read`` raises ValueError for another text."""

    metavar: str
    must: str
    read: Callable[[str], Any]


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",")]


def _ids(text: str) -> list[int]:
    return [int(item) for item in _items(text)]


def _sequence(text: str) -> tuple[int, ...]:
    return tuple(int(item) for item in text.split("+"))


def _sequences(text: str) -> list[tuple[int, ...]]:
    return [_sequence(item) for item in _items(text)]


def _pairs(text: str) -> list[tuple[str, float]]:
    pairs = [item.partition(":") for item in _items(text)]
    return [(key, float(bias)) for key, _, bias in pairs]


_IDS = Form("ID,...", "ids with commas between, as in 5,17", _ids)

#: By what converts a parameter that is a list.
FORMS: dict[Any, Form] = {
    ids_of: _IDS,
    bans: _IDS,
    one_or_more_ids: _IDS,
    biases: Form(
        "ID:X,...", "ids with biases, as in 5:-1.5,17:2",
        lambda text: {int(key): bias for key, bias in _pairs(text)},
    ),
    sequences: Form("ID+ID,...", "sequences of ids, as in 5+17,3", _sequences),
    sequence_biases: Form(
        "ID+ID:X,...", "sequences of ids with biases, as in 5+17:-2,3:1",
        lambda text: {_sequence(key): bias for key, bias in _pairs(text)},
    ),
}  # fmt: skip
