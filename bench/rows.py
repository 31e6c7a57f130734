"""How many stored rows a second `fastsample draw` takes, beside reading them alone.

Run it with an installed fastsample::

    python bench/rows.py --into docs/offline.md
    python bench/rows.py --make logits.npy --gib 4     # a file of that size, and nothing else

The table has rows of float16, bfloat16 and float32, by one core, two cores, and two workers of
dask where it is installed; every result is compared with one call of `sample`. Beside them stands
NumPy's ``x.max()`` over the same file, mapped into memory and cached as it is: what reading takes.
Where a number has two bytes that is of the bits as integers, because NumPy lacks bfloat16, and
widens float16 number by number (its ``x.max()`` is a line of its own).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from report import insert

import fastsample
from fastsample import rows

V = 128_256
CHAIN: dict[str, Any] = {"temperature": 0.8, "top_k": 50, "top_p": 0.95}
READING = "`x.max()`, one core"
DTYPES = ("float16", "bfloat16", "float32")


def make(path: Path, dtype: str, size: int) -> None:
    """Write rows of about so many bytes, normal with a deviation of 2.5."""
    kind = np.dtype("<f4" if dtype == "float32" else "<f2" if dtype == "float16" else "V2")
    count = max(1, size // (V * kind.itemsize))
    about = {"descr": kind.descr[0][1], "fortran_order": False, "shape": (count, V)}
    rng = np.random.default_rng(0)
    values = (2.5 * rng.standard_normal(64 * V + count, np.float32)).astype(np.float32)
    if dtype == "bfloat16":
        values = (values.view(np.uint32) >> np.uint32(16)).astype(np.uint16).view("V2")
    else:
        values = values.astype(kind)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, about)
        for row in range(count):  # no two rows are the same
            start = row % 64 * V + row // 64
            file.write(values[start : start + V].tobytes())


def medians(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median time of each call in seconds; they take turns."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            since = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - since)
    return {name: float(np.median(times)) for name, times in taken.items()}


def measure(folder: Path, dtype: str, size: int, rounds: int, address: str | None) -> list[str]:
    """Return the lines of a dtype."""
    path, out = folder / f"{dtype}.npy", folder / "tokens.npy"
    make(path, dtype, size)
    logits, draw = rows.open_logits(path), rows.RowSampler(seed=1, **CHAIN)
    expected = draw(logits.read(0, len(logits)))

    def drawn(**options: Any) -> Callable[[], object]:
        def call() -> None:
            rows.draw_file(logits, out, draw, **options)
            assert np.array_equal(np.load(out), expected)

        return call

    def largest(kind: type[Any] | None) -> object:
        mapped = np.load(path, mmap_mode="r")
        return np.asarray(mapped if kind is None else mapped.view(kind)).max()

    ways: dict[str, Callable[[], object]] = {}
    if dtype == "float16":
        ways["`x.max()` as float16"] = lambda: largest(None)
    ways[READING] = lambda: largest(np.uint16 if logits.dtype.itemsize == 2 else None)
    ways |= {"one core": drawn(threads=1), "two cores": drawn(threads=2)}
    if address:
        ways["two workers of dask"] = drawn(dask=address)
    taken = medians(ways, rounds)
    r = taken[READING]
    count, total = len(logits), len(logits) * logits.row_bytes
    return [
        f"| {dtype} | {name} | {count / t:,.0f} | {total / t / 1e9:.1f} | {r / t:.2f} |"
        for name, t in taken.items()
    ]


def table(size: int, rounds: int) -> None:
    """Measure, and print the table with its machine."""
    print("| rows of | by | rows/s | GB/s | of `x.max()` |")
    print("|---|---|--:|--:|--:|")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=".")))
        address = None
        if find_spec("distributed"):
            import distributed

            cluster = distributed.LocalCluster(
                n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
            )
            address = stack.enter_context(cluster).scheduler_address
        for dtype in DTYPES:
            print("\n".join(measure(folder, dtype, size, rounds, address)), flush=True)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    info = fastsample.build_info()
    print(
        f"\n{V:,} tokens, {CHAIN}; {size / 2**30:.3g} GiB of each, cached; medians of "
        f"{rounds}; {os.cpu_count()} processors, load {load:.1f}, {info['backend']} "
        f"{info['isa']}, fastsample {info['version']}, numpy {info['numpy']}."
    )


def main() -> None:
    """Make a file, or measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--make", type=Path, metavar="FILE", help="write such a file, and stop")
    parser.add_argument("--dtype", choices=DTYPES, default="float16", help="of --make")
    parser.add_argument("--gib", type=float, default=1.0, help="how large a file is (default 1)")
    parser.add_argument("--rounds", type=int, default=5, help="the median of so many (default 5)")
    text = "write the table between its marks in this file (default: print it)"
    parser.add_argument("--into", type=Path, metavar="FILE", help=text)
    options = parser.parse_args()
    size = int(options.gib * 2**30)
    if options.make:
        return make(options.make, options.dtype, size)
    if not options.into:
        return table(size, options.rounds)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        table(size, options.rounds)
    insert(options.into, out.getvalue(), "rows")


if __name__ == "__main__":
    main()
