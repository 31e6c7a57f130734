"""The history of a row, and the edits that its rules make of it, kept up to date token by token.

The twin of the core's ``History``. A rule either counts how often ids stand in a window, or looks
at the end of the history when it is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..lists import ids_of
from ..records import EDIT
from ..reference.edits.dry import limit, power
from ..reference.edits.edit import Edit, held
from ..reference.history import within
from .counts import Counts, fill
from .searches import breaks_at, completing, follow_ends, repeated
from .words import Ids

#: The rules that count ids, and whether they count the prompt too.
COUNTING = {"repetition": True, "frequency": False, "presence": False, "single ids": True}


def _columns(edits: Sequence[Edit]) -> npt.NDArray[np.void]:
    made = np.array([(e.id, e.ban, e.factor, e.subtract, e.bias) for e in edits], EDIT)
    return made[np.argsort(made["id"])]


#: The first number of a rule that does nothing.
OFF = {
    "repetition": 1.0,
    "frequency": 0.0,
    "presence": 0.0,
    "dry": 0.0,
    "no_repeat_ngram": 0.0,
    "min_new_tokens": 0.0,
}


class _Rules:
    """Rules by their names, with what does not depend on any history."""

    def __init__(self, rules: Sequence[Sequence[Any]]) -> None:
        self.numbers: dict[str, tuple[float, ...]] = {}
        self.ids: dict[str, Ids] = {}
        self.fixed: dict[int, Edit] = {}
        lasts, weights_of, sequences = list[int](), list[float](), list[int]()
        for name, numbers, ids, offsets, weights in rules:
            if name == "bias":
                for token, weight in zip(ids, weights, strict=True):
                    self._fix(int(token), float(weight))
            elif name == "sequence_bias":
                lasts += [len(sequences) + int(end) for end in offsets[1:]]
                sequences += [int(token) for token in ids]
                weights_of += [float(weight) for weight in weights]
            elif name in OFF and numbers[0] != OFF[name]:
                self.numbers[name] = tuple(numbers)
                self.ids[name] = np.array(ids, np.int64)
        self.sequences = np.array(sequences, np.int64)
        self.offsets = np.array([0, *lasts], np.int64)
        self.weights = weights_of
        if self.numbers.get("no_repeat_ngram") == (1.0,):
            self.numbers["single ids"] = (1.0, -1.0)
        self.counting = [name for name in COUNTING if name in self.numbers]
        self.kinds = np.array([list(COUNTING).index(name) for name in self.counting], np.int64)
        self.values = np.array([self.numbers[name][0] for name in self.counting], np.float64)
        self.columns = _columns(list(self.fixed.values()))

    def _fix(self, token: int, weight: float) -> None:
        self.fixed[token] = self.fixed.get(token, Edit(token)).merged(biased(token, weight))


def biased(token: int, weight: float) -> Edit:
    """Return the edit of one bias."""
    return Edit(token, ban=True) if weight == -np.inf else Edit(token, bias=weight)


class History:
    """The tokens of a row so far, with the rules that look at them."""

    def __init__(self, rules: Sequence[Sequence[Any]] = ()) -> None:
        self._rules = _Rules(rules)
        self.start(())

    def start(self, ids: Any, prompt_length: int | None = None) -> None:
        """Begin anew; without a length, all of it is the prompt."""
        given = ids_of("ids", ids)
        self.prompt_length = within("prompt_length", prompt_length, given.size)
        self._tokens, self._size = given.copy(), given.size
        rules = self._rules
        windows = [int(rules.numbers[name][1]) for name in rules.counting]
        self._counts = Counts(windows, [COUNTING[name] for name in rules.counting])
        self._counts.start(given, self.prompt_length)

    def push(self, ids: Any) -> None:
        """Add tokens to the end."""
        more = ids_of("ids", ids)
        size = self._size + more.size
        if size > self._tokens.size:
            self._tokens = np.resize(self._tokens, max(size, 2 * self._tokens.size))
        self._tokens[self._size : size] = more
        self._counts.push(self._tokens, self._size, size, self.prompt_length)
        self._size = size

    def pop(self, count: int) -> None:
        """Take tokens from the end; a prompt that is reached becomes shorter."""
        size = self._size - within("n", count, self._size)
        self._counts.pop(self._tokens, self._size, size, self.prompt_length)
        self._size, self.prompt_length = size, min(self.prompt_length, size)

    def __len__(self) -> int:
        return self._size

    def tokens(self) -> Ids:
        """Return all tokens."""
        return self._tokens[: self._size].copy()

    def edits(self, vocab: int) -> npt.NDArray[np.void]:
        """Return what the rules make of the history, by rising ids."""
        asked = self._asked()
        fixed = asked is self._rules.fixed
        others = self._rules.columns if fixed else _columns(list(asked.values()))
        ids, counts = self._counts.of_ids()
        made = np.empty(ids.size + others.size, EDIT)
        rules = self._rules
        return made[: fill(made, ids, counts, rules.kinds, rules.values, others, vocab)]

    def _asked(self) -> dict[int, Edit]:
        """Return what is fixed, and what the end of the history asks for."""
        rules, found = self._rules, list[Edit]()
        ids, numbers = self._tokens[: self._size], rules.numbers
        for i in follow_ends(ids, rules.sequences, rules.offsets).tolist():
            token = int(rules.sequences[rules.offsets[i + 1] - 1])
            found.append(biased(token, rules.weights[i]))
        if "dry" in numbers:
            found += self._dry(ids)
        n = int(numbers.get("no_repeat_ngram", (0.0,))[0])
        if 1 < n <= ids.size:
            found += [Edit(token, ban=True) for token in set(completing(ids, n).tolist())]
        if self._size - self.prompt_length < numbers.get("min_new_tokens", (0.0,))[0]:
            found += [Edit(token, ban=True) for token in rules.ids["min_new_tokens"].tolist()]
        if not found:
            return rules.fixed
        asked = dict(rules.fixed)
        for edit in found:
            asked[edit.id] = asked.get(edit.id, Edit(edit.id)).merged(edit)
        return asked

    def _dry(self, ids: Ids) -> list[Edit]:
        multiplier, base, allowed, last_n = self._rules.numbers["dry"]
        window = ids if last_n < 0 else ids[max(0, ids.size - int(last_n)) :]
        breakers = self._rules.ids["dry"]
        end = breaks_at(window, breakers)
        tokens, lengths = repeated(window, end, int(allowed), breakers)
        highest = limit(base)
        made = []
        for token, length in zip(tokens.tolist(), lengths.tolist(), strict=True):
            exponent = length - int(allowed)
            exponent = exponent if highest is None else min(exponent, highest)
            made.append(Edit(token, subtract=held(multiplier * power(base, exponent))))
        return made
