"""suppress_tokens and min_new_tokens: bans of single ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .edit import Edit


def edits(history: Sequence[int], prompt_length: int, p: Mapping[str, Any]) -> Iterator[Edit]:
    """Yield bans of what is suppressed, and of the end while too few tokens follow the prompt."""
    for token in p.get("suppress_tokens") or ():
        yield Edit(token, ban=True)
    if len(history) - prompt_length < p.get("min_new_tokens", 0):
        for token in p.get("eos_token_id") or ():
            yield Edit(token, ban=True)
