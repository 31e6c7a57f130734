"""What threads gain, and what they cost beside processes that compute without end.

Run it with an installed fastsample: ``python bench/threads.py [--busy 0 1 2] [--calls 200]``. For
each number of busy processes it prints the median and the 95th percentile of calls with one thread
and with as many as fastsample takes by default, in random order: where one always follows the
other, it gets what this has left of the scheduler's turn. On free cores the default should be
faster; beside busy ones it must not be slower.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

import fastsample

WORKS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "chain": {"temperature": 0.8, "top_k": 50, "top_p": 0.95},
}


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that compute without end."""
    command = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(command) for _ in range(count)]
    try:
        time.sleep(0.3 if others else 0.0)  # until they do
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def times(
    rows: npt.NDArray[np.float32], u: npt.NDArray[np.float64], calls: int, work: dict[str, Any]
) -> dict[str, npt.NDArray[np.float64]]:
    """Microseconds of each call, with one thread and by default, in random order."""
    taken: dict[str, list[float]] = {"one": [], "default": []}
    expected = fastsample.sample(rows, u=u, threads=1, **work)
    pair: list[tuple[str, int | None]] = [("one", 1), ("default", None)]
    for _ in range(calls):
        for name, threads in random.sample(pair, 2):
            start = time.perf_counter()
            tokens = fastsample.sample(rows, u=u, threads=threads, **work)
            taken[name].append((time.perf_counter() - start) * 1e6)
            if not np.array_equal(tokens, expected):
                sys.exit("tokens differ")
    return {name: np.array(values) for name, values in taken.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--shape", type=int, nargs=2, default=[64, 128_256])
    parser.add_argument("--backend", choices=["core", "numba"], default="core")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    rows = rng.normal(0, 2.5, options.shape).astype(np.float32)
    u = rng.random(len(rows))
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(f"{options.backend}, {rows.shape}, {os.cpu_count()} processors, load before {load:.1f}")
    print("busy  work     one: median    95 %   default: median    95 %   ratios")
    with fastsample.use_backend(options.backend):
        for count in options.busy:
            with busy(count):
                for name, work in WORKS.items():
                    taken = times(rows, u, options.calls, work)
                    one, default = (np.percentile(taken[key], [50, 95]) for key in taken)
                    ratios = "  ".join(f"{ratio:.2f}" for ratio in default / one)
                    print(
                        f"{count:4}  {name:6} {one[0]:12.0f} {one[1]:7.0f} {default[0]:17.0f}"
                        f" {default[1]:7.0f}   {ratios}"
                    )


if __name__ == "__main__":
    main()
