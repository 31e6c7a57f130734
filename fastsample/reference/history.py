"""The history of a row, and the edits that its rules make of it: each time from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..lists import ids_of
from ..records import EDIT
from . import edits

#: The parameters that the numbers and the ids of each rule are.
RULES: dict[str, tuple[tuple[str, ...], str | None]] = {
    "repetition": (("repetition_penalty", "penalty_last_n"), None),
    "frequency": (("frequency_penalty", "penalty_last_n"), None),
    "presence": (("presence_penalty", "penalty_last_n"), None),
    "dry": (
        ("dry_multiplier", "dry_base", "dry_allowed_length", "dry_last_n"),
        "dry_sequence_breakers",
    ),
    "no_repeat_ngram": (("no_repeat_ngram_size",), None),
    "min_new_tokens": (("min_new_tokens",), "eos_token_id"),
}
#: Numbers that are whole.
_COUNTS = {
    "penalty_last_n",
    "dry_allowed_length",
    "dry_last_n",
    "no_repeat_ngram_size",
    "min_new_tokens",
}


def parameters_of(rules: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Return the parameters that rules stand for."""
    parameters: dict[str, Any] = {"logit_bias": [], "sequence_bias": []}
    for name, numbers, ids, offsets, weights in rules:
        if name == "bias":
            parameters["logit_bias"] += zip(ids, weights, strict=True)
        if name == "sequence_bias":
            ends = zip(offsets[:-1], offsets[1:], weights, strict=True)
            parameters["sequence_bias"] += [(list(ids[a:b]), weight) for a, b, weight in ends]
        if name not in RULES:
            continue
        names, of_ids = RULES[name]
        for number_name, number in zip(names, numbers, strict=True):
            parameters[number_name] = int(number) if number_name in _COUNTS else number
        if of_ids:
            parameters[of_ids] = list(ids)
    return parameters


def within(name: str, value: int | None, most: int) -> int:
    """Return a number of tokens, of which there are so many; None is all."""
    number = most if value is None else int(value)
    if not 0 <= number <= most:
        raise ValueError(f"{name} must be in [0, {most}], got {number}")
    return number


class History:
    """The tokens of a row so far, with the rules that look at them."""

    def __init__(self, rules: Sequence[Sequence[Any]]) -> None:
        self._parameters = parameters_of(rules)
        self._tokens: list[int] = []
        self._prompt_length = 0

    def start(self, ids: Any, prompt_length: int | None = None) -> None:
        """Begin anew; without a length, all of it is the prompt."""
        tokens = ids_of("ids", ids).tolist()
        self._prompt_length = within("prompt_length", prompt_length, len(tokens))
        self._tokens = tokens

    def push(self, ids: Any) -> None:
        """Add tokens to the end."""
        self._tokens += ids_of("ids", ids).tolist()

    def pop(self, count: int) -> None:
        """Take tokens from the end; a prompt that is reached becomes shorter."""
        del self._tokens[len(self) - within("n", count, len(self)) :]
        self._prompt_length = min(self._prompt_length, len(self))

    def __len__(self) -> int:
        return len(self._tokens)

    def tokens(self) -> npt.NDArray[np.int64]:
        """Return all tokens."""
        return np.array(self._tokens, np.int64)

    def edits(self, vocab: int) -> npt.NDArray[np.void]:
        """Return what the rules make of the history, by rising ids."""
        made = edits.edits_of(self._tokens, self._prompt_length, vocab, self._parameters)
        rising = [made[token] for token in sorted(made)]
        return np.array([(e.id, e.ban, e.factor, e.subtract, e.bias) for e in rising], EDIT)
