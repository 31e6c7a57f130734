"""DRY: subtracts from the ids that would extend a repetition, more the longer it has become."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .edit import Edit, held

#: The logarithm of the largest float32: base^exponent stays below it.
LARGEST_LOG = 88.7228391


def edits(history: Sequence[int], prompt_length: int, p: Mapping[str, Any]) -> Iterator[Edit]:
    """Yield multiplier * base^(length - allowed) for each id that repeats what followed a match.

    The length is that of the longest suffix of the history that has stood before the id. Breakers
    end a match, and are not penalised themselves.
    """
    multiplier = p.get("dry_multiplier", 0.0)
    if multiplier == 0.0:
        return
    base, allowed = p.get("dry_base", 1.75), p.get("dry_allowed_length", 2)
    last_n = p.get("dry_last_n", -1)
    window = list(history) if last_n < 0 else list(history[max(0, len(history) - last_n) :])
    breakers = frozenset(p.get("dry_sequence_breakers") or ())
    longest = limit(base)
    for token, length in sorted(lengths(window, breakers).items()):
        if length >= allowed:
            exponent = length - allowed
            exponent = exponent if longest is None else min(exponent, longest)
            yield Edit(token, subtract=held(multiplier * power(base, exponent)))


def lengths(window: Sequence[int], breakers: frozenset[int]) -> dict[int, int]:
    """Return the length of the longest match before each id: its definition, O(n^2) and plain."""
    found: dict[int, int] = {}
    for place, token in enumerate(window):
        length = 0
        while length < place:
            before, last = window[place - 1 - length], window[len(window) - 1 - length]
            if before != last or last in breakers:
                break
            length += 1
        if token not in breakers:
            found[token] = max(found.get(token, 0), length)
    return found


def limit(base: float) -> int | None:
    """Return the largest exponent of a base; 1 has none."""
    return None if base <= 1.0 else math.floor(LARGEST_LOG / math.log(base))


def power(base: float, exponent: int) -> float:
    """Return base^exponent by squaring: the same float64 on every machine."""
    result = 1.0
    while exponent:
        if exponent & 1:
            result *= base
        exponent >>= 1
        if exponent:
            base *= base
    return result
