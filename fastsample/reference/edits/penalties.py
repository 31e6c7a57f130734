"""Repetition, frequency and presence penalties of the ids in a window of the history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .edit import Edit, held


def edits(history: Sequence[int], prompt_length: int, p: Mapping[str, Any]) -> Iterator[Edit]:
    """Yield a factor for all that occurs in the window, and what is subtracted.

    Repetition (CTRL, Keskar et al. 2019) counts an id once, and in the prompt too. The two others
    see only what follows the prompt: frequency counts occurrences, presence an id once.
    """
    last_n = p.get("penalty_last_n", -1)
    start = 0 if last_n < 0 else max(0, len(history) - last_n)
    repetition = p.get("repetition_penalty", 1.0)
    if repetition != 1.0:
        for token in sorted(set(history[start:])):
            yield Edit(token, factor=repetition)
    frequency, presence = p.get("frequency_penalty", 0.0), p.get("presence_penalty", 0.0)
    if frequency != 0.0 or presence != 0.0:
        for token, count in sorted(Counter(history[max(start, prompt_length) :]).items()):
            yield Edit(token, subtract=held(frequency * count) + presence)
