"""Draw a report. Needs matplotlib, which is imported here alone."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from .grid import COMPARED, SUMMARISED
from .report import growth_path, heading
from .runner import Report
from .targets import best, find
from .works import MAIN, WORKS

STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "grid.color": "#e2e8f0",
    "savefig.dpi": 150,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "fastsample",  # the same picture is the same file
}
OWN = ("#c53030", "#ed8936", "#ecc94b", "#805ad5")  # fastsample's, filled
OTHERS = ("#2b6cb0", "#2f855a", "#0d9488", "#4a5568", "#b83280", "#744210", "#1a202c")  # hollow
WORK_COLOURS = ("#c53030", "#dd6b20", "#b7791f", "#2f855a", "#2b6cb0", "#6b46c1", "#b83280")
FOOT = 0.6  # inches, for the heading of the report
SHAPES = "osD^vPX"


def _looks(report: Report) -> dict[str, dict[str, Any]]:
    """Return the marker of each sampler: fastsample's own filled, and above the others."""
    looks: dict[str, dict[str, Any]] = {}
    shown = {name: s["own"] for name, s in report["samplers"].items() if not s["skipped"]}
    for kind, colours in ((True, OWN), (False, OTHERS)):
        for i, name in enumerate(name for name, own in shown.items() if own is kind):
            look = {"marker": SHAPES[i % len(SHAPES)], "color": colours[i % len(colours)], "ls": ""}
            filled = {"ms": 7, "zorder": 9 - i}
            looks[name] = look | (filled if kind else {"ms": 6, "mfc": "white", "mew": 1.5})
    return looks


def _label(report: Report, name: str) -> str:
    """Return a sampler's name, and the works whose tokens it gets wrong."""
    mine = (r for r in report["results"] if r["sampler"] == name)
    wrong = dict.fromkeys(r["work"] for r in mine if r["check"].startswith("inexact"))
    return f"{name} (inexact: {', '.join(wrong)})" if wrong else name


def _microseconds(ax: Any) -> None:
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda us, _: f"{us:,g}"))
    ax.grid()


def _save(figure: Figure, report: Report, path: str) -> None:
    text = "\n".join(textwrap.wrap(heading(report), 150))
    figure.text(0.01, 0.005, text, fontsize=7, color="#4a5568", va="bottom")
    is_svg = Path(path).suffix.lower() == ".svg"
    figure.savefig(path, metadata={"Date": None} if is_svg else None)


def _works(report: Report, row: str) -> list[str]:
    """Return what is shown of a row: of those beside the summary's the MAIN works, if any."""
    works = [work for work in WORKS if find(report, row=row, work=work, dtype="float32")]
    main = [work for work in works if work in MAIN]
    return works if row in SUMMARISED or not main else main


def _row_panel(
    ax: Any, found: list[Report], works: list[str], looks: dict[str, dict[str, Any]]
) -> None:
    found = [r for r in found if r["work"] in works]
    for i, work in enumerate(works):
        r_us = next(r["r_us"] for r in found if r["work"] == work)
        ax.plot((r_us, r_us), (i - 0.38, i + 0.38), color="black", lw=1.5)
    for name, look in looks.items():
        mine = [r for r in found if r["sampler"] == name]
        ax.plot([r["us"] for r in mine], [works.index(r["work"]) for r in mine], **look)
    ax.set_yticks(range(len(works)), works)
    ax.set_ylim(len(works) - 0.4, -0.6)
    row = found[0]["row"]
    about = f": {COMPARED[row]}" if row in COMPARED else ""
    ax.set_title(f"{row}, V = {found[0]['vocab']:,}{about}")


def plot_rows(report: Report, path: str) -> None:
    """Draw the time of every sampler for its works, a panel for each compared row."""
    compared = sorted(COMPARED, key=lambda row: row not in SUMMARISED)
    rows = [row for row in compared if find(report, row=row)]
    rows = rows or list(dict.fromkeys(r["row"] for r in find(report)))[:1]
    looks = _looks(report)
    with rc_context(STYLE):
        columns, lines = 2, -(-(len(rows) + 1) // 2)  # and one panel for the legend
        works = [_works(report, row) for row in rows]
        # A line of panels has the height of its longest.
        longest = [max(map(len, works[i : i + columns])) for i in range(0, len(works), columns)]
        heights = [1.3 + 0.24 * max(n, 10) for n in (*longest, 0)][:lines]
        height = sum(heights) + 0.8
        layout = ConstrainedLayoutEngine(
            rect=(0, FOOT / height, 1, 1 - FOOT / height), wspace=0.05, hspace=0.06
        )
        figure = Figure(figsize=(12, height), layout=layout)
        ratios = {"height_ratios": heights}
        grid = figure.subplots(lines, columns, sharex=True, squeeze=False, gridspec_kw=ratios)
        axes = grid.ravel()
        for ax, row, shown in zip(axes, rows, works, strict=False):
            _microseconds(ax)
            _row_panel(ax, find(report, row=row, dtype="float32"), shown, looks)
            ax.tick_params(labelbottom=True)
            ax.set_xlabel("microseconds a draw")
        for ax in axes[len(rows) :]:
            ax.axis("off")
        handles = [Line2D([], [], label=_label(report, n), **look) for n, look in looks.items()]
        tick: dict[str, Any] = {"marker": "|", "ms": 12, "mew": 1.5, "color": "black", "ls": ""}
        handles.append(Line2D([], [], label="R: NumPy's x.max() of the row", **tick))
        place: dict[str, Any] = {"loc": "center left", "ncols": 2, "frameon": False, "fontsize": 11}
        axes[len(rows)].legend(handles=handles, labelspacing=0.9, **place)
        title = "Time to draw one token, on one thread: further left is faster"
        figure.suptitle(title, x=0.01, ha="left", fontsize=14, fontweight="bold")
        _save(figure, report, path)


def plot_growth(report: Report, path: str) -> None:
    """Draw the time a logit takes by the size of the vocabulary, and what reading it takes."""
    name, l2 = best(report), report["machine"]["l2_bytes"]
    mine = [g for g in report["growth"] if g["sampler"] == name]
    sizes = sorted({g["vocab"] for g in mine})
    with rc_context(STYLE):
        layout = ConstrainedLayoutEngine(rect=(0, FOOT / 5.8, 1, 1 - FOOT / 5.8))
        figure = Figure(figsize=(10, 5.8), layout=layout)
        ax = figure.subplots()
        for work, colour in zip(MAIN, WORK_COLOURS, strict=True):
            points = [(g["vocab"], 1e3 * g["us"] / g["vocab"]) for g in mine if g["work"] == work]
            if points:
                ax.plot(*zip(*points, strict=True), "o-", ms=4, color=colour, label=work)
        reads = dict.fromkeys((g["vocab"], 1e3 * g["r_us"] / g["vocab"]) for g in mine)
        ax.plot(*zip(*reads, strict=True), "k--", label="R: x.max(),\nthe read time")
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xticks(sizes, [f"{v:,}" for v in sizes], fontsize=9)
        plain = FuncFormatter(lambda ns, _: f"{ns:.2g}")
        ax.yaxis.set_major_formatter(plain)
        ax.yaxis.set_minor_formatter(plain)
        ax.tick_params(axis="y", which="minor", labelsize=8)
        ax.minorticks_on()
        ax.xaxis.set_minor_locator(NullLocator())
        ax.grid(axis="y", which="both")
        if l2:
            ax.axvline(l2 / 4, color="#718096", ls=":")
            ax.annotate(
                f"larger than L2 ({l2 // 1024:,} KiB)", (l2 / 4, 1), (4, 0), va="bottom",
                xycoords=("data", "axes fraction"), textcoords="offset points", color="#4a5568",
                fontsize=9,
            )  # fmt: skip
        ax.set_xlabel("V, logits of a float32 row")
        ax.set_ylabel("nanoseconds a logit")
        ax.set_title(f"{name}, normal rows: time / V", fontsize=14, pad=18)
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
        _save(figure, report, path)


def plot(report: Report, path: str) -> list[str]:
    """Draw what a report has; the growth goes to a second file. Return the names of the files."""
    paths = [path]
    plot_rows(report, path)
    if report.get("growth"):
        paths.append(str(growth_path(Path(path))))
        plot_growth(report, paths[-1])
    return paths
