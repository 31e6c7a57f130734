"""The core's sequences: what draw and step give is what stateless calls give, token by token."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
import pytest

import fastsample
from fastsample.chains import make_records
from fastsample.inputs import together
from fastsample.records import EDIT, Records

core = pytest.importorskip("fastsample._core")

VOCAB = 1000
Rule = tuple[str, tuple[float, ...], list[int], list[int], list[float]]

RULES: list[Rule] = [
    ("repetition", (1.3, 64.0), [], [], []),
    ("frequency", (0.4, 64.0), [], [], []),
    ("presence", (-0.1, -1.0), [], [], []),
    ("dry", (0.8, 1.75, 2.0, -1.0), [11, 12], [], []),
    ("no_repeat_ngram", (4.0,), [], [], []),
    ("bias", (), [5, 6], [], [2.0, -math.inf]),
    ("sequence_bias", (), [7, 8, 9], [0, 2, 3], [3.0, -1.0]),
    ("min_new_tokens", (5.0,), [0], [], []),
]
CHAINS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.0},
    {"temperature": 0.8, "top_k": 50, "top_p": 0.95},
    {"min_p": 0.05, "xtc_probability": 0.5, "order": "llama.cpp"},
    {"mirostat": 2, "order": "llama.cpp"},
    {"adaptive_target": 0.4, "min_p": 0.02, "order": "llama.cpp"},
]


def drawn_at(sequence: Any, row: np.ndarray, seed: int, offset: int) -> int:
    assert sequence.seek(seed, offset)
    return int(sequence.draw(row))


def rows_of(seed: int, count: int, vocab: int = VOCAB) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2.5, (count, vocab)).astype(np.float32)


def coin_of(seed: int, offset: int) -> float:
    bits = np.random.Philox(key=[seed, 0], counter=[offset, 1, 0, 0])
    return float(np.random.Generator(bits).random())


class Stateless:
    """The same sequence by `sample` of the backend, with the edits of a History."""

    def __init__(self, records: Records, rules: list[Rule], state: np.ndarray | None) -> None:
        self.records, self.padded = records, np.zeros(2)
        self.state = None if state is None else self.padded[: state.size]
        if self.state is not None:
            self.state[:] = state
        self.history = core.History(rules)

    def draw(self, row: np.ndarray, seed: int, offset: int) -> int:
        edits = self.history.edits(row.size)
        inputs: dict[str, Any] = {
            "coin": np.array([coin_of(seed, offset)]),
            "edits": edits,
            "edit_offsets": np.array([0, edits.size], np.int64),
        }
        if self.state is not None:
            inputs["state"] = self.padded[None]
        token = np.empty(1, np.int64)
        u = np.array([core.uniform(seed, 0, offset)])
        core.sample(row[None], self.records, u, False, token, 1, **inputs)
        self.history.push(token)
        return int(token[0])


@pytest.mark.parametrize("chain", CHAINS, ids=str)
@pytest.mark.parametrize("rules", [[], RULES], ids=["plain", "rules"])
def test_a_sequence_draws_what_stateless_calls_draw(
    chain: dict[str, Any], rules: list[Rule]
) -> None:
    records = make_records(1, "test", **chain)
    sequence = core.Sequence(records, rules)
    other = Stateless(records, rules, sequence.state)
    sequence.start([1, 2, 3], 2)
    other.history.start([1, 2, 3], 2)
    rows = rows_of(1, 120)
    for step, row in enumerate(rows):
        assert drawn_at(sequence, row, 7, step) == other.draw(row, 7, step)
        if other.state is not None:
            np.testing.assert_array_equal(sequence.state, other.state)
    np.testing.assert_array_equal(sequence.tokens(), other.history.tokens())
    assert len(sequence) == 123


@pytest.mark.parametrize("threads", [1, 2])
def test_step_is_draw_of_each(threads: int) -> None:
    makers = [
        (make_records(1, "test", **chain), rules) for chain in CHAINS for rules in ([], RULES)
    ]
    sequences = [core.Sequence(*maker) for maker in makers]
    alone = [core.Sequence(*maker) for maker in makers]
    seeds = range(5, 5 + len(sequences))
    for seed, sequence in zip(seeds, sequences, strict=True):
        assert sequence.seek(seed, 30)
    tokens = np.empty(len(sequences), np.int64)
    for step in range(40):
        rows = rows_of(step, len(sequences))
        assert core.step(sequences, rows, False, tokens, threads)
        wanted = [drawn_at(p, r, s, 30 + step) for p, r, s in zip(alone, rows, seeds, strict=True)]
        assert tokens.tolist() == wanted
    assert {sequence.offset for sequence in sequences} == {70}


def test_a_failing_step_moves_nothing() -> None:
    records = make_records(1, "test", mirostat=2, order="llama.cpp")
    sequences = [core.Sequence(records, RULES) for _ in range(3)]
    rows = rows_of(2, 3, 64)
    rows[1, 5] = np.nan
    tokens = np.full(3, 99, np.int64)
    for sequence in sequences:
        sequence.seek(1, 4)
    states = [sequence.state for sequence in sequences]
    assert not core.step(sequences, rows, False, tokens)
    assert tokens.tolist() == [99] * 3
    assert [len(sequence) for sequence in sequences] == [0] * 3
    assert [sequence.offset for sequence in sequences] == [4] * 3
    np.testing.assert_array_equal([sequence.state for sequence in sequences], states)
    # Marked, the others go on.
    assert core.step(sequences, rows, True, tokens)
    assert tokens[1] == -1
    assert min(tokens[0], tokens[2]) >= 0
    assert [len(sequence) for sequence in sequences] == [1, 0, 1]
    assert [sequence.offset for sequence in sequences] == [5, 4, 5]


def test_what_is_rolled_back_is_drawn_again() -> None:
    sequence = core.Sequence(make_records(1, "test", top_k=40), RULES)
    sequence.start([3, 4])
    sequence.seek(9, 100)
    rows = rows_of(3, 12)
    tokens = np.empty(1, np.int64)

    def go_on(first: int) -> list[int]:
        drawn = []
        for row in rows[first:]:
            assert core.step([sequence], row[None], False, tokens)
            drawn.append(int(tokens[0]))
        return drawn

    drawn = go_on(0)
    assert sequence.pop(5) == 107
    assert go_on(7) == drawn[7:]
    sequence.push([1, 2])  # which it has not drawn
    assert sequence.pop(2) is None
    sequence.push([1])
    assert sequence.pop(4) == 109
    assert go_on(9) == drawn[9:]
    assert sequence.pop(14) == 100
    assert (len(sequence), sequence.prompt_length) == (0, 0)


def test_roll_back_with_a_state_is_refused() -> None:
    sequence = core.Sequence(make_records(1, "test", mirostat=2, order="llama.cpp"), ())
    sequence.push([1, 2])
    with pytest.raises(ValueError, match="mirostat has a state must not be rolled back"):
        sequence.pop(1)
    assert len(sequence) == 2


def test_steps_are_told_and_taken_over() -> None:
    sequence, other = (core.Sequence(make_records(1, "test", top_k=40), RULES) for _ in range(2))
    rows = rows_of(4, 8)
    sequence.start([3, 4], 1)
    assert sequence.seek(9, 5)
    drawn = [sequence.draw(row) for row in rows[:3]]
    sequence.push([7])
    drawn += [drawn_at(sequence, row, 9, 2**64 - 5 + i) for i, row in enumerate(rows[3:6])]
    steps = [None, None, 5, 6, 7, None, 2**64 - 5, 2**64 - 4, 2**64 - 3]
    assert sequence.steps() == steps
    assert len(sequence) == 9
    other.start([3, 4], 1)
    other.accept(drawn[:3], 5)
    other.push([7])
    other.accept(drawn[3:], 2**64 - 5)
    assert other.steps() == steps
    assert other.tokens().tolist() == sequence.tokens().tolist()
    assert other.seek(9, sequence.offset)
    assert other.offset == 2**64 - 2
    assert [other.draw(row) for row in rows[6:]] == [sequence.draw(rows[6]), -1]  # the last step
    assert other.pop(3) == 2**64 - 4
    with pytest.raises(ValueError, match="count must be at most the offsets that are left, got 9"):
        other.accept(range(9), 2**64 - 5)
    assert len(other) == 7
    stateful = core.Sequence(make_records(1, "test", mirostat=2, order="llama.cpp"), ())
    stateful.push([1])
    stateful.draw(rows[0])
    assert stateful.steps() == [None, None]


def test_what_is_no_place_is_not_drawn_at() -> None:
    sequence = core.Sequence(make_records(1, "test"), ())
    row, tokens = rows_of(4, 1), np.empty(1, np.int64)
    for seed, offset in ((None, 0), (0, 2**64), ([1], 0), (0, -1), (0, 1.0)):
        assert not sequence.seek(seed, offset)
        assert sequence.draw(row[0]) == -1
        assert not core.step([sequence], row, False, tokens)
    assert sequence.seek(0, 0)
    assert core.step([sequence], row, False, tokens)


def test_tokens_that_nobody_asks_for_are_dropped() -> None:
    sequence = core.Sequence(make_records(1, "test", top_k=2), ())
    sequence.keeps = False
    row = rows_of(4, 1, 8)
    tokens = np.empty(1, np.int64)
    for _ in range(3000):
        assert sequence.draw(row[0]) >= 0
        assert core.step([sequence], row, False, tokens)
    assert sequence.offset == 6000
    assert len(sequence) < 4096


def test_allowed_ids() -> None:
    allowed = [3, 40, 700]
    sequence = core.Sequence(make_records(1, "test"), [("allowed_ids", (), allowed, [], [])])
    rows = rows_of(5, 200)
    drawn = {drawn_at(sequence, row, 1, step) for step, row in enumerate(rows)}
    assert drawn == set(allowed)
    nothing = core.Sequence(make_records(1, "test"), [("allowed_ids", (), [], [], [])])
    assert drawn_at(nothing, rows[0], 1, 0) == -1
    assert drawn_at(sequence, rows[0][:600], 1, 0) == -1  # a row without 700
    assert len(sequence) == 200


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            ("repetition", (0.0, -1.0), [], [], []),
            "repetition_penalty must be finite and > 0, got 0",
        ),
        (("dry", (1.0, 0.5, 1.0, -1.0), [], [], []), "dry_base must be finite and >= 1, got 0.5"),
        (("dry", (1.0, 1.5, 1.5, -1.0), [], [], []), "dry_allowed_length must be a whole number"),
        (("presence", (math.nan, -1.0), [], [], []), "presence_penalty must be finite, got nan"),
        (("frequency", (1.0, -2.0), [], [], []), "penalty_last_n must be a whole number >= -1"),
        (("bias", (), [1], [], [math.inf]), "bias.weights must be finite or -inf, got inf"),
        (("sequence_bias", (), [1], [0, 0, 1], [1.0, 1.0]), "offsets must be rising from 0"),
        (("bias", (), [-1], [], [1.0]), "token ids must be from 0"),
        (("what", (), [], [], []), "unknown rule what"),
    ],
)
def test_bad_rules(rule: Rule, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        core.Sequence(make_records(1, "test"), [rule])


def test_bad_steps() -> None:
    sequence, other = (core.Sequence(make_records(1, "test"), ()) for _ in range(2))
    rows, tokens = rows_of(6, 2, 16), np.full(2, 99, np.int64)
    assert not core.step([sequence, sequence], rows, False, tokens)
    for others in ([sequence, None], [sequence, core.History()], [sequence, 3]):
        assert not core.step(others, rows, False, tokens)
    for others in ([sequence], [sequence, other, sequence]):
        with pytest.raises(TypeError):
            core.step(others, rows, False, tokens)
    assert tokens.tolist() == [99, 99]
    assert (len(sequence), len(other)) == (0, 0)
    assert core.step([sequence, other], rows, False, tokens)


@pytest.mark.parametrize("threads", [1, 3])
def test_histories_edit_rows_where_they_are(threads: int) -> None:
    records = make_records(1, "sample", temperature=0.8, top_k=40)
    histories = [core.History(RULES) for _ in range(4)]
    histories[2] = None  # a row without
    u = np.linspace(0.1, 0.9, 4)
    for step in range(20):
        rows = rows_of(step % 3, 4)
        edits = [np.empty(0, EDIT) if h is None else h.edits(VOCAB) for h in histories]
        expected, tokens = np.zeros(4, np.int64), np.zeros(4, np.int64)
        core.sample(rows, records, u, False, expected, 1, **together(edits))
        core.sample(rows, records, u, False, tokens, threads, pasts=histories)
        assert tokens.tolist() == expected.tolist()
        for history, token in zip(histories, tokens.tolist(), strict=True):
            if history is not None:
                history.push([token])
    assert len(histories[0]) == 20
    twice = [histories[0], None, histories[0], None]
    with pytest.raises(ValueError, match=r"draw.past must be another one.*\(row 2\)"):
        core.sample(rows, records, u, False, tokens, 1, pasts=twice)
    with pytest.raises(TypeError, match="pasts must be as many as rows"):
        core.sample(rows, records, u, False, tokens, 1, pasts=histories[:3])
    biased = core.History([("bias", (), [VOCAB], [], [1.0])])
    with pytest.raises(ValueError, match=r"ids of a bias must be in \[0, logits.vocab\), got 1000"):
        core.sample(rows[:1], records, u[:1], False, tokens[:1], 1, pasts=[biased])


def test_threads_do_not_break_a_sequence() -> None:
    """One sequence in several threads is a mistake, and no crash: draws that meet are refused."""
    sequence = core.Sequence(make_records(1, "test", top_k=50), RULES)
    row = rows_of(7, 1, 40_000)[0]
    counts = [0] * 4

    def work(k: int) -> None:
        for _ in range(100):
            counts[k] += sequence.draw(row) >= 0

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sequence) == sum(counts) > 0


def test_a_sampler_draws_what_sample_draws() -> None:
    sampler = fastsample.Sampler(temperature=0.8, seed=3)
    row = rows_of(8, 1)[0]
    assert [sampler(row) for _ in range(5)] == [
        fastsample.sample(row, temperature=0.8, seed=3, offset=i) for i in range(5)
    ]


def test_bad_histories() -> None:
    history = core.History(RULES)
    history.start([1, 2, 3], 1)
    before = history.edits(VOCAB)
    for call in (
        lambda: history.start([-1]),
        lambda: history.push([4, -1]),
        lambda: history.push([2**31]),
        lambda: history.start([1, 2], 3),
        lambda: history.pop(4),
        lambda: history.pop(-1),
    ):
        with pytest.raises(ValueError, match=r"must be .*, got"):
            call()
    assert history.tokens().tolist() == [1, 2, 3]
    np.testing.assert_array_equal(history.edits(VOCAB), before)


def test_greedy_draws_leave_a_state_and_can_be_taken_back() -> None:
    greedy = {"temperature": 0.0, "mirostat": 2, "order": "llama.cpp"}
    sequence = core.Sequence(make_records(1, "test", **greedy), RULES)
    rows = rows_of(9, 4)
    drawn = [drawn_at(sequence, row, 1, step) for step, row in enumerate(rows)]
    np.testing.assert_array_equal(sequence.state, [10.0])
    assert sequence.pop(3) == 1
    assert [drawn_at(sequence, row, 1, 1 + step) for step, row in enumerate(rows[1:])] == drawn[1:]


def test_a_sampler_with_rules_and_a_state_is_reset() -> None:
    given: dict[str, Any] = {"mirostat": 2, "order": "llama.cpp", "repetition_penalty": 1.2}
    sampler = fastsample.Sampler(**given, seed=1)
    sampler.start([1, 2])
    rows = rows_of(10, 5)
    drawn = [sampler(row) for row in rows]
    sampler.reset()
    assert sampler.history.tolist() == [1, 2]
    assert [sampler(row) for row in rows] == drawn
