"""Rows in which very many tokens are equal, or equally far from the entropy, cut by typical_p."""

from __future__ import annotations

import numpy as np
import pytest

import fastsample as fs

SIZE = 20_000
RNG = np.random.default_rng(5)
#: 0 is the value at which floats are nearest to each other: many of them are equally far.
ROWS = {
    "zeros": np.zeros(SIZE),
    "two": RNG.choice([0.0, 1.5], SIZE),
    "three": RNG.choice([-2.0, 0.0, 3.0], SIZE, p=[0.5, 0.3, 0.2]),
    "one above": np.where(np.arange(SIZE) == SIZE // 3, 12.0, 0.0),
    "some below": np.where(np.arange(SIZE) % 7 == 0, -3.0, 1.0),
    "ends": np.concatenate([np.full(SIZE // 2, 2.0), np.full(SIZE // 2, -2.0)]),
    "tiny": RNG.choice([0.0, 1e-40, -1e-40, 1.0], SIZE),
    "large": 1e30 + RNG.choice([0.0, 2e23], SIZE),
    "noise": np.where(RNG.random(SIZE) < 0.5, 0.0, RNG.normal(0, 2.5, SIZE)),
}


@pytest.mark.parametrize("p", [0.02, 0.3, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("name", ROWS)
def test_of_equal_tokens_those_stay_that_the_reference_keeps(
    variant: str, name: str, p: float
) -> None:
    row = ROWS[name].astype(np.float32)
    with fs.use_backend("reference"):
        expected, probs = fs.survivors(row, typical_p=p, order=("typical_p",))
    kept, own = fs.survivors(row, typical_p=p, order=("typical_p",))
    # One token may be within the rounding of the mass.
    assert np.setxor1d(kept, expected).size <= 1
    np.testing.assert_allclose(own[0], probs[0], rtol=2e-4)
