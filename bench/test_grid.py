"""The whole grid for every sampler that is installed, each result checked before it is timed.

`fastsample bench` is the five-minute version.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import pytest

import fastsample
from fastsample import bench

SAMPLERS = [*bench.cores(), *bench.RIVALS]
CASES = bench.grid(list(bench.ROWS), list(bench.WORKS), bench.DTYPES)
PAIRS = [
    pytest.param(sampler, case, id=f"{'-'.join(case)}-{sampler.name}")
    for case in CASES
    for sampler in SAMPLERS
    if sampler.exact or case.dtype == "float32"
]
SECONDS = 0.2  # of draws
LEAST, MOST = 5, 101  # draws


def median_us(benchmark: Any, prepared: bench.Prepared) -> float | None:
    """Return the median time of a draw, or None where nothing is timed (--benchmark-disable)."""
    if not benchmark.enabled:
        benchmark.pedantic(lambda: None)  # the draws of the check are enough
        return None
    times = bench.measure({"": (prepared, nullcontext)}, 0.0)[""]
    rounds = int(min(MOST, max(LEAST, SECONDS * 1e6 / times[len(times) // 2])))
    benchmark.pedantic(prepared.draw, setup=prepared.before, rounds=rounds, warmup_rounds=2)
    return float(benchmark.stats.stats.median) * 1e6


@pytest.mark.parametrize(("sampler", "case"), PAIRS)
def test_row(
    sampler: bench.Rival, case: bench.Case, benchmark: Any, report: dict[str, Any]
) -> None:
    if sampler.missing():
        pytest.skip(f"{sampler.name}: {sampler.missing()}")
    row = bench.make_row(case.row, case.dtype)
    params = bench.params_of(case.work, row.size)
    result = {**case._asdict(), "sampler": sampler.name, "vocab": row.size}
    report["results"].append(result)
    with sampler.active():
        try:
            prepared = sampler.prepare(row, params)
        except NotImplementedError as error:
            result["check"] = f"cannot: {error}"
            pytest.skip(f"{sampler.name}: {error}")
        result["check"] = bench.check(sampler, prepared, case, 0.0)
        benchmark.extra_info["check"] = result["check"]
        assert not result["check"].startswith("wrong")
        us = median_us(benchmark, prepared)
    if us is None:
        return
    # What it is compared with is timed at once after it: the clock of the processor drifts.
    calls: Any = {"r": (bench.Prepared(bench.make_row(case.row).max), nullcontext)}
    other = bench.basis(case)
    if other and sampler.exact:
        same = bench.make_row(other.row, other.dtype)
        calls["basis"] = bench.ready(sampler, same, bench.params_of(other.work, same.size))
    for name, times in bench.measure(calls, 0.02).items():
        result[f"{name}_us"] = float(np.median(times))
    result |= {"us": us, "ratio": us / result["r_us"]}
    benchmark.extra_info |= {"R_us": result["r_us"], "ratio": result["ratio"]}


@pytest.mark.parametrize("work", ["greedy", "min_p", "chain"])
def test_call(work: str, benchmark: Any, report: dict[str, Any]) -> None:
    row, params = bench.make_row("normal", vocab=16), bench.WORKS[work].params
    sampler = fastsample.Sampler(**params, seed=bench.SEED)
    assert 0 <= sampler(row) < row.size
    benchmark.pedantic(partial(sampler, row), rounds=101, warmup_rounds=5, iterations=1000)
    if benchmark.enabled:
        report["calls"] += bench.run_calls(SAMPLERS[:1], works=[work])
