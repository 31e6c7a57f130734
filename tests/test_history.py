"""The edits of a history, kept up to date token by token, against the rules from scratch.

Every backend that has a History is held to the reference's edits, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsample.records import EDIT
from fastsample.reference.edits import edits_of
from fastsample.reference.edits.dry import lengths

Rule = tuple[str, tuple[float, ...], Any, Any, Any]
Parameters = dict[str, Any]
VOCAB = 700


def _backends() -> list[str]:
    names = ["fastsample._core", "fastsample._numba", "fastsample.reference"]
    found = [n for n in names if find_spec(n) and (n[-5:] != "numba" or find_spec("numba"))]
    return [n for n in found if hasattr(import_module(n), "History")]


def _maker(name: str) -> Callable[[Parameters], Any]:
    module = import_module(name)
    return lambda parameters: module.History(rules_of(parameters))


@pytest.fixture(params=_backends())
def history_of(request: pytest.FixtureRequest) -> Callable[[Parameters], Any]:
    """Return what makes a History of a backend for parameters of the reference."""
    return _maker(request.param)


@pytest.fixture(params=[name for name in _backends() if name != "fastsample.reference"])
def fast_history_of(request: pytest.FixtureRequest) -> Callable[[Parameters], Any]:
    """The same without the reference, which makes its edits anew each time."""
    return _maker(request.param)


def rules_of(p: Parameters) -> list[Rule]:
    """The same as rules: each with numbers, ids, offsets and weights."""
    last_n = p.get("penalty_last_n", -1)
    rules: list[Rule] = []

    def add(
        name: str, *numbers: float, ids: Any = (), sequences: Any = (), weights: Any = ()
    ) -> None:
        offsets = np.cumsum([0, *map(len, sequences)]) if sequences else np.empty(0)
        joined = [*ids, *(token for sequence in sequences for token in sequence)]
        rules.append((name, tuple(map(float, numbers)), np.array(joined, np.int32),
                      offsets.astype(np.int64), np.array(weights, np.float64)))  # fmt: skip

    singles = [*p.get("logit_bias", ()), *((i, -math.inf) for i in p.get("suppress_tokens", ()))]
    longer = [*p.get("sequence_bias", ()), *((s, -math.inf) for s in p.get("bad_words_ids", ()))]
    if "dry_multiplier" in p:
        add("dry", p["dry_multiplier"], p["dry_base"], p["dry_allowed_length"],
            p.get("dry_last_n", -1), ids=p.get("dry_sequence_breakers", ()))  # fmt: skip
    if singles:
        add("bias", ids=[i for i, _ in singles], weights=[b for _, b in singles])
    if longer:
        add("sequence_bias", sequences=[s for s, _ in longer], weights=[b for _, b in longer])
    add("repetition", p.get("repetition_penalty", 1.0), last_n)
    add("frequency", p.get("frequency_penalty", 0.0), last_n)
    add("presence", p.get("presence_penalty", 0.0), last_n)
    add("no_repeat_ngram", p.get("no_repeat_ngram_size", 0))
    add("min_new_tokens", p.get("min_new_tokens", 0), ids=p.get("eos_token_id", ()))
    return rules


def expected(tokens: Sequence[int], prompt: int, p: Parameters, vocab: int = VOCAB) -> np.ndarray:
    edits = edits_of(tokens, prompt, vocab, p)
    rows = [(e.id, e.ban, e.factor, e.subtract, e.bias) for _, e in sorted(edits.items())]
    return np.array(rows, EDIT)


def same(got: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether two arrays of edits are equal in bits."""
    return got.dtype == wanted.dtype and got.tobytes() == wanted.tobytes()


class Model(NamedTuple):
    """A history as plain as it can be."""

    tokens: list[int]
    prompt: list[int]

    def act(self, history: Any, act: tuple[str, Any]) -> None:
        name, value = act
        if name == "start":
            ids, prompt = value
            self.tokens[:] = ids
            self.prompt[0] = len(ids) if prompt is None else prompt
            history.start(np.array(ids, np.int64), prompt)
        elif name == "push":
            self.tokens.extend(value)
            history.push(np.array(value, np.int64))
        else:
            n = min(value, len(self.tokens))
            del self.tokens[len(self.tokens) - n :]
            self.prompt[0] = min(self.prompt[0], len(self.tokens))
            history.pop(n)


# Few ids, so that they repeat; one that lies beyond the vocabulary, and one beyond any.
ids = st.sampled_from([0, 1, 2, 3, 4, 5, 255, 256, 699, 700, 5_000_000])
known = st.sampled_from([0, 1, 2, 3, 255, 256, 699])
texts = st.lists(ids, max_size=30)
acts = st.one_of(
    st.tuples(st.just("push"), st.lists(ids, max_size=6)),
    st.tuples(st.just("push"), st.lists(st.sampled_from([1, 2]), max_size=20)),
    st.tuples(st.just("pop"), st.integers(0, 9)),
    st.tuples(
        st.just("start"),
        texts.flatmap(
            lambda t: st.tuples(st.just(t), st.one_of(st.none(), st.integers(0, len(t))))
        ),
    ),
)
numbers = st.floats(-3, 3, allow_nan=False)
weights = st.one_of(numbers, st.just(-math.inf))
windows = st.sampled_from([-1, 0, 1, 2, 3, 7, 64])
#: Parameters of every rule; a test of one rule takes one of them.
PARAMETERS: dict[str, st.SearchStrategy[Parameters]] = {
    "bias": st.fixed_dictionaries({"logit_bias": st.lists(st.tuples(known, weights), max_size=5)}),
    "sequence_bias": st.fixed_dictionaries(
        {
            "sequence_bias": st.lists(
                st.tuples(st.lists(ids, min_size=1, max_size=3), weights), max_size=6
            ),
            "bad_words_ids": st.lists(st.lists(ids, min_size=1, max_size=3), max_size=4),
        }
    ),
    "repetition": st.fixed_dictionaries(
        {"repetition_penalty": st.floats(0.5, 2), "penalty_last_n": windows}
    ),
    "frequency": st.fixed_dictionaries({"frequency_penalty": numbers, "penalty_last_n": windows}),
    "presence": st.fixed_dictionaries({"presence_penalty": numbers, "penalty_last_n": windows}),
    "dry": st.fixed_dictionaries(
        {
            "dry_multiplier": st.floats(0, 4),
            "dry_base": st.one_of(st.just(1.0), st.floats(1, 1e10)),
            "dry_allowed_length": st.integers(1, 4),
            "dry_last_n": windows,
            "dry_sequence_breakers": st.lists(ids, max_size=2),
        }
    ),
    "no_repeat_ngram": st.fixed_dictionaries({"no_repeat_ngram_size": st.integers(0, 4)}),
    "min_new_tokens": st.fixed_dictionaries(
        {
            "min_new_tokens": st.integers(0, 12),
            "eos_token_id": st.lists(ids, max_size=3),
        }
    ),
}
everything = st.tuples(*PARAMETERS.values()).map(
    lambda parts: {name: value for part in parts for name, value in part.items()}
)


def check_acts(history: Any, p: Parameters, todo: Sequence[tuple[str, Any]]) -> None:
    model = Model([], [0])
    for act in todo:
        model.act(history, act)
        assert history.tokens().tolist() == model.tokens
        assert len(history) == len(model.tokens)
        wanted = expected(model.tokens, model.prompt[0], p)
        got = history.edits(VOCAB)
        assert same(got, wanted), (act, got, wanted)
        small = [e for e in wanted if e["id"] < 5]
        assert same(history.edits(5), np.array(small, EDIT))


@pytest.mark.parametrize("rule", PARAMETERS)
@given(data=st.data())
def test_one_rule(history_of: Callable[[Parameters], Any], rule: str, data: Any) -> None:
    p = data.draw(PARAMETERS[rule])
    check_acts(history_of(p), p, data.draw(st.lists(acts, min_size=1, max_size=12)))


@given(p=everything, todo=st.lists(acts, min_size=1, max_size=15))
def test_all_rules(
    history_of: Callable[[Parameters], Any], p: Parameters, todo: list[tuple[str, Any]]
) -> None:
    check_acts(history_of(p), p, todo)


FULL: Parameters = {
    "logit_bias": [(3, 0.5), (17, -math.inf)],
    "sequence_bias": [([4, 5], 1.5), ([5], -0.25)],
    "repetition_penalty": 1.2,
    "frequency_penalty": 0.3,
    "presence_penalty": -0.2,
    "penalty_last_n": 200,
    "dry_multiplier": 0.8,
    "dry_base": 1.75,
    "dry_allowed_length": 2,
    "dry_sequence_breakers": [9, 40],
    "no_repeat_ngram_size": 3,
    "bad_words_ids": [[6], [7, 8]],
    "min_new_tokens": 100,
    "eos_token_id": [0],
}


def test_long_histories(history_of: Callable[[Parameters], Any]) -> None:
    """Over many blocks, with windows that slide and roll-backs across their edges."""
    rng = np.random.default_rng(5)
    history, model = history_of(FULL), Model([], [0])
    model.act(history, ("start", (rng.integers(0, 600, 300).tolist(), 250)))
    for step in range(60):
        loop = (rng.integers(0, 12, rng.integers(1, 25)) * (50 if step % 2 else 1)).tolist()
        model.act(history, ("push", loop * int(rng.integers(1, 3))))
        model.act(history, ("pop", int(rng.integers(0, 40))))
        assert same(history.edits(VOCAB), expected(model.tokens, model.prompt[0], FULL))


def test_the_history_outside_the_window_is_of_no_matter(
    history_of: Callable[[Parameters], Any],
) -> None:
    p = FULL | {"penalty_last_n": 40, "dry_last_n": 40, "no_repeat_ngram_size": 0}
    rng = np.random.default_rng(6)
    old, recent = rng.integers(0, 600, 500), rng.integers(0, 30, 40)
    history = history_of(p)
    found = []
    for first in (old, rng.permutation(old)):
        history.start(np.concatenate([first, recent]), 100)
        found.append(history.edits(VOCAB))
    assert found[0].size > 0
    assert same(found[0], found[1])


def test_dry_lengths(history_of: Callable[[Parameters], Any]) -> None:
    """Against the definition, over texts of two ids, in which matches overlap."""
    p = {"dry_multiplier": 1.0, "dry_base": 2.0, "dry_allowed_length": 1}
    rng = np.random.default_rng(7)
    history = history_of(p)
    for _ in range(200):
        text = rng.integers(0, 2, rng.integers(1, 90)).tolist()
        if rng.random() < 0.5:
            text = (text[:5] * 20)[: len(text)]
        history.start(text)
        wanted = {i: 2.0 ** (n - 1) for i, n in lengths(text, frozenset()).items() if n > 0}
        got = history.edits(2)
        assert dict(zip(got["id"].tolist(), got["subtract"].tolist(), strict=True)) == wanted


def test_dry_exponents_end(fast_history_of: Callable[[Parameters], Any]) -> None:
    """At the largest power that a float32 holds; base 1 has no end."""
    for base, largest in ((2.0, 127), (1.75, 158), (1.0, 0)):
        p = {"dry_multiplier": 1.0, "dry_base": base, "dry_allowed_length": 1}
        history = fast_history_of(p)
        history.start([7] * 400)
        (edit,) = history.edits(VOCAB)
        assert edit["subtract"] == pytest.approx(base**largest, rel=1e-13)


def test_a_long_history(fast_history_of: Callable[[Parameters], Any]) -> None:
    """A million tokens are begun with, pushed to and taken back from."""
    tokens = np.random.default_rng(8).integers(0, VOCAB, 1_000_000)
    p = FULL | {"dry_last_n": 4096, "no_repeat_ngram_size": 0}
    history = fast_history_of(p)
    history.start(tokens, 10)
    history.push([1, 2, 3])
    history.pop(2)
    recent = tokens[-4999:].tolist()
    assert same(history.edits(VOCAB), expected([*recent, 1], 10 - 995_001, p))
    assert len(history) == 1_000_001


def test_the_order_of_rules_is_of_no_matter(history_of: Callable[[Parameters], Any]) -> None:
    kind, found = type(history_of(FULL)), []
    for rules in (rules_of(FULL), rules_of(FULL)[::-1]):
        history = kind(rules)
        history.start([4, 5, 6, 4, 5, 6, 4, 5], 3)
        found.append(history.edits(VOCAB))
    assert found[0].size > 5
    assert same(*found)


def test_edits_rise(history_of: Callable[[Parameters], Any]) -> None:
    history = history_of(FULL)
    history.start(np.random.default_rng(9).integers(0, VOCAB, 500))
    edited = history.edits(VOCAB)["id"].tolist()
    assert all(a < b for a, b in pairwise(edited))
