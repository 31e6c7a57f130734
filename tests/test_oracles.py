"""Numbers that others have: Hugging Face transformers, NumPy's Philox, and textbook examples."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rows
from rows import Chain, Float32s

import fastsample as fs

HF: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "hf.json").read_text())

# Their scores and softmax are float32: rounding scores below 16 costs 2^-20 of a weight; the
# exponentials, a sum of at most 32 and the division, less than 2^-18.8. Ours is much nearer.
HF_PROBS_ERROR = 2.0**-18


# ---- Hugging Face ----------------------------------------------------------------------------


def penalise_repetition(x: Float32s, ids: list[int], penalty: float) -> None:
    seen = np.unique(ids)
    x[seen] = np.where(x[seen] < 0, x[seen] * np.float32(penalty), x[seen] / np.float32(penalty))


def ban_repeated_bigrams(x: Float32s, ids: list[int]) -> None:
    x[[after for before, after in itertools.pairwise(ids) if before == ids[-1]]] = -np.inf


def hf_row(case: dict[str, Any], index: int) -> Float32s:
    x = np.array(case["logits_or_probs"][index], float).astype(np.float32)
    if case["input_kind"] == "probs":
        return np.log(x)
    if case["processor"] == "chain":
        assert case["params"]["order"][:2] == ["repetition_penalty 1.2", "no_repeat_ngram 2"]
        penalise_repetition(x, case["input_ids"][index], 1.2)
        ban_repeated_bigrams(x, case["input_ids"][index])
    return x


def hf_chain(case: dict[str, Any]) -> Chain:
    if case["processor"] == "chain":
        stages = [stage.split() for stage in case["params"]["order"][2:]]
        named = [name for name, _ in stages]
        assert named == [name for name in fs.ORDERS["hf"] if name in named]
        parameters: dict[str, Any] = {name: float(value) for name, value in stages}
        parameters["top_k"] = int(parameters["top_k"])
        return Chain(**parameters)
    return Chain(**{k: v for k, v in case["params"].items() if k != "filter_value"})


def hf_kept(case: dict[str, Any], index: int) -> set[int]:
    """What their processor left alone: it sets the rest to its filter value, -inf by default."""
    filtered = case["params"].get("filter_value", -np.inf)
    scores = np.array(case["expected"][index], float)
    if case["input_kind"] == "probs":  # given as exp(score)
        filtered = np.exp(filtered)
    return set(np.flatnonzero(scores != filtered).tolist())


HF_ROWS = [
    pytest.param(case, i, id=f"{number}-{case['processor']}-{i}")
    for number, case in enumerate(HF["cases"])
    for i in range(len(case["logits_or_probs"]))
]


@pytest.mark.parametrize(("case", "index"), HF_ROWS)
def test_hugging_face_cases(variant: str, case: dict[str, Any], index: int) -> None:
    x, chain, theirs = hf_row(case, index), hf_chain(case), hf_kept(case, index)
    ids, probs = fs.survivors(x, **vars(chain))
    if chain.top_k is not None and case["processor"] == "top_k":
        # Theirs keeps all that tie with the k-th; ours keeps k, the lower ids of a tie.
        assert len(theirs) >= ids.size
        assert ids.size == min(len(theirs), max(chain.top_k, chain.min_tokens_to_keep))
    else:  # also where two tokens weigh 0.8 = top_p on paper
        assert ids.size == len(theirs)
    # Their top_p sorts unstably, so of equal values they may keep others; the values agree.
    assert np.array_equal(x[ids], np.sort(x[list(theirs)])[::-1][: ids.size])
    others = np.setdiff1d(np.flatnonzero(x > -np.inf), ids)
    if not np.isin(x[others], x[ids]).any():  # nothing ties across the cut
        assert set(ids.tolist()) == theirs
        if "filter_value" not in case["params"]:
            expected = np.array(case["expected_probs"][index])
            np.testing.assert_allclose(probs, expected[ids], rtol=HF_PROBS_ERROR, atol=0)
            np.testing.assert_array_equal(np.flatnonzero(fs.probs(x, **vars(chain))), sorted(ids))


def test_the_hugging_face_cases_are_all_there() -> None:
    count = Counter(case["processor"] for case in HF["cases"])
    assert count == {"temperature": 2, "top_k": 6, "top_p": 7, "min_p": 5, "chain": 1}


@pytest.mark.parametrize(
    "chain",
    [
        Chain(temperature=0.7),
        Chain(top_k=20),
        Chain(top_p=0.9),
        Chain(min_p=0.05),
        Chain(top_p=0.3, min_tokens_to_keep=5),
        Chain(temperature=1.2, top_k=50, top_p=0.95, min_p=0.02),
    ],
    ids=str,
)
def test_transformers_itself(variant: str, chain: Chain) -> None:
    torch = pytest.importorskip("torch", reason="transformers' warpers need torch")
    process = pytest.importorskip(
        "transformers.generation.logits_process", reason="transformers is not installed"
    )
    keep = {"min_tokens_to_keep": chain.min_tokens_to_keep}
    warpers = []
    if chain.temperature != 1:
        warpers.append(process.TemperatureLogitsWarper(chain.temperature))
    if chain.top_k:
        warpers.append(process.TopKLogitsWarper(chain.top_k, **keep))
    if chain.top_p < 1:
        warpers.append(process.TopPLogitsWarper(chain.top_p, **keep))
    if chain.min_p > 0:
        warpers.append(process.MinPLogitsWarper(chain.min_p, **keep))
    # Rows without ties, so that no sort may choose.
    batch = np.stack([rows.make_row("random", 400, seed) for seed in range(20)])
    assert all(np.unique(row).size == row.size for row in batch)
    scores = torch.from_numpy(batch.copy())
    for warper in warpers:
        scores = warper(None, scores)
    expected = torch.softmax(scores.double(), dim=-1).numpy()
    for x, theirs in zip(batch, expected, strict=True):
        ids, probs = fs.survivors(x, **vars(chain))
        assert set(ids.tolist()) == set(np.flatnonzero(theirs).tolist())
        # Their scores are float32 quotients below 16, ours arguments of as many roundings: 2^-20
        # each; the polynomial and the last rounding are below 2^-21 together, half a quantum is at
        # most 2^-28 of the largest.
        np.testing.assert_allclose(probs, theirs[ids], rtol=2.0**-18.5, atol=2.0**-28)


# ---- worked numbers --------------------------------------------------------------------------


def test_softmax_of_four(variant: str) -> None:
    x = np.array([3.0, 2.5, 2.0, 1.0], np.float32)
    for probs in (fs.softmax(x), fs.probs(x)):
        assert probs.round(2).tolist() == pytest.approx([0.47, 0.29, 0.17, 0.06], abs=1e-7)


@pytest.mark.parametrize(
    ("probs", "chain", "kept"),
    [
        ([0.70, 0.16, 0.10, 0.04], Chain(top_k=3), [0, 1, 2]),
        ([0.70, 0.16, 0.10, 0.04], Chain(top_p=0.85), [0, 1]),
        ([0.30, 0.27, 0.23, 0.20], Chain(top_k=3), [0, 1, 2]),
        ([0.30, 0.27, 0.23, 0.20], Chain(top_p=0.85), [0, 1, 2, 3]),
    ],
)
def test_peaked_and_flat(variant: str, probs: list[float], chain: Chain, kept: list[int]) -> None:
    assert fs.survivors(np.log(probs), **vars(chain))[0].tolist() == kept


def test_top_p_takes_its_share_of_the_top_k(variant: str) -> None:
    # 100 equal tokens: 90 % of the 50 that top_k leaves are 45; of all they would be 90.
    chain = {"top_k": 50, "top_p": 0.9}
    assert fs.survivors(np.zeros(100), **chain)[0].tolist() == list(range(45))
    assert fs.survivors(np.zeros(100), top_p=0.9)[0].tolist() == list(range(90))
    assert fs.survivors(np.zeros(100), order="mlx-lm", **chain)[0].tolist() == list(range(50))


@pytest.mark.parametrize("vocab", [2, 100, 256, 1000, 4096, 40_000, 128_256])
def test_top_p_of_equal_tokens_is_exact(variant: str, vocab: int) -> None:
    # Halves and quarters of equal masses are exact in any arithmetic: what just reaches is enough.
    for p, count in ((0.5, vocab // 2), (0.25, -(-vocab // 4)), (1.0, vocab), (0.0, 1)):
        ids, _ = fs.survivors(np.full(vocab, -2.5, np.float32), top_p=p)
        assert np.array_equal(ids, np.arange(count))


def test_greedy_ignores_the_rest(variant: str) -> None:
    x = np.float32([1, 3, 3, 2])
    rest: dict[str, Any] = {"top_k": 3, "top_p": 0.1, "min_p": 0.9, "min_tokens_to_keep": 4}
    for u in (0.0, rows.LAST_U):
        assert fs.sample(x, temperature=0.0, u=u, **rest) == 1
    assert fs.probs(x, temperature=0.0, **rest).tolist() == [0, 1, 0, 0]


# ---- NumPy's Philox --------------------------------------------------------------------------

TOP = 2**64 - 1


def numpy_uniform(seed: int, stream: int, offset: int) -> float:
    bits = np.random.Philox(
        key=np.array([seed, stream], np.uint64), counter=np.array([offset, 0, 0, 0], np.uint64)
    )
    return float(np.random.Generator(bits).random())


def test_uniforms_are_those_of_numpy(variant: str) -> None:
    uniform = fs.backend.active().uniform
    edges = [0, 1, 2**32 - 1, 2**32, 2**63, TOP - 1, TOP]
    keys = [(a, b, c) for a in edges for b in edges for c in edges]
    draw = np.random.default_rng(3).integers(0, TOP, (500, 3), np.uint64, endpoint=True)
    for key in keys + draw.tolist():
        assert uniform(*key) == numpy_uniform(*key), key


def test_seeds_draw_with_the_uniforms_of_numpy(variant: str) -> None:
    # Of 2^16 equal tokens, u takes the one at floor(u * 2^16): exact, powers of two all.
    row = np.zeros(2**16, np.float32)
    batch = np.broadcast_to(row, (3, row.size))
    seeds = [5, TOP, 2**40]
    for offset in (0, 7, TOP - 1, TOP):
        for seed in seeds:
            expected = [int(numpy_uniform(seed, i, offset) * 2**16) for i in range(3)]
            assert fs.sample(row, seed=seed, offset=offset) == expected[0]
            assert fs.sample(batch, seed=seed, offset=offset).tolist() == expected
        expected = [int(numpy_uniform(seed, 0, offset) * 2**16) for seed in seeds]
        assert fs.sample(batch, seed=seeds, offset=offset).tolist() == expected
        as_array = np.array(seeds, np.uint64)
        assert fs.sample(batch, seed=as_array, offset=[offset] * 3).tolist() == expected
