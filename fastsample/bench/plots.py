"""Draw a report. Needs matplotlib, which is imported here alone."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from .grid import COMPARED, WORKS
from .report import best, find, heading
from .runner import Report

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
SHAPES = "osD^vPX"
ABOUT = {
    "normal": "flat tail: normal, sigma 2.5",
    "flat": "nearly uniform: normal, sigma 0.05",
    "peaked": "peaked: Zipf-like",
    "recorded": "a real model's, median entropy",
    "recorded-flat": "a real model's, largest entropy",
}


def _looks(report: Report) -> dict[str, dict[str, Any]]:
    """Return the marker of each sampler."""
    looks: dict[str, dict[str, Any]] = {}
    counts = {True: 0, False: 0}
    for name, s in report["samplers"].items():
        if s["skipped"]:
            continue
        own, i = s["own"], counts[s["own"]]
        counts[own] += 1
        colour = (OWN if own else OTHERS)[i % len(OWN if own else OTHERS)]
        shape = SHAPES[i % len(SHAPES)]
        looks[name] = {"marker": shape, "color": colour, "ls": "", "ms": 7 if own else 6}
        looks[name] |= {} if own else {"mfc": "white", "mew": 1.5}
    return looks


def _microseconds(ax: Any) -> None:
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda us, _: f"{us:,.0f}" if us >= 1 else f"{us:g}"))
    ax.grid(axis="x")


def _save(figure: Figure, report: Report, path: str) -> None:
    text = "\n".join(textwrap.wrap(heading(report), 150))
    figure.text(0.01, 0.005, text, fontsize=7, color="#4a5568", va="bottom")
    is_svg = Path(path).suffix.lower() == ".svg"
    figure.savefig(path, metadata={"Date": None} if is_svg else None)


def plot_rows(report: Report, path: str) -> None:
    """Draw the time of every sampler for every work, a panel for each row that all were timed on."""
    rows = [row for row in COMPARED if find(report, row=row)]
    rows = rows or list(dict.fromkeys(r["row"] for r in find(report)))[:1]
    looks = _looks(report)
    with rc_context(STYLE):
        columns = min(3, len(rows) + 1)
        lines = -(-(len(rows) + 1) // columns)
        figure = Figure(figsize=(4.2 * columns + 0.6, 4.0 * lines + 1.1), layout="constrained")
        figure.get_layout_engine().set(rect=(0, 0.05, 1, 0.95), wspace=0.04, hspace=0.06)  # type: ignore[union-attr]
        axes = figure.subplots(lines, columns, squeeze=False).ravel()
        for ax, row in zip(axes, rows, strict=False):
            found = find(report, row=row, dtype="float32")
            works = [w for w in WORKS if any(r["work"] == w for r in found)]
            for i, work in enumerate(works):
                r_us = [r["r_us"] for r in found if r["work"] == work]
                ax.plot(r_us[:1] * 2, (i - 0.38, i + 0.38), color="black", lw=1.5)
            for name, look in looks.items():
                mine = [r for r in found if r["sampler"] == name]
                ax.plot([r["us"] for r in mine], [works.index(r["work"]) for r in mine], **look)
            _microseconds(ax)
            ax.set_yticks(range(len(works)), works)
            ax.set_ylim(len(works) - 0.4, -0.6)
            ax.set_title(f"{row}, V = {found[0]['vocab']:,}")
            ax.set_xlabel(f"microseconds a draw ({ABOUT.get(row, row)})")
        for ax in axes[len(rows) :]:
            ax.axis("off")
        handles = [figure_line(look | {"label": name}) for name, look in looks.items()]
        handles.append(figure_line({"marker": "|", "ms": 12, "mew": 1.5, "color": "black", "ls": ""}))
        handles[-1].set_label("R: NumPy's x.max() of the row")
        axes[len(rows)].legend(
            handles=handles, loc="center", frameon=False, fontsize=10, labelspacing=0.7
        )
        figure.suptitle("Time to draw one token, one thread: further left is faster", x=0.01, ha="left")
        _save(figure, report, path)


def figure_line(look: dict[str, Any]) -> Any:
    """Return an entry of a legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], **look)


def plot_growth(report: Report, path: str) -> None:
    """Draw the time a logit takes by the size of the vocabulary, and what reading it takes."""
    name, l2 = best(report), report["machine"]["l2_bytes"]
    mine = [g for g in report["growth"] if g["sampler"] == name]
    colours = ("#c53030", "#dd6b20", "#b7791f", "#2f855a", "#2b6cb0", "#6b46c1", "#b83280")
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 5.4), layout="constrained")
        figure.get_layout_engine().set(rect=(0, 0.06, 1, 0.94))  # type: ignore[union-attr]
        ax = figure.subplots()
        for work, colour in zip(WORKS, colours, strict=True):
            points = [(g["vocab"], 1e3 * g["us"] / g["vocab"]) for g in mine if g["work"] == work]
            if points:
                ax.plot(*zip(*points, strict=True), "o-", ms=4, color=colour, label=work)
        reads = dict.fromkeys((g["vocab"], 1e3 * g["r_us"] / g["vocab"]) for g in mine)
        ax.plot(*zip(*reads, strict=True), "k--", label="R: x.max()")
        _microseconds(ax)
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(FuncFormatter(lambda ns, _: f"{ns:g}"))
        ax.grid(axis="y", which="both")
        if l2:
            ax.axvline(l2 / 4, color="#718096", ls=":")
            ax.annotate(
                "row larger than L2 ▸", (l2 / 4, 1), (-4, -2), ha="right", va="top",
                xycoords=("data", "axes fraction"), textcoords="offset points", color="#4a5568",
            )  # fmt: skip
        ax.set_xlabel("V, logits of a float32 row")
        ax.set_ylabel("nanoseconds a logit")
        ax.set_title(f"{name}, normal rows: time / V by the size of the vocabulary")
        ax.legend(ncols=2, frameon=False)
        _save(figure, report, path)


def plot(report: Report, path: str) -> list[str]:
    """Draw what a report has; the growth goes to a second file. Return the names of the files."""
    paths = [path]
    plot_rows(report, path)
    if report.get("growth"):
        second = Path(path)
        paths.append(str(second.with_name(f"{second.stem}-growth{second.suffix}")))
        plot_growth(report, paths[-1])
    return paths
