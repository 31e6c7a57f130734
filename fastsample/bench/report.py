"""Turn a report, a dict as JSON holds it, into tables and lines of text."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Collection, Iterator
from itertools import groupby
from pathlib import Path
from typing import TypeAlias

from .grid import COMPARED, FREE, SUMMARISED
from .prepared import LACKS
from .runner import CANNOT, Report
from .targets import Outcome, best, faster_target, fastest_other, find, kind, outcomes, r_target
from .works import WORKS, described

Table: TypeAlias = "tuple[list[str], list[list[str]]]"  # header, lines

MARKS = "!*"  # of a missed target, of an inexact sampler
#: Works by which a reader decides.
CHOSEN = (
    *("greedy", "chain", "min_p", "temperature", "top_p"),
    *("typical", "mirostat", "xtc", "penalties", "dry", "mask half"),
)
WIDTH = 105  # of a table's text


def growth_path(path: Path) -> Path:
    """Return where the picture of the growth goes, beside the one of the times."""
    return path.with_name(f"{path.stem}-growth{path.suffix}")


def number(value: float) -> str:
    """Return a number with three digits, more before the point, and no more than three after."""
    rounded = float(f"{value:.3g}")
    digits = 2 - math.floor(math.log10(rounded)) if rounded > 0 else 2
    return f"{rounded if digits > 0 else value:,.{min(max(digits, 0), 3)}f}"


def mark(value: float, target: float | None, at_least: bool = False) -> str:
    """Return a value, with a "!" where it misses its target."""
    return number(value) + "!" * Outcome("", "", value, target, at_least).missed


def summary_table(report: Report, targets: bool = True, works: Collection[str] = WORKS) -> Table:
    """Tabulate the fastest sampler of fastsample on two rows, and the fastest exact rivals.

    Of these one is published, and one written by hand. With `targets` also what each is to reach,
    and a mark where it does not.
    """
    header = ["row", "work", "us", "x R", "at most", "published", "its us", "factor"]
    header += ["by hand", "factor"]
    lines = []
    for r in find(report, sampler=best(report), dtype="float32"):
        if r["row"] in SUMMARISED and r["work"] in works:
            bound = r_target(r) if targets else None
            line = [r["row"], r["work"], number(r["us"]), mark(r["ratio"], bound)]
            line.append(f"{bound:g}" if bound else "")
            for by_hand in (False, True):
                other = fastest_other(report, r, by_hand)
                if other is None:
                    line += [""] * (2 if by_hand else 3)
                    continue
                factor = other["us"] / r["us"]
                least = faster_target(r, not by_hand) or faster_target(r, False)
                least = least if targets else None
                shown = mark(factor, least, at_least=True) + " LOSS" * (factor < 1.0)
                line += [other["sampler"]] * (not by_hand) + [number(other["us"]), shown]
            lines.append(line)
    kept = [i for i, name in enumerate(header) if targets or name != "at most"]
    return [header[i] for i in kept], [[line[i] for i in kept] for line in lines]


def targets_table(report: Report) -> Table:
    """Count for each group the targets that are met, and show what is furthest from its own."""
    lines = []
    for title, group in outcomes(report).items():
        bound = [o for o in group if o.target is not None]
        if bound:
            worst = max(bound, key=lambda o: o.excess)
            word = "at least" if worst.at_least else "at most"
            place = f"{worst.line}, {worst.work}: {mark(*worst[2:])} ({word} {worst.target:g})"
            met = f"{sum(not o.missed for o in bound)} of {len(bound)}"
            lines.append([title, met, place])
        else:
            lines.append([title, "not judged", "see the notes"])
    return ["target", "met", "nearest to its bound, or furthest beyond"], lines


def group_table(title: str, group: list[Outcome]) -> Table:
    """Tabulate a group by works; below lines that share their targets stand those targets."""
    found = dict.fromkeys(o.work for o in group)
    works = [work for work in WORKS if work in found]
    works += [work for work in found if work not in WORKS]  # what is no draw of a row
    by_line: dict[str, dict[str, Outcome]] = {}
    for o in group:
        by_line.setdefault(o.line, {})[o.work] = o

    def targets(line: str) -> list[str]:
        cells = [by_line[line].get(work) for work in works]
        return [f"{o.target:g}" if o and o.target is not None else "" for o in cells]

    lines = []
    for bounds, names in groupby(by_line, key=targets):
        for name in names:
            cells = [by_line[name].get(work) for work in works]
            lines.append([name, *(mark(*o[2:]) if o else "-" for o in cells)])
        if any(bounds):
            lines.append(["  at least" if group[0].at_least else "  at most", *bounds])
    return [title, *works], lines


def row_tables(report: Report) -> Iterator[Table]:
    """Tabulate, for each row that several samplers were timed on, the microseconds of all."""
    for row in dict.fromkeys(r["row"] for r in find(report, dtype="float32")):
        found = find(report, row=row, dtype="float32")
        works = [work for work in WORKS if any(r["work"] == work for r in found)]
        lines = {"R = x.max()": {r["work"]: number(r["r_us"]) for r in reversed(found)}}
        for r in found:
            cell = number(r["us"]) + "*" * (r["check"] != "ok")
            lines.setdefault(r["sampler"], {})[r["work"]] = cell
            if "build_us" in r:
                part = f"  its array alone ({r['sampler']})"
                lines.setdefault(part, {})[r["work"]] = number(r["build_us"])
        if len(lines) > 3:  # R, and the two that get every case
            table = [[name, *(line.get(w, "-") for w in works)] for name, line in lines.items()]
            yield [f"{row}, V = {found[0]['vocab']:,}: microseconds", *works], table


def growth_table(report: Report) -> Table:
    """Tabulate nanoseconds a logit by the size of the vocabulary."""
    mine = [g for g in report.get("growth", []) if g["sampler"] == best(report)]
    works = list(dict.fromkeys(g["work"] for g in mine))
    lines = []
    for vocab, group in groupby(mine, key=lambda g: int(g["vocab"])):
        results = list(group)
        times = [results[0]["r_us"], *(g["us"] for g in results)]
        lines.append([f"V = {vocab:,}", *(f"{1e3 * us / vocab:.3f}" for us in times)])
    return [f"Growth, {best(report)}: ns a logit", "R", *works], lines


def batches_table(report: Report) -> Table:
    """Tabulate the milliseconds of a batch by the number of threads."""
    mine = [b for b in report.get("batches", []) if "us" in b]
    lines: dict[str, list[str]] = {}
    for b in mine:
        for threads, us in b["us"].items():
            name = f"{b['sampler']}, {threads} thread{'s' * (threads != '1')}"
            lines.setdefault(name, []).append(number(us / 1e3))
    works = list(dict.fromkeys(b["work"] for b in mine))
    size = f"({mine[0]['rows']}, {mine[0]['vocab']}): milliseconds" if mine else ""
    return [size, *works], [[name, *cells] for name, cells in lines.items()]


def pieces(table: Table) -> Iterator[Table]:
    """Cut a table, between columns, into such as fit a line; each has the first column."""
    first, *columns = zip(*_lines(table), strict=True)
    widths = [3 + max(map(len, column)) for column in columns]
    while columns:
        count, room = 0, WIDTH - max(map(len, first))
        while count < len(columns) and (count == 0 or sum(widths[: count + 1]) <= room):
            count += 1
        lines = [list(line) for line in zip(first, *columns[:count], strict=True)]
        said = [line for line in lines[1:] if set(line[1:]) - {"", "-"}]
        yield lines[0], said
        columns, widths = columns[count:], widths[count:]


def detail_tables(report: Report) -> list[Table]:
    """Return all tables but the summary's."""
    tables = [group_table(title, group) for title, group in outcomes(report).items()]
    tables += [growth_table(report), batches_table(report), *row_tables(report)]
    return [piece for table in tables if table[1] for piece in pieces(table)]


def losses(report: Report) -> list[str]:
    """Say of each sampler of fastsample how often the fastest exact rival is faster, and where."""
    lines = []
    for name in (n for n, s in report["samplers"].items() if s["own"] and not s["skipped"]):
        pairs = [(r, fastest_other(report, r)) for r in find(report, sampler=name)]
        lost = Counter(r["work"] for r, other in pairs if other and other["us"] < r["us"])
        count = sum(other is not None for _, other in pairs)
        where = ", ".join(f"{work} {n}" for work, n in lost.items())
        text = f"{lost.total()} of {count} cases: {where}" if lost else f"none of {count} cases"
        lines += [f"{name}: slower than the fastest exact rival in {text}"] if count else []
    return lines


def notes(report: Report) -> list[str]:
    """Say what was skipped, what was drawn wrongly, and how long numba compiles."""
    lines = [f"{n}: skipped, {s['skipped']}" for n, s in report["samplers"].items() if s["skipped"]]
    places: dict[str, list[str]] = {}
    lacking: dict[str, dict[str, None]] = {}
    for r in report["results"]:
        sampler, lacks = r["sampler"], r["check"].removeprefix(CANNOT + LACKS)
        if lacks != r["check"]:
            lacking.setdefault(sampler, {})[lacks] = None
        elif r["check"] != "ok":
            said = places.setdefault(f"{r['sampler']}: {r['check']}", [])
            said.append(f"{kind(r)} {r['work']}")
    lines += [f"{sampler}: has no {', '.join(names)}" for sampler, names in lacking.items()]
    for text, found in places.items():
        where = found[0] if len(found) == 1 else f"{len(found)} cases, such as {found[0]}"
        lines.append(f"{text}: {where}")
    lines += [
        f"{b['sampler']}: {b['check']} on {b['rows']} rows, {b['work']}"
        for b in report.get("batches", [])
        if b["check"] != "ok"
    ]
    lines += [
        f"{t['sampler']}: {t['check']}, {t['work']}"
        for t in report.get("told", [])
        if t["check"] != "ok"
    ]
    busy = [b for b in report.get("batches", []) if b.get("parallel", FREE) < FREE]
    if busy:
        least = min(b["parallel"] for b in busy)
        text = (
            f"two cores were not free in {len(busy)} of {len(report['batches'])} cases, where two"
        )
        text = f"{text} threads of hashing did as little as {least:.2f} times the work of one"
        lines.append(f"batches: {text}: the ratio of two threads is then not judged")
    if "numba_first_s" in report:
        empty, full = report["numba_first_s"]
        text = f"{empty:.1f} s with an empty cache, {full:.1f} s with a full one"
        lines.append(f"numba: the first draw of a process, imports included, takes {text}")
    return lines


def legend(report: Report, chosen: Collection[str] = WORKS) -> str:
    """Say what the names of works and of the summary's rows mean."""
    timed = {r["work"] for r in find(report)}
    works = [described(name) for name in WORKS if name in timed and name in chosen]
    rows = [f"{row}: {COMPARED[row]}" for row in SUMMARISED]
    return "; ".join([*works, *rows])


def inexact(report: Report) -> list[str]:
    """Say which samplers draw tokens that the definitions rule out, and how many of how many."""
    found: dict[tuple[str, str], str] = {}  # the first case of each
    for r in report["results"]:
        if r["check"].startswith("inexact"):
            found.setdefault((r["sampler"], r["work"]), f"{_at(r)}: {r['check']}")
    return list(found.values())


def _at(result: Report) -> str:
    return f"{result['sampler']} on {kind(result)}, {result['work']}"


def checked(report: Report) -> str:
    """Say how many results were checked."""
    count = sum(not r["check"].startswith((CANNOT, "failed")) for r in report["results"])
    return f"{count} results checked against the reference"


def verdict(report: Report) -> str:
    """Say in one sentence how many of the targets are met."""
    bound = [o for group in outcomes(report).values() for o in group if o.target is not None]
    return f"{sum(not o.missed for o in bound)} of {len(bound)} targets met"


def heading(report: Report) -> str:
    """Return one line that says what was timed on what."""
    m = report["machine"]
    packages = {p: v for s in report["samplers"].values() for p, v in s["versions"].items()}
    packages = {"fastsample": m["version"], "python": m["python"], "numpy": m["numpy"]} | packages
    l2 = f"L2 {m['l2_bytes'] // 1024:,} KiB" if m["l2_bytes"] else "L2 unknown"
    parts = [m["cpu"], m["system"], f"{m['cpus']} CPUs", l2, f"load {m['load']:.1f}"]
    parts += [f"isa {m['isa']}", f"commit {m['commit'] or 'unknown'}", m["date"]]
    return ", ".join([*parts, *(f"{p} {v}" for p, v in packages.items())])


def numeric(table: Table) -> list[bool]:
    """Tell which columns of a table hold numbers, of which the first is none."""
    columns = [column[1:] for column in zip(*_lines(table), strict=True)]
    return [
        i > 0 and all(c[:1] in "0123456789-" for c in column) for i, column in enumerate(columns)
    ]


def aligned(table: Table) -> str:
    """Return a table as text: words to the left, numbers to the right, marks behind the digits."""
    right = numeric(table)
    columns = []
    for to_right, *cells in zip(right, *_lines(table), strict=True):
        if to_right and any(cell[-1:] in MARKS for cell in cells if cell):
            cells = [cell if cell[-1:] in MARKS else f"{cell} " for cell in cells]
        width = max(map(len, cells))
        columns.append([c.rjust(width) if to_right else c.ljust(width) for c in cells])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def _lines(table: Table) -> list[list[str]]:
    return [table[0], *table[1]]


def summary(report: Report, width: int = 98) -> str:
    """Return a screen of text: what was measured on what, the main times, the targets."""
    parts = [textwrap.fill(heading(report), width)]
    if find(report):
        title = f"{best(report)}, one thread; R is x.max() of the row; ! misses its target"
        parts += [title, aligned(summary_table(report)), textwrap.fill(legend(report), width)]
    if outcomes(report):
        parts += [aligned(targets_table(report))]
    said = [checked(report), *([verdict(report)] if outcomes(report) else [])]
    said = ["; ".join(said), *losses(report), *inexact(report)]
    parts.append("\n".join(textwrap.fill(line, width, subsequent_indent="  ") for line in said))
    return "\n\n".join(parts)


def details(report: Report, width: int = 98) -> str:
    """Return all tables as text, and what there is to say beside them."""
    said = [textwrap.fill(note, width, subsequent_indent="  ") for note in notes(report)]
    return "\n\n".join([*(aligned(t) for t in detail_tables(report)), "\n".join(said)])
