"""The grid of cases, and the bounds that times are to keep. Depends on NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from .. import recorded
from .works import FAMILY, SEED, WORKS

Row: TypeAlias = "npt.NDArray[Any]"
VOCAB = 128_256


# The other targets, each a bound on what its name says.
AVX2_FACTOR = 2.0  # on AVX2 twice the ratios to R
WISHED_TOP_P = 5.0  # R, on the normal row, "if it can be had"
FLAT_TOP_P_FASTER = 80.0  # instead of 30, on rows that keep thousands of tokens
HALF = {"chain": 0.8, "min_p": 0.8, "temperature": 1.1, "top_p": 1.1, "cold": 1.1}  # times float32
ADVERSARIAL = 1.5  # times the normal row
GROWTH = 1.5  # times the smallest time/V in L2, times R beyond
SAMPLER_US = 0.8  # above an empty call that takes one array, at V = 16
SAMPLE_US = 4.0
TWO_THREADS = 1.8  # times as fast as one, on two free cores
FREE = 1.9  # times as much as one thread do two that only compute: two cores are free
NUMBA = 4.0  # times the core
NUMBA_FAMILY = 8.0
HISTORY = 1.5  # times what a step takes after few tokens
STEP_US = 12.0  # `step` of 64 samplers, at V = 16
TOLD_R = {"raw, 20": 6.0, "log_mass": 5.5}  # what is told of a draw, by its works
TOLD_TIMES = {"support": 1.15, "5 drafts": 1.3}  # times the draws alone


def _half_masked(rng: np.random.Generator, v: int) -> Row:
    return np.where(rng.permutation(v) % 2, rng.normal(0, 2.5, v), -np.inf)


def _recorded(place: float) -> Row:
    """Return the recorded row at a place, 0 to 1, in the order of entropy."""
    rows = recorded.load().logits.astype(np.float64)
    probs = np.exp(rows - rows.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    by_entropy = np.argsort((probs * np.log(np.maximum(probs, 1e-300))).sum(axis=1))[::-1]
    row: Row = rows[by_entropy[round(place * (len(rows) - 1))]]
    return row


ROWS: dict[str, Callable[[np.random.Generator, int], Row]] = {
    "normal": lambda rng, v: rng.normal(0, 2.5, v),
    "flat": lambda rng, v: rng.normal(0, 0.05, v),
    "peaked": lambda rng, v: -1.5 * np.log(1 + rng.permutation(v)),
    "recorded": lambda rng, v: _recorded(0.5),
    "recorded-flat": lambda rng, v: _recorded(1.0),
    "ascending": lambda rng, v: np.linspace(-9, 9, v),
    "descending": lambda rng, v: np.linspace(9, -9, v),
    "constant": lambda rng, v: np.full(v, 1.25),
    "two-values": lambda rng, v: rng.choice([0.0, 1.5], v),
    "one-hot": lambda rng, v: np.where(np.arange(v) == v // 3, 12.0, 0.0),
    "one-finite": lambda rng, v: np.where(np.arange(v) == v // 3, -7.0, -np.inf),
    "half-masked": _half_masked,
}
# Rows that every sampler gets. top_p = 0.95 at T = 0.8 keeps thousands of tokens of the normal one,
# nearly all of the flat one, and about 20 of the peaked one, which is the median of real rows.
COMPARED = {
    "normal": "sigma 2.5",
    "flat": "normal, sigma 0.05",
    "peaked": "Zipf",
    "recorded": "a model's, median entropy",
    "recorded-flat": "a model's, largest entropy",
}
SUMMARISED = ("normal", "recorded")  # rows of the summary: synthetic and real
FLAT = ("normal", "flat")
HALF_ROWS = ("normal", "recorded")
DTYPES = ("float32", "bfloat16", "float16")


class Case(NamedTuple):
    """One cell of the grid."""

    work: str
    row: str
    dtype: str = "float32"


def grid(rows: Sequence[str], works: Sequence[str], dtypes: Sequence[str]) -> list[Case]:
    """Return the cases, the work changing fastest; half precision on two rows, of the MAIN.

    Masks are put on rows of which any token can be drawn.
    """
    return [
        Case(work, row, dtype)
        for row in rows
        for dtype in dtypes
        if dtype == "float32" or row in HALF_ROWS
        for work in works
        if dtype == "float32" or work not in FAMILY
        if row in COMPARED or WORKS[work].allowed is None
    ]


def basis(case: Case) -> Case | None:
    """Return the case whose time a target compares this one with; None where that is R."""
    if case.dtype != "float32":
        return case._replace(dtype="float32")
    if case.row not in COMPARED:
        return case._replace(row="normal")
    over = WORKS[case.work].over
    return case._replace(work=over.base) if over else None


@cache
def make_row(kind: str, dtype: str = "float32", vocab: int = VOCAB) -> Row:
    """Return one row of logits; bfloat16 needs ml_dtypes. The recorded ones keep their size."""
    row = ROWS[kind](np.random.default_rng(SEED), vocab)
    if dtype == "bfloat16":
        return row.astype(import_module("ml_dtypes").bfloat16)
    return row.astype(dtype)
