"""What a history and the lists of a row do to its logits before any stage.

One file per rule. A rule is a pure function of history, length of the prompt and parameters, which
yields a short list of edits and knows no logits. ``edits_of`` collects them, ``apply`` edits a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..distribution import Floats
from ..row import Floats32
from . import bans, bias, dry, ngrams, penalties
from .edit import Edit

#: In the order in which biases, and what is subtracted, are added up.
RULES = (bias.edits, penalties.edits, dry.edits, ngrams.edits, bans.edits)


def edits_of(
    history: Sequence[int], prompt_length: int, vocab: int, parameters: Mapping[str, Any]
) -> dict[int, Edit]:
    """Return the edits of a row by their ids; what is not among the parameters is off."""
    edits: dict[int, Edit] = {}
    for rule in RULES:
        for edit in rule(history, prompt_length, parameters):
            if 0 <= edit.id < vocab:
                edits[edit.id] = edits.get(edit.id, Edit(edit.id)).merged(edit)
    return edits


def exactly(values: Any, factor: Any, subtract: Any, bias: Any, ban: Any) -> Floats:
    """Return what edits make of logits before they are rounded; arrays, or numbers."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        x = np.asarray(values, np.float64)
        made = x + bias
        made = np.where(made > 0.0, made / factor, made * factor) - subtract
        gone: Floats = np.where(np.not_equal(ban, 0) | (x == -np.inf), -np.inf, made)
        return gone


def apply(row: Floats32, edits: Iterable[Edit]) -> Floats32:
    """Return an edited copy of a row, each id once: computed in float64, rounded once."""
    row, edits = row.copy(), list(edits)
    if edits:
        ids, *how = (np.array(column) for column in zip(*edits, strict=True))
        with np.errstate(over="ignore", under="ignore"):
            row[ids] = exactly(row[ids], *how)
    return row


def beyond_float32(row: int, made: float, token: int) -> str:
    """Say that an edit leaves float32."""
    return f"logits row {row} must not be edited beyond float32, got {made!r} at token {token}"
