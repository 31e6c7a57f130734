"""Rows whose probabilities are known on paper: top_p keeps what a textbook says, on every variant.

The logits are logarithms of probabilities, rounded, and kernels round the weights again; what
"reaches p" means forgives that much. Paper is exact rational arithmetic.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

import fastsample as fs

pytestmark = pytest.mark.quick

Row = tuple[Fraction, ...]


def partitions(total: int, parts: int, most: int) -> Iterator[tuple[int, ...]]:
    """All ways to write a total as so many falling numbers from 1 to most."""
    if parts == 0:
        if total == 0:
            yield ()
        return
    for first in range(min(most, total), 0, -1):
        for rest in partitions(total - first, parts - 1, first):
            yield (first, *rest)


def rows_in_steps_of(one: int, every: int = 1) -> list[Row]:
    """The rows of 3 to 5 probabilities in steps of 1 / `one`, or one of `every` so many."""
    rows = (parts for size in (3, 4, 5) for parts in partitions(one, size, one))
    return [
        tuple(Fraction(part, one) for part in parts)
        for parts in itertools.islice(rows, None, None, every)
    ]


#: Those in steps of .1 are among them.
ROWS = rows_in_steps_of(20)
LAYOUTS = ("falling", "rising", "shuffled", "shuffled again", "spread over blocks", "far apart")


def places(size: int, layout: str) -> tuple[npt.NDArray[np.int64], int]:
    """Where the probabilities of a row go, the largest first, and how long the row is."""
    straight = np.arange(size)
    if layout == "falling":
        return straight, size
    if layout == "rising":
        return straight[::-1], size
    rng = np.random.default_rng(len(layout))
    if layout.startswith("shuffled"):
        return rng.permutation(size), size
    # Each in a block of its own, which rounds weights by its own maximum.
    stride = 256 if layout == "spread over blocks" else 2000
    return rng.permutation(size) * stride + rng.integers(0, 256, size), size * stride


def logits_of(row: Row, layout: str, dtype: npt.DTypeLike) -> tuple[npt.NDArray[Any], list[int]]:
    """A row of logits, and its tokens by falling probability and rising id."""
    at, length = places(len(row), layout)
    logits = np.full(length, -np.inf)
    logits[at] = np.log([float(p) for p in row])
    ranking = sorted(range(len(row)), key=lambda i: (-row[i], at[i]))
    return logits.astype(dtype), [int(at[i]) for i in ranking]


def cuts(row: Row) -> Iterator[tuple[int, float]]:
    """Every prefix, and the p that it reaches exactly."""
    for kept, p in enumerate(itertools.accumulate(row), start=1):
        if p < 1:  # which turns top_p off
            yield kept, float(p)


def on_paper(logits: npt.NDArray[Any], row: Row, ranking: list[int]) -> bool:
    """Whether so few digits as a dtype has still say the probabilities that are meant."""
    weights = np.exp(logits[ranking].astype(np.float64))
    sums = np.cumsum(weights) / weights.sum()
    meant = np.array([float(p) for p in itertools.accumulate(row)])
    return bool(np.all(np.abs(sums - meant) <= 2.0**-26 * meant))


def test_the_rows_are_all_there() -> None:
    assert len(ROWS) == len(set(ROWS)) == 33 + 64 + 84
    assert all(sum(row) == 1 and list(row) == sorted(row, reverse=True) for row in ROWS)
    tenths = [row for row in ROWS if all((10 * p).denominator == 1 for p in row)]
    assert len(tenths) == 8 + 9 + 7


def affordable_rows(variant: str, layout: str) -> list[Row]:
    """All of them; some where a row is long and the variant slow."""
    return ROWS[::5] if layout == "far apart" and variant == "reference" else ROWS


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_top_p_as_on_paper(variant: str, dtype: npt.DTypeLike, layout: str) -> None:
    wrong = []
    for row in affordable_rows(variant, layout):
        logits, ranking = logits_of(row, layout, dtype)
        for kept, p in cuts(row):
            ids = fs.survivors(logits, top_p=p)[0].tolist()
            if ids != ranking[:kept]:
                wrong.append(([str(q) for q in row], p, ids, ranking[:kept]))
    assert not wrong, f"{len(wrong)}: {wrong[:3]}"


@pytest.mark.parametrize(("steps", "every", "most"), [(50, 1, 0.0), (100, 20, 1e-3)])
def test_finer_steps(variant: str, steps: int, every: int, most: float) -> None:
    # Roundings of float32 add up to more than is forgiven in few rows of many.
    every *= 20 if variant == "reference" else 1
    tried = wrong = 0
    for row in rows_in_steps_of(steps, every):
        logits, ranking = logits_of(row, "falling", np.float32)
        for kept, p in cuts(row):
            tried += 1
            wrong += fs.survivors(logits, top_p=p)[0].tolist() != ranking[:kept]
    assert wrong <= most * tried, f"{wrong} of {tried}"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
def test_halves_where_they_say_what_is_meant(
    variant: str, dtype: npt.DTypeLike, layout: str
) -> None:
    checked = 0
    for row in ROWS:
        logits, ranking = logits_of(row, layout, dtype)
        if not on_paper(logits, row, ranking):
            continue
        for kept, p in cuts(row):
            assert fs.survivors(logits, top_p=p)[0].tolist() == ranking[:kept], (row, p)
            checked += 1
    assert checked >= 3  # equal probabilities at least


@pytest.mark.parametrize("stage", [{"top_k": 5}, {"min_p": 1e-3}], ids=str)
def test_after_another_stage(variant: str, stage: dict[str, Any]) -> None:
    order = (*stage, "top_p")
    for row in affordable_rows(variant, "far apart"):
        logits, ranking = logits_of(row, "far apart", np.float32)
        for kept, p in cuts(row):
            ids = fs.survivors(logits, top_p=p, order=order, **stage)[0].tolist()
            assert ids == ranking[:kept], (row, p)


def test_what_is_forgiven_is_half_of_what_float32_tells_apart(variant: str) -> None:
    # Equal tokens weigh the same whole number, so that half of them are exactly half.
    for size in (4, 1000, 2**16):
        row = np.zeros(size, np.float32)
        for above, more in ((0.0, 0), (0.99, 0), (1.01, 1)):
            ids, _ = fs.survivors(row, top_p=0.5 * (1 + above * 2.0**-24))
            assert ids.size == size // 2 + more
