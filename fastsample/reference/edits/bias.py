"""logit_bias and sequence_bias: added to the logit, all that apply."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .edit import Edit


def edits(history: Sequence[int], prompt_length: int, p: Mapping[str, Any]) -> Iterator[Edit]:
    """Yield the biases of single ids, then those of sequences that the history has begun.

    Parameters: ``logit_bias``, pairs (id, bias); ``sequence_bias``, pairs (ids, bias). A bias of
    -inf is a ban.
    """
    for token, value in p.get("logit_bias") or ():
        yield biased(token, value)
    for ids, value in p.get("sequence_bias") or ():
        if continues(history, ids):
            yield biased(ids[-1], value)


def biased(token: int, value: float) -> Edit:
    """Return the edit of one bias."""
    return Edit(token, ban=True) if value == -float("inf") else Edit(token, bias=value)


def continues(history: Sequence[int], ids: Sequence[int]) -> bool:
    """Whether the last of the ids would complete them: those before it end the history."""
    begun = list(ids[:-1])
    return len(begun) <= len(history) and list(history[len(history) - len(begun) :]) == begun
