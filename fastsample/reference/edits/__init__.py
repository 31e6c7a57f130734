"""What a history and the lists of a row do to its logits before any stage.

One file per rule. A rule is a pure function of history, length of the prompt and parameters, which
yields a short list of edits and knows no logits. ``edits_of`` collects them, ``apply`` edits a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

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


def exactly(value: np.float32, edit: Edit) -> np.float64:
    """Return what an edit makes of a logit before it is rounded."""
    with np.errstate(over="ignore", invalid="ignore"):
        x = np.float64(value) + edit.bias
        x = x / edit.factor if x > 0.0 else x * edit.factor
        return np.float64(-np.inf if edit.ban or value == -np.inf else x - edit.subtract)


def apply(row: Floats32, edits: Iterable[Edit]) -> Floats32:
    """Return an edited copy of a row: computed in float64, rounded once."""
    row = row.copy()
    with np.errstate(over="ignore"):
        for edit in edits:
            row[edit.id] = exactly(row[edit.id], edit)
    return row
