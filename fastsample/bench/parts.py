"""What is timed beside the rows of the grid: calls, growth, batches, numba's compiler."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import Sampler, backends, sample, step
from ..backend import load
from .grid import VOCAB, make_row
from .prepared import Prepared
from .rivals import Rival
from .runner import Report, log, measure, ready
from .works import SEED, WORKS

CALLS = ("greedy", "min_p", "chain")  # works that take nearly no time on 16 logits
SIZES = (8_000, 16_000, 32_000, 64_000, VOCAB, 262_144, 524_288, 1_000_000)
BATCH = 64
THREADS = (1, 2, None)

# Run where nothing is cached: what numba compiles for `Sampler`, imports included.
COMPILE = """
import time
start = time.perf_counter()
import numpy, fastsample
with fastsample.use_backend("numba"):
    fastsample.Sampler(temperature=0.8, top_k=50, top_p=0.95, seed=1)(numpy.zeros(512, "f"))
print(time.perf_counter() - start)
"""


def run_calls(samplers: Sequence[Rival], works: Sequence[str] = CALLS) -> list[Report]:
    """Time draws from 16 logits beside the emptiest call that takes an array, and `x.max()`."""
    row, number = make_row("normal", vocab=16), 2000
    results = []
    for rival in samplers:
        for work in works:
            params = WORKS[work].params
            calls: dict[str, Callable[[], object]] = {"x.max()": row.max}
            if "core" in backends():
                calls["noop(x)"] = partial(load("core").noop, row)
            with rival.active():
                calls["Sampler"] = partial(Sampler(**params, seed=SEED), row)
                calls["sample()"] = partial(sample, row, **params, seed=SEED)
                us = _median_us(calls, number)
            results.append({"sampler": rival.name, "work": work, "us": us})
        log(f"calls: {rival.name}")
    return results


def run_steps(samplers: Sequence[Rival]) -> list[Report]:
    """Time `step` of 64 samplers, each with its own parameters, beside the same by other calls."""
    rows = np.random.default_rng(SEED).normal(0, 2.5, (BATCH, 16)).astype(np.float32)
    each: list[dict[str, Any]] = [
        {"temperature": 0.5 + i / BATCH, "top_k": 50 + i, "top_p": 1.0 - i / (4 * BATCH)}
        for i in range(BATCH)
    ]
    together = {name: [params[name] for params in each] for name in each[0]}
    results = []
    for rival in samplers:
        with rival.active():
            mine = [Sampler(**params, seed=SEED) for params in each]
            alone = [
                partial(Sampler(**params, seed=SEED), row)
                for params, row in zip(each, rows, strict=True)
            ]
            calls: dict[str, Callable[[], object]] = {
                "step": partial(step, mine, rows),
                "64 calls": partial(_call_all, alone),
                "sample, lists": partial(sample, rows, **together, seed=SEED),
            }
            us = _median_us(calls, number=20)
        results.append({"sampler": rival.name, "us": us})
        log(f"step: {rival.name}")
    return results


def _call_all(calls: Sequence[Callable[[], object]]) -> None:
    for call in calls:
        call()


def _median_us(calls: dict[str, Callable[[], object]], number: int) -> dict[str, float]:
    """Return the median microseconds of calls too short to be timed one by one, in turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(25):
        for name, call in calls.items():
            times[name].append(timeit.timeit(call, number=number) / number * 1e6)
    return {name: float(np.median(t)) for name, t in times.items()}


def run_growth(
    samplers: Sequence[Rival], works: Sequence[str], seconds: float, sizes: Sequence[int] = SIZES
) -> list[Report]:
    """Time draws from normal rows of growing size, beside `x.max()` of the same row."""
    results = []
    for vocab in sizes:
        row = make_row("normal", vocab=vocab)
        calls = {
            f"{rival.name}/{work}": ready(rival, row, WORKS[work].params)
            for rival in samplers
            for work in works
        }
        times = measure(calls | {"R": (Prepared(row.max), nullcontext)}, seconds)
        us = {name: float(np.median(t)) for name, t in times.items()}
        for name in calls:
            sampler, _, work = name.partition("/")
            result = {"vocab": vocab, "sampler": sampler, "work": work}
            results.append(result | {"us": us[name], "r_us": us["R"]})
        log(f"growth: V = {vocab:,}")
    return results


def parallel(repeats: int = 9) -> float:
    """Return how many times as much hashing two threads do as one: 2 on two free processors."""
    data, times = bytes(4 << 20), np.empty((repeats, 2))

    def work(_: int) -> None:
        hashlib.sha256(data)  # of many bytes: without the interpreter's lock

    with ThreadPoolExecutor(2) as pool:
        for i in range(repeats):
            for count in (1, 2):
                start = time.perf_counter()
                list(pool.map(work, range(count)))
                times[i, count - 1] = time.perf_counter() - start
    one, two = np.median(times, axis=0)
    return float(2 * one / two)


def run_batches(
    samplers: Sequence[Rival], works: Sequence[str], seconds: float, vocab: int = VOCAB
) -> list[Report]:
    """Draw from 64 rows on one thread, on two and on the default; all must draw the same.

    With `seconds` 0 nothing is timed.
    """
    rows = np.random.default_rng(SEED).normal(0, 2.5, (BATCH, vocab)).astype(np.float32)
    results = []
    for rival in samplers:
        for work in works:
            params = WORKS[work].params
            with rival.active():
                calls = {
                    str(n or "default"): partial(Sampler(**params, seed=SEED, threads=n), rows)
                    for n in THREADS
                }
                tokens = [np.asarray(call()).tolist() for call in calls.values()]
            same = all(drawn == tokens[0] for drawn in tokens)
            check = "ok" if same else "wrong: tokens depend on the number of threads"
            result = {"sampler": rival.name, "work": work, "rows": BATCH, "vocab": vocab}
            results.append(result | {"check": check})
            if seconds:
                turns = {name: (Prepared(call), rival.active) for name, call in calls.items()}
                before, times, after = parallel(), measure(turns, 2 * seconds), parallel()
                results[-1]["parallel"] = min(before, after)
                results[-1]["us"] = {name: float(np.median(t)) for name, t in times.items()}
        log(f"batches: {rival.name}")
    return results


def numba_first_s() -> list[float]:
    """Return how long numba's first draw takes in a new process: its cache empty, then full."""
    log("numba: compiling with an empty cache")
    with tempfile.TemporaryDirectory() as folder:
        # The fastsample of this process, wherever the new one starts.
        env = os.environ | {"NUMBA_CACHE_DIR": folder, "PYTHONPATH": str(Path(__file__).parents[2])}
        command = [sys.executable, "-W", "ignore", "-c", COMPILE]
        return [
            float(
                # Not where this one is: a checkout's root has a fastsample that is not built.
                subprocess.run(
                    command, env=env, cwd=folder, stdout=subprocess.PIPE, check=True
                ).stdout
            )
            for _ in range(2)
        ]
