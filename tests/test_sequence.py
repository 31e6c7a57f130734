"""A Sampler as a sequence: its history, its state, roll-back, copies."""

from __future__ import annotations

import copy
import pickle
from functools import partial
from typing import Any

import numpy as np
import pytest
from rows import Float32s
from sequences import ADAPTIVE, MIROSTAT, PENALTIES, VOCAB, XTC, logits_of

import fastsample as fs


def drawn(sampler: fs.Sampler, first: int, last: int) -> list[int]:
    return [int(sampler(logits_of(i))) for i in range(first, last)]


def test_a_sequence_is_what_the_functions_say(variant: str) -> None:
    """Token by token with a history that is kept, as with one that is given each time."""
    sampler = fs.Sampler(seed=5, offset=3, **PENALTIES)
    prompt = [4, 7, 8, 4, 7]
    sampler.start(prompt)
    history = list(prompt)
    for i in range(30):
        expected = fs.sample(
            logits_of(i), seed=5, offset=3 + i, history=history, prompt_length=5, **PENALTIES
        )
        assert sampler(logits_of(i)) == expected
        history.append(int(expected))
        assert sampler.history.tolist() == history
    assert sampler.history.dtype == np.int64
    assert sampler.offset == 33


def test_without_rules_and_a_state_there_is_a_fast_way(fast_variant: str) -> None:
    """Which moves the sampler on, and leaves to the general path what only that can word."""
    row = logits_of(0)
    sampler = fs.Sampler(temperature=1.5, seed=5, offset=3)
    expected = [fs.sample(row, temperature=1.5, seed=5, offset=3 + i) for i in range(4)]
    assert sampler._draw is not None
    assert [sampler._draw(row) for _ in range(2)] == expected[:2]
    assert sampler.offset == 5
    sampler.push(7)
    assert [sampler._draw(row) for _ in range(2)] == expected[2:]
    assert sampler.history.tolist() == [7, *expected[2:]]
    sampler.rollback(1)
    assert sampler.offset == 6
    sampler.offset = 2**64 - 1
    assert sampler._draw(row) == -1
    sampler.seed = [1, 2]
    assert sampler._draw(row) == -1
    assert sampler.history.tolist() == [7, expected[2]]


def test_what_is_pushed_and_rolled_back_at_random(variant: str) -> None:
    """Incremental is from scratch, whatever has been pushed, drawn and taken back."""
    rng = np.random.default_rng(1)
    sampler = fs.Sampler(seed=5, **PENALTIES)
    sampler.start([4, 7, 8])
    prompt = 3
    for i in range(120):
        kind = rng.integers(4)
        before = sampler.history.tolist()
        if kind == 0:
            ids = rng.integers(0, VOCAB + 5, rng.integers(0, 9)).tolist()
            sampler.push(ids)
            assert sampler.history.tolist() == before + ids
        elif kind == 1:
            n = int(rng.integers(0, min(len(before), 7) + 1))
            sampler.rollback(n)
            assert sampler.history.tolist() == before[: len(before) - n]
            prompt = min(prompt, len(before) - n)
        else:
            offset = sampler.offset
            expected = fs.sample(
                logits_of(i), seed=5, offset=offset, history=before, prompt_length=prompt,
                **PENALTIES,
            )  # fmt: skip
            assert sampler(logits_of(i)) == expected


def test_what_was_drawn_is_drawn_again_after_a_rollback(variant: str) -> None:
    sampler = fs.Sampler(seed=5, **PENALTIES)
    sampler.start([4, 7, 8])
    tokens = drawn(sampler, 0, 12)
    sampler.rollback(5)
    assert sampler.offset == 7
    assert drawn(sampler, 7, 12) == tokens[7:]
    sampler.push([1, 2, 3])
    sampler.rollback(2)  # nothing that was drawn
    assert sampler.offset == 12
    sampler.rollback(3)
    assert sampler.offset == 10
    assert drawn(sampler, 10, 12) == tokens[10:]
    sampler.rollback(15)
    assert sampler.history.size == 0
    assert sampler.offset == 0
    sampler.start([4, 7, 8])
    assert drawn(sampler, 0, 12) == tokens


def test_reset_is_the_beginning(variant: str) -> None:
    for chain in (PENALTIES, MIROSTAT | {"repetition_penalty": 1.2}):
        sampler = fs.Sampler(seed=5, **chain)
        sampler.start([4, 7, 8])
        tokens = drawn(sampler, 0, 8)
        sampler.reset()
        assert sampler.history.tolist() == [4, 7, 8]
        assert drawn(sampler, 0, 8) == tokens
        sampler.reset(seed=6)
        assert drawn(sampler, 0, 8) != tokens


@pytest.mark.parametrize("chain", [PENALTIES, MIROSTAT, ADAPTIVE, XTC, {"temperature": 0.7}])
def test_copies_go_on_alike(variant: str, chain: dict[str, Any]) -> None:
    sampler = fs.Sampler(seed=5, **chain)
    sampler.start([4, 7, 8])
    drawn(sampler, 0, 6)
    twins = [
        sampler.copy(), copy.copy(sampler), copy.deepcopy(sampler),
        pickle.loads(pickle.dumps(sampler)),
    ]  # fmt: skip
    tokens = drawn(sampler, 6, 14)
    for twin in twins:
        assert twin.history.tolist() == sampler.history[:9].tolist()
        assert drawn(twin, 6, 14) == tokens
        assert twin.history.tolist() == sampler.history.tolist()
        assert str(twin.state) == str(sampler.state)
        if twin.state is None:
            twin.rollback(3)
            assert drawn(twin, 11, 14) == tokens[5:]
    other = sampler.copy(seed=5)
    assert other.history.tolist() == [4, 7, 8]
    assert drawn(other, 6, 14) != tokens


@pytest.mark.parametrize("chain", [MIROSTAT, ADAPTIVE])
def test_states(variant: str, chain: dict[str, Any]) -> None:
    sampler = fs.Sampler(seed=5, **chain)
    state = sampler.state
    assert state is not None
    for i in range(10):
        assert sampler(logits_of(i)) == fs.sample(
            logits_of(i), seed=5, offset=i, state=state, **chain
        )
        assert sampler.state is not None
        assert sampler.state.tobytes() == state.tobytes()
    shown = eval(repr(sampler), {"Sampler": fs.Sampler})
    assert shown.state.tobytes() == state.tobytes()
    assert drawn(shown, 10, 14) == drawn(sampler, 10, 14)
    sampler.state = state
    sampler.state[:] = 0.0  # a copy
    assert sampler.state.tobytes() == state.tobytes()
    sampler.push([1, 2])
    with pytest.raises(ValueError, match=r"^rollback must not be used where .* has a state$"):
        sampler.rollback(1)
    sampler.rollback(0)
    for wrong in (np.zeros(3), np.full(state.size, np.nan)):
        with pytest.raises(ValueError, match=r"^state must be "):
            sampler.state = wrong
    with pytest.raises(ValueError, match=r"^state must be None where no stage has one$"):
        fs.Sampler(state=[1.0])
    assert fs.Sampler().state is None


def test_states_are_real_numbers_given_or_set(variant: str) -> None:
    chain: dict[str, Any] = {"mirostat": 2, "order": "llama.cpp"}
    sampler = fs.Sampler(**chain)
    for good in ([2], (np.float32(2),), np.array([2], np.uint8)):
        sampler.state = good
        assert fs.Sampler(**chain, state=good).state.tolist() == sampler.state.tolist() == [2.0]
    for bad in (["2"], [True], [2j], np.array([2.0], object), np.array([2], "m8[s]")):
        for give in (
            lambda bad: fs.Sampler(**chain, state=bad),
            partial(setattr, sampler, "state"),
        ):
            with pytest.raises(TypeError, match=r"^state must be float64, got "):
                give(bad)


def test_what_fails_has_not_moved(variant: str) -> None:
    sampler = fs.Sampler(seed=5, **PENALTIES)
    sampler.start([4, 7, 8])
    shown = repr(sampler)
    bad = logits_of(0)
    bad[1] = np.nan
    for call in (
        lambda: sampler(bad),
        lambda: sampler(np.zeros((2, VOCAB), np.float32)),
        lambda: sampler(logits_of(0), allowed=np.zeros(3, bool)),
        lambda: sampler(np.zeros(5, np.float32)),
        lambda: sampler.push([1, -1]),
        lambda: sampler.rollback(4),
        lambda: sampler.rollback(-1),
        lambda: sampler.start([1, 2], prompt_length=3),
        lambda: sampler.start([1, 2**31]),
    ):
        with pytest.raises(ValueError, match=" must "):
            call()
        assert repr(sampler) == shown
        assert sampler.history.tolist() == [4, 7, 8]
    for kind in (
        lambda: sampler.push("a"),
        lambda: sampler.rollback(0.5),
        lambda: sampler.start(3),
    ):
        with pytest.raises(TypeError, match=" must "):
            kind()
    marking = fs.Sampler(seed=5, errors="mark", **PENALTIES)
    marking.start([4])
    assert marking(bad) == -1
    assert marking.history.tolist() == [4]


def test_a_sampler_without_a_history_keeps_none_until_it_is_started() -> None:
    sampler = fs.Sampler(seed=1, logit_bias={3: 1.0}, top_k=5)
    batch = np.stack([logits_of(0), logits_of(1)])
    expected = fs.sample(batch, seed=1, logit_bias={3: 1.0}, top_k=5)
    assert np.array_equal(sampler(batch), expected)
    assert sampler.history.size == 0
    sampler.push(3)
    token = sampler(logits_of(2))
    assert sampler.history.tolist() == [3, token]
    with pytest.raises(ValueError, match=r"^logits must be one row for a sampler with a history"):
        sampler(batch)


def test_parameters_of_several_rows() -> None:
    batch = np.stack([logits_of(0), logits_of(1)])
    given: dict[str, Any] = {"logit_bias": [{3: 9.0}, None], "suppress_tokens": [[1], [2]]}
    sampler = fs.Sampler(seed=1, **given)
    assert np.array_equal(sampler(batch), fs.sample(batch, seed=1, **given))
    assert np.array_equal(sampler.copy()(batch), fs.sample(batch, seed=1, offset=1, **given))
    given["suppress_tokens"] = tuple(given["suppress_tokens"])
    assert np.array_equal(fs.Sampler(seed=1, **given)(batch), fs.sample(batch, seed=1, **given))
    with pytest.raises(ValueError, match=r"^a sampler with parameters of several rows has no his"):
        sampler.start([1])
    with pytest.raises(ValueError, match=r"^repetition_penalty must be one value for a sampler"):
        fs.Sampler(repetition_penalty=[1.0, 1.5])


@pytest.mark.parametrize(
    ("given", "name", "kept"),
    [
        ({"mirostat": [2, 2], "order": "llama.cpp"}, "mirostat", "state"),
        ({"top_k": [3, 4], "adaptive_target": 0.5, "order": "llama.cpp"}, "top_k", "state"),
        ({"allowed_token_ids": [[0], [1]], **MIROSTAT}, "allowed_token_ids", "state"),
        ({"top_k": [3, 4], "repetition_penalty": 2.0}, "top_k", "history"),
        ({"bad_words_ids": [[[1, 2]], None]}, "bad_words_ids", "history"),
        ({"suppress_tokens": ([1],), **MIROSTAT}, "suppress_tokens", "state"),
    ],
)
def test_what_a_sampler_keeps_is_of_one_row(given: dict[str, Any], name: str, kept: str) -> None:
    with pytest.raises(ValueError, match=r".*") as caught:
        fs.Sampler(seed=1, **given)
    message = f"{name} must be one value for a sampler with a {kept}, got one for each row"
    assert str(caught.value) == message


def test_a_state_stays_finite(variant: str) -> None:
    """With the largest tau, from any state, however the surprise adds up."""
    given: dict[str, Any] = MIROSTAT | {"mirostat_tau": 1e290, "mirostat_eta": 1.0}
    sampler = fs.Sampler(seed=1, **given)
    for state in (sampler.state, [np.finfo(np.float64).max]):
        sampler.state = state
        drawn(sampler, 0, 5)
        assert np.isfinite(sampler.copy().state).all()  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^mirostat_tau must be in \(0, 1e290\], got 1e\+308$"):
        fs.Sampler(**given | {"mirostat_tau": 1e308})


def test_what_was_given_may_change() -> None:
    bias, banned = {3: 9.0}, [1, 2]
    sampler = fs.Sampler(seed=1, logit_bias=bias, suppress_tokens=banned)
    bias.clear()
    banned.append(3)
    assert repr(sampler) == "Sampler(logit_bias={3: 9.0}, suppress_tokens=[1, 2], seed=1, offset=0)"


# ---- the loop around a model ------------------------------------------------------------------


def model(ids: Any) -> Float32s:
    """Logits that depend on the last token of each row and on how many there are."""
    last = np.atleast_2d(ids)[:, -1]
    made = np.stack([logits_of(int(token) + 100 * ids.shape[-1]) for token in last])
    return made[0] if ids.ndim == 1 else made


@pytest.mark.parametrize("chain", [PENALTIES, MIROSTAT, ADAPTIVE])
def test_generate_keeps_history_and_state(variant: str, chain: dict[str, Any]) -> None:
    given = {name: value for name, value in chain.items() if name != "eos_token_id"}
    given.pop("min_new_tokens", None)
    text = fs.generate(model, [4, 7], max_new_tokens=12, do_sample=True, top_k=0, seed=3, **(
        {n: v for n, v in given.items() if n != "top_k"}
    ))  # fmt: skip
    sampler = fs.Sampler(seed=3, **{n: v for n, v in given.items() if n != "top_k"})
    sampler.start([4, 7])
    ids = [4, 7]
    for _ in range(12):
        ids.append(int(sampler(model(np.array(ids)))))
    assert text.tolist() == ids


def test_generate_in_a_batch(variant: str) -> None:
    """Rows of their own seeds are texts of their own, also after one has ended."""
    given: dict[str, Any] = {
        "repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "min_new_tokens": 3,
        "eos_token_id": list(range(0, VOCAB, 3)), "vocab_size": VOCAB - 1, "do_sample": True,
    }  # fmt: skip
    prompts = np.array([[4, 7], [8, 1], [2, 2]])
    texts = fs.generate(model, prompts, max_new_tokens=15, seed=[3, 4, 5], **given)
    for prompt, text, seed in zip(prompts, texts, (3, 4, 5), strict=True):
        alone = fs.generate(model, prompt, max_new_tokens=15, seed=seed, **given)
        assert text[: alone.size].tolist() == alone.tolist()
        assert alone.size >= 5
        assert VOCAB - 1 not in alone
    greedy = fs.generate(model, [4, 7], max_new_tokens=9, no_repeat_ngram_size=1, top_p=0.5)
    assert len(set(greedy.tolist())) == greedy.size
