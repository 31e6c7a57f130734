"""What a report says of each target: the value reached, the bound, and whether it is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

from .grid import (
    ADVERSARIAL,
    AVX2_FACTOR,
    COMPARED,
    FLAT,
    FLAT_TOP_P_FASTER,
    FREE,
    GROWTH,
    HALF,
    HISTORY,
    NUMBA,
    NUMBA_FAMILY,
    SAMPLE_US,
    SAMPLER_US,
    STEP_US,
    TOLD_R,
    TOLD_TIMES,
    TWO_THREADS,
    VOCAB,
    WISHED_TOP_P,
)
from .histories import PASTS
from .runner import Report
from .works import FAMILY, WORKS

#: Samplers whose code for a stage is ours, as one writes it by hand; all others are published.
BY_HAND = ("NumPy", "torch")
JUDGED = ("normal", "recorded", "recorded-flat")  # rows that bounds of the core are about
#: What a work takes over that of another work.
OVER: dict[str, Callable[[Report], float]] = {
    "R more": lambda r: float((r["us"] - r["basis_us"]) / r["r_us"]),
    "times": lambda r: float(r["us"] / r["basis_us"]),
    "us more": lambda r: float(r["us"] - r["basis_us"]),
}


class Outcome(NamedTuple):
    """A value at a line and a column of a group's table; without a target it is only shown."""

    line: str
    work: str
    value: float
    target: float | None = None
    at_least: bool = False

    @property
    def excess(self) -> float:
        """How far the value is on the wrong side of its target: a factor, kept up to 1."""
        assert self.target is not None
        return self.target / self.value if self.at_least else self.value / self.target

    @property
    def missed(self) -> bool:
        """Whether there is a target, and the value is on the wrong side of it."""
        return self.target is not None and self.excess > 1.0


Outcomes: TypeAlias = "Iterator[Outcome]"


def find(report: Report, **keys: Any) -> list[Report]:
    """Return the timed results on rows that have these values."""
    timed = (r for r in report["results"] if "us" in r)
    return [r for r in timed if all(r[key] == value for key, value in keys.items())]


def best(report: Report) -> str:
    """Return the name of the sampler that targets are about."""
    samplers: dict[str, Report] = report["samplers"]
    return next(name for name, s in samplers.items() if s["own"] and not s["skipped"])


def fastest_other(report: Report, result: Report, by_hand: bool | None = None) -> Report | None:
    """Return the result of the fastest exact rival in the same case.

    With `by_hand` of those whose code is ours, or of those that are published.
    """
    case = {key: result[key] for key in ("row", "work", "dtype")}
    others = [
        r
        for r in find(report, **case, check="ok")
        if not report["samplers"][r["sampler"]]["own"]
        if by_hand in (None, r["sampler"] in BY_HAND)
    ]
    return min(others, key=lambda r: float(r["us"]), default=None)


def kind(result: Report) -> str:
    """Return the row and, where it is not float32, its type."""
    dtype = "" if result["dtype"] == "float32" else f" {result['dtype']}"
    return f"{result['row']}{dtype}"


def r_target(result: Report) -> float | None:
    """Return the bound on a result's ratio to R, where there is one."""
    factor = {"core avx512": 1.0, "core avx2": AVX2_FACTOR}.get(result["sampler"])
    work = WORKS[result["work"]]
    bounds = {"normal": work.normal, "recorded": work.recorded, "recorded-flat": work.recorded}
    bound = bounds.get(result["row"])
    if factor is None or bound is None or result["dtype"] != "float32":
        return None
    if result["work"] in FAMILY and factor != 1.0:
        return None
    return factor * bound


def faster_target(result: Report, published: bool) -> float | None:
    """Return how many times as fast as rivals a result is to be, where that is said.

    For the four stages of any rival, for all others of those that are published.
    """
    if published is not (result["work"] in FAMILY):
        return None
    if result["vocab"] != VOCAB or result["row"] not in COMPARED:
        return None
    if result["work"] == "top_p" and result["row"] in FLAT:
        return FLAT_TOP_P_FASTER
    return WORKS[result["work"]].faster


def _to_r(sampler: str) -> Callable[[Report], Outcomes]:
    def outcomes(report: Report) -> Outcomes:
        for r in find(report, sampler=sampler, dtype="float32"):
            if r["row"] in COMPARED:
                yield Outcome(r["row"], r["work"], r["ratio"], r_target(r))

    return outcomes


def _wished(report: Report) -> Outcomes:
    for r in find(report, sampler="core avx512", row="normal", work="top_p", dtype="float32"):
        yield Outcome("normal", "top_p", r["ratio"], WISHED_TOP_P)


def _faster(published: bool) -> Callable[[Report], Outcomes]:
    def outcomes(report: Report) -> Outcomes:
        for r in find(report, sampler=best(report)):
            other = fastest_other(report, r, by_hand=False if published else None)
            if other:
                target = faster_target(r, published)
                yield Outcome(kind(r), r["work"], other["us"] / r["us"], target, True)

    return outcomes


def _over(how: str) -> Callable[[Report], Outcomes]:
    def outcomes(report: Report) -> Outcomes:
        for r in find(report, sampler=best(report), dtype="float32"):
            over = WORKS[r["work"]].over
            if over and over.how == how and r["row"] in COMPARED:
                bound = over.bound if r["row"] in JUDGED else None
                yield Outcome(r["row"], r["work"], OVER[how](r), bound)

    return outcomes


def _half(report: Report) -> Outcomes:
    for r in find(report, sampler=best(report)):
        if r["dtype"] != "float32":
            yield Outcome(kind(r), r["work"], r["us"] / r["basis_us"], HALF.get(r["work"]))


def _adversarial(report: Report) -> Outcomes:
    for r in find(report, sampler=best(report), dtype="float32"):
        if r["row"] not in COMPARED:
            yield Outcome(r["row"], r["work"], r["us"] / r["basis_us"], ADVERSARIAL)


def _growth(report: Report, fits: bool) -> list[Report]:
    """Return growth results whose float32 row fits in L2, or those whose row does not."""
    l2 = report["machine"]["l2_bytes"]
    mine = [g for g in report.get("growth", []) if g["sampler"] == best(report)]
    return [g for g in mine if l2 and (4 * g["vocab"] < l2) is fits]


def _growth_in_l2(report: Report) -> Outcomes:
    results = _growth(report, fits=True)
    for g in results:
        least = min(o["us"] / o["vocab"] for o in results if o["work"] == g["work"])
        yield Outcome(f"V = {g['vocab']:,}", g["work"], g["us"] / g["vocab"] / least, GROWTH)


def _growth_beyond(report: Report) -> Outcomes:
    for g in _growth(report, fits=False):
        yield Outcome(f"V = {g['vocab']:,}", g["work"], g["us"] / g["r_us"], GROWTH)


def _calls(report: Report) -> Outcomes:
    for c in report.get("calls", []):
        if c["sampler"] == best(report):
            us = c["us"]
            if "noop(x)" in us:
                above = us["Sampler"] - us["noop(x)"]
                yield Outcome("Sampler, above noop(x)", c["work"], above, SAMPLER_US)
            yield Outcome("sample()", c["work"], us["sample()"], SAMPLE_US)
            for name in ("Sampler", "noop(x)", "x.max()"):
                if name in us:
                    yield Outcome(name, c["work"], us[name])


def _steps(report: Report) -> Outcomes:
    for s in report.get("step", []):
        if s["sampler"] == best(report):
            for name, us in s["us"].items():
                yield Outcome(name, "step", us, STEP_US if name == "step" else None)


def _told_to_r(report: Report) -> Outcomes:
    for t in report.get("told", []):
        if "us" in t and t["sampler"] != "numba":
            bound = TOLD_R.get(t["work"]) if t["sampler"] == "core avx512" else None
            yield Outcome(t["sampler"], t["work"], t["us"] / t["r_us"], bound)


def _told_beside_draws(report: Report) -> Outcomes:
    for t in report.get("told", []):
        if t["sampler"] == best(report) and "basis_us" in t:
            bound = TOLD_TIMES.get(t["work"])
            yield Outcome(t["sampler"], t["work"], t["us"] / t["basis_us"], bound)


def _histories(report: Report) -> Iterator[tuple[str, str, list[tuple[int, float]]]]:
    """Return text and work of what is timed after histories, and the times by their lengths."""
    for h in report.get("history", []):
        if h["sampler"] == best(report):
            yield h["text"], h["work"], sorted((int(n), us) for n, us in h["us"].items())


def _history(report: Report) -> Outcomes:
    for text, work, times in _histories(report):
        for length, us in times:
            yield Outcome(f"{text}, {length:,}", work, us)


def _history_growth(report: Report) -> Outcomes:
    for text, work, times in _histories(report):
        bound = None if PASTS[work].grows else HISTORY
        yield Outcome(text, work, times[-1][1] / times[0][1], bound)


def _batches(report: Report) -> Outcomes:
    for b in report.get("batches", []):
        if "us" in b and b["sampler"] == best(report):
            bound = TWO_THREADS if b["parallel"] >= FREE else None
            one = b["us"]["1"]
            yield Outcome("2 threads", b["work"], one / b["us"]["2"], bound, True)
            yield Outcome("default", b["work"], one / b["us"]["default"], None, True)


def _times(report: Report) -> Iterator[tuple[str, str, str, float]]:
    """Flatten all that was timed on one thread: sampler, where, work, microseconds."""
    for r in find(report):
        yield r["sampler"], kind(r), r["work"], r["us"]
    for g in report.get("growth", []):
        yield g["sampler"], f"V = {g['vocab']:,}", g["work"], g["us"]
    for b in report.get("batches", []):
        if "us" in b:
            yield b["sampler"], f"{b['rows']} rows", b["work"], b["us"]["1"]
    for name in ("Sampler", "sample()"):
        for c in report.get("calls", []):
            yield c["sampler"], f"{name}, V = 16", c["work"], c["us"][name]


def _numba(report: Report) -> Outcomes:
    times = {(sampler, where, work): us for sampler, where, work, us in _times(report)}
    for (sampler, where, work), us in times.items():
        core = times.get((best(report), where, work))
        if sampler == "numba" and core and best(report).startswith("core"):
            yield Outcome(where, work, us / core, NUMBA_FAMILY if work in FAMILY else NUMBA)


# What the values of each group are, and where they come from.
GROUPS: dict[str, Callable[[Report], Outcomes]] = {
    "Core on AVX-512: time / R": _to_r("core avx512"),
    "The same, if it can be had": _wished,
    "Core on AVX2: time / R": _to_r("core avx2"),
    "Times as fast as the fastest published sampler": _faster(published=True),
    "The same, with what one writes by hand": _faster(published=False),
    "Beyond min_p alone: (time - its) / R": _over("R more"),
    "Beside the chain alone: time / its": _over("times"),
    "Beyond the chain alone: microseconds": _over("us more"),
    "16-bit rows: time / float32's": _half,
    "Adversarial rows: time / normal row's": _adversarial,
    "Growth in L2: (time/V) / the smallest": _growth_in_l2,
    "Growth beyond L2: time / R": _growth_beyond,
    "Calls, V = 16: microseconds": _calls,
    "64 samplers, V = 16: microseconds": _steps,
    "Told of a draw: time / R": _told_to_r,
    "Told of a draw: time / the draw alone": _told_beside_draws,
    "After so many tokens, V = 16: microseconds": _history,
    "After the most tokens: time / after the fewest": _history_growth,
    "64 rows: times as fast as on one thread": _batches,
    "numba: time / core's": _numba,
}


def outcomes(report: Report) -> dict[str, list[Outcome]]:
    """Return the outcomes of each group that was measured."""
    found = {title: list(group(report)) for title, group in GROUPS.items()}
    return {title: group for title, group in found.items() if group}
