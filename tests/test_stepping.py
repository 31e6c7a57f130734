"""The step of many sequences: each as its own sampler would draw, and details of all draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sequences import VOCAB, logits_of, looks, samplers_of

import fastsample as fs
from fastsample.details import Details


def batch_of(count: int, first: int = 0) -> Any:
    return np.stack([logits_of(first + j) for j in range(count)])


@pytest.mark.parametrize("count", [0, 1, 16])
def test_step_is_a_call_of_each(variant: str, count: int) -> None:
    together, alone = samplers_of(count), samplers_of(count)
    for i in range(6):
        batch = batch_of(count, 17 * i) if count else np.zeros((0, VOCAB), np.float32)
        tokens = fs.step(together, batch, threads=1 + i % 2)
        assert tokens.dtype == np.int64
        assert tokens.tolist() == [s(row) for s, row in zip(alone, batch, strict=True)]
        assert looks(together) == looks(alone)


def test_step_with_masks(variant: str) -> None:
    together, alone = samplers_of(8), samplers_of(8)
    batch = np.stack([logits_of(j) for j in range(8)])
    allowed = np.random.default_rng(0).random((8, VOCAB)) < 0.5
    allowed[:, 9] = True
    for mask in (allowed, allowed[0]):
        tokens = fs.step(together, batch, allowed=mask)
        each = np.broadcast_to(mask, (8, VOCAB))
        expected = [s(row, allowed=a) for s, row, a in zip(alone, batch, each, strict=True)]
        assert tokens.tolist() == expected
        assert looks(together) == looks(alone)


def test_step_where_a_row_is_bad(variant: str) -> None:
    samplers = samplers_of(8)
    before = looks(samplers)
    batch = np.stack([logits_of(j) for j in range(8)])
    batch[3, 2], batch[5, 1] = np.nan, np.inf
    with pytest.raises(
        ValueError, match=r"^logits row 3 must not contain NaN, got one at token 2$"
    ):
        fs.step(samplers, batch)
    assert looks(samplers) == before
    tokens = fs.step(samplers, batch, errors="mark")
    assert [i for i, token in enumerate(tokens.tolist()) if token == -1] == [3, 5]
    after = looks(samplers)
    assert [i for i in range(8) if after[i] == before[i]] == [3, 5]


def test_what_step_refuses(variant: str) -> None:
    samplers = samplers_of(3)
    batch = np.stack([logits_of(j) for j in range(3)])
    before = looks(samplers)
    wrong: Any
    for wrong, error, message in (
        (samplers[:2], ValueError, "samplers must be 3, one for each row, got 2"),
        ([samplers[0]] * 3, ValueError, "samplers must not hold the same one twice"),
        ([*samplers[:2], 5], TypeError, r"samplers must hold Samplers, got 5 \(int\) \(row 2\)"),
        (5, TypeError, r"samplers must be a list of Samplers, got 5 \(int\)"),
    ):
        with pytest.raises(error, match=f"^{message}$"):
            fs.step(wrong, batch)
    with pytest.raises(ValueError, match=r"^logits must be of shape \(B, V\), got \(40,\)$"):
        fs.step(samplers, batch[0])
    with pytest.raises(ValueError, match=r"^errors must be 'raise' or 'mark', got 'ignore'$"):
        fs.step(samplers, batch, errors="ignore")  # type: ignore[call-overload]
    far = [*samplers[:2], fs.Sampler(logit_bias={50: 1.0})]
    with pytest.raises(
        ValueError, match=r"^logit_bias must have ids in \[0, 40\), got 50 \(row 2\)$"
    ):
        fs.step(far, batch)
    for wrong in ((s for s in samplers), dict.fromkeys(samplers), np.array(samplers)):
        with pytest.raises(TypeError, match=r"^samplers must be a list of Samplers, got "):
            fs.step(wrong, batch)
    assert looks(samplers) == before


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("offset", 2**64, r"offset must be in \[0, 2\*\*64\), got 18446744073709551616"),
        ("offset", 2**64 - 1, r"offset must be less than 2\*\*64 - 1, which has no next one"),
        ("offset", "x", r"offset must be an integer, got 'x' \(str\)"),
        ("seed", -1, r"seed must be in \[0, 2\*\*64\), got -1"),
        ("seed", [1, 2], r"seed must be a scalar or of shape \(1,\), got \(2,\)"),
    ],
)
def test_the_row_of_a_wrong_sampler_is_said(
    variant: str, name: str, value: Any, message: str
) -> None:
    samplers = samplers_of(4)
    samplers[1].push([3])
    setattr(samplers[1], name, value)
    before = looks(samplers)
    asked: Any
    for asked in ({}, {"details": {}}, {"allowed": np.ones(VOCAB, bool)}, {"errors": "mark"}):
        with pytest.raises((ValueError, TypeError), match=rf"^{message} \(row 1\)$"):
            fs.step(samplers, batch_of(4), **asked)
    with pytest.raises((ValueError, TypeError), match=rf"^{message}$"):
        samplers[1](logits_of(0))
    assert looks(samplers) == before


def test_the_last_offset_is_for_a_sampler_that_remembers_nothing(variant: str) -> None:
    row = logits_of(0)
    sampler = fs.Sampler(seed=1, offset=2**64 - 1)
    assert sampler(row) == fs.sample(row, seed=1, offset=2**64 - 1)
    with pytest.raises(ValueError, match=r"^offset must be in \[0, 2\*\*64\), got"):
        sampler(row)
    sampler = fs.Sampler(seed=1, offset=2**64 - 2, repetition_penalty=1.2)
    drawn = sampler(row)
    call: Any
    for call in (sampler, sampler.draw, lambda row: fs.step([sampler], row[None])):
        with pytest.raises(
            ValueError, match=r"^offset must be less than 2\*\*64 - 1, which has no"
        ):
            call(row)
    assert sampler.history.tolist() == [drawn]
    sampler.rollback(1)
    assert sampler.offset == 2**64 - 2
    assert sampler(row) == drawn


def test_a_mask_may_lie_anywhere(variant: str) -> None:
    words = np.random.default_rng(1).integers(0, 2**32, (4, 2), np.uint32) | np.uint32(512)
    unaligned = np.ndarray(words.shape, np.uint32, bytearray(words.nbytes + 1), 1)
    strided = np.zeros((8, 4), np.uint32)[::2, ::-2]
    unaligned[...] = strided[...] = words
    frozen = words.copy()
    frozen.flags.writeable = False
    expected = fs.step(samplers_of(4), batch_of(4), allowed=words).tolist()
    for mask in (
        unaligned, strided, frozen, unaligned.view(np.int32), words.astype(">u4"),
        words.astype(">i4"), np.asfortranarray(words),
    ):  # fmt: skip
        assert fs.step(samplers_of(4), batch_of(4), allowed=mask).tolist() == expected
        drawn = fs.step(samplers_of(4), batch_of(4), allowed=mask, details={})
        assert drawn.token.tolist() == expected
        each = zip(samplers_of(4), batch_of(4), mask, strict=True)
        assert [s(row, allowed=own) for s, row, own in each] == expected
        each = zip(samplers_of(4), batch_of(4), mask, strict=True)
        assert [s.draw(row, allowed=own).token for s, row, own in each] == expected


def test_a_wrong_mask_is_worded_alike(variant: str) -> None:
    plain, remembering = fs.Sampler(seed=1), fs.Sampler(seed=1, repetition_penalty=1.2)
    for sampler in (plain, remembering):
        call: Any
        for call in (sampler, sampler.draw):
            for wrong, must in (
                (np.ones((2, 2), np.int32), r"\(n,\), got \(2, 2\)"),
                (np.ones(39, bool), r"\(40,\), got \(39,\)"),
            ):
                with pytest.raises(ValueError, match=rf"^allowed must be of shape {must}$"):
                    call(logits_of(0), allowed=wrong)
        with pytest.raises(ValueError, match=r"^allowed must be of shape \(n,\) or \(1, n\), got"):
            sampler(logits_of(0)[None], allowed=np.ones((2, 2), np.int32))
        assert sampler.offset == 0


# ---- details ----------------------------------------------------------------------------------

ASKED: list[Details] = [
    {},
    {"top_logprobs": 5, "support": True, "log_mass": True},
    {"logprobs": "processed", "top_logprobs": 3, "log_mass": True},
    {"logprobs": None, "support": True},
]


def assert_equal(together: fs.Draw, alone: list[fs.Draw]) -> None:
    """The draw of a batch has what those of its rows have, in the same bits."""
    assert together.token.tolist() == [one.token for one in alone]
    for name in ("logprob", "rank", "top_ids", "top_logprobs", "log_mass"):
        whole, parts = getattr(together, name), [getattr(one, name) for one in alone]
        if whole is None:
            assert set(map(id, parts)) == {id(None)}
            continue
        assert np.array_equal(
            whole, np.array(parts, whole.dtype), equal_nan=whole.dtype.kind == "f"
        )
    if together.support is None:
        assert together.offsets is None
        return
    assert together.offsets is not None
    kept = np.split(together.support, together.offsets[1:-1])
    for mine, one in zip(kept, alone, strict=True):
        assert one.support is not None
        assert mine.tolist() == one.support.tolist()


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_details_of_a_step_are_those_of_each_draw(variant: str, asked: Details) -> None:
    together, alone = samplers_of(16), samplers_of(16)
    allowed = np.random.default_rng(1).random((16, VOCAB)) < 0.5
    allowed[:, 9] = True
    masks: list[Any] = [None, allowed, allowed[2], allowed[:, :VOCAB]]
    for i, mask in enumerate(masks):
        batch = batch_of(16, 17 * i)
        drawn = fs.step(together, batch, threads=1 + i % 2, allowed=mask, details=asked)
        each = [None] * 16 if mask is None else np.broadcast_to(mask, (16, VOCAB))
        expected = [
            s.draw(row, allowed=a, **asked) for s, row, a in zip(alone, batch, each, strict=True)
        ]
        assert_equal(drawn, expected)
        assert looks(together) == looks(alone)


def test_details_are_the_same_numbers_on_every_backend() -> None:
    """Core and numba in the same bits, the reference to the precision that is promised."""
    asked: Details = {"top_logprobs": 5, "support": True, "log_mass": True}
    found = {}
    for name in fs.backends():
        with fs.use_backend(name):  # type: ignore[arg-type]
            found[name] = fs.step(samplers_of(8), batch_of(8), details=asked)
    for name, drawn in found.items():
        for field, expected in zip(drawn._fields, found["reference"], strict=True):
            got = getattr(drawn, field)
            if got.dtype.kind == "f":
                np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-7, err_msg=name)
                if name != "reference":
                    assert got.tobytes() == getattr(found["numba"], field).tobytes()
            else:
                assert np.array_equal(got, expected)


def test_details_where_a_row_is_bad(variant: str) -> None:
    """Raw log-probabilities need a row that is good as it came, too."""
    samplers = samplers_of(8)
    before = looks(samplers)
    batch = batch_of(8)
    batch[3, 2] = np.nan
    allowed = np.ones((8, VOCAB), bool)
    allowed[3, 2] = False
    with pytest.raises(ValueError, match=r"^logits row 3 must not contain NaN, got one at token 2"):
        fs.step(samplers, batch, allowed=allowed, details={})
    assert looks(samplers) == before
    drawn = fs.step(samplers, batch, allowed=allowed, details={"support": True}, errors="mark")
    assert drawn.offsets is not None
    assert [i for i, token in enumerate(drawn.token.tolist()) if token == -1] == [3]
    assert (np.isnan(drawn.logprob[3]), drawn.rank[3], np.diff(drawn.offsets)[3]) == (True, 0, 0)
    after = looks(samplers)
    assert [i for i in range(8) if after[i] == before[i]] == [3]
    processed = fs.step(samplers, batch, allowed=allowed, details={"logprobs": "processed"})
    assert processed.token[3] >= 0


def test_which_details_are_refused(variant: str) -> None:
    samplers, batch = samplers_of(2), batch_of(2)
    before = looks(samplers)
    names = "logprobs, top_logprobs, support, log_mass"
    wrong: Any
    for wrong, error, message in (
        ({"logprob": "raw"}, ValueError, f"details must name {names}, got 'logprob'"),
        (True, TypeError, r"details must be a dict or None, got True \(bool\)"),
        ({"logprobs": "all"}, ValueError, "logprobs must be 'raw', 'processed' or None, got 'all'"),
        ({"top_logprobs": 41}, ValueError, r"top_logprobs must be in \[0, 40\], got 41"),
        ({"support": 1}, TypeError, r"support must be True or False, got 1 \(int\)"),
    ):
        with pytest.raises(error, match=f"^{message}$"):
            fs.step(samplers, batch, details=wrong)
    assert looks(samplers) == before


def test_a_step_at_the_last_offset(variant: str) -> None:
    """The next offset is none: it is drawn at, and refused after."""
    last = 2**64 - 1
    samplers = [fs.Sampler(seed=1, offset=last), fs.Sampler(seed=2)]
    batch = batch_of(2)
    tokens = fs.step(samplers, batch)
    assert tokens[0] == fs.sample(batch[0], seed=1, offset=last)
    assert [s.offset for s in samplers] == [last + 1, 1]
    with pytest.raises(
        ValueError, match=r"^offset must be in \[0, 2\*\*64\), got 18446744073709551616"
    ):
        fs.step(samplers, batch)
    assert [s.offset for s in samplers] == [last + 1, 1]
