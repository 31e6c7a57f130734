"""Turn a report, a dict as JSON holds it, into tables and a plot."""

from __future__ import annotations

from importlib import import_module
from typing import Any, TypeAlias

import numpy as np

from .grid import COMPARED, OVERHEAD_US, Case, Target, target, verdict
from .runner import Report

Table: TypeAlias = "tuple[list[str], list[list[str]]]"  # header, rows


def find(report: Report, **keys: Any) -> list[Report]:
    """Return the timed results that have these values."""
    timed = (r for r in report["results"] if "us" in r)
    return [r for r in timed if all(r[key] == value for key, value in keys.items())]


def outcome(report: Report, result: Report) -> tuple[float, Target] | None:
    """Return a result of the core as the ratio that its target is about, and the target."""
    name, _, isa = result["sampler"].partition(" ")
    aim = target(Case(result["work"], result["row"], result["dtype"]), isa)
    if name != "core" or aim is None:
        return None
    if aim.basis == "R":
        return result["ratio"], aim
    row = "normal" if aim.basis == "normal" else result["row"]
    same = {"sampler": result["sampler"], "work": result["work"]}
    found = find(report, **same, row=row, dtype="float32")
    return (result["us"] / found[0]["us"], aim) if found else None


def targets_table(report: Report) -> Table:
    """Tabulate fastsample's times, its targets, and the fastest exact rival beside."""
    header = ["row", "work", "sampler", "us", "x R", "reached", "limit", "goal", ""]
    lines = []
    for r in (r for r in find(report) if report["samplers"][r["sampler"]]["own"]):
        line = [_kind(r), r["work"], r["sampler"], f"{r['us']:.1f}", f"{r['ratio']:.2f}"]
        reached = outcome(report, r)
        if reached:
            ratio, aim = reached
            limit = f"{aim.limit:g}" if aim.limit else ""
            line += [f"{ratio:.2f} {aim.basis}", limit, f"{aim.goal:g}", verdict(ratio, aim)]
        else:
            line += [""] * 4
        others = [
            o
            for o in find(report, row=r["row"], work=r["work"], dtype=r["dtype"])
            if o["check"] == "ok" and not report["samplers"][o["sampler"]]["own"]
        ]
        if others:
            best = min(others, key=lambda o: float(o["us"]))
            ratio = best["us"] / r["us"]
            line += [best["sampler"], f"{ratio:.3g}" + " LOSS" * (ratio < 1.0)]
        lines.append(line + [""] * (len(header) + 2 - len(line)))
    return [*header, "fastest other", "its us / ours"], lines


def rivals_table(report: Report) -> Table:
    """Tabulate the times of all samplers; what is inexact or has a part is marked."""
    names = [name for name, s in report["samplers"].items() if not s["skipped"]]
    lines: dict[tuple[str, str], list[str]] = {}
    for r in find(report):
        line = lines.setdefault((_kind(r), r["work"]), [f"{r['r_us']:.1f}", *["-"] * len(names)])
        part = f" ({r['build_us']:.0f} build)" if "build_us" in r else ""
        line[1 + names.index(r["sampler"])] = f"{r['us']:.1f}{part}{'*' * (r['check'] != 'ok')}"
    table = [[*key, *line] for key, line in lines.items() if line.count("-") < len(names) - 1]
    return ["row", "work", "R", *names], table


def overhead_table(report: Report) -> Table:
    """Tabulate what a call costs."""
    lines = []
    for name, us in report.get("overhead", {}).items():
        limit = OVERHEAD_US.get(name.partition(",")[0])
        aim = [f"{limit:g}", "ok" if us <= limit else "miss"] if limit else ["", ""]
        lines.append([name, f"{us:.2f}", *aim])
    return ["call", "us", "limit", ""], lines


def growth_table(report: Report) -> Table:
    """Tabulate nanoseconds a logit by the size of the vocabulary."""
    growth = report.get("growth", [])
    lines = [
        [str(g["vocab"]), *(f"{1e3 * us / g['vocab']:.4f}" for us in g["us"].values())]
        for g in growth
    ]
    return ["V", *(f"{name} ns/V" for name in (growth[0]["us"] if growth else ()))], lines


def notes(report: Report) -> list[str]:
    """Say what was skipped, what was drawn wrongly, and how long the first draw took."""
    lines = [f"{n}: skipped, {s['skipped']}" for n, s in report["samplers"].items() if s["skipped"]]
    lines += [
        f"{r['sampler']}: {r['check']} on {_kind(r)}, {r['work']}"
        for r in report["results"]
        if r["check"] != "ok"
    ]
    numba = report["samplers"].get("numba", {}).get("first_s")
    if numba is not None:
        lines.append(f"numba: the first draw took {numba:.1f} s, compiling or loading the cache")
    return lines


def heading(report: Report) -> str:
    """Return one line that says what was timed on what."""
    m = report["machine"]
    packages = {p: v for s in report["samplers"].values() for p, v in s["versions"].items()}
    packages = {"fastsample": m["version"], "python": m["python"], "numpy": m["numpy"]} | packages
    parts = [m["cpu"], m["system"], f"isa {m['isa']}", f"commit {m['commit'] or 'unknown'}"]
    return ", ".join([*parts, m["date"], *(f"{p} {v}" for p, v in packages.items())])


def _kind(result: Report) -> str:
    dtype = "" if result["dtype"] == "float32" else f" {result['dtype']}"
    return f"{result['row']}{dtype}"


def numeric(table: Table) -> list[bool]:
    """Tell which columns of a table hold numbers."""
    return [any(cell[:1].isdigit() for cell in column) for column in zip(*table[1], strict=True)]


def aligned(table: Table) -> str:
    """Return a table as text: words to the left, numbers to the right."""
    header, lines = table
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    right = numeric(table)
    return "\n".join(
        "  ".join(
            cell.rjust(w) if to_right else cell.ljust(w)
            for cell, w, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in (header, *lines)
    )


def plot(report: Report, path: str) -> None:
    """Draw the times of all samplers on each compared row, and the growth where it was measured.

    Raises
    ------
    ImportError
        matplotlib is not installed.
    """
    figures = import_module("matplotlib.figure")
    kinds = [k for k in COMPARED if find(report, row=k)] or [r["row"] for r in find(report)][:1]
    panels = len(kinds) + bool(report.get("growth"))
    figure = figures.Figure(figsize=(10, 3.6 * panels), layout="constrained")
    axes = figure.subplots(panels, squeeze=False)[:, 0]
    names = [name for name, s in report["samplers"].items() if not s["skipped"]]
    for ax, kind in zip(axes, kinds, strict=False):
        found = find(report, row=kind, dtype="float32")
        works = list(dict.fromkeys(r["work"] for r in found))
        for i, name in enumerate(names):
            mine = [r for r in found if r["sampler"] == name]
            x = [works.index(r["work"]) + 0.8 * (i + 0.5) / len(names) - 0.4 for r in mine]
            ax.bar(x, [r["us"] for r in mine], 0.8 / len(names), label=name)
        ax.axhline(np.median([r["r_us"] for r in found]), ls=":", color="black", label="x.max()")
        ax.set_yscale("log")
        ax.set_xticks(range(len(works)), works)
        ax.set_title(f"{kind} row, V = {found[0]['vocab']}: us a draw", fontsize="medium")
    axes[0].legend(ncols=5, fontsize="x-small")
    growth = report.get("growth", [])
    if growth:
        v = np.array([g["vocab"] for g in growth])
        for name in growth[0]["us"]:
            ns = 1e3 * np.array([g["us"][name] for g in growth]) / v
            axes[-1].loglog(v, ns, ".-", label=name)
        axes[-1].set_title(f"{growth[0]['sampler']}: ns a logit, by V", fontsize="medium")
        axes[-1].legend(fontsize="x-small")
    figure.suptitle(heading(report), fontsize="xx-small", wrap=True)
    figure.savefig(path)
