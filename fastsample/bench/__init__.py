"""Time every sampler that is installed on the same rows, each checked against the reference first.

One grid of cases, one list of samplers, one runner, one report, which is a dict as JSON holds it.
Depends on NumPy; a sampler or a plot that needs more says so where it is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .grid import COMPARED, DTYPES, ROWS, VOCAB, Case, basis, grid, make_row
from .histories import run_histories
from .parts import numba_first_s, run_batches, run_calls, run_growth, run_steps
from .prepared import Prepared
from .report import (
    CHOSEN,
    Table,
    aligned,
    checked,
    detail_tables,
    details,
    growth_path,
    heading,
    inexact,
    legend,
    losses,
    notes,
    numeric,
    row_tables,
    summary,
    summary_table,
    targets_table,
    verdict,
)
from .rivals import RIVALS, Rival, cores
from .runner import (
    FORMAT,
    Expected,
    Report,
    check,
    log,
    machine,
    main_pair,
    measure,
    ready,
    run,
    run_case,
)
from .runtimes import RUNTIMES, Runtime, run_runtimes, runtimes_heading, runtimes_table
from .targets import BY_HAND, GROUPS, Outcome, best, outcomes
from .told import run_told
from .works import FAMILY, MAIN, SEED, WORKS, described, params_of

__all__ = [
    "BY_HAND",
    "CHOSEN",
    "COMPARED",
    "DTYPES",
    "FAMILY",
    "FORMAT",
    "GROUPS",
    "MAIN",
    "PARTS",
    "RIVALS",
    "ROWS",
    "RUNTIMES",
    "SEED",
    "VOCAB",
    "WORKS",
    "Case",
    "Expected",
    "Outcome",
    "Prepared",
    "Report",
    "Rival",
    "Runtime",
    "Table",
    "aligned",
    "basis",
    "best",
    "check",
    "checked",
    "cores",
    "described",
    "detail_tables",
    "details",
    "grid",
    "growth_path",
    "heading",
    "inexact",
    "legend",
    "log",
    "losses",
    "machine",
    "main_pair",
    "make_row",
    "measure",
    "notes",
    "numba_first_s",
    "numeric",
    "outcomes",
    "params_of",
    "plot",
    "ready",
    "row_tables",
    "run",
    "run_batches",
    "run_calls",
    "run_case",
    "run_growth",
    "run_histories",
    "run_parts",
    "run_runtimes",
    "run_steps",
    "run_told",
    "runtimes_heading",
    "runtimes_table",
    "summary",
    "summary_table",
    "targets_table",
    "verdict",
]

PARTS = ("calls", "step", "history", "growth", "batches", "compile", "told")  # beside the rows


def run_parts(
    parts: Sequence[str],
    samplers: Sequence[Rival],
    works: Sequence[str],
    seconds: float,
    vocab: int,
) -> Report:
    """Run parts, out of PARTS; with `seconds` 0 only what is checked.

    Growth and batches are of those works that are among the MAIN ones.
    """
    works = [work for work in works if work in MAIN]
    pair = [s for s in main_pair(samplers) if not s.missing()]
    steps: dict[str, tuple[str, Callable[[], Any]]] = {
        "calls": ("calls", lambda: run_calls(pair)),
        "step": ("step", lambda: run_steps(pair)),
        "history": ("history", lambda: run_histories(pair, seconds)),
        "growth": ("growth", lambda: run_growth(pair, works, seconds)),
        "batches": ("batches", lambda: run_batches(pair, works, seconds, vocab)),
        "compile": ("numba_first_s", numba_first_s),
        "told": (
            "told",
            lambda: run_told(pair, seconds, vocab),
        ),  # torch, once imported, has threads
    }
    wanted = [p for p in parts if p in steps and (seconds or p in ("batches", "told"))]
    if not any(s.name == "numba" for s in pair):
        wanted = [p for p in wanted if p != "compile"]
    return {key: step() for key, step in (steps[p] for p in wanted)}


def plot(report: Report, path: str) -> list[str]:
    """Draw a report; needs matplotlib. Return the names of the files."""
    from .plots import plot as draw

    return draw(report, path)
