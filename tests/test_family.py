"""What other runtimes compute of stages, edits and states, against specification and API."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastsample as fs
from fastsample.reference import edits, mask
from fastsample.reference.chain import Step, state_after, walk
from fastsample.reference.stages import TABLE

PATH = Path(__file__).parent / "data" / "family.json"
CASES: list[dict[str, Any]] = json.loads(PATH.read_text())["cases"]

#: Those whose cut is a convention of theirs.
TIED = [case for case in CASES if case["params"] == {"epsilon_cutoff": 0.2} and case["row"][0] == 0]

# Which parameters a stage has, with the values of those that are left out.
NUMBERS: dict[str, dict[str, float]] = {
    "temperature": {"temperature": 1.0, "dynatemp_range": 0.0, "dynatemp_exponent": 1.0},
    "xtc": {"xtc_probability": 0.0, "xtc_threshold": 0.1},
    "mirostat": {"mirostat": 0, "mirostat_tau": 5.0, "mirostat_eta": 0.1},
    "adaptive": {"adaptive_target": 0.0, "adaptive_decay": 0.9},
}


def of_kind(kind: str) -> list[Any]:
    return [
        pytest.param(case, id=f"{i}-{case['peer']}-{'-'.join(case.get('order', case['params']))}")
        for i, case in enumerate(CASES)
        if case["kind"] == kind
    ]


def row_of(case: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array(case["row"], float).astype(np.float32)


def chain_of(case: dict[str, Any]) -> list[Step]:
    params, chain = dict(case["params"]), []
    for stage in case["order"]:
        numbers = NUMBERS.get(stage, {stage: 0.0})
        value = tuple(float(params.pop(name, default)) for name, default in numbers.items())
        chain.append(Step(stage, value))
    params.pop("min_tokens_to_keep", None)
    assert not params
    return chain


def test_they_are_all_there() -> None:
    assert Counter(case["kind"] for case in CASES) == {"edit": 69, "stage": 68, "state": 15}
    seen = {stage for case in CASES for stage in case.get("order", ())}
    assert len(TIED) == 1
    # These are of no peer yet.
    assert seen == TABLE.keys() - {"p_less", "p_less_norm"}


@pytest.mark.parametrize("case", of_kind("stage"))
def test_stages(case: dict[str, Any]) -> None:
    row = row_of(case)
    if "allowed" in case:
        row = mask.apply(row, mask.allowed_of(row.size, np.array(case["allowed"], np.int32)))
    d = walk(row, chain_of(case), case["params"].get("min_tokens_to_keep", 1))
    if case in TIED:
        # transformers keeps all that tie where it fills up; ours the first of the total order.
        assert case["peer"] == "transformers"
        assert set(d.ids.tolist()) < set(case["kept"])
        assert set(row[case["kept"]]) == set(row[d.ids])
        return
    assert sorted(d.ids.tolist()) == case["kept"]
    probs = dict(zip(d.ids.tolist(), d.probs, strict=True))
    # Sums of theirs are float32, and llama.cpp's a running one.
    np.testing.assert_allclose([probs[i] for i in case["top"]], case["p"], rtol=2e-4)


@pytest.mark.parametrize("case", of_kind("state"))
def test_states(case: dict[str, Any]) -> None:
    chain = chain_of(case)
    d = walk(row_of(case), chain, state=tuple(case["state"]))
    if "kept" in case:
        assert sorted(d.ids.tolist()) == case["kept"]
    else:
        probs = dict(zip(d.ids.tolist(), d.probs, strict=True))
        np.testing.assert_allclose([probs[i] for i in case["top"]], case["p"], rtol=2e-4)
    place = d.ids.tolist().index(case["token"])
    np.testing.assert_allclose(state_after(chain, d, place), case["after"], rtol=1e-5)


@pytest.mark.parametrize("case", of_kind("edit"))
def test_edits(case: dict[str, Any]) -> None:
    row, params = row_of(case), dict(case["params"])
    if "logit_bias" in params:
        params["logit_bias"] = [(token, float(value)) for token, value in params["logit_bias"]]
    made = edits.edits_of(case["history"], case["prompt_length"], row.size, params)
    edited = mask.apply(
        edits.apply(row, made.values()),
        mask.allowed_of(row.size, token_ids=params.get("allowed_token_ids")),
    )
    expected = row.astype(np.float64)
    for token, value in case["values"]:
        expected[token] = value
    expected[case["banned"]] = -math.inf
    # Theirs is rounded at every step, and may cancel.
    np.testing.assert_allclose(edited, expected, rtol=2e-6, atol=2e-5)
    others = np.setdiff1d(np.arange(row.size), [t for t, _ in case["values"]] + case["banned"])
    np.testing.assert_array_equal(edited[others], row[others])


# ---- the same through the public functions -----------------------------------------------------


def numbers_of(case: dict[str, Any]) -> dict[str, Any]:
    """Return a case's parameters as the public functions take them."""
    params = dict(case["params"])
    for name, make in (("logit_bias", int), ("sequence_bias", tuple)):
        if name in params:
            params[name] = {make(ids): float(value) for ids, value in params[name]}
    if "order" in case:
        params["order"] = tuple(case["order"])
    return params


@pytest.mark.parametrize("case", of_kind("stage"))
def test_stages_of_the_api(variant: str, case: dict[str, Any]) -> None:
    given = numbers_of(case)
    if "allowed" in case:
        given["allowed"] = np.array(case["allowed"], np.int32)
    row = row_of(case)
    ids, probs = fs.survivors(row, **given)
    if case in TIED:
        assert set(ids.tolist()) < set(case["kept"])
        return
    assert sorted(ids.tolist()) == case["kept"]
    dense = fs.probs(row, **given)
    np.testing.assert_allclose(dense[case["top"]], case["p"], rtol=2e-4)
    np.testing.assert_allclose(dense[ids], probs, rtol=1e-6)


@pytest.mark.parametrize("case", of_kind("state"))
def test_states_of_the_api(variant: str, case: dict[str, Any]) -> None:
    row, state, token = row_of(case), np.array(case["state"]), case["token"]
    given = numbers_of(case)
    dense = fs.probs(row, state=state, **given)
    if "kept" in case:
        assert np.flatnonzero(dense).tolist() == case["kept"]
    else:
        np.testing.assert_allclose(dense[case["top"]], case["p"], rtol=2e-4)
    u = float(dense[:token].sum() + dense[token] / 2)
    assert fs.sample(row, u=u, state=state, **given) == token
    np.testing.assert_allclose(state, case["after"], rtol=1e-5)
    sampler = fs.Sampler(seed=1, state=case["state"], **given)
    while sampler(row) != token:
        sampler.state = case["state"]
    np.testing.assert_allclose(sampler.state, case["after"], rtol=1e-5)


@pytest.mark.parametrize("case", of_kind("edit"))
def test_edits_of_the_api(variant: str, case: dict[str, Any]) -> None:
    row, given, history = row_of(case), numbers_of(case), case["history"]
    expected = row.astype(np.float64)
    for token, value in case["values"]:
        expected[token] = value
    expected[case["banned"]] = -math.inf
    expected = np.exp(expected - expected.max())
    expected /= expected.sum()
    dense = fs.probs(row, history=history, prompt_length=case["prompt_length"], **given)
    np.testing.assert_allclose(dense, expected, rtol=1e-4, atol=1e-8)
    sampler = fs.Sampler(seed=1, **given)
    sampler.start(history, prompt_length=case["prompt_length"])
    assert sampler(row) == fs.sample(
        row, seed=1, history=history, prompt_length=case["prompt_length"], **given
    )
