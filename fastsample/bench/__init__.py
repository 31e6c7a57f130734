"""Time every sampler that is installed on the same rows, each checked against the reference first.

One grid of cases, one list of samplers, one runner, one report, which is a dict as JSON holds it.
Depends on NumPy; a sampler or a plot that needs more says so where it is missing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from .grid import (
    COMPARED,
    DTYPES,
    ROWS,
    SEED,
    VOCAB,
    WORKS,
    Case,
    Target,
    grid,
    make_row,
    target,
    verdict,
)
from .report import (
    Table,
    aligned,
    growth_table,
    heading,
    notes,
    numeric,
    overhead_table,
    plot,
    rivals_table,
    targets_table,
)
from .rivals import RIVALS, Prepared, Rival, cores
from .runner import (
    Expected,
    Report,
    check,
    log,
    machine,
    measure,
    measure_overhead,
    run,
    run_case,
    run_growth,
)

__all__ = [
    "COMPARED",
    "DTYPES",
    "RIVALS",
    "ROWS",
    "SEED",
    "VOCAB",
    "WORKS",
    "Case",
    "Expected",
    "Prepared",
    "Report",
    "Rival",
    "Table",
    "Target",
    "aligned",
    "bench",
    "check",
    "cores",
    "grid",
    "growth_table",
    "heading",
    "log",
    "machine",
    "make_row",
    "measure",
    "measure_overhead",
    "notes",
    "numeric",
    "options",
    "overhead_table",
    "plot",
    "rivals_table",
    "run",
    "run_case",
    "run_growth",
    "show",
    "target",
    "targets_table",
    "verdict",
]


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `bench`."""
    add = parser.add_argument
    add("--quick", action="store_true", help="the compared rows only, and shorter: about 15 s")
    add("--smoke", action="store_true", help="check every case on short rows, and time nothing")
    add("--growth", action="store_true", help="also time rows of 8,000 to 1,000,000 logits")
    add("--seconds", type=float, metavar="S", help="time for each sampler in each case")
    for name, known in (("rows", ROWS), ("works", WORKS), ("rivals", [r.name for r in RIVALS])):
        text = f"comma-separated, out of {', '.join(known)}"
        text += " or none" if name == "rivals" else ""
        add(f"--{name}", metavar="A,B", help=text)
    add("--isa", metavar="A,B", help="comma-separated instruction sets (default: all here)")
    add("--json", metavar="FILE", help="write the report")
    add("--plot", metavar="FILE", help="draw it, as .png or .svg; needs matplotlib")


def _choose(args: argparse.Namespace, name: str, known: Sequence[str]) -> list[str]:
    given = getattr(args, name)
    names = [n.strip() for n in given.split(",")] if given else list(known)
    for unknown in set(names) - set(known):
        args.parser.error(f"argument --{name}: must be out of {', '.join(known)}, got {unknown}")
    return [n for n in known if n in names]


def bench(args: argparse.Namespace) -> None:
    """Time every sampler that is installed, each checked against the reference first."""
    rows = _choose(args, "rows", COMPARED[:2] if args.quick and not args.rows else list(ROWS))
    works = _choose(args, "works", list(WORKS))
    others = _choose(args, "rivals", ["none", *(r.name for r in RIVALS)])
    isas = _choose(args, "isa", [r.name.split()[1] for r in cores()])
    samplers = [r for r in cores() if r.name.split()[1] in isas]
    samplers += [r for r in RIVALS if r.name in others]
    if not samplers or not samplers[0].exact or samplers[0].missing():
        args.parser.error("fastsample's core or numba must be there to be timed")
    if args.plot and find_spec("matplotlib") is None:
        args.parser.error("argument --plot: needs matplotlib: pip install matplotlib")
    dtypes = ["float32"] if args.quick else list(DTYPES)
    if "bfloat16" in dtypes and find_spec("ml_dtypes") is None:
        log("skipped bfloat16 rows: not installed: pip install ml-dtypes")
        dtypes.remove("bfloat16")
    seconds = 0.0 if args.smoke else args.seconds or (0.03 if args.quick else 0.1)
    vocab = 4096 if args.smoke else VOCAB
    cases = grid(rows, works, dtypes)
    report = run(cases, samplers, seconds, bool(args.rows), vocab)
    if seconds:
        with samplers[0].active():
            report["overhead"] = measure_overhead()
        if args.growth:
            report["growth"] = run_growth(samplers[0], works, seconds)
    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=1) + "\n")
    show(report)
    if args.plot:
        plot(report, args.plot)
    wrong = [r for r in report["results"] if r["check"].startswith("wrong")]
    if wrong:
        args.parser.exit(1, f"{len(wrong)} cases were drawn wrongly\n")


def show(report: Report) -> None:
    """Print a report."""
    checked = sum(not r["check"].startswith("cannot") for r in report["results"])
    print(f"{heading(report)}\n\n{checked} results checked against the reference")
    tables = (
        targets_table(report),
        rivals_table(report),
        overhead_table(report),
        growth_table(report),
    )
    for table in tables:
        if table[1]:
            print(f"\n{aligned(table)}")
    print("\n" + "\n".join(notes(report)))
