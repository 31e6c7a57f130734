"""Edits that take a logit beyond float32: the message names the edit's work, not the logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import fastsample as fs

#: Parameters, and what they make of logit 3, which is 2.0 and stands in the history once.
TOO_FAR: list[tuple[dict[str, Any], str]] = [
    ({"logit_bias": {3: 1e308}}, "1e+308"),
    ({"logit_bias": {3: 3.5e38}}, "3.5e+38"),
    ({"sequence_bias": {(599, 3): 1e300}}, "1e+300"),
    ({"repetition_penalty": 1e-100}, "2e+100"),
    ({"repetition_penalty": 5e-324}, "inf"),
    ({"frequency_penalty": -1e300}, "1e+300"),
    ({"presence_penalty": -4e38}, "4e+38"),
    ({"logit_bias": {3: 1e308}, "repetition_penalty": 0.5}, "inf"),
]
HISTORY = {"history": [3, 599], "prompt_length": 0}


@pytest.mark.parametrize(("given", "value"), TOO_FAR)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_the_edit_is_named(variant: str, given: dict[str, Any], value: str, dtype: Any) -> None:
    row = np.zeros(600, dtype)
    row[3] = 2.0
    calls: list[Callable[[], Any]] = [
        lambda: fs.sample(row, seed=1, **HISTORY, **given),
        lambda: fs.draw(row, seed=1, **HISTORY, **given),
        lambda: fs.probs(row, **HISTORY, **given),
        lambda: fs.survivors(row, **HISTORY, **given),
    ]
    message = f"logits row 0 must not be edited beyond float32, got {value} at token 3"
    for call in calls:
        with pytest.raises(ValueError, match=r"^logits row 0") as caught:
            call()
        assert str(caught.value) == message
    sampler = fs.Sampler(seed=1, **given)
    sampler.start([3, 599], prompt_length=0)
    for call in (lambda: sampler(row), lambda: fs.step([sampler], row[None])):
        with pytest.raises(ValueError, match=r"^logits row 0") as caught:
            call()
        assert str(caught.value) == message
    assert sampler.offset == 0
    assert sampler.history.tolist() == [3, 599]


def test_of_a_batch_the_row_is_named(variant: str) -> None:
    rows = np.zeros((3, 300), np.float32)
    edit: dict[str, Any] = {"logit_bias": [{0: 1.0}, {0: -1.0}, {299: 1e39}]}
    message = r"^logits row 2 must not be edited beyond float32, got 1e\+39 at token 299$"
    for threads in (1, 2):
        with pytest.raises(ValueError, match=message):
            fs.sample(rows, seed=1, threads=threads, **edit)
    assert fs.sample(rows, seed=1, errors="mark", **edit)[2] == -1


def test_of_a_target_too(variant: str) -> None:
    rows = np.zeros((2, 8), np.float32)
    with pytest.raises(ValueError, match=r"^target row 0 must not be edited beyond float32, got"):
        fs.verify([1], rows, draft="onehot", seed=1, logit_bias={2: 1e39})


def test_logits_that_came_infinite_are_to_blame_themselves(variant: str) -> None:
    edit: dict[str, Any] = {"logit_bias": {1: 1.0, 2: 1e39}}
    with pytest.raises(ValueError, match=r"must not contain \+inf, got one at token 1$"):
        fs.sample(np.float32([0, np.inf, 0]), seed=1, **edit)
    with pytest.raises(ValueError, match=r"must not go beyond float32, got 1e\+39 at token 1$"):
        fs.sample(np.float64([0, 1e39, 0]), seed=1, **edit)
    with pytest.raises(ValueError, match=r"must not contain NaN, got one at token 0$"):
        fs.sample(np.float32([np.nan, 0, 0]), seed=1, **edit)


def test_what_is_not_allowed_is_edited_in_vain(variant: str) -> None:
    mask = np.array([True, True, False])
    edit: dict[str, Any] = {"logit_bias": {2: 1e39}}
    assert fs.sample(np.float32([0, 9, 0]), u=0.5, allowed=mask, **edit) == 1
    assert fs.sample(np.float32([0, 9, 0]), u=0.5, suppress_tokens=[2], **edit) == 1
