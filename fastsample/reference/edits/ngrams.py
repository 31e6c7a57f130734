"""no_repeat_ngram_size and bad_words_ids: bans of the id that would complete a sequence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .bias import continues
from .edit import Edit


def edits(history: Sequence[int], prompt_length: int, p: Mapping[str, Any]) -> Iterator[Edit]:
    """Yield bans of what completes an n-gram of the history, or one of the given sequences."""
    n = p.get("no_repeat_ngram_size", 0)
    ngrams = [history[i : i + n] for i in range(len(history) - n + 1)] if n > 0 else []
    for ids in (*ngrams, *(p.get("bad_words_ids") or ())):
        if continues(history, ids):
            yield Edit(ids[-1], ban=True)
