"""From parameters to the rules by which a backend's history edits a row.

A rule is data, as a stage is: its name, its numbers, and the ids and sequences that it looks at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .chains import checked
from .lists import Ids, Sequences, column_of_lists, joined
from .parameters import TABLE
from .values import column


class Rule(NamedTuple):
    """What every backend's ``History`` takes."""

    name: str
    numbers: tuple[float, ...]
    ids: Any = np.empty(0, np.int32)  # (n,) int32
    offsets: Any = np.empty(0, np.int64)  # (m + 1,) int64: where each of m sequences of ids begins
    weights: Any = np.empty(0, np.float64)  # (m,): what is added to the last id of each; -inf bans


class _Kind(NamedTuple):
    """The parameters of a rule, of which the first says whether it is on."""

    numbers: tuple[str, ...]
    ids: str | None = None


#: The rules that look at the history, by their names.
KINDS = {
    "repetition": _Kind(("repetition_penalty", "penalty_last_n")),
    "frequency": _Kind(("frequency_penalty", "penalty_last_n")),
    "presence": _Kind(("presence_penalty", "penalty_last_n")),
    "dry": _Kind(
        ("dry_multiplier", "dry_base", "dry_allowed_length", "dry_last_n"), "dry_sequence_breakers"
    ),
    "no_repeat_ngram": _Kind(("no_repeat_ngram_size",)),
    "min_new_tokens": _Kind(("min_new_tokens",), "eos_token_id"),
}

#: Of which lists the two rules of biases are made, in the order in which biases are added up.
BIASES = {
    "bias": ("logit_bias", "suppress_tokens"),
    "sequence_bias": ("sequence_bias", "bad_words_ids"),
}
#: Those whose ids must be in the vocabulary.
_IN_VOCABULARY = ("logit_bias", "suppress_tokens", "allowed_token_ids")


class Rules(NamedTuple):
    """What edits and masks a row, of one row's parameters or of all rows'."""

    rules: tuple[Rule, ...]
    needs_history: str | None  # a parameter because of which a history is needed
    allowed: Ids | None  # the only ids that are allowed
    largest: tuple[tuple[str, int], ...]  # the largest ids of lists of the vocabulary

    def all_rules(self) -> tuple[Rule, ...]:
        """Return the rules with that of ids that are allowed, which makes no edits."""
        if self.allowed is None:
            return self.rules
        return *self.rules, Rule("allowed_ids", (), self.allowed.astype(np.int32))


def _is_off(name: str, value: float) -> bool:
    low, high = TABLE[name].off or (0.0, 0.0)
    return low <= value <= high


def _rules_of(values: Mapping[str, Any], where: str) -> Rules:
    """Return the rules of converted values of one row."""
    default = {name: TABLE[name].default for kind in KINDS.values() for name in kind.numbers}
    rules, needs = [], None
    for rule, names in BIASES.items():
        given: dict[str, Sequences] = {n: values[n] for n in names if n in values}
        biases = joined(given.values())
        if biases.weights.size:
            rules.append(Rule(rule, (), *biases))
        longer = (n for n, s in given.items() if s.ids.size > s.weights.size)
        needs = needs or next(longer, None)
    for name, kind in KINDS.items():
        first, *_ = kind.numbers
        if first not in values or _is_off(first, values[first]):
            continue
        numbers = tuple(float(values.get(n, default[n])) for n in kind.numbers)
        ids = values.get(kind.ids, ()) if kind.ids else ()
        if name == "min_new_tokens" and not len(ids):
            raise ValueError(f"eos_token_id must be given where min_new_tokens is on{where}")
        rules.append(Rule(name, numbers, np.array(ids, np.int32)))
        needs = needs or first
    allowed = values.get("allowed_token_ids")
    largest = []
    for name in _IN_VOCABULARY:
        ids = getattr(values.get(name), "ids", values.get(name))
        if ids is not None and ids.size:
            largest.append((name, int(ids.max())))
    return Rules(tuple(rules), needs, allowed, tuple(largest))


def make_rules(rows: int | None, given: Mapping[str, Any]) -> Rules | list[Rules]:
    """Return the rules of all rows, or of each one where a parameter is one value per row."""
    values = {}
    for name, value in given.items():
        rule = TABLE[name]
        if not rule.listed:
            values[name] = column(name, value, rows, checked)
        elif value is not None:
            values[name] = column_of_lists(name, value, rows, rule.convert)
    lengths = {len(v) for v in values.values() if isinstance(v, list)}
    if not lengths:
        return _rules_of(values, "")
    made = []
    for row in range(max(lengths)):
        mine = {n: v[row] if isinstance(v, list) else v for n, v in values.items()}
        given_here = {n: v for n, v in mine.items() if v is not None}
        made.append(_rules_of(given_here, f" (row {row})"))
    return made


def check_ids(rules: Rules | Sequence[Rules], vocab: int) -> None:
    """Refuse ids that are not in the vocabulary."""
    for row, mine in enumerate([rules] if isinstance(rules, Rules) else rules):
        for name, largest in mine.largest:
            if largest >= vocab:
                where = "" if isinstance(rules, Rules) else f" (row {row})"
                raise ValueError(f"{name} must have ids in [0, {vocab}), got {largest}{where}")
