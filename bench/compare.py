"""Tell whether one commit of fastsample is slower than another on this machine.

Builds both, runs them in turns in short processes of their own, and compares turn by turn. Depends
on git, pip, a C++ compiler and NumPy.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]

# Written out, not taken from fastsample.bench: an older commit has to understand them too.
WORKS = {
    "greedy": {"temperature": 0.0},
    "chain": {"temperature": 0.8, "top_k": 50, "top_p": 0.95},
    "top_k": {"top_k": 1000},
    "min_p": {"temperature": 0.8, "min_p": 0.05},
    "temperature": {"temperature": 0.8},
    "top_p": {"temperature": 0.8, "top_p": 0.95},
    "cold": {"temperature": 0.5},
}
VOCAB = 128_256
SLOWER = 1.03  # all of the middle half beyond this is a difference


def rows() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    made = {
        "normal": rng.normal(0, 2.5, VOCAB),
        "peaked": rng.gumbel(0, 4, VOCAB),
        "ascending": np.linspace(-9, 9, VOCAB),
    }
    return {name: row.astype(np.float32) for name, row in made.items()}


def time_installed(folder: str, seconds: float) -> dict[str, float]:
    """Return the median microseconds of each case, on the fastsample of one folder."""
    import fastsample

    if Path(fastsample.__file__).parents[1] != Path(folder):
        raise SystemExit(f"meant to time {folder}, got {fastsample.__file__}")
    medians = {}
    for kind, row in rows().items():
        for work, params in WORKS.items():
            sampler, times = fastsample.Sampler(**params, seed=1), []
            for _ in range(5):
                sampler(row)
            end = time.perf_counter() + seconds
            while len(times) < 7 or time.perf_counter() < end:
                start = time.perf_counter_ns()
                sampler(row)
                times.append(time.perf_counter_ns() - start)
            medians[f"{kind} {work}"] = float(np.median(times)) / 1e3
    return medians


def build(revision: str, folder: Path) -> None:
    """Install one revision, or the working tree for ".", into a folder."""
    source = ROOT
    if revision != ".":
        source = folder.with_suffix(".source")
        source.mkdir()
        tar = subprocess.run(
            ["git", "-C", str(ROOT), "archive", revision], stdout=subprocess.PIPE, check=True
        )
        subprocess.run(["tar", "-x", "-C", str(source)], input=tar.stdout, check=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--target", str(folder), str(source)], check=True)


def turn(folder: Path, seconds: float) -> dict[str, float]:
    """Time one build in a new process."""
    command = [sys.executable, __file__, "--time", str(folder), "--seconds", str(seconds)]
    env = os.environ | {"PYTHONPATH": str(folder)}
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True)
    times: dict[str, float] = json.loads(done.stdout)
    return times


def compare(old: str, new: str, turns: int, seconds: float) -> int:
    """Print the ratios of the times, new to old; return the number of cases that got slower."""
    with tempfile.TemporaryDirectory() as temporary:
        folders = [Path(temporary).resolve() / name for name in ("old", "new")]
        for revision, folder in zip((old, new), folders, strict=True):
            print(f"building {revision}", file=sys.stderr, flush=True)
            build(revision, folder)
        results = []
        for i in range(turns):
            # Old first, then new first: what drifts over time favours neither.
            order = (0, 1) if i % 2 == 0 else (1, 0)
            both = {which: turn(folders[which], seconds) for which in order}
            results.append((both[0], both[1]))
            print(f"turn {i + 1} of {turns}", file=sys.stderr, flush=True)
    print(f"{'case':24}{'old us':>9}{'new us':>9}{'new/old':>9}   25 % .. 75 %")
    slower = 0
    for case in results[0][0]:
        times = np.array([(a[case], b[case]) for a, b in results])
        low, middle, high = np.percentile(times[:, 1] / times[:, 0], (25, 50, 75))
        word = "slower" if low > SLOWER else "faster" if high < 1 / SLOWER else ""
        slower += word == "slower"
        was, now = np.median(times, axis=0)
        print(f"{case:24}{was:9.1f}{now:9.1f}{middle:9.3f}   {low:.3f} .. {high:.3f}  {word}")
    print(f"{slower} of {len(results[0][0])} cases are slower in {new} than in {old}")
    return slower


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python bench/compare.py HEAD~1 .\n"
        "The exit code is 1 where a case got slower.",
    )
    parser.add_argument("old", nargs="?", default="HEAD", help="a git revision (default HEAD)")
    parser.add_argument("new", nargs="?", default=".", help="a revision, or . for the working tree")
    parser.add_argument("--turns", type=int, default=8, help="processes of each (default 8)")
    text = "for each case in each process (default 0.05)"
    parser.add_argument("--seconds", type=float, default=0.05, help=text)
    parser.add_argument("--time", metavar="FOLDER", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.time:
        print(json.dumps(time_installed(args.time, args.seconds)))
        return 0
    return int(compare(args.old, args.new, args.turns, args.seconds) > 0)


if __name__ == "__main__":
    sys.exit(main())
