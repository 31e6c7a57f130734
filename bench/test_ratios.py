"""The whole grid on every instruction set of this machine, each result checked before it is timed.

`fastsample bench` times other samplers on the same grid.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import pytest

import fastsample
from fastsample import bench

CORES = bench.cores()
CASES = bench.grid(list(bench.ROWS), list(bench.WORKS), bench.DTYPES)
ROUNDS = 101


def median_us(benchmark: Any, call: Callable[[], object], iterations: int = 1) -> float | None:
    """Return the median time of a call, or None where nothing is timed (--benchmark-disable)."""
    benchmark.pedantic(call, rounds=ROUNDS, warmup_rounds=5, iterations=iterations)
    return benchmark.stats.stats.median * 1e6 if benchmark.stats else None


@pytest.mark.parametrize("core", CORES, ids=lambda core: core.name.split()[1])
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_row(core: bench.Rival, case: bench.Case, benchmark: Any, report: dict[str, Any]) -> None:
    row, params = bench.make_row(case.row, case.dtype), bench.WORKS[case.work].params
    with core.active():
        ready = core.prepare(row, params)
        status = bench.check(core, ready, case, 0.0)
        assert status == "ok"
        us = median_us(benchmark, ready.draw)
    if us is None:
        return
    # R is taken at once after the draws: the clock of the processor drifts.
    same = bench.make_row(case.row)
    times = bench.measure({"R": (bench.Prepared(same.max), nullcontext)}, 0.02)["R"]
    r_us = float(np.median(times))
    benchmark.extra_info |= {"R_us": r_us, "ratio": us / r_us}
    result = {**case._asdict(), "sampler": core.name, "vocab": row.size, "check": status}
    report["results"].append(result | {"us": us, "r_us": r_us, "ratio": us / r_us})


@pytest.mark.parametrize("work", ["greedy", "min_p", "chain"])
@pytest.mark.parametrize("call", ["Sampler", "sample()"])
def test_call(call: str, work: str, benchmark: Any, report: dict[str, Any]) -> None:
    row, params = bench.make_row("normal", vocab=16), bench.WORKS[work].params
    ready = {
        "Sampler": partial(fastsample.Sampler(**params, seed=bench.SEED), row),
        "sample()": partial(fastsample.sample, row, **params, seed=bench.SEED),
    }[call]
    assert 0 <= ready() < row.size
    us = median_us(benchmark, ready, iterations=1000)
    if us is not None:
        report["overhead"][f"{call}, V = 16, {work}"] = us
