"""What the benchmarks share: the installed core as the one that is timed, and the table of ratios.

A time never fails a test: the table says what was met and what was missed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]

# `python -m pytest`, or PYTHONPATH, may have put the root on the path, where `import fastsample`
# finds the source folder, which has no extension.
sys.path[:] = [p for p in sys.path if Path(p or os.curdir).resolve() != ROOT]

REPORT = pytest.StashKey[dict[str, Any]]()


def pytest_configure(config: pytest.Config) -> None:
    import fastsample
    from fastsample import bench

    if fastsample.build_info()["backend"] != "core":
        raise pytest.UsageError(
            f"the benchmarks are of the core, which {Path(fastsample.__file__).parent} lacks: "
            "pip install '.[test]' with a C++ compiler at hand"
        )
    report: dict[str, Any] = {"format": bench.FORMAT, "machine": bench.machine(), "samplers": {}}
    for rival in [*bench.cores(), *bench.RIVALS]:
        entry = {"own": rival.exact, "skipped": rival.missing(), "versions": {}}
        report["samplers"][rival.name] = entry
    config.stash[REPORT] = report | {"results": [], "calls": []}


@pytest.fixture
def report(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return the results so far, in the form of `fastsample bench`."""
    return request.config.stash[REPORT]


@pytest.hookimpl(trylast=True)  # under pytest-benchmark's own long table
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    from fastsample import bench

    report = terminalreporter.config.stash[REPORT]
    if bench.outcomes(report):
        terminalreporter.section("times, as ratios to R = x.max() of the same float32 row")
        for line in f"{bench.summary(report)}\n\n{bench.details(report)}".splitlines():
            terminalreporter.line(line)
