"""Every size at which blocks and vectors end differently, times every kind of row, times the
stages: all variants equal, and within the derived bounds of the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import rows
from rows import Chain, Floats, Outcome, Tally, check_outcome, run_rows
from scipy.special import expit

import fastsample as fs

Activate = Callable[[str], AbstractContextManager[None]]

CHAINS = {
    "greedy": Chain(temperature=0.0),
    "temperature": Chain(temperature=0.7),
    "top_k": Chain(top_k=7),
    "top_p": Chain(top_p=0.9),
    "min_p": Chain(min_p=0.05),
    "hf": Chain(temperature=0.8, top_k=50, top_p=0.95, min_p=0.01),
    "llama.cpp": Chain(temperature=1.3, top_k=40, top_p=0.8, min_p=0.1, order="llama.cpp"),
    "mlx-lm": Chain(temperature=1.5, top_p=0.97, min_p=0.02, min_tokens_to_keep=3, order="mlx-lm"),
}
FEW_CHAINS = ("greedy", "temperature", "top_k", "top_p", "hf")
SIZES = (*range(1, 81), 111, 255, 256, 257, 32000, 128256)


def uniforms(batch: int, draws: int) -> Floats:
    u = np.random.default_rng(batch).random((draws, batch))
    u[0], u[-1] = 0.0, rows.LAST_U
    return u


def check_all(
    logits: np.ndarray,  # type: ignore[type-arg]
    chain: Chain,
    fast_variants: tuple[str, ...],
    activate: Activate,
    tally: Tally,
    draws: int = 4,
) -> None:
    """All fast variants give equal bits, and the first of them keeps to the reference."""
    u = uniforms(len(logits), draws)
    outcomes: dict[str, list[Outcome]] = {}
    for name in (*fast_variants, "reference"):
        with activate(name):
            outcomes[name] = run_rows(logits, u, [chain])
    first = outcomes[fast_variants[0]]
    for name in fast_variants[1:]:
        assert all(a.same_bits(b) for a, b in zip(first, outcomes[name], strict=True)), name
    for i, x in enumerate(logits.astype(np.float32)):
        check_outcome(x, u[:, i], chain, first[i], outcomes["reference"][i], tally)


@pytest.mark.parametrize("chain", CHAINS)
def test_every_size_and_kind(
    chain: str, fast_variants: tuple[str, ...], activate: Activate
) -> None:
    tally = Tally()
    for vocab in SIZES:
        if vocab > 1000 and chain not in FEW_CHAINS:
            continue
        check_all(rows.all_kinds(vocab), CHAINS[chain], fast_variants, activate, tally)
    tally.assert_few()


def random_chain(rng: np.random.Generator) -> Chain:
    """Cuts from the first token to almost all, in any order."""
    return Chain(
        temperature=float(rng.choice([1.0, rng.uniform(0.2, 3.0)])),
        top_k=rng.choice([None, int(rng.integers(1, 300)), int(rng.integers(1, 9000))]),
        top_p=float(rng.choice([1.0, rng.random(), 1 - 10 ** rng.uniform(-6, -1)])),
        min_p=float(rng.choice([0.0, 10 ** rng.uniform(-9, 0)])),
        min_tokens_to_keep=int(rng.choice([1, rng.integers(1, 2000)])),
        order=tuple(rng.permutation(["temperature", "top_k", "top_p", "min_p"]).tolist()),
    )


@pytest.mark.parametrize("seed", range(16))
def test_large_rows_at_random_cuts(
    seed: int, fast_variants: tuple[str, ...], activate: Activate
) -> None:
    rng = np.random.default_rng(seed)
    tally = Tally()
    batch = rows.all_kinds(int(rng.integers(4000, 12000)), seed)
    picked = rows.recorded_rows()[rng.choice(12, 3, replace=False)]
    for _ in range(3):
        check_all(batch, random_chain(rng), fast_variants, activate, tally)
        check_all(picked, random_chain(rng), fast_variants, activate, tally)
    # Thousands of edges, and cuts of equal values at equal masses.
    tally.assert_few(draws=0.02, cuts=0.05, at_least=40)


@pytest.mark.parametrize("chain", FEW_CHAINS)
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_every_half_precision_value(
    dtype: type, chain: str, fast_variants: tuple[str, ...], activate: Activate
) -> None:
    bits = np.arange(2**16, dtype=np.uint16).view(dtype)
    good = ~np.isnan(bits.astype(np.float32)) & (bits.astype(np.float32) != np.inf)
    assert good.sum() == 2**16 - (2**11 - 1 if dtype is np.float16 else 2**8 - 1)
    shuffled = np.random.default_rng(0).permutation(bits[good])
    check_all(shuffled[np.newaxis], CHAINS[chain], fast_variants, activate, Tally())


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_every_half_precision_value_beside_its_neighbour(
    dtype: type, fast_variants: tuple[str, ...], activate: Activate
) -> None:
    # In one row of all values the largest decide; in a row of two, each decides a draw.
    bits = np.arange(2**16, dtype=np.uint16).view(dtype)
    by_value = np.sort(bits[np.isfinite(bits.astype(np.float32))])
    pairs = np.stack([by_value[:-1], by_value[1:]], axis=1)[::-1]
    u = np.random.default_rng(1).random(len(pairs))
    drawn = {}
    for name in fast_variants:
        with activate(name):
            drawn[name] = fs.sample(pairs, u=u, temperature=0.7)
    for name in fast_variants[1:]:
        assert np.array_equal(drawn[name], drawn[fast_variants[0]]), name
    difference = np.diff(pairs.astype(np.float64))[:, 0]
    expected = u >= expit(-difference / 0.7)
    # A pair has one edge, known to 2^-20 at the worst: 2^16 draws hit its margin hardly ever.
    assert np.sum(drawn[fast_variants[0]] != expected) <= 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_every_alignment_and_place(variant: str, dtype: type) -> None:
    # Kernels may read a row in pieces that depend on its address: whatever the offset, the largest
    # value is seen at every place, and so is one that must not be there.
    vocab = 300 if variant == "reference" else 600
    rng = np.random.default_rng(0)
    # What is compiled for vectors looks at addresses; the others are written in whole values.
    for offset in range(33 if variant.startswith("core") else 2):
        batch = np.zeros((vocab, vocab + offset), dtype)
        view = batch[:, offset:]
        view[:] = rng.normal(0, 1, vocab)
        np.fill_diagonal(view, 9)
        everywhere = np.arange(vocab)
        assert np.array_equal(fs.argmax(view), everywhere)
        assert np.array_equal(fs.sample(view, top_k=1, u=0.5), everywhere)
        for bad in (np.nan, np.inf):
            np.fill_diagonal(view, bad)
            marked = fs.sample(view, temperature=0.0, u=0.5, errors="mark")
            assert np.all(marked == -1)
        np.fill_diagonal(view, -np.inf)
        assert np.all(fs.sample(view, temperature=0.0, u=0.5, errors="mark") >= 0)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_every_half_precision_nan_and_infinity_is_refused(variant: str, dtype: type) -> None:
    bits = np.arange(2**16, dtype=np.uint16).view(dtype)
    wide = bits.astype(np.float32)
    bad = bits[np.isnan(wide) | (wide == np.inf)]
    for place in (0, 1, 299):
        batch = np.zeros((bad.size, 300), dtype)
        batch[:, place] = bad
        assert np.all(fs.sample(batch, u=0.5, errors="mark") == -1)


@pytest.mark.parametrize("vocab", [4, 300, 1000])
def test_rows_masked_with_the_lowest_float(variant: str, vocab: int) -> None:
    # torch.finfo(torch.float32).min in place of -inf: finite, so such a row is flat.
    row = np.full(vocab, np.finfo(np.float32).min, np.float32)
    chain: dict[str, Any] = {"top_p": 0.5, "order": "llama.cpp", "temperature": 0.3}
    kept = vocab // 2
    assert fs.survivors(row, **chain)[0].tolist() == list(range(kept))
    assert fs.sample(row, **chain, u=np.nextafter(1.0, 0.0)) == kept - 1
    assert np.flatnonzero(fs.probs(row, **chain)).tolist() == list(range(kept))


@pytest.mark.parametrize("p", [1 - 2**-53, 1 - 1e-12, 0.5])
def test_weightless_tokens_are_not_in_a_nucleus(variant: str, p: float) -> None:
    row = np.float32([0, 0, -100, -200, -300] * 40)
    assert fs.survivors(row, top_k=150, top_p=p)[0].size == {0.5: 40}.get(p, 80)
    assert fs.survivors(row, top_p=p)[0].size == {0.5: 40}.get(p, 80)
