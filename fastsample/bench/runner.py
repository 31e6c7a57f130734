"""Check each sampler against the reference in each case, then time it."""

from __future__ import annotations

import gc
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import cache, lru_cache
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from .. import build_info, survivors, use_backend
from ..arrays import as_rows
from ..reference import mask, to_float32, uniform
from ..reference.edits import apply, edits_of
from ..reference.edits.edit import Edit
from .grid import COMPARED, SUMMARISED, VOCAB, Case, Row, basis, make_row
from .prepared import Prepared
from .rivals import Active, Rival
from .works import EDITS, MAIN, SEED, Params, params_of

Report: TypeAlias = "dict[str, Any]"
FORMAT = 2  # of a report
CANNOT = "cannot: "  # what a check says before the reason
CHECKED = 16  # draws compared one by one
# The bound on a cumulative probability: a weight is rounded to 2^-27 of its block's largest, and
# its exponential is within 3 ULP of 2^-23.
MASS_ERROR = 1e-6


CUTS = ("top_p", "typical_p")  # parameters that are a mass


class Expected:
    """What the reference says of one case."""

    def __init__(self, row: Row, params: Params, edits: Iterable[Edit] = ()) -> None:
        rows, _ = as_rows(row)
        self.row = apply(to_float32(rows)[0], edits)
        if "allowed" in params:
            self.row = mask.apply(self.row, mask.allowed_of(self.row.size, params["allowed"]))
        params = {name: value for name, value in params.items() if name not in EDITS}
        self.ids, probs = _survivors(self.row, params)
        self.cdf = np.zeros(self.row.size + 1)
        self.cdf[1 + self.ids] = probs
        np.cumsum(self.cdf, out=self.cdf)
        # Rounding may move the cut by less than this much mass.
        self.inner = self.outer = self.ids
        for name in CUTS:
            if name in params:
                self.inner, self.outer = (
                    _survivors(self.row, params | {name: params[name] + bound})[0]
                    for bound in (-MASS_ERROR, MASS_ERROR)
                )

    def wrong(self, row: Row, params: Params, ready: Prepared) -> str | None:
        """Say what an exact sampler got wrong, or None; it must be at offset 0 of SEED."""
        for offset in range(CHECKED):
            token, u = ready.next(), uniform(SEED, 0, offset)
            low, high = self.cdf[token] - MASS_ERROR, self.cdf[token + 1] + MASS_ERROR
            if not low <= u * self.cdf[-1] < high or token not in self.outer:
                return f"drew {token} at u = {u}"
        kept, _ = survivors(row, **params)
        if np.isin(self.inner, kept).all() and np.isin(kept, self.outer).all():
            return None
        return f"kept {kept.size} tokens, the reference {self.ids.size}"

    def outside(self, tokens: Sequence[int]) -> int:
        """Count tokens less or more probable than any survivor.

        Which of two equal ones is kept is free.
        """
        drawn, kept = self.row[list(tokens)], self.row[self.outer]
        return int(np.sum((drawn < kept.min()) | (drawn > kept.max())))


def _survivors(row: Row, params: Params) -> Any:
    with use_backend("reference"):
        return survivors(row, **params)


@cache  # a long history takes the reference a while
def edits(work: str, vocab: int) -> tuple[Edit, ...]:
    """Return what the history and the biases of a work do to rows of a size."""
    params = params_of(work, vocab)
    given = {name: params[name] for name in EDITS if name in params}
    given["logit_bias"] = tuple(params.get("logit_bias", {}).items())
    history = np.asarray(params.get("history", ()), np.int64).tolist()
    return tuple(edits_of(history, params.get("prompt_length", 0), vocab, given).values())


@lru_cache(maxsize=1)  # the samplers of one case follow each other
def expected(case: Case, vocab: int = VOCAB) -> Expected:
    """Return what the reference says of a case of the grid."""
    row = make_row(case.row, case.dtype, vocab)
    return Expected(row, params_of(case.work, row.size), edits(case.work, row.size))


def zipf_row(vocab: int) -> Row:
    """Return logits whose probabilities fall as 1/rank, in random order."""
    ranks = np.random.default_rng(SEED).permutation(vocab) + 1
    return -np.log(ranks).astype(np.float32)


def draws(ready: Prepared, least: int, seconds: float = 0.0) -> list[int]:
    """Draw at least that often, and up to 1,000 times while `seconds` have not gone by."""
    tokens: list[int] = []
    start = time.perf_counter()
    while len(tokens) < least or (len(tokens) < 1000 and time.perf_counter() - start < seconds):
        tokens.append(ready.next())
    return tokens


@cache
def outside_short(rival: Rival, work: str, count: int = 500) -> int:
    """Count draws outside the survivors of a short row, where many can be had of any sampler."""
    row = zipf_row(2048)
    params = params_of(work, row.size)
    said = Expected(row, params, edits(work, row.size))
    return said.outside(draws(rival.prepare(row, params), count))


def check(rival: Rival, ready: Prepared, case: Case, seconds: float, vocab: int = VOCAB) -> str:
    """Return "ok", or what is wrong with a sampler's draws; it must be active."""
    if rival.exact:
        row = make_row(case.row, case.dtype, vocab)
        wrong = expected(case, vocab).wrong(row, params_of(case.work, row.size), ready)
        return f"wrong: {wrong}" if wrong else "ok"
    tokens = draws(ready, CHECKED, seconds)
    outside = expected(case, vocab).outside(tokens), outside_short(rival, case.work)
    if any(outside):
        return f"inexact ({outside[0]} of {len(tokens)} outside, {outside[1]} of 500 on a Zipf row)"
    return "ok"


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python's garbage collector out of the times."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@_no_collection()
def measure(calls: dict[str, tuple[Prepared, Active]], seconds: float) -> dict[str, list[float]]:
    """Return sorted times in microseconds, of turns that interleave over about `seconds` each."""
    clock = time.perf_counter_ns
    times: dict[str, list[float]] = {name: [] for name in calls}

    def turn(name: str, count: int) -> None:
        (draw, before, _), active = calls[name]
        with active():
            for _ in range(1 + count):
                if before:
                    before()
                start = clock()
                draw()
                times[name].append((clock() - start) / 1e3)
        del times[name][-1 - count]  # the first call after another sampler finds a cold cache

    for name in calls:
        turn(name, 2)
    counts = {name: min(500, max(5, int(seconds * 1e6 / min(t)))) for name, t in times.items()}
    sizes = {name: min(counts[name], max(1, int(1000 / min(t)))) for name, t in times.items()}
    turns = {name: -(-counts[name] // sizes[name]) for name in calls}
    most = max(turns.values())
    for i in range(most):
        for name, n in turns.items():
            if (i + 1) * n // most > i * n // most:
                turn(name, sizes[name])
    return {name: sorted(t[2:]) for name, t in times.items()}


def ready(rival: Rival, row: Row, params: Params) -> tuple[Prepared, Active]:
    """Make a sampler ready for a row, as `measure` takes it: while it is the one in use."""
    with rival.active():
        return rival.prepare(row, params), rival.active


def _attempt(rival: Rival, case: Case, seconds: float, vocab: int) -> tuple[str, Prepared | None]:
    """Return what `check` says of a sampler, and the sampler where it can be timed."""
    row = make_row(case.row, case.dtype, vocab)
    params = params_of(case.work, row.size)
    try:
        with rival.active():
            prepared = rival.prepare(row, params)
            status = check(rival, prepared, case, min(0.1, seconds), vocab)
    except NotImplementedError as error:
        return f"{CANNOT}{error}", None
    except Exception as error:  # of another's library, which must not end the run
        if rival.exact:
            raise
        return f"failed: {type(error).__name__}: {error}", None
    return status, None if status.startswith("wrong") else prepared


def run_case(
    case: Case, samplers: Sequence[Rival], seconds: float, vocab: int = VOCAB
) -> list[Report]:
    """Check each sampler in one case, then time those that draw the right tokens, or say so.

    With `seconds` 0 nothing is timed.
    """
    row, other = make_row(case.row, case.dtype, vocab), basis(case)
    results, calls = [], {}
    for rival in samplers:
        status, prepared = _attempt(rival, case, seconds, vocab)
        results.append(
            {**case._asdict(), "vocab": row.size, "sampler": rival.name, "check": status}
        )
        if prepared:
            calls[rival.name] = prepared, rival.active
            if prepared.build:
                calls[f"{rival.name} build"] = Prepared(prepared.build), nullcontext
            if other and rival.exact:
                same = make_row(other.row, other.dtype, vocab)
                calls[f"{rival.name} basis"] = ready(rival, same, params_of(other.work, same.size))
    if not seconds:
        return results
    calls["R"] = Prepared(make_row(case.row, "float32", vocab).max), nullcontext
    times = {name: np.percentile(t, (25, 50, 75)) for name, t in measure(calls, seconds).items()}
    for result in results:
        name = result["sampler"]
        if name in times:
            result["us_quartiles"] = times[name].tolist()
            result["us"], result["r_us"] = float(times[name][1]), float(times["R"][1])
            result["ratio"] = result["us"] / result["r_us"]
            for part in ("build", "basis"):
                if f"{name} {part}" in times:
                    result[f"{part}_us"] = float(times[f"{name} {part}"][1])
    return results


def l2_bytes() -> int | None:
    """Return the size of the first processor's L2 cache, where Linux tells it."""
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        with suppress(OSError, ValueError):
            if (index / "level").read_text().strip() == "2":
                return int((index / "size").read_text().strip().removesuffix("K")) * 1024
    return None


def commit() -> str | None:
    """Return the commit of the checkout that this is run from, if it is what is installed.

    Only the Python files can be compared: the extension has none of its sources with it.
    """
    installed, checkout = Path(__file__).parents[1], Path("fastsample")
    files = [path.relative_to(checkout) for path in checkout.rglob("*.py")]
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    with suppress(OSError, subprocess.CalledProcessError):
        same = ((installed / f).read_bytes() == (checkout / f).read_bytes() for f in files)
        if files and all(same):
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            return done.stdout.strip()
    return None


def machine() -> Report:
    """Return what the times were taken on."""
    cpu = platform.processor()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), cpu)
    info = {name: v for name, v in build_info().items() if name not in ("backends", "backend")}
    return {
        "cpu": cpu,
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "load": os.getloadavg()[0],  # before the run: what else the processors were busy with
        "l2_bytes": l2_bytes(),
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        **info,
    }


def log(text: str, end: str = "\n") -> None:
    """Show progress."""
    print(text, end=end, file=sys.stderr, flush=True)


def main_pair(samplers: Sequence[Rival]) -> list[Rival]:
    """Return the samplers that targets are about: the first, and numba."""
    return [s for s in samplers if s is samplers[0] or (s.exact and s.name == "numba")]


def usable(samplers: Sequence[Rival], report: Report) -> list[Rival]:
    """Return the samplers that run here, and note in the report what is known of each."""
    found = []
    for rival in samplers:
        entry: Report = {"own": rival.exact, "skipped": rival.missing(), "versions": {}}
        report["samplers"][rival.name] = entry
        if not entry["skipped"]:
            try:
                draws(ready(rival, make_row("normal", vocab=512), params_of(rival.has, 512))[0], 1)
                entry["versions"] = {p: version(p) for p in rival.needs.values()}
                found.append(rival)
            except Exception as error:  # an installation that is broken is not the others' fault
                if rival.exact:
                    raise
                entry["skipped"] = f"it does not run: {error}"
        if entry["skipped"]:
            log(f"skipped {rival.name}: {entry['skipped']}")
    return found


def run(
    cases: Sequence[Case],
    samplers: Sequence[Rival],
    seconds: float,
    everywhere: bool = False,
    vocab: int = VOCAB,
) -> Report:
    """Run the cases and return the report.

    The samplers that targets are about get every case; the others get float32 on the rows of
    COMPARED, those of SUMMARISED where a work is not of the MAIN, and with `everywhere` on all.
    """
    report: Report = {"format": FORMAT, "machine": machine(), "samplers": {}, "results": []}
    start, done = time.perf_counter(), 0
    able = usable(samplers, report)
    for (row, dtype), group in groupby(cases, key=lambda case: case[1:]):
        log(f"{time.perf_counter() - start:4.0f} s  {done:>3} of {len(cases)}  ", end="")
        log(f"{row} {dtype}:", end="")
        for case in group:
            log(f" {case.work}", end="")
            compared = COMPARED if case.work in MAIN else SUMMARISED
            shared = dtype == "float32" and (everywhere or row in compared)
            chosen = able if shared else main_pair(able)
            report["results"] += run_case(case, chosen, seconds, vocab)
            done += 1
        log("")
    return report
