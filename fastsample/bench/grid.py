"""The grid of cases, and what each is to reach. Depends on NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from .. import recorded

Row: TypeAlias = "npt.NDArray[Any]"
Params: TypeAlias = "dict[str, Any]"
VOCAB = 128_256
SEED = 1


class Work(NamedTuple):
    """Parameters, and the times aimed at: ratios to R on an AVX-512 machine.

    `limit` is for the normal row; `goals` are for the normal and for the recorded rows.
    """

    params: Params
    limit: float | None
    goals: tuple[float, float]


WORKS = {
    "greedy": Work({"temperature": 0.0}, 2.0, (1.2, 1.4)),
    "chain": Work({"temperature": 0.8, "top_k": 50, "top_p": 0.95}, 2.5, (1.5, 1.8)),
    "top_k": Work({"top_k": 1000}, None, (4.0, 4.0)),
    "min_p": Work({"temperature": 0.8, "min_p": 0.05}, 2.5, (1.5, 1.8)),
    "temperature": Work({"temperature": 0.8}, 6.0, (3.8, 3.8)),
    "top_p": Work({"temperature": 0.8, "top_p": 0.95}, 14.0, (7.0, 4.5)),
    "cold": Work({"temperature": 0.5}, None, (2.5, 2.5)),
}
EXPONENTIAL = ("temperature", "top_p", "cold")  # works that weigh the whole vocabulary


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
COMPARED = ("normal", "recorded", "recorded-flat")  # rows that every sampler gets
HALF_ROWS = ("normal", "recorded")
DTYPES = ("float32", "bfloat16", "float16")


class Case(NamedTuple):
    """One cell of the grid."""

    work: str
    row: str
    dtype: str = "float32"


def grid(rows: Sequence[str], works: Sequence[str], dtypes: Sequence[str]) -> list[Case]:
    """Return the cases, the work changing fastest; half precision on two kinds of rows."""
    return [
        Case(work, row, dtype)
        for row in rows
        for dtype in dtypes
        if dtype == "float32" or row in HALF_ROWS
        for work in works
    ]


@cache
def make_row(kind: str, dtype: str = "float32", vocab: int = VOCAB) -> Row:
    """Return one row of logits; bfloat16 needs ml_dtypes. The recorded ones keep their size."""
    row = ROWS[kind](np.random.default_rng(SEED), vocab)
    if dtype == "bfloat16":
        return row.astype(import_module("ml_dtypes").bfloat16)
    return row.astype(dtype)


class Target(NamedTuple):
    """What a time should be at most, as a ratio to the time of `basis`."""

    basis: str  # "R", "normal" (the same work on the normal row) or "float32" (on that dtype)
    limit: float | None
    goal: float


def target(case: Case, isa: str | None) -> Target | None:
    """Return what the core should reach in a case, or None."""
    work = WORKS[case.work]
    if case.dtype != "float32":
        return Target("float32", None, 1.1 if case.work in EXPONENTIAL else 0.8)
    if case.row not in COMPARED:
        cliff = case.row in ("ascending", "descending", "constant", "two-values")
        return Target("normal", 2.0 if cliff else None, 1.5)
    goal = work.goals[case.row != "normal"]
    if isa == "avx512":
        return Target("R", work.limit if case.row == "normal" else None, goal)
    return Target("R", None, 2 * goal) if isa == "avx2" else None


OVERHEAD_US = {"Sampler": 1.5, "sample()": 4.0}  # limits at V = 16


def verdict(ratio: float, aim: Target) -> str:
    """Return "goal", "ok" (within the limit) or "miss"."""
    if ratio <= aim.goal:
        return "goal"
    return "ok" if aim.limit is not None and ratio <= aim.limit else "miss"
