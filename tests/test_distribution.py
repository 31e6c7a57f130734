"""What is drawn is distributed as it should be, nothing else is drawn, and everything can be.

Each check is a function of a sampler, and is also run on samplers that are broken on purpose: what
a check does not catch, it does not test.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rows
from rows import Floats, Ids
from scipy import stats

import fastsample as fs

# (row, uniforms or a seed for `count` draws, parameters) -> tokens
Sampler = Callable[..., Ids]


def fastsample(row: Any, count: int, u: Floats | None = None, **parameters: Any) -> Ids:
    """The library itself: `count` draws from one row as a batch that repeats it in place."""
    row = np.asarray(row)
    tokens: Ids = fs.sample(np.broadcast_to(row, (count, row.size)), u=u, **parameters)
    return tokens


def distribution(row: npt.NDArray[Any], **parameters: Any) -> Floats:
    """The exact distribution, from the specification in float64."""
    from fastsample.chains import make_records
    from fastsample.reference import survivors_of

    defaults = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0,
                "min_tokens_to_keep": 1, "order": "hf"}  # fmt: skip
    (record,) = make_records(1, **(defaults | parameters))
    ids, kept = survivors_of(row.astype(np.float32), record)
    probs = np.zeros(row.size)
    probs[ids] = kept
    return probs


# ---- the checks ------------------------------------------------------------------------------


def check_stratified(draw: Sampler, row: npt.NDArray[Any], n: int, **parameters: Any) -> None:
    """With u = (i + .5) / n, a token that owns an interval of length p gets n * p +- 1 draws."""
    p = distribution(row, **parameters)
    counts = np.bincount(draw(row, n, u=(np.arange(n) + 0.5) / n, **parameters), minlength=row.size)
    # Each end of the interval may be off by the bound of a cumulative share.
    temperature = parameters.get("temperature", 1.0)
    kept = np.flatnonzero(p)
    weights = rows.exact_weights(row, temperature)[kept]
    _, bound = rows.shares(weights, rows.weight_error_bound(row, temperature)[kept])
    assert np.all(np.abs(counts - n * p) <= 1 + 2 * n * bound.max())
    assert not counts[p == 0].any()


def check_goodness_of_fit(draw: Sampler, row: npt.NDArray[Any], n: int, **parameters: Any) -> None:
    """Chi-square of seeded draws; false-alarm rate 1e-6 over the choice of a seed."""
    p = distribution(row, **parameters)
    counts = np.bincount(draw(row, n, seed=20240229, **parameters), minlength=row.size)
    assert not counts[p == 0].any()
    # The statistic is near enough to chi-square where every bin expects ten; the rest is one bin.
    large = n * p >= 10
    observed, expected = counts[large], n * p[large]
    if n * p[~large].sum() >= 10:
        observed = np.append(observed, counts[~large].sum())
        expected = np.append(expected, n * p[~large].sum())
    if len(observed) < 2:
        return
    # A small rest that makes no bin leaves the two sums slightly apart.
    expected *= observed.sum() / expected.sum()
    assert stats.chisquare(observed, expected).pvalue > 1e-6


def check_coverage(draw: Sampler, vocab: int) -> None:
    """On a flat row, u in the middle of each token's interval draws each token once."""
    u = (np.arange(vocab) + 0.5) / vocab
    assert np.array_equal(draw(np.zeros(vocab, np.float32), vocab, u=u), np.arange(vocab))


def check_never_filtered(draw: Sampler, n: int) -> None:
    """n draws, extreme uniforms among them, never give a token that a stage or a mask removed."""
    rng = np.random.default_rng(7)
    extremes = [0.0, 2.0**-53, rows.LAST_U, rows.LAST_U - 2.0**-53]
    u = np.concatenate([extremes, rng.random(n // 5)])  # five chains
    row = rng.normal(0, 1, 40).astype(np.float32)
    row[[0, 1, 17, 38, 39]] = -np.inf  # at both ends, where rounding would go
    row[[2, 37]] = row.min(where=row > -np.inf, initial=0) - 1  # the first to go
    chains: tuple[dict[str, Any], ...] = (
        {},
        {"top_k": 7},
        {"top_p": 0.8},
        {"min_p": 0.2},
        {"temperature": 1e3, "top_p": 0.9},
    )
    for parameters in chains:
        drawn = np.unique(draw(row, u.size, u=u, **parameters))
        assert set(drawn) <= set(np.flatnonzero(distribution(row, **parameters)))


# ---- the library passes ----------------------------------------------------------------------

STRATIFIED = [
    {},
    {"temperature": 0.6},
    {"top_k": 9},
    {"top_p": 0.85},
    {"min_p": 0.1},
    {"temperature": 1.4, "top_k": 25, "top_p": 0.9, "min_p": 0.02},
    {"temperature": 1.4, "top_k": 25, "top_p": 0.9, "min_p": 0.02, "order": "llama.cpp"},
]


@pytest.mark.parametrize("parameters", STRATIFIED, ids=str)
@pytest.mark.parametrize("kind", ["random", "constant", "few values", "masked"])
def test_stratified(variant: str, kind: str, parameters: dict[str, Any]) -> None:
    n = max(1_000, rows.affordable(20_000, variant))
    check_stratified(fastsample, rows.make_row(kind, 100), n, **parameters)
    check_stratified(fastsample, rows.make_row(kind, 700), 1_000, **parameters)


@pytest.mark.parametrize("prompt", range(12))
def test_goodness_of_fit_on_recorded_rows(fast_variant: str, prompt: int) -> None:
    row = rows.recorded_rows()[prompt]
    n = max(500, rows.affordable(3_000, fast_variant))
    check_goodness_of_fit(fastsample, row, n)
    check_goodness_of_fit(fastsample, row, n, temperature=0.8, top_k=50, top_p=0.95)


def test_goodness_of_fit_on_the_head_of_recorded_rows(variant: str) -> None:
    n = max(1_000, rows.affordable(30_000, variant))
    for row in rows.recorded_rows():
        head = np.sort(row)[-200:]
        check_goodness_of_fit(fastsample, head, n, temperature=1.5)
        check_goodness_of_fit(fastsample, head, n, top_p=0.9, min_p=0.01)


def test_every_token_can_be_drawn(variant: str) -> None:
    check_coverage(fastsample, max(1_000, rows.affordable(32_000, variant)))


def test_u_on_an_edge_belongs_to_the_next_token(variant: str) -> None:
    # Powers of two, so that shares, sums and products are exact everywhere.
    u = np.arange(256) / 256
    assert np.array_equal(fastsample(np.zeros(256), 256, u), np.arange(256))
    assert np.array_equal(fastsample(np.zeros(512), 256, u, top_k=256), np.arange(256))
    below = np.nextafter(u[1:], 0)
    assert np.array_equal(fastsample(np.zeros(256), 255, below), np.arange(255))
    assert fs.sample(np.zeros(1024), u=0.5, top_p=0.75) == 384


def test_a_filtered_token_is_never_drawn(variant: str) -> None:
    check_never_filtered(fastsample, rows.affordable(1_000_000, variant))


# ---- broken samplers do not ------------------------------------------------------------------


def plain(
    row: Any,
    count: int,
    u: Floats | None = None,
    seed: int | None = None,
    *,
    distort: Callable[[Floats], Floats] = lambda u: u,
    side: Any = "right",
    cumulative_type: Any = np.float64,
    cut: Callable[..., Floats] = distribution,
    shift: int = 0,
    **parameters: Any,
) -> Ids:
    """An independent sampler in NumPy that can be broken in one place at a time."""
    row = np.asarray(row, np.float32)
    u = np.random.default_rng(seed).random(count) if u is None else u
    cumulative = np.cumsum(cut(row, **parameters).astype(cumulative_type), dtype=cumulative_type)
    tokens = np.searchsorted(cumulative, distort(u) * float(cumulative[-1]), side=side) + shift
    return np.clip(tokens, 0, row.size - 1)


def _renormalised(p: Floats, keep: npt.NDArray[np.bool_]) -> Floats:
    return np.where(keep, p, 0) / p[keep].sum()


def drop_the_crossing_token(row: npt.NDArray[Any], top_p: float = 1.0, **rest: Any) -> Floats:
    p = distribution(row, **rest)
    order = np.argsort(-p, kind="stable")
    inside = np.cumsum(p[order]) < top_p
    inside[0] = True
    return _renormalised(p, np.isin(np.arange(p.size), order[inside]))


def keep_ties(row: npt.NDArray[Any], top_k: int = 0, **rest: Any) -> Floats:
    p = distribution(row, **rest)
    return _renormalised(p, p >= np.sort(p)[-top_k]) if top_k else p


def forget_to_renormalise(row: npt.NDArray[Any], top_k: int = 0, top_p: float = 1.0,
                          **rest: Any) -> Floats:  # fmt: skip
    both = distribution(row, top_k=top_k, **rest) > 0
    both &= distribution(row, top_p=top_p, **rest) > 0
    return _renormalised(distribution(row, **rest), both)


def open_min_p(row: npt.NDArray[Any], min_p: float = 0.0, **rest: Any) -> Floats:
    p = distribution(row, **rest)
    return _renormalised(p, (p > min_p * p.max()) | (p == p.max()))


def clamped_exponential(row: npt.NDArray[Any], **parameters: Any) -> Floats:
    p = np.maximum(distribution(row, **parameters), 1e-6)
    return p / p.sum()


ROW = rows.make_row("few values", 100)
BROKEN: dict[str, tuple[Callable[[Sampler], None], dict[str, Any]]] = {
    "cumulative sum off by one": (
        lambda draw: check_stratified(draw, ROW, 20_000), {"shift": 1}),
    "u = 0 draws a masked first token": (
        lambda draw: check_never_filtered(draw, 1_000), {"side": "left"}),
    "u biased by one percent": (
        lambda draw: check_stratified(draw, ROW, 20_000), {"distort": lambda u: u**1.01}),
    "u of 16 bits": (
        lambda draw: check_coverage(draw, 32_000),
        {"distort": lambda u: u.astype(np.float16).astype(float).clip(0, 0.999)}),
    "half-precision cumulative sum": (
        lambda draw: check_coverage(draw, 32_000), {"cumulative_type": np.float16}),
    "generator biased by ten percent": (
        lambda draw: check_goodness_of_fit(draw, ROW, 30_000), {"distort": lambda u: u**1.1}),
    "another temperature": (
        lambda draw: check_goodness_of_fit(draw, ROW, 30_000, temperature=1.0),
        {"cut": lambda row, temperature: distribution(row, temperature=1.1)}),
    "top_p drops the token that crosses": (
        lambda draw: check_stratified(draw, ROW, 20_000, top_p=0.85),
        {"cut": drop_the_crossing_token}),
    "top_k keeps ties": (
        lambda draw: check_stratified(draw, ROW, 20_000, top_k=9), {"cut": keep_ties}),
    "top_p of the whole row instead of the top_k": (
        lambda draw: check_stratified(draw, ROW, 20_000, top_k=9, top_p=0.6),
        {"cut": forget_to_renormalise}),
    "min_p drops its ties": (
        lambda draw: check_stratified(draw, np.float32([1, 1, 0, 0]), 1_000, min_p=np.exp(-1)),
        {"cut": open_min_p}),
    "masked tokens have a little mass": (
        lambda draw: check_never_filtered(draw, 1_000_000), {"cut": clamped_exponential}),
    "rounds up past the last survivor": (
        lambda draw: check_never_filtered(draw, 1_000),
        {"distort": lambda u: np.where(u == rows.LAST_U, 1.0, u)}),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_sampler_is_caught(name: str) -> None:
    check, fault = BROKEN[name]
    check(plain)  # it is the fault that is caught
    with pytest.raises(AssertionError):
        check(lambda *args, **parameters: plain(*args, **fault, **parameters))
