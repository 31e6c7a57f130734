"""What coins and states do over many draws: XTC's mixture, and what mirostat steers towards."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import numpy as np
import pytest
import rows
from rows import Float32s

import fastsample as fs

Activate = Callable[[str], AbstractContextManager[None]]

DRAWS, TAU = 2000, 2.5


def test_the_coin_falls_with_its_probability(variant: str) -> None:
    """Over all coins of a grid the share is exact, and what is drawn from is the mixture."""
    row = rows.make_row("random", 50)
    coins = (np.arange(100) + 0.5) / 100
    for probability in (0.25, 0.5, 0.99):
        chain: dict[str, Any] = {"xtc_threshold": 0.05, "order": ("xtc",)}
        never, always = (fs.probs(row, xtc_probability=p, **chain) for p in (0.0, 1.0))
        assert not np.array_equal(never, always)
        dense = np.stack(
            [fs.probs(row, xtc_probability=probability, u_xtc=coin, **chain) for coin in coins]
        )
        fallen = [bool((each == always).all()) for each in dense]
        assert fallen == (coins < probability).tolist()
        assert sum(fallen) == round(100 * probability)
        mixture = probability * always.astype(float) + (1 - probability) * never
        np.testing.assert_allclose(dense.mean(axis=0, dtype=float), mixture, rtol=1e-6)


@cache
def recorded() -> list[Float32s]:
    """Rows of a model, of which so many tokens are enough."""
    return [np.ascontiguousarray(row[:3000], np.float32) for row in rows.recorded_rows()]


def surprises(chain: dict[str, Any]) -> float:
    """Return the mean surprise, in bits, of draws that steer themselves."""
    sampler, found = fs.Sampler(seed=1, **chain), []
    step = chain["mirostat_eta"]
    for i in range(DRAWS):
        assert sampler.state is not None
        before = sampler.state[0]
        sampler(recorded()[i % len(recorded())])
        # mu has moved by eta * (tau - surprise).
        found.append(TAU - (sampler.state[0] - before) / step)
    return float(np.mean(found))


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_comes_to_its_target(variant: str, activate: Activate, version: int) -> None:
    chain: dict[str, Any] = {
        "mirostat": version, "mirostat_tau": TAU, "mirostat_eta": 0.1, "order": ("mirostat",),
    }  # fmt: skip
    ours = surprises(chain)
    with activate("reference"):
        theirs = expected(version, tuple(chain.items()))
    assert abs(theirs - TAU) < 0.1
    assert abs(ours - TAU) <= abs(theirs - TAU) + 0.01


@cache
def expected(version: int, chain: tuple[tuple[str, Any], ...]) -> float:
    return surprises(dict(chain))


def test_adaptive_comes_to_its_target(variant: str) -> None:
    """The probabilities of what is drawn come nearer to the target on average."""
    p = np.array([0.5, 0.3, 0.15, 0.05])
    usual = float((p * p).sum())
    for target in (0.15, 0.45):
        sampler = fs.Sampler(seed=1, adaptive_target=target, order=("adaptive",))
        mean = np.mean([p[sampler(np.log(p))] for _ in range(DRAWS)])
        assert abs(mean - target) < abs(usual - target) / 2


def test_a_long_history_is_no_burden(fast_variant: str) -> None:
    """A million tokens: the window of penalties is all that counts, and roll-back is exact."""
    rng = np.random.default_rng(0)
    history = rng.integers(0, 3000, 1_000_000)
    chain: dict[str, Any] = {
        "repetition_penalty": 1.2, "frequency_penalty": 0.1, "penalty_last_n": 64,
        "no_repeat_ngram_size": 3, "dry_multiplier": 0.8, "dry_last_n": 512,
    }  # fmt: skip
    sampler = fs.Sampler(seed=1, **chain)
    sampler.start(history, prompt_length=10)
    row = rows.make_row("random", 3000)
    tokens = [sampler(row) for _ in range(3)]
    assert tokens[0] == fs.sample(row, seed=1, history=history, prompt_length=10, **chain)
    sampler.rollback(3)
    assert [sampler(row) for _ in range(3)] == tokens
    assert sampler.history.size == 1_000_003
