"""Histories, lists and masks through the public functions: what they do to a row, and to no other.

Everything that edits a row is checked on every variant against a row that was edited by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rows
from rows import Float32s

import fastsample as fs
from fastsample.masks import masks
from fastsample.reference import edits

Activate = Callable[[str], AbstractContextManager[None]]

VOCAB = 300
HISTORY = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 1, 4]
#: Parameters of part 3 one by one, as the public functions and as the specification take them.
EDITS: dict[str, dict[str, Any]] = {
    "logit_bias": {"logit_bias": {3: 1.5, 7: -np.inf, 299: 4.0}},
    "repetition": {"repetition_penalty": 1.3},
    "repetition in a window": {"repetition_penalty": 0.7, "penalty_last_n": 5},
    "frequency": {"frequency_penalty": 0.4},
    "presence": {"presence_penalty": -0.6, "penalty_last_n": 3},
    "all three": {"repetition_penalty": 1.1, "frequency_penalty": 0.2, "presence_penalty": 0.3},
    "none in the window": {"repetition_penalty": 2.0, "penalty_last_n": 0},
    "dry": {"dry_multiplier": 0.8},
    "dry with all": {
        "dry_multiplier": 0.8,
        "dry_base": 1.2,
        "dry_allowed_length": 1,
        "dry_last_n": 17,
        "dry_sequence_breakers": [4],
    },
    "ngrams": {"no_repeat_ngram_size": 3},
    "single ids": {"no_repeat_ngram_size": 1},
    "bad words": {"bad_words_ids": [[1, 4, 2], [8], [9, 9]]},
    "sequence_bias": {"sequence_bias": {(4, 6): 2.5, (6,): -0.5, (1, 4, 6): 1.0}},
    "suppress": {"suppress_tokens": [0, 17, 299]},
    "allowed ids": {"allowed_token_ids": [5, 3, 250]},
    "min_new_tokens": {"min_new_tokens": 40, "eos_token_id": [2, 6]},
    "enough tokens": {"min_new_tokens": 2, "eos_token_id": 6},
}


def row_of(kind: str = "random", vocab: int = VOCAB) -> Float32s:
    return rows.make_row(kind, vocab)


def edited(row: npt.NDArray[Any], parameters: dict[str, Any], history: Any, n: int) -> Float32s:
    """Return what the specification makes of a row."""
    given = dict(parameters)
    allowed = given.pop("allowed_token_ids", None)
    for name in ("logit_bias", "sequence_bias"):
        given[name] = list(given.get(name, {}).items())
    eos = given.get("eos_token_id")
    given["eos_token_id"] = [eos] if isinstance(eos, int) else eos
    made = edits.edits_of(list(history), n, row.size, given)
    out = edits.apply(row.astype(np.float32), made.values())
    if allowed is not None:
        out[np.setdiff1d(np.arange(row.size), allowed)] = -np.inf
    return out


@pytest.mark.parametrize("prompt_length", [0, 4, len(HISTORY)])
@pytest.mark.parametrize("name", EDITS)
def test_a_row_is_drawn_from_as_if_it_were_edited(
    variant: str, name: str, prompt_length: int
) -> None:
    given = {**EDITS[name], "history": HISTORY, "prompt_length": prompt_length}
    chain: dict[str, Any] = {"temperature": 0.8, "top_k": 40, "top_p": 0.95}
    for kind in ("random", "few values", "masked"):
        row = row_of(kind)
        before = row.copy()
        expected = edited(row, EDITS[name], HISTORY, prompt_length)
        assert fs.probs(row, **chain, **given).tobytes() == fs.probs(expected, **chain).tobytes()
        for ours, theirs in zip(
            fs.survivors(row, **chain, **given), fs.survivors(expected, **chain), strict=True
        ):
            assert ours.tobytes() == theirs.tobytes()
        for u in (0.0, 0.4, rows.LAST_U):
            assert fs.sample(row, u=u, **chain, **given) == fs.sample(expected, u=u, **chain)
        assert row.tobytes() == before.tobytes()


def test_rows_of_a_batch_have_histories_and_parameters_of_their_own(variant: str) -> None:
    batch = np.stack([row_of("random"), row_of("few values"), row_of("wide")])
    histories = [HISTORY, [], np.array([7, 7, 7], np.int32)]
    lengths = [2, 0, 1]
    given: dict[str, Any] = {
        "repetition_penalty": [1.0, 1.2, 1.5],
        "frequency_penalty": np.array([0.5, 0.0, -0.5]),
        "no_repeat_ngram_size": [0, 2, 1],
        "logit_bias": [None, {3: 2.0}, {}],
        "suppress_tokens": [[1], None, [2, 3]],
        "bad_words_ids": [[[1, 4, 2]], None, [[9], [7, 3]]],
        "allowed_token_ids": [None, range(50), None],
    }
    dense = fs.probs(batch, history=histories, prompt_length=lengths, **given)
    tokens = fs.sample(batch, history=histories, prompt_length=lengths, seed=[1, 2, 3], **given)
    for i, row in enumerate(batch):
        mine = {n: v[i] for n, v in given.items() if v[i] is not None}
        alone = {"history": histories[i], "prompt_length": lengths[i], **mine}
        assert dense[i].tobytes() == fs.probs(row, **alone).tobytes()
        assert np.asarray(tokens)[i] == fs.sample(row, seed=i + 1, **alone)
        expected = edited(row, mine, histories[i], lengths[i])
        assert dense[i].tobytes() == fs.probs(expected).tobytes()


def test_kinds_of_lists_and_histories() -> None:
    """Whatever holds the same ids does the same."""
    row = row_of()
    expected = fs.probs(row, suppress_tokens=[1, 2, 3], repetition_penalty=1.5, history=[1, 2, 2])
    for kind in (
        tuple,
        np.array,
        lambda v: np.array(v, np.uint8),
        lambda v: list(map(np.int32, v)),
    ):
        got = fs.probs(
            row, suppress_tokens=kind([1, 2, 3]), repetition_penalty=1.5, history=kind([1, 2, 2])
        )
        assert got.tobytes() == expected.tobytes()
    for ids in ({1, 2, 3}, range(1, 4)):
        got = fs.probs(row, suppress_tokens=ids, repetition_penalty=1.5, history=[1, 2, 2])
        assert got.tobytes() == expected.tobytes()
    biased = fs.probs(row, logit_bias={1: 0.5, 9: -1})
    for pair in (([1, 9], [0.5, -1]), (np.array([1, 9]), np.array([0.5, -1.0]))):
        assert fs.probs(row, logit_bias=pair).tobytes() == biased.tobytes()
    ragged = fs.probs(np.stack([row, row]), repetition_penalty=1.5, history=[[1, 2], [3, 4]])
    square = fs.probs(
        np.stack([row, row]), repetition_penalty=1.5, history=np.array([[1, 2], [3, 4]])
    )
    assert ragged.tobytes() == square.tobytes()


def test_ids_beyond_the_vocabulary_are_matched_and_change_nothing(variant: str) -> None:
    row = row_of(vocab=10)
    history = [500, 3, 4, 500, 3]
    assert fs.probs(row, no_repeat_ngram_size=2, history=history)[4] == 0
    assert fs.probs(row, bad_words_ids=[[500, 3, 7], [999]], history=history)[7] == 0
    plain = fs.probs(row)
    far = fs.probs(row, repetition_penalty=3.0, presence_penalty=2.0, history=[500, 2**31 - 1])
    assert far.tobytes() == plain.tobytes()


def test_what_is_outside_of_the_window_changes_nothing(variant: str) -> None:
    row, rng = row_of(), np.random.default_rng(1)
    chain: dict[str, Any] = {
        "repetition_penalty": 1.2, "frequency_penalty": 0.1, "presence_penalty": 0.2,
        "penalty_last_n": 6, "dry_multiplier": 0.5, "dry_last_n": 6,
    }  # fmt: skip
    expected = fs.probs(row, history=HISTORY, **chain)
    for _ in range(5):
        shuffled = [*rng.permutation(HISTORY[:-6]).tolist(), *HISTORY[-6:]]
        assert fs.probs(row, history=shuffled, **chain).tobytes() == expected.tobytes()


def test_banned_and_masked_tokens_leave_no_trace(variant: str) -> None:
    rng = np.random.default_rng(2)
    for vocab in (7, 64, 300, 1000):
        row = row_of("random", vocab)
        allowed = rng.random(vocab) < 0.3
        allowed[0] = True
        expected = np.where(allowed, row, np.float32(-np.inf))
        for chain in ({}, {"top_p": 0.9}, {"typical_p": 0.5}, {"min_p": 0.1, "temperature": 0.5}):
            there = fs.probs(expected, **chain).tobytes()
            banned = np.flatnonzero(~allowed)
            high = row.copy()
            high[banned] = 1e30  # whatever it would have been
            for given in (
                {"allowed": allowed},
                {"allowed": pack(allowed)},
                {"suppress_tokens": banned},
                {"logit_bias": dict.fromkeys(banned.tolist(), -np.inf)},
                {"allowed_token_ids": np.flatnonzero(allowed)},
                {"bad_words_ids": banned[:, None]} if banned.size else {"allowed": allowed},
            ):
                assert fs.probs(high, **given, **chain).tobytes() == there


# ---- masks ------------------------------------------------------------------------------------


def pack(allowed: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Bit i % 32 of word i // 32 is token i, of the last axis."""
    width = -(-allowed.shape[-1] // 32) * 32
    bits = np.zeros((*allowed.shape[:-1], width), np.uint64)
    bits[..., : allowed.shape[-1]] = allowed
    weights = np.uint64(1) << np.arange(32, dtype=np.uint64)
    words = (bits.reshape(*allowed.shape[:-1], -1, 32) * weights).sum(-1)
    return words.astype(np.uint32).view(np.int32)


@pytest.mark.parametrize("vocab", [1, 31, 32, 33, 300])
def test_masks_of_every_kind(variant: str, vocab: int) -> None:
    rng = np.random.default_rng(vocab)
    batch = np.stack([row_of("random", vocab), row_of("few values", vocab)])
    allowed = rng.random((2, vocab)) < 0.5
    allowed[:, 0] = True
    batch[:, 0] = 0.5
    expected = np.where(allowed, batch, np.float32(-np.inf))
    there = fs.probs(expected).tobytes()
    words = pack(allowed)
    strided = np.repeat(words, 2, axis=1)[:, ::2]
    swapped = words.astype(words.dtype.newbyteorder())
    longer = np.concatenate([words, np.full((2, 3), -1, np.int32)], axis=1)  # bits beyond the row
    odd = np.frombuffer(b"x" + words.tobytes(), np.int32, offset=1).reshape(words.shape)
    unsigned = words.view(np.uint32)
    for mask in (allowed, words, unsigned, strided, swapped, longer, odd, allowed.tolist()):
        assert fs.probs(batch, allowed=mask).tobytes() == there
        assert np.array_equal(fs.sample(batch, allowed=mask, seed=3), fs.sample(expected, seed=3))
    one = fs.probs(np.where(allowed[0], batch, np.float32(-np.inf)))
    assert fs.probs(batch, allowed=allowed[0]).tobytes() == one.tobytes()
    assert fs.probs(batch, allowed=words[0]).tobytes() == one.tobytes()
    assert fs.probs(batch[0], allowed=words[0]).tobytes() == one[0].tobytes()
    assert np.shares_memory(masks(None, words, None, 2, False, vocab)["allowed"], words)


def test_what_a_packed_mask_does_not_reach_is_not_allowed(variant: str) -> None:
    row = row_of(vocab=100)
    assert np.flatnonzero(fs.probs(row, allowed=np.array([-1], np.int32))).max() < 32
    assert np.flatnonzero(fs.probs(row, vocab_size=37)).tolist() == list(range(37))
    assert fs.probs(row, vocab_size=1000).tobytes() == fs.probs(row).tobytes()
    both = fs.probs(
        row, vocab_size=37, allowed=np.arange(100) % 2 == 0, allowed_token_ids=[2, 3, 36, 38]
    )
    assert np.flatnonzero(both).tolist() == [2, 36]


def test_a_row_of_which_nothing_is_left_is_bad(variant: str) -> None:
    batch = np.zeros((2, 8), np.float32)
    mask = np.ones((2, 8), bool)
    mask[1] = False
    nothing, none = "an allowed token, got none", "a finite value, got only -inf"
    given: dict[str, Any]
    for given, what in (
        ({"allowed": mask}, nothing),
        ({"allowed_token_ids": [[1], []]}, nothing),
        ({"allowed": mask, "vocab_size": 3}, nothing),
        ({"suppress_tokens": [None, range(8)]}, none),
        ({"suppress_tokens": [None, [0, 1]], "vocab_size": 2}, none),
    ):
        for call in (fs.sample, fs.probs):
            with pytest.raises(ValueError, match=r".*") as caught:
                call(batch, seed=1, **given)
            assert str(caught.value) == f"logits row 1 must have {what}"
        marked = np.asarray(fs.sample(batch, seed=1, errors="mark", **given))
        assert marked[1] == -1
        assert marked[0] >= 0


# ---- coins and states -------------------------------------------------------------------------

XTC: dict[str, Any] = {"xtc_probability": 0.5, "xtc_threshold": 0.05, "order": ("xtc",)}


def coin(seed: int, stream: int, offset: int) -> float:
    key = np.array([seed, stream], np.uint64)
    counter = np.array([offset, 1, 0, 0], np.uint64)
    return float(np.random.Generator(np.random.Philox(key=key, counter=counter)).random())


def test_the_coin_is_that_of_the_seed(variant: str) -> None:
    row = np.array([2.0, 1.5, 1.0, -9.0], np.float32)
    seen = set()
    for offset in range(12):
        flip = coin(7, 0, offset)
        ids, _ = fs.survivors(row, seed=7, offset=offset, **XTC)
        assert ids.tolist() == ([2, 3] if flip < 0.5 else [0, 1, 2, 3])
        assert fs.probs(row, seed=7, offset=offset, **XTC).tobytes() == (
            fs.probs(row, u_xtc=flip, **XTC).tobytes()
        )
        u = float(
            np.random.Generator(np.random.Philox(key=[7, 0], counter=[offset, 0, 0, 0])).random()
        )
        assert fs.sample(row, seed=7, offset=offset, **XTC) == fs.sample(
            row, u=u, u_xtc=flip, **XTC
        )
        seen.add(flip < 0.5)
    assert seen == {True, False}
    batch = np.tile(row, (5, 1))
    dense = fs.probs(batch, seed=3, offset=9, **XTC)
    flips = [coin(3, stream, 9) for stream in range(5)]
    assert dense.tobytes() == fs.probs(batch, u_xtc=flips, **XTC).tobytes()
    by_seed = fs.probs(batch, seed=[3, 4, 5, 6, 7], offset=[0, 1, 2, 3, 4], **XTC)
    flips = [coin(3 + i, 0, i) for i in range(5)]
    assert by_seed.tobytes() == fs.probs(batch, u_xtc=flips, **XTC).tobytes()


def test_a_coin_of_a_generator_follows_the_uniforms() -> None:
    batch = np.tile(np.array([2.0, 1.5, 1.0, -9.0], np.float32), (4, 1))
    rng = np.random.default_rng(5)
    u, flips = rng.random(4), rng.random(4)
    drawn = fs.sample(batch, rng=np.random.default_rng(5), **XTC)
    assert np.array_equal(drawn, fs.sample(batch, u=u, u_xtc=flips, **XTC))


def test_no_coin_is_asked_for_where_none_is_needed() -> None:
    row = np.array([2.0, 1.5, 1.0, -9.0], np.float32)
    for probability in (0.0, 1.0):
        given = XTC | {"xtc_probability": probability}
        assert fs.sample(row, u=0.0, **given) == (2 if probability else 0)
        fs.probs(row, **given)
    assert fs.sample(row, temperature=0.0, u=0.5, xtc_probability=0.5, order="llama.cpp") == 0
    for function in (fs.probs, fs.survivors):
        with pytest.raises(
            ValueError, match=r"^seed or u_xtc must be given, where xtc_probability"
        ):
            function(row, **XTC)
    with pytest.raises(ValueError, match=r"^u_xtc must be given with u, where xtc_probability"):
        fs.sample(row, u=0.5, **XTC)


MIROSTAT: dict[str, Any] = {"mirostat": 2, "mirostat_tau": 1.0, "order": "llama.cpp"}
ADAPTIVE: dict[str, Any] = {"adaptive_target": 0.3, "order": "llama.cpp"}


@pytest.mark.parametrize(
    ("chain", "start"), [(MIROSTAT, [2.0]), (ADAPTIVE, [0.3 / (1.0 - 0.9), 1.0 / (1.0 - 0.9)])]
)
def test_a_state_is_moved_where_the_whole_call_succeeds(
    variant: str, chain: dict[str, Any], start: list[float]
) -> None:
    batch = np.stack([row_of("random"), row_of("wide")])
    state = np.tile(np.array(start), (2, 1))
    assert fs.probs(batch, state=state, **chain).tobytes() == fs.probs(batch, **chain).tobytes()
    assert state.tolist() == [start, start]
    tokens = np.asarray(fs.sample(batch, seed=[1, 2], state=state, **chain))
    for i, row in enumerate(batch):
        mine = np.array(start)
        assert fs.sample(row, seed=i + 1, state=mine, **chain) == tokens[i]
        assert mine.tolist() == state[i].tolist() != start
    before = state.copy()
    bad = batch.copy()
    bad[1, 0] = np.nan
    with pytest.raises(ValueError, match="row 1"):
        fs.sample(bad, seed=1, state=state, **chain)
    assert state.tobytes() == before.tobytes()
    fs.sample(bad, seed=1, state=state, errors="mark", **chain)
    assert state[1].tobytes() == before[1].tobytes()
    assert state[0].tobytes() != before[0].tobytes()
    greedy = state.copy()
    fs.sample(batch, temperature=0.0, state=greedy, **chain)
    assert greedy.tobytes() == state.tobytes()
    fs.sample(batch, temperature=0.0, **chain)


# ---- what is refused --------------------------------------------------------------------------

BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"logit_bias": {8: 1.0}}, ValueError, "logit_bias must have ids in [0, 8), got 8"),
    ({"logit_bias": {-1: 1.0}}, ValueError, "an id of logit_bias must be in [0, 2**31), got -1"),
    ({"logit_bias": {1: np.nan}}, ValueError,
     "a bias of logit_bias must be finite or -inf, got nan"),
    ({"logit_bias": {1: np.inf}}, ValueError,
     "a bias of logit_bias must be finite or -inf, got inf"),
    ({"logit_bias": ([1, 2], [0.5])}, ValueError,
     "logit_bias must have a bias for each of 2 ids, got 1"),
    ({"logit_bias": [1.0, 2.0]}, TypeError,
     "logit_bias must be {id: bias} or (ids, biases), got [1.0, 2.0] (list)"),
    ({"logit_bias": {1: "a"}}, TypeError, "a bias of logit_bias must be a number, got 'a' (str)"),
    ({"logit_bias": {"a": 1.0}}, TypeError,
     "an id of logit_bias must be an integer, got 'a' (str)"),
    ({"suppress_tokens": [3, 9]}, ValueError, "suppress_tokens must have ids in [0, 8), got 9"),
    ({"suppress_tokens": 3}, TypeError, "suppress_tokens must be a list of ids, got 3 (int)"),
    ({"suppress_tokens": [1.5]}, TypeError,
     "an id of suppress_tokens must be an integer, got 1.5 (float)"),
    ({"suppress_tokens": [True]}, TypeError,
     "an id of suppress_tokens must be an integer, got True (bool)"),
    ({"allowed_token_ids": [8]}, ValueError, "allowed_token_ids must have ids in [0, 8), got 8"),
    ({"allowed_token_ids": [2**70]}, ValueError,
     f"an id of allowed_token_ids must be in [0, 2**31), got {2**70}"),
    ({"bad_words_ids": []}, ValueError, "bad_words_ids must not be empty"),
    ({"bad_words_ids": [[1], []]}, ValueError, "bad_words_ids must not have an empty sequence"),
    ({"bad_words_ids": [1, 2]}, TypeError,
     "bad_words_ids must be made of sequences of ids, got 1 (int)"),
    ({"sequence_bias": {(): 1.0}}, ValueError, "sequence_bias must not have an empty sequence"),
    ({"sequence_bias": 3}, TypeError, "sequence_bias must be {ids: bias}, got 3 (int)"),
    ({"repetition_penalty": 1.1}, ValueError,
     "history must be given where repetition_penalty is on"),
    ({"bad_words_ids": [[1, 2]]}, ValueError, "history must be given where bad_words_ids is on"),
    ({"min_new_tokens": 3, "history": [1]}, ValueError,
     "eos_token_id must be given where min_new_tokens is on"),
    ({"history": [1, -2]}, ValueError, "an id of history must be in [0, 2**31), got -2"),
    ({"history": 3}, TypeError, "history must be a list of ids, got 3 (int)"),
    ({"history": np.zeros(2)}, TypeError,
     "an id of history must be an integer, got 0.0 (float)"),
    ({"history": np.ma.array([1])}, TypeError, "history must not be a masked array"),
    ({"history": [1], "prompt_length": 2}, ValueError, "prompt_length must be in [0, 1], got 2"),
    ({"history": [1], "prompt_length": 0.5}, TypeError,
     "prompt_length must be an integer, got 0.5 (float)"),
    ({"prompt_length": 1}, ValueError, "prompt_length must come with a history"),
    ({"allowed": np.zeros(8)}, TypeError,
     "allowed must be bool, or int32 or uint32 words, got float64"),
    ({"allowed": np.zeros(8, np.int64)}, TypeError,
     "allowed must be bool, or int32 or uint32 words, got int64"),
    ({"allowed": np.ones(7, bool)}, ValueError, "allowed must be of shape (8,), got (7,)"),
    ({"allowed": np.ones((2, 8), bool)}, ValueError, "allowed must be of shape (8,), got (2, 8)"),
    ({"allowed": np.ones((2, 1), np.int32)}, ValueError,
     "allowed must be of shape (n,), got (2, 1)"),
    ({"allowed": True}, ValueError, "allowed must be of shape (8,), got ()"),
    ({"allowed": np.zeros(0, np.int32)}, ValueError,
     "allowed must have a word at least, got shape (0,)"),
    ({"vocab_size": 0}, ValueError, "vocab_size must be >= 1, got 0"),
    ({"vocab_size": 1.5}, TypeError, "vocab_size must be an integer, got 1.5 (float)"),
    ({"state": np.zeros(1)}, ValueError, "state must be None where no stage has one"),
    (MIROSTAT | {"state": np.zeros(2)}, ValueError, "state must be of shape (1,), got (2,)"),
    (MIROSTAT | {"state": np.zeros((1, 1))}, ValueError,
     "state must be of shape (1,), got (1, 1)"),
    (MIROSTAT | {"state": np.zeros(1, np.float32)}, TypeError,
     "state must be float64, got float32"),
    (MIROSTAT | {"state": np.array([np.nan])}, ValueError, "state must be finite, got [nan]"),
    (ADAPTIVE | {"state": np.array([1.0, 0.0])}, ValueError,
     "state must have a positive second number, got [1.0, 0.0]"),
    (XTC | {"u_xtc": 1.0}, ValueError, "u_xtc must be in [0, 1), got 1.0"),
    (XTC | {"u_xtc": "a"}, TypeError, "u_xtc must be a number, got 'a' (str)"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "error", "message"), BAD)
def test_what_is_refused(
    variant: str, given: dict[str, Any], error: type[Exception], message: str
) -> None:
    row = np.zeros(8, np.float32)
    for call in (lambda: fs.sample(row, seed=1, **given), lambda: fs.probs(row, **given)):
        with pytest.raises(error) as caught:
            call()
        assert str(caught.value) == message


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"history": [[1], [2]]}, "history must have a list of ids for each of 3 rows, got 2"),
        ({"history": 5}, "history must have a list of ids for each of 3 rows, got 5"),
        ({"history": np.array(3)},
         "history must have a list of ids for each of 3 rows, got array(3)"),
        ({"history": [[1], [2], [-1]]}, "an id of history must be in [0, 2**31), got -1 (row 2)"),
        ({"history": [[1], [2], [3]], "prompt_length": [1, 1, 2]},
         "prompt_length must be in [0, 1], got 2 (row 2)"),
        ({"history": [[1], [2], [3]], "prompt_length": [1, 1]},
         "prompt_length must be a scalar or of shape (3,), got (2,)"),
        ({"suppress_tokens": [[1], [2]]},
         "suppress_tokens must be one list or 3, one for each row, got 2"),
        ({"suppress_tokens": [[1], [2], [9]]},
         "suppress_tokens must have ids in [0, 8), got 9 (row 2)"),
        ({"repetition_penalty": [1.0, 1.0, 2.0]},
         "history must be given where repetition_penalty is on (row 2)"),
        ({"repetition_penalty": [1.0, 1.0, 0.0]},
         "repetition_penalty must be finite and > 0, got 0.0 (row 2)"),
        ({"allowed": np.ones((2, 8), bool)}, "allowed must be of shape (8,) or (3, 8), got (2, 8)"),
        (MIROSTAT | {"state": np.zeros((3, 2))}, "state must be of shape (3, 1), got (3, 2)"),
    ],
)  # fmt: skip
def test_what_is_refused_of_a_batch(variant: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r".*") as caught:
        fs.sample(np.zeros((3, 8), np.float32), seed=1, **given)
    assert str(caught.value) == message


def test_a_state_that_cannot_be_moved() -> None:
    row = np.zeros(8, np.float32)
    frozen = np.zeros(1)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match=r"^state must be writeable$"):
        fs.sample(row, state=frozen, **MIROSTAT)
    given: Any
    for given in (None, [1.0]):
        with pytest.raises(TypeError, match=r"^state must be a float64 array, which is moved"):
            fs.sample(row, state=given, **MIROSTAT)


def test_whole_numbers_beyond_float64(variant: str) -> None:
    """They mean all, as those do that are just large."""
    names = (
        "no_repeat_ngram_size", "penalty_last_n", "dry_last_n", "dry_allowed_length",
        "min_new_tokens",
    )  # fmt: skip
    on: dict[str, Any] = {"repetition_penalty": 2.0, "dry_multiplier": 1.0, "eos_token_id": 0}
    row, past = np.arange(8.0), [7, 6, 7, 6, 7]
    for name in names:
        large, *huge = (
            fs.probs(row, history=past, **on | {name: n}).tolist()
            for n in (1000, 2**53, 2**53 + 1, 2**62, 2**63 - 1, 10**30)
        )
        assert huge == [large] * len(huge), name
