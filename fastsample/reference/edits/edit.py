"""An edit of one logit: the only thing that rules yield."""

from __future__ import annotations

import sys
from typing import NamedTuple

LARGEST = sys.float_info.max


class Edit(NamedTuple):
    """x -> x + bias -> (x > 0 ? x / factor : x * factor) -> x - subtract -> -inf where banned."""

    id: int
    factor: float = 1.0
    subtract: float = 0.0
    bias: float = 0.0
    ban: bool = False

    def merged(self, other: Edit) -> Edit:
        """Return one edit for two of the same id."""
        return Edit(
            self.id,
            self.factor * other.factor,
            held(self.subtract + other.subtract),
            held(self.bias + other.bias),
            self.ban or other.ban,
        )


def held(value: float) -> float:
    """Return a number that has become infinite as the largest that is not."""
    return min(max(value, -LARGEST), LARGEST)
