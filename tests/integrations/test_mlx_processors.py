"""Logits processors for mlx-lm edit as the reference does, and as mlx-lm's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

EXTRA = "pip install '.[mlx]'"
mx = pytest.importorskip("mlx.core", reason=f"mlx is not installed: {EXTRA}")
pytest.importorskip("mlx_lm", reason=f"mlx-lm is not installed: {EXTRA}")

from mlx_lm import sample_utils as theirs  # noqa: E402
from tiny_mlx import ROW, TYPES, V, as_float32, edited, row_of  # noqa: E402

from fastsample.integrations.mlx import make_logits_processors  # noqa: E402

TEXT = [3, 9, 4, 3, 9, 8, 3, 7, 9, 4, 3, 9, 8, 3, 7, 7, 150, 3, 9, 4, 3, 9, 8, 3]
EDITS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "logit_bias": ({"logit_bias": {3: 1.5, 20: -2.0}}, {"logit_bias": {3: 1.5, 20: -2.0}}),
    "repetition": (
        {"repetition_penalty": 1.3},
        {"repetition_penalty": 1.3, "penalty_last_n": 20},
    ),
    "presence": (
        {"presence_penalty": 0.7, "presence_context_size": 4},
        {"presence_penalty": 0.7, "penalty_last_n": 4},
    ),
    "frequency": (
        {"frequency_penalty": -0.3, "frequency_context_size": 9},
        {"frequency_penalty": -0.3, "penalty_last_n": 9},
    ),
    "all": (
        {"logit_bias": {9: 2.0}, "repetition_penalty": 0.8, "repetition_context_size": 8,
         "presence_penalty": 0.5, "presence_context_size": 8, "frequency_penalty": 0.25,
         "frequency_context_size": 8},
        {"logit_bias": {9: 2.0}, "repetition_penalty": 0.8, "presence_penalty": 0.5,
         "frequency_penalty": 0.25, "penalty_last_n": 8},
    ),
}  # fmt: skip
EDITS_BEYOND: dict[str, dict[str, Any]] = {
    "dry": {"dry_multiplier": 0.8, "dry_sequence_breakers": [150]},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 3},
    "bad_words_ids": {"bad_words_ids": [[8, 3, 11], [12]]},
    "sequence_bias": {"sequence_bias": {(8, 3, 11): 3.0, (3, 12): -1.0}},
    "suppress_tokens": {"suppress_tokens": [0, 199]},
    "min_new_tokens": {"min_new_tokens": 100, "eos_token_id": [1, 2]},
}


def processed(processor: Any, row: Any, text: list[int] = TEXT) -> Any:
    return processor(mx.array(text), row)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(
    ("given", "ours"),
    [*EDITS.values(), *((given, given) for given in EDITS_BEYOND.values())],
    ids=[*EDITS, *EDITS_BEYOND],
)
def test_edits_are_those_of_the_reference(
    given: dict[str, Any], ours: dict[str, Any], kind: str
) -> None:
    row = row_of(kind)
    (processor,) = make_logits_processors(**given)
    out = processed(processor, row)
    assert out.dtype == row.dtype
    assert out.shape == row.shape
    expected = mx.array(edited(as_float32(row)[0], TEXT, **ours)).astype(row.dtype)
    assert np.array_equal(as_float32(out)[0], as_float32(expected))
    assert not np.array_equal(as_float32(out), as_float32(row_of(kind)))
    assert np.array_equal(as_float32(row), as_float32(row_of(kind)))  # untouched


@pytest.mark.parametrize(("given", "_"), EDITS.values(), ids=EDITS)
def test_edits_are_mlx_lms(given: dict[str, Any], _: dict[str, Any]) -> None:
    mine, original = row_of(), row_of()
    for processor in make_logits_processors(**given):
        mine = processed(processor, mine)
    for processor in theirs.make_logits_processors(**given):
        original = processed(processor, original)
    np.testing.assert_allclose(as_float32(mine), as_float32(original), rtol=1e-6, atol=1e-6)


def test_penalties_have_windows_of_their_own() -> None:
    sizes = {"repetition_context_size": 2, "presence_context_size": -1, "frequency_context_size": 5}
    penalties = {"repetition_penalty": 1.5, "presence_penalty": 0.4, "frequency_penalty": 0.2}
    (processor,) = make_logits_processors(**sizes, **penalties)
    x = ROW.astype(np.float64)
    for token in {*TEXT[-2:]}:
        x[token] *= 1.5 if x[token] < 0 else 1 / 1.5
    for token in {*TEXT}:
        x[token] -= 0.4
    for token in TEXT[-5:]:
        x[token] -= 0.2
    np.testing.assert_allclose(as_float32(processed(processor, row_of()))[0], x, rtol=1e-6)


@pytest.mark.parametrize("kind", TYPES)
def test_allowed_ids(kind: str) -> None:
    (processor,) = make_logits_processors(allowed_token_ids=[9, 3, 77], presence_penalty=2.0)
    row = row_of(kind)
    out = processed(processor, row)
    assert out.dtype == row.dtype
    expected = edited(as_float32(row)[0], TEXT, presence_penalty=2.0, penalty_last_n=20)
    expected = as_float32(mx.array(expected).astype(row.dtype))
    keep = np.isin(np.arange(V), [9, 3, 77])
    assert np.array_equal(as_float32(out)[0], np.where(keep, expected, -np.inf))
    assert processed(processor, mx.zeros((1, 80))).shape == (1, 80)  # of another model


def test_what_is_off_makes_no_processor() -> None:
    assert make_logits_processors() == []
    off = {"repetition_penalty": 0, "presence_penalty": 0.0, "dry_multiplier": 0.0}
    assert make_logits_processors(**off, logit_bias={}) == []


def test_the_prompt_where_it_plays_a_part() -> None:
    given = {"presence_penalty": 0.5, "presence_context_size": -1, "min_new_tokens": 6,
             "eos_token_id": 1}  # fmt: skip
    ours = {"presence_penalty": 0.5, "penalty_last_n": -1, "min_new_tokens": 6, "eos_token_id": [1]}
    (processor,) = make_logits_processors(**given, prompt_length=10)
    for length in (10, 15, 16, 24):
        out = as_float32(processed(processor, row_of(), TEXT[:length]))[0]
        assert np.array_equal(out, edited(ROW, TEXT[:length], 10, **ours))
        assert (out[1] == -np.inf) == (length < 16)
    with pytest.raises(ValueError, match=r"^prompt_length must be in \[0, 3\], .*, got 10$"):
        processed(processor, row_of(), TEXT[:3])


def test_a_text_may_grow_go_back_and_be_another() -> None:
    (processor,) = make_logits_processors(
        frequency_penalty=0.3, frequency_context_size=-1, no_repeat_ngram_size=2
    )
    ours = {"frequency_penalty": 0.3, "penalty_last_n": -1, "no_repeat_ngram_size": 2}
    texts = [TEXT[:5], TEXT[:6], TEXT[:9], TEXT[:7], [*TEXT[:7], 4], TEXT, [7, 7, 7], [], [1], [1]]
    for text in texts:
        out = as_float32(processed(processor, row_of(), text))[0]
        assert np.array_equal(out, edited(ROW, text, **ours))


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"repetition_penalty": -1.0}, ValueError, "repetition_penalty must be finite and > 0"),
        ({"presence_penalty": np.nan}, ValueError, "presence_penalty must be finite, got nan"),
        ({"presence_penalty": [0.5, 0.5]}, ValueError, "^presence_penalty must be one value"),
        ({"presence_penalty": [[0.5], [1, 2]]}, (TypeError, ValueError), "^presence_penalty must"),
        ({"frequency_penalty": ""}, TypeError, "^frequency_penalty must be a number, got ''"),
        ({"repetition_penalty": 2.0, "repetition_context_size": 0}, ValueError,
         "repetition_context_size must be >= 1, or -1 for all tokens, got 0"),
        ({"frequency_penalty": 2.0, "frequency_context_size": 1.5}, TypeError,
         "frequency_context_size must be an integer"),
        ({"logit_bias": {3: np.inf}}, ValueError, "logit_bias"),
        ({"logit_bias": [{3: 1.0}, None]}, ValueError, "logit_bias must be one value"),
        ({"min_new_tokens": 3}, ValueError, "eos_token_id must be given"),
        ({"prompt_length": -1}, ValueError, "prompt_length must be >= 0, got -1"),
        ({"penalty_last_n": 3}, TypeError, "no parameter penalty_last_n: .* repetition_context_si"),
        ({"top_k": 3}, TypeError, "no parameter top_k: it is one of make_sampler$"),
        ({"dry": 3}, TypeError, r"make_logits_processors\(\) got an unexpected .* 'dry'"),
    ],
)  # fmt: skip
def test_bad_parameters_of_processors(given: Any, kind: Any, message: str) -> None:
    with pytest.raises(kind, match=message):
        make_logits_processors(**given)


def test_bad_tokens_and_logits() -> None:
    (processor,) = make_logits_processors(logit_bias={150: 1.0})
    for tokens, logits, kind, message in (
        ([1], ROW, TypeError, "logits must be an mlx array, got ndarray"),
        ([1], mx.zeros(V), ValueError, r"logits must be of shape \(B, V\), got \(200,\)"),
        ([-1], row_of(), ValueError, r"an id of tokens must be in \[0, 2\*\*31\), got -1"),
        ([0.5], row_of(), TypeError, "an id of tokens must be an integer"),
        ([1], mx.zeros((1, 100)), ValueError, r"logit_bias must have ids in \[0, 100\), got 150"),
    ):
        with pytest.raises(kind, match=message):
            processor(mx.array(tokens), logits)


def test_an_edit_too_far_is_the_edit_s_doing() -> None:
    logits = mx.zeros((2, V))
    for given, value in (
        ({"logit_bias": {3: 1e39}}, "1e+39"),
        ({"presence_penalty": -1e300, "presence_context_size": 1}, "1e+300"),
        ({"logit_bias": {3: 2.0}, "repetition_penalty": 5e-324}, "inf"),
    ):
        (processor,) = make_logits_processors(**given)
        with pytest.raises(ValueError, match=r"^logits row 0 must not be edited beyond") as caught:
            processor(mx.array([7, 3]), logits)
        assert str(caught.value).endswith(f"float32, got {value} at token 3")
    (processor,) = make_logits_processors(logit_bias={3: 1.0})
    infinite = processor(mx.array([3]), mx.full((1, V), mx.inf))  # for the draw to refuse
    assert as_float32(infinite)[0, 3] == np.inf
