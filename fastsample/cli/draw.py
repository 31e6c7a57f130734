"""`fastsample draw`: tokens of stored logits, on this machine or a cluster, stopped and resumed."""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack, closing, nullcontext
from pathlib import Path
from time import perf_counter
from typing import Any, NoReturn

from .. import rows
from ..parameters import TABLE
from ..rows.engines import processors
from ..rows.journal import stored_fingerprint
from ..rows.run import fill, open_engine, open_output, piece_rows
from ..sampling import Errors
from .options import KINDS, add_sampling_options, refuse, sampling_parameters
from .values import InputFile, Number, OutputFile, Text

MEMORY = 256  # MiB

#: What has a state, which goes from token to token of a text, is not for rows that stand alone.
PARAMETERS = [name for name, p in TABLE.items() if p.stage not in ("mirostat", "adaptive")]


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `draw`."""
    parser.epilog = (
        f"{parser.epilog}\n\nneeds zarr for Zarr, tqdm for a progress bar, and dask for --dask:\n"
        "  pip install 'fastsample[rows]'; pip install 'fastsample[dask]'"
    )
    add = parser.add_argument
    text = "a .npy or .safetensors file, a folder of .npy files, or a Zarr array, of shape (N, V)"
    add("logits", type=InputFile(), metavar="LOGITS", help=text)
    text = "the tokens: .npy, int64, shape (N,)"
    output = OutputFile(".npy")
    add("-o", "--output", type=output, metavar="FILE.npy", required=True, help=text)
    add("--tensor", type=Text(), metavar="NAME", help="which tensor of LOGITS, if it has several")
    add_sampling_options(parser, names=PARAMETERS)
    text = "row r draws stream r of it (default: a random one, which is shown)"
    add("--seed", type=KINDS["seed"], metavar="N", help=text)
    text = "the step that all rows draw (default 0)"
    add("--offset", type=KINDS["offset"], default=0, metavar="N", help=text)
    text = "parameters, seeds and offsets that differ by row: .csv with names, or .npz of arrays"
    add("--columns", type=InputFile(".csv", ".npz"), metavar="FILE", help=text)
    add("--mark-bad", action="store_true", help="give a bad row the token -1, and count it")
    text = f"MiB of logits that are read at a time (default {MEMORY})"
    add("--memory", type=Number(1, 2**20), default=MEMORY, metavar="M", help=text)
    text = f"default: all {processors()} processors"
    add("--threads", type=Number(1, 1024), metavar="N", help=text)
    add("--resume", action="store_true", help="go on with a run that was stopped, if there is one")
    text = "draw on the workers of this scheduler, which find LOGITS under the same path"
    add("--dask", type=Text(), metavar="ADDRESS", help=text)
    add("--json", action="store_true", help="write JSON")


def the_draw(args: argparse.Namespace) -> rows.RowSampler:
    """Return what the options say of each row."""
    columns = rows.read_columns(args.columns) if args.columns else {}
    seed = args.seed
    if seed is None and args.resume and "seed" not in columns:
        seed = (stored_fingerprint(args.output) or {}).get("seed")
    errors: Errors = "mark" if args.mark_bad else "raise"
    given = sampling_parameters(args)
    return rows.RowSampler(seed, offset=args.offset, errors=errors, columns=columns, **given)


def progress_bar(total: int, done: int) -> Any:
    """Show rows, rows per second and time left on a terminal, where tqdm is installed."""
    try:
        from tqdm import tqdm
    except ImportError:
        return nullcontext()
    return tqdm(total=total, initial=done, unit=" rows", unit_scale=True, disable=None)


def draw(args: argparse.Namespace) -> None:
    """Draw a token from each row of stored logits, and write them to a file.

    A run that was stopped, by whatever, goes on with --resume. Tokens are those of one call of
    `sample` on all rows, however they are read.
    """
    with ExitStack() as stack:
        try:  # all that may be wrong with the options
            logits, how = rows.open_logits(args.logits, args.tensor), the_draw(args)
            engine = stack.enter_context(closing(open_engine(args.threads, args.dask)))
            size = piece_rows(logits, args.memory * 2**20, engine.width)
            file = stack.enter_context(open_output(logits, args.output, how, args.resume))
        except (ImportError, TypeError, ValueError) as error:
            _refuse(args, error)
        there = sum(len(piece) for piece in file.done)
        bar = stack.enter_context(progress_bar(len(logits), there))
        progress = bar.update if bar is not None else lambda rows: None
        since = perf_counter()
        done = fill(file, logits, how, engine, size, progress)
    seconds = perf_counter() - since
    drawn = done.rows - done.resumed
    report: dict[str, Any] = {
        "output": str(Path(args.output)),
        **done._asdict(),
        "seed": how.seed,
        "seconds": seconds,
        "rows_per_second": drawn / seconds,
        "bytes_per_second": drawn * logits.row_bytes / seconds,
    }
    print(json.dumps(report, indent=2) if args.json else summary(report))


def summary(report: dict[str, Any]) -> str:
    """Say what was written, how fast, and how to repeat it."""
    count, resumed = report["rows"], report["resumed"]
    there = f", {resumed:,} of them there already" if resumed else ""
    return (
        f"{report['output']}: {count:,} tokens{there}, {report['bad']:,} bad rows\n"
        f"{report['seconds']:.2f} s, {report['rows_per_second']:,.0f} rows/s, "
        f"{report['bytes_per_second'] / 1e9:.2f} GB/s\n"
        f"seed: {'by row' if report['seed'] is None else report['seed']}"
    )


def _refuse(args: argparse.Namespace, error: Exception) -> NoReturn:
    first, _, rest = str(error).partition(" ")
    if first == "logits":
        args.parser.error(f"argument LOGITS: {rest}")
    if first == "errors":
        args.parser.error(f"argument --mark-bad: {rest}")
    refuse(args, error, "columns" if first == "history" else "")
