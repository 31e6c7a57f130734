"""Masks of every shape, over every stage: what is forbidden is as if it were -inf, bit by bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rows
from test_stages import NUMBERS, Case, Outcome, cases_of, make_record, pack

import fastsample as fs
from fastsample.records import EDIT, KINDS
from fastsample.reference.chain import Step

Mask = npt.NDArray[np.bool_]

VOCAB = 3001
FEW = 1024  # so many allowed tokens are a list from the start, and more are not


def mask_of(ids: Any, vocab: int = VOCAB) -> Mask:
    allowed = np.zeros(vocab, np.bool_)
    allowed[ids] = True
    return allowed


def masks() -> Iterator[Mask]:
    rng = np.random.default_rng(5)
    for count in (1, 2, 15, 16, 17, 200, FEW - 1, FEW, FEW + 1):
        yield mask_of(rng.permutation(VOCAB)[:count])
    yield mask_of(0)
    yield mask_of(VOCAB - 1)
    yield mask_of([0, VOCAB - 1])
    for block in (0, 5, VOCAB // 256):  # the last is a part of one
        yield mask_of(slice(256 * block, 256 * block + 256))
        yield mask_of(slice(256 * block + 3, 256 * block + 7))
    for count in (FEW - 1, FEW, FEW + 1, VOCAB - 1):
        yield mask_of(slice(count))
    yield mask_of(rng.random(VOCAB) < 0.5)
    yield mask_of(rng.random(VOCAB) < 0.99)


def masked_run(
    row: npt.NDArray[Any], allowed: Mask, case: Case, u: npt.NDArray[np.float64]
) -> Outcome:
    """What the active variant says of a row under a mask: `run` of test_stages."""
    backend = fs.backend.active()
    record, words = make_record(case.chain, case.at_least), pack(allowed)[None]
    ids, probs = backend.survivors(row[None], record, allowed=words, **case.inputs(1))
    dense = backend.probs(row[None], record, allowed=words, **case.inputs(1))[0]
    tokens, inputs = np.empty(u.size, np.int64), case.inputs(u.size)
    inputs["allowed"] = np.repeat(words, u.size, axis=0)
    backend.sample(np.repeat(row[None], u.size, axis=0), record, u, False, tokens, **inputs)
    return Outcome(ids, probs, dense, tokens, inputs.get("state", np.empty(0)))


def unmasked_run(
    row: npt.NDArray[Any], allowed: Mask, case: Case, u: npt.NDArray[np.float64]
) -> Outcome:
    meant = np.where(allowed, row, np.float32(-np.inf)).astype(row.dtype)
    backend = fs.backend.active()
    record = make_record(case.chain, case.at_least)
    ids, probs = backend.survivors(meant[None], record, **case.inputs(1))
    dense = backend.probs(meant[None], record, **case.inputs(1))[0]
    tokens, inputs = np.empty(u.size, np.int64), case.inputs(u.size)
    backend.sample(np.repeat(meant[None], u.size, axis=0), record, u, False, tokens, **inputs)
    return Outcome(ids, probs, dense, tokens, inputs.get("state", np.empty(0)))


@pytest.mark.parametrize("stage", KINDS)
def test_a_masked_row_is_the_row_that_it_means(fast_variant: str, stage: str) -> None:
    u = np.array([0.0, 0.37, rows.LAST_U])
    cases = [case for case in cases_of(stage) if len(case.chain) == 1 or case.at_least > 1]
    made = [rows.make_row("random", VOCAB), rows.make_row("few values", VOCAB)]
    made[0][::7] = -np.inf  # of which some are allowed
    for i, allowed in enumerate(masks()):
        row = made[i % 2]
        if not np.isfinite(row[allowed]).any():
            row = made[(i + 1) % 2]
        for case in cases[i % 3 :: 3]:
            mine = masked_run(row, allowed, case, u)
            assert mine.same_bits(unmasked_run(row, allowed, case, u)), (i, case)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_rows_of_other_types_under_masks(fast_variant: str, dtype: Any) -> None:
    u = np.array([0.37])
    case = Case([Step("temperature", NUMBERS["temperature"][0]), Step("top_k", (40,))])
    row = rows.make_row("random", VOCAB).astype(dtype)
    for i, allowed in enumerate(masks()):
        mine = masked_run(row, allowed, case, u)
        assert mine.same_bits(unmasked_run(row, allowed, case, u)), i


def test_greedy_under_masks(variant: str) -> None:
    row = rows.make_row("few values", VOCAB)
    for allowed in masks():
        meant = np.where(allowed, row, np.float32(-np.inf))
        token = fs.sample(row, temperature=0, allowed=allowed)
        assert token == np.argmax(meant)


def test_a_mask_that_is_shorter_than_the_row(variant: str) -> None:
    row = rows.make_row("random", VOCAB)
    for words in (1, 7, 8, 9, 16, 33, 40):
        bits = np.full(words, 0x80000001, np.uint32)
        allowed = mask_of([i for i in range(32 * words) if i % 32 in (0, 31)])
        meant = np.where(allowed, row, np.float32(-np.inf))
        for packed in (bits, np.full(words, 0xFFFFFFFF, np.uint32)):
            if packed is not bits:
                meant = np.where(np.arange(VOCAB) < 32 * words, row, np.float32(-np.inf))
            expected = fs.probs(meant, temperature=0.7, top_p=0.9)
            mine = fs.probs(row, temperature=0.7, top_p=0.9, allowed=packed)
            assert mine.tobytes() == expected.tobytes()


@pytest.mark.parametrize("count", [1, 20, FEW, FEW + 1, 2500])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_what_is_wrong_with_a_masked_row(variant: str, count: int, dtype: Any) -> None:
    """What is forbidden may be anything; what is allowed is refused as without a mask."""
    ids = np.sort(np.random.default_rng(count).permutation(VOCAB)[:count])
    allowed, row = mask_of(ids), rows.make_row("random", VOCAB).astype(dtype)
    expected = fs.probs(row, allowed=allowed)
    anything = row.copy()
    other = np.array([np.nan, np.inf, -np.inf, -np.nan], dtype)
    anything[~allowed] = np.resize(other, VOCAB - count)
    assert fs.probs(anything, allowed=allowed).tobytes() == expected.tobytes()
    token = int(ids[count // 2])
    for value, name in ((np.nan, "NaN"), (-np.nan, "NaN"), (np.inf, r"\+inf")):
        bad = anything.copy()
        bad[token] = value
        with pytest.raises(ValueError, match=f"must not contain {name}, got one at token {token}"):
            fs.probs(bad, allowed=allowed)
    anything[allowed] = -np.inf
    with pytest.raises(ValueError, match="must have a finite value, got only -inf"):
        fs.probs(anything, allowed=allowed)


def alike(mine: Any, other: Any) -> bool:
    return bool(np.array_equal(mine, other))


def test_details_and_verification_under_masks(fast_variant: str) -> None:
    row = rows.make_row("random", VOCAB)
    chain: dict[str, Any] = {"temperature": 0.7, "top_k": 30, "top_p": 0.9, "seed": 3}
    for allowed in masks():
        meant = np.where(allowed, row, np.float32(-np.inf))
        for kind in ("raw", "processed"):
            mine = fs.draw(
                row, allowed=allowed, logprobs=kind, top_logprobs=4, support=True, **chain
            )
            given = fs.draw(meant, logprobs="processed", top_logprobs=4, support=True, **chain)
            assert mine.token == given.token
            assert alike(mine.support, given.support)
            assert mine.log_mass == given.log_mass
            if kind == "processed":
                assert alike(mine.top_ids, given.top_ids)
                assert alike(mine.top_logprobs, given.top_logprobs)
                assert mine.logprob == given.logprob
        drafts = [int(np.flatnonzero(allowed)[0])]
        target, same = np.stack([row, row]), np.stack([meant, meant])
        for method in ("token", "exact", "block"):
            verified = fs.verify(
                drafts, target, draft="onehot", method=method, allowed=allowed, **chain
            )
            other = fs.verify(drafts, same, draft="onehot", method=method, **chain)
            for a, b in zip(verified, other, strict=True):
                assert np.array_equal(a, b)


@pytest.mark.parametrize("stage", ["top_p", "typical_p", "top_k"])
def test_what_is_banned_or_forbidden_has_no_part_in_a_guess(fast_variant: str, stage: str) -> None:
    u = np.array([0.37])
    row = np.random.default_rng(1).normal(0, 2.5, 18000).astype(np.float32)
    left = np.arange(row.size) < 16000  # the end of a padded vocabulary is not
    meant, given = np.where(left, row, np.float32(-np.inf)), np.where(left, row, np.float32(np.nan))
    bans = np.zeros(np.count_nonzero(~left), EDIT)
    bans["id"], bans["factor"], bans["banned"] = np.flatnonzero(~left), 1.0, 1
    for value in NUMBERS[stage]:
        case = Case([Step(stage, value)])
        expected = unmasked_run(meant, np.ones(row.size, np.bool_), case, u)
        assert masked_run(given, left, case, u).same_bits(expected)
        record = make_record(case.chain)
        edits = {"edits": bans, "edit_offsets": np.array([0, bans.size])}
        probs = fs.backend.active().probs(given[None], record, **edits)[0]
        assert probs.tobytes() == expected.dense.tobytes()
