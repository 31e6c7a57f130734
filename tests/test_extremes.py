"""Parameters and states so far out that what is computed of them overflows, or is lost."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
import rows

import fastsample as fs

Activate = Callable[[str], AbstractContextManager[None]]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("mu", [-1e300, -1100.0, 0.0, 5.0, 1000.0, 1100.0, 1e10, 1e290])
def test_mirostat_however_far_mu_is(
    variant: str, activate: Activate, version: int, mu: float
) -> None:
    """Above 1024 bits 2^mu is beyond a double, and all is kept."""
    chain: dict[str, Any] = {"mirostat": version, "order": ("mirostat",), "state": np.array([mu])}
    for row in (np.zeros(300, np.float32), np.float32([0, 9]), rows.make_row("random", 300)):
        kept, _ = fs.survivors(row, **chain)
        with activate("reference"):
            expected, _ = fs.survivors(row, **chain)
        assert kept.tolist() == expected.tolist()
        assert mu <= 1024.0 or kept.size == row.size


@pytest.mark.parametrize(
    ("given", "temperature"),
    [
        # hi - lo is lost, and of a row without entropy its power is infinite.
        ({"temperature": 2.0, "dynatemp_range": 1e-20, "dynatemp_exponent": -1.0}, 2.0),
        ({"temperature": 2.0, "dynatemp_range": 5e-324, "dynatemp_exponent": 3.0}, 2.0),
        # hi is infinite, and the power 0.
        ({"temperature": 1e308, "dynatemp_range": 1e308}, 0.0),
        ({"temperature": 1.7e308, "dynatemp_range": 1.5e308}, 1.7e308 - 1.5e308),
        ({"temperature": 1.0, "dynatemp_range": 0.5, "dynatemp_exponent": -1e308}, 1e308),
    ],
)
def test_a_temperature_that_follows_no_entropy_is_a_number(
    variant: str, given: dict[str, Any], temperature: float
) -> None:
    for row in (np.float32([2000, 0, 0]), np.float32([0, 1e30, 0, -1e30])):
        ids, probs = fs.survivors(row, **given)
        expected_ids, expected = fs.survivors(row, temperature=temperature)
        assert ids.tolist() == expected_ids.tolist()
        assert probs.tolist() == expected.tolist()
        assert fs.sample(row, u=0.9, **given) == fs.sample(row, u=0.9, temperature=temperature)
