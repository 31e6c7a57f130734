"""Rows of few blocks, whose largest values are found by other maxima than those of blocks."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

import fastsample as fs

RNG = np.random.default_rng(8)


def rows_of(size: int) -> dict[str, NDArray[np.float32]]:
    """Rows whose largest values lie in all lanes, in few, in one block, or are equal."""
    normal = RNG.normal(0.0, 2.5, size)
    one_lane = np.where(np.arange(size) % 16 == 5, normal + 30.0, normal)
    rows = {
        "normal": normal,
        "rising": np.sort(normal),
        "falling": np.sort(normal)[::-1],
        "one lane": one_lane,
        "ends": np.where(np.arange(size) % 256 % 240 < 16, normal + 30.0, normal),
        "equal": np.zeros(size),
        "few": np.round(normal),
        "masked": np.where(RNG.random(size) < 0.99, -np.inf, normal),
    }
    return {name: row.astype(np.float32) for name, row in rows.items()}


@pytest.mark.parametrize("size", [600, 1000, 2049, 8000, 16_384, 16_385])
def test_top_k_of_short_rows(variant: str, size: int) -> None:
    for name, row in rows_of(size).items():
        finite = np.flatnonzero(row > -np.inf)
        order = finite[np.argsort(-row[finite], kind="stable")]
        for k in (1, 17, 40, 50, 100, 200, 500):
            kept, _ = fs.survivors(row, top_k=k)
            assert kept.tolist() == order[:k].tolist(), (name, k)


@pytest.mark.parametrize("gone", [0, 8191, 8192, 15_000, 19_999])
def test_moments_of_a_row_with_few_missing(variant: str, gone: int) -> None:
    row = RNG.normal(0.0, 2.5, 20_000).astype(np.float32)
    row[[gone, 17_000]] = -np.inf
    there = row[row > -np.inf].astype(np.float64)
    bound = there.max() - 1.5 * there.std()
    kept, _ = fs.survivors(row, top_n_sigma=1.5, order=("top_n_sigma",))
    assert np.array_equal(np.sort(kept), np.flatnonzero(row >= bound))
