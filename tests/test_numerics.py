"""How near the numbers are to the exact ones: weights, probabilities, softmax, order.

Weights are measured through the front door: of a row of two, the first token is drawn exactly while
u * total is below its weight, so the u where that ends tells the ratio of the two to 2^-53.
"""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import rows
from rows import LOG2E, Float32s, Floats
from scipy import special

import fastsample as fs


def measured_weights(x: Float32s, temperature: float) -> Floats:
    """Weight of each x <= 0 beside a maximum of 0, which weighs 1."""
    pairs = np.stack([np.zeros_like(x), x], axis=1)
    low, high = np.zeros(x.size, np.int64), np.full(x.size, 2**53)
    while np.any(high - low > 1):  # token 0 at u = low * 2^-53, token 1 at high * 2^-53
        middle = (low + high) // 2
        second = fs.sample(pairs, u=middle * 2.0**-53, temperature=temperature) == 1
        low, high = np.where(second, low, middle), np.where(second, middle, high)
    share = high * 2.0**-53
    return (1 - share) / share


#: Of a share of 2^-53 either way; the weight is (1 - share) / share, share >= 1/2.
MEASURED_TO = 4 * 2.0**-53


def dense(low: float, high: float, variant: str) -> Float32s:
    count = rows.affordable(40_000, variant)
    values = np.random.default_rng(1).uniform(low, high, count).astype(np.float32)
    return np.append(values, np.float32([low, high]))


def multiples(unit: float, x: Float32s) -> Float32s:
    return np.rint(x / unit).astype(np.float32) * np.float32(unit)


def test_weights_are_within_three_ulp(variant: str) -> None:
    # At this temperature log2(e) / temperature is 1: the weight is 2^x, with nothing rounded before
    # the polynomial where x - 1 is a float32. From 2^-1 to 1 the argument takes all it can, and a
    # float32 is a whole number of quanta of 2^-27: what is measured is the polynomial alone.
    x = multiples(2.0**-23, dense(-1.0, 0.0, variant))
    exact = np.exp2(x.astype(np.float64))
    ulp = np.spacing(exact.astype(np.float32)).astype(np.float64)
    error = np.abs(measured_weights(x, LOG2E) - exact)
    # What the contract allows, and with it the bounds in rows.py.
    assert np.max((error - MEASURED_TO) / ulp) <= 3


def test_light_weights_lose_half_a_quantum(fast_variant: str) -> None:
    # Beside a maximum in its block a weight is a multiple of 2^-27.
    x = multiples(2.0**-17, dense(-40.0, 0.0, fast_variant))
    exact = np.exp2(x.astype(np.float64))
    weights = measured_weights(x, LOG2E)
    ulp = np.spacing(exact.astype(np.float32)).astype(np.float64)
    assert np.all(np.abs(weights - exact) <= 3 * ulp + 2.0**-28 + MEASURED_TO)
    units = weights * 2.0**27
    assert np.all(np.abs(units - np.rint(units)) <= 2.0**27 * MEASURED_TO)
    assert not weights[x < -28.001].any()
    assert weights[x > -27.999].all()


def test_weights_at_any_temperature_are_within_their_bound(variant: str) -> None:
    for temperature in (0.05, 0.3, 0.7, 1.0, 1.9, 30.0):
        x = dense(-30 * temperature, 0.0, variant)
        # The bound of each x in the row of the two.
        pairs = np.stack([np.zeros_like(x), x], axis=1)
        bound = np.array([rows.weight_error_bound(p, temperature)[1] for p in pairs[:400]])
        exact = np.exp(x.astype(np.float64) / temperature)[: bound.size]
        weights = measured_weights(x[: bound.size], temperature)
        assert np.all(np.abs(weights - exact) <= bound + MEASURED_TO)
        # 3 roundings of |y| <= 44 and 3 ULP: a bound that allowed more would excuse too much.
        assert np.all(bound <= exact * (44 * 3.1 + 1) * 2.0**-24 + exact * 3 * 2.0**-23 + 2.0**-28)


def test_light_blocks_keep_their_digits(fast_variant: str) -> None:
    # A block whose maximum weighs 2^-e has quanta of 2^-(27 + e), down to 2^-40.
    row = np.full(20 * 256, -np.inf, np.float32)
    row[0] = 0.0
    ids = np.arange(1, 20) * 256 + 7
    row[ids] = -1.5 * np.arange(1, 20)
    row[ids + 1] = row[ids] - np.float32(3.125)  # the logarithms are exact
    probs = fs.probs(row, temperature=LOG2E).astype(np.float64)
    for column in (ids, ids + 1):
        exact = np.exp2(row[column].astype(np.float64))
        # 3 ULP, half a quantum with e the exponent of the block rounded up; and two float32
        # probabilities in the quotient, 2^-24 each.
        quantum = np.exp2(np.maximum(np.ceil(row[ids]), -13) - 27)
        error = exact * (3 * 2.0**-23 + 2.0**-22.9) + quantum / 2
        assert np.all(np.abs(probs[column] / probs[0] - exact) <= error)


def test_equal_logits_have_equal_probabilities(variant: str) -> None:
    # The maximum weighs exactly 1, so n of them have the float32 nearest to 1 / n.
    for n in (1, 2, 3, 7, 255, 256, 257, 1000):
        for value in (0.0, -1e30, 3.25, 2.0**-149):
            probs = fs.probs(np.full(n, value, np.float32), temperature=0.37)
            assert np.all(probs == np.float32(1 / n))


def test_top_p_near_one_at_temperatures_near_zero(variant: str) -> None:
    # All that weighs anything is the maximum: an estimate of the rest has nothing to go by.
    rng = np.random.default_rng(3)
    for temperature in (1e-6, 1e-8, 1e-10, 1e-30):
        for _ in range(rows.affordable(20, variant) + 1):
            x = (rng.normal(size=8000) * 0.2 + 25).astype(np.float32)
            ids, _ = fs.survivors(x, temperature=temperature, top_p=1 - 1e-13)
            assert ids.tolist() == np.flatnonzero(x == x.max()).tolist()


def test_min_p_cuts_at_its_threshold(variant: str) -> None:
    rng = np.random.default_rng(4)
    for _ in range(300):
        temperature = float(rng.uniform(0.1, 5))
        # Near sqrt(1/2) a logarithm by powers of two is at its worst.
        min_p = float(rng.choice([10 ** rng.uniform(-12, 0), rng.uniform(0.7, 0.72)]))
        top = np.float32(rng.choice([0.0, rng.normal(0, 20)]))
        exact = float(top) + temperature * math.log(min_p)
        cut = np.float32(exact)
        below, above = (np.nextafter(cut, np.float32(to)) for to in (-np.inf, np.inf))
        # The threshold in float64, off by 2^-51 or so, must round to `cut` whoever computes it.
        slack = 2.0**-51 * (abs(top) + 2 * abs(exact - top))
        middles = (float(cut) + float(below)) / 2, (float(cut) + float(above)) / 2
        if not (middles[0] + slack < exact < middles[1] - slack) or above >= top:
            continue
        row = np.float32([below, cut, above, top])
        ids, _ = fs.survivors(row, temperature=temperature, min_p=min_p)
        assert sorted(ids) == [1, 2, 3], (temperature, min_p)


@pytest.mark.parametrize("kind", rows.ROW_KINDS)
def test_probabilities_sum_to_one(variant: str, kind: str) -> None:
    row = rows.make_row(kind, 3000)
    for chain in ({}, {"top_k": 9}, {"top_p": 0.9}, {"min_p": 0.1}, {"temperature": 3.0}):
        probs = fs.probs(row, **chain)
        # Each is rounded to float32 once, 2^-24 relative.
        assert abs(float(probs.sum(dtype=np.float64)) - 1) <= 2.0**-24
        assert np.all(probs[row == -np.inf] == 0)


@pytest.mark.parametrize("temperature", [1e-300, 1e-40, 1e-3, 1.0, 1e3, 1e40, 1e300])
def test_masked_tokens_weigh_nothing_at_any_temperature(variant: str, temperature: float) -> None:
    row = rows.make_row("masked", 600)
    masked = row == -np.inf
    assert 200 < masked.sum() < 400
    for dtype in (np.float32, np.float16, np.float64, ml_dtypes.bfloat16):
        logits = row.astype(dtype)
        probs = fs.probs(logits, temperature=temperature)
        assert np.all(probs[masked] == 0)
        ids, _ = fs.survivors(logits, temperature=temperature)
        assert not masked[ids].any()
        u = np.append(np.linspace(0, 1, 500, endpoint=False), rows.LAST_U)
        drawn = fs.sample(np.broadcast_to(logits, (u.size, 600)), u=u, temperature=temperature)
        assert not masked[drawn].any()
    if temperature >= 1e40:  # flat: all that is not masked
        assert np.all(fs.probs(row, temperature=temperature)[~masked] == np.float32(1 / ids.size))
    if temperature <= 1e-40:  # greedy
        assert fs.probs(row, temperature=temperature).argmax() == row.argmax()
        assert fs.probs(row, temperature=temperature).max() == 1


def test_cold_ties_share(variant: str) -> None:
    row = np.float32([1, 3, 2.9999998, 3, -np.inf])
    assert fs.probs(row, temperature=1e-40).tolist() == [0, 0.5, 0, 0.5, 0]


# ---- softmax, top_k, argmax ------------------------------------------------------------------


#: What softmax and log_softmax promise; 3 ULP of the polynomial, of a weight and of their sum, half
#: a ULP each of the argument's fraction, the reciprocal and the product are 9e-7.
RIGHT_TO = 1e-6


@pytest.mark.parametrize("temperature", [0.01, 0.7, 1.0, 20.0])
@pytest.mark.parametrize("kind", [k for k in rows.ROW_KINDS if k != "huge"])
def test_softmax_and_log_softmax(variant: str, kind: str, temperature: float) -> None:
    batch = np.stack([rows.make_row(kind, 700, seed) for seed in range(3)])
    scaled = batch.astype(np.float64) / temperature
    expected = special.log_softmax(scaled, axis=1)
    # scipy rounds x / T, and differences from it, 2^-53 of the largest.
    noise = 4 * 2.0**-53 * np.abs(scaled[np.isfinite(scaled)]).max()
    ours = fs.log_softmax(batch, temperature)
    assert ours.dtype == np.float32
    assert np.array_equal(ours == -np.inf, batch == -np.inf)
    kept = batch > -np.inf
    error = np.abs(ours[kept] - expected[kept])
    # Where one token has nearly all, 1 + the others is a double: 2^-52 of them are lost.
    assert np.all(error <= RIGHT_TO * np.abs(expected[kept]) + noise + 700 * 2.0**-52)
    expected = special.softmax(scaled, axis=1)
    ours = fs.softmax(batch, temperature)
    error = np.abs(ours - expected)
    assert np.all(error <= (RIGHT_TO + 2 * noise) * expected + 2.0**-150)
    assert fs.softmax(batch[1], temperature).tobytes() == ours[1].tobytes()
    assert np.all(ours[batch == -np.inf] == 0)


def test_the_least_probable_token_has_all_digits(variant: str) -> None:
    rng = np.random.default_rng(2)
    for temperature, sigma in ((1.0, 2.5), (0.3, 2.5), (1.0, 15.0), (7.0, 40.0)):
        x = rng.normal(0, sigma, 5000).astype(np.float32)
        exact = special.log_softmax(x.astype(np.float64) / temperature)
        np.testing.assert_allclose(fs.log_softmax(x, temperature), exact, rtol=RIGHT_TO)
        exact = np.exp(exact)
        normal = exact > 2.0**-126
        ours = fs.softmax(x, temperature)
        np.testing.assert_allclose(ours[normal], exact[normal], rtol=RIGHT_TO)
        assert np.all(np.abs(ours - exact)[~normal] <= 2.0**-149)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, ml_dtypes.bfloat16])
def test_softmax_has_equal_bits(
    fast_variants: tuple[str, ...], activate: Any, dtype: npt.DTypeLike
) -> None:
    for vocab in (1, 7, 255, 256, 1000, 3001):
        kinds = [kind for kind in rows.ROW_KINDS if kind != "huge" or dtype != np.float16]
        batch = np.stack([rows.make_row(kind, vocab) for kind in kinds]).astype(dtype)
        for temperature in (1e-30, 0.05, 0.8, 1.0, 30.0, 1e38):
            seen = set()
            for variant in fast_variants:
                with activate(variant):
                    seen.add(fs.softmax(batch, temperature).tobytes())
                    seen.add(fs.log_softmax(batch, temperature).tobytes())
            assert len(seen) == 2, (vocab, temperature)


def test_softmax_of_equal_logits(fast_variant: str) -> None:
    for n in (1, 2, 3, 100, 1024, 5000):
        ours = fs.softmax(np.full(n, 3.25, np.float32), 0.7)
        assert np.all(ours == np.float32(1 / n))
        ours = fs.log_softmax(np.full(n, 3.25, np.float32), 0.7)
        assert np.all(ours == np.float32(-math.log(n)))


def test_log_softmax_of_huge_logits(variant: str) -> None:
    row = np.float32([1e30, -1e30, 1e30, -np.inf])
    assert fs.log_softmax(row).tolist() == pytest.approx(
        [-np.log(2), float(np.float32(-2e30)), -np.log(2), -np.inf], rel=2.0**-23
    )
    assert fs.softmax(np.float32([3e38, -3e38]), 1e-300).tolist() == [1.0, 0.0]
    assert fs.log_softmax(np.float32([3e38, -3e38]), 1e-300).tolist() == [0.0, -np.inf]


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("kind", rows.ROW_KINDS)
def test_top_k_and_argmax(variant: str, kind: str, dtype: Any) -> None:
    if kind == "huge" and dtype is np.float16:
        kind = "random"  # it has no huge numbers
    batch = np.stack([rows.make_row(kind, 600, seed) for seed in range(3)]).astype(dtype)
    wide = batch.astype(np.float32)
    ranked: npt.NDArray[Any] = np.argsort(-wide, axis=1, kind="stable")
    finite = int(np.isfinite(wide).sum(axis=1).min())
    assert np.array_equal(fs.argmax(batch), ranked[:, 0])
    assert [fs.argmax(row) for row in batch] == ranked[:, 0].tolist()
    for k in {1, min(2, finite), min(50, finite), finite}:
        values, ids = fs.top_k(batch, k)
        assert (values.dtype, ids.dtype) == (np.float32, np.int64)
        assert np.array_equal(ids, ranked[:, :k])
        assert np.array_equal(values, np.take_along_axis(wide, ids, axis=1))
        values, ids = fs.top_k(batch[2], k)
        assert np.array_equal(ids, ranked[2, :k])
        assert np.array_equal(values, wide[2, ids])
