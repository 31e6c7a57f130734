"""Explanations as a picture for a slide. Needs matplotlib, which is imported here alone."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

from matplotlib import font_manager, rc_context, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from matplotlib.textpath import text_to_path

from ..explain import Explanation, Stage, Token
from ..parameters import OF_STAGE
from ..recorded import visible
from .looks import coin_says, counted, largest, percent
from .screen import cells, fold
from .values import written

KEPT, CUT, DRAWN, LINE, INK = "#2b6cb0", "#cbd5e0", "#dd6b20", "#c53030", "#2d3748"
SEGMENTS = ("#bcd4ec", "#dde9f5")  # neighbours differ

WIDTH = 12.8  # inches, of a slide
TITLE = 64  # columns of a title, beside the legend
NAME = 24  # columns of a token's name
HEAD, NOTE = 13, 11  # points, above a panel
GAP = 0.1  # inches, on each side of a panel

STYLE = {
    "font.size": 12,
    "text.color": INK,
    "axes.edgecolor": "#a0aec0",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": HEAD,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 12,
    "savefig.dpi": 150,
    "svg.fonttype": "none",  # text stays text, and the reader's fonts show it
    "svg.hashsalt": "fastsample",  # the same picture is the same file
}

#: Families with Chinese, Japanese and Korean, of Linux, macOS and Windows; looked at first.
FAMILIES = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC",
    "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "PingFang SC",
    "Hiragino Sans GB", "Heiti TC", "Microsoft YaHei", "SimHei", "Arial Unicode MS",
)  # fmt: skip

HEADLINE: dict[str, Any] = {"fontsize": 15, "fontweight": "bold", "x": 0.01, "ha": "left"}

Write: TypeAlias = "Callable[[str], str]"  # makes a text fit for the picture
Head: TypeAlias = "tuple[Sequence[str], Sequence[str]]"  # parts of a title, and of a note below it


def _characters(path: str) -> set[str]:
    """Return what a font file can draw."""
    return set(map(chr, font_manager.get_font(path).get_charmap()))


def _installed() -> dict[str, str]:
    """Return a font file of each family, those that only draw boxes aside."""
    fonts = font_manager.fontManager.ttflist
    regular_last = sorted(fonts, key=lambda font: (font.weight == 400, font.style == "normal"))
    return {f.name: f.fname for f in regular_last if not f.name.startswith("Last Resort")}


def find_fonts(text: Iterable[str]) -> tuple[list[str], set[str]]:
    """Return families that together draw a text, the user's own first, and what none draws."""
    families = list(rcParams["font.family"])
    own = font_manager.findfont(font_manager.FontProperties(family=families))
    missing = set(text) - _characters(own)
    if missing:
        # matplotlib remembers the fonts that it saw at its first start.
        known = {font.fname for font in font_manager.fontManager.ttflist}
        for path in sorted(set(font_manager.findSystemFonts()) - known):
            with suppress(Exception):  # of a file that is damaged, or of a kind it cannot read
                font_manager.fontManager.addfont(path)
    installed = _installed() if missing else {}
    preferred = [family for family in FAMILIES if family in installed]
    for family in [*preferred, *sorted(installed.keys() - preferred)]:
        found = missing & _characters(installed[family]) if missing else set()
        if found:
            families.append(family)
            missing -= found
    return families, missing


def _one_line(text: str, width: int) -> str:
    """Return the end of a text, with its line breaks to be seen."""
    text = visible(text.encode()).replace("␣", " ")
    if cells(text) <= width:
        return text
    while cells(text) > width - 1:
        text = text[1:]
    return "…" + text


def _name(text: str) -> str:
    """Return a token's name, cut where it would leave no room for the bars."""
    return text if cells(text) <= NAME else fold(text, NAME - 1)[0] + "…"


def _inches(text: str, points: float, weight: str = "normal") -> float:
    """Return how wide a text is, in the fonts of the picture."""
    font = font_manager.FontProperties(size=points, weight=weight)
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(width) / 72


def _lines(parts: Sequence[str], room: float, points: float, weight: str = "normal") -> list[str]:
    """Join parts by commas, on as few lines as fit."""
    lines = [*parts[:1]]
    for part in parts[1:]:
        if _inches(f"{lines[-1]}, {part},", points, weight) <= room:
            lines[-1] += f", {part}"
        else:
            lines[-1] += ","
            lines.append(part)
    return lines


def _layout() -> ConstrainedLayoutEngine:
    return ConstrainedLayoutEngine(h_pad=0.12, w_pad=GAP)


def _colour(e: Explanation, place: int, kept: bool) -> str:
    return DRAWN if place == e.draw.token else KEPT if kept else CUT


def _bars(
    axes: Axes, e: Explanation, stage: Stage, start: Sequence[float], width: Sequence[float | None]
) -> None:
    for place, (left, length) in enumerate(zip(start, width, strict=True)):
        if length is not None:
            colour = _colour(e, place, stage.after[place] is not None)
            axes.barh(place, 100 * length, left=100 * left, height=0.72, color=colour)


#: What is drawn as it is made, with a dotted bar of what it was.
MADE = {"temperature": "T = 1", "edits": "before", "adaptive": "before"}


def _draw_stage(axes: Axes, e: Explanation, stage: Stage) -> Head:
    """Draw what a stage saw: kept, cut, and the threshold between; return what to say of it."""
    title = f"{_parameter(stage)} {stage.value:g}"
    note = [f"kept {stage.kept:,} of {stage.entered:,}", f"{percent(stage.mass)} of p"]
    if stage.name == "top_p":
        pairs = zip(stage.cumulative, stage.before, strict=True)
        _bars(axes, e, stage, [(s or 0.0) - (p or 0.0) for s, p in pairs], stage.before)
        sums = [(100 * s, i) for i, s in enumerate(stage.cumulative) if s is not None]
        style: dict[str, Any] = {"color": INK, "linewidth": 1.5, "marker": "o", "markersize": 4}
        axes.plot([s for s, _ in sums], [i for _, i in sums], **style)
        axes.axvline(100 * stage.value, color=LINE, linestyle="--")
        axes.set_xlim(0, 104)
        axes.set_xlabel("cumulative p, %")
        return [title], note
    zeros = [0.0] * len(e.tokens)
    if stage.name in MADE:
        _bars(axes, e, stage, zeros, stage.after)
        was = [(i, 100 * p) for i, p in enumerate(stage.before) if p is not None]
        places, lengths = [i for i, _ in was], [p for _, p in was]
        axes.barh(places, lengths, height=0.72, fill=False, edgecolor=INK, linestyle=":")
        note = [f"dotted: {MADE[stage.name]}"]
    else:
        _bars(axes, e, stage, zeros, stage.before)
    scale = largest(stage)
    if stage.threshold is not None and stage.threshold <= 1.08 * scale:
        axes.axvline(100 * stage.threshold, color=LINE, linestyle="--")
    elif stage.name == "top_k":
        there = [i for i, p in enumerate(stage.before) if p is not None]
        if stage.kept < len(there):
            axes.axhline(there[stage.kept] - 0.5, color=LINE, linestyle="--")
    axes.set_xlim(0, 108 * scale)
    axes.set_xlabel(f"p at T = {stage.temperature:.4g}, %")
    special = NOTES.get(stage.name)
    return ([title], note) if special is None else special(e, stage, title, note)


def _parameter(stage: Stage) -> str:
    return OF_STAGE[stage.name][0] if stage.name in OF_STAGE else stage.name


def _of_edits(e: Explanation, stage: Stage, title: str, note: list[str]) -> Head:
    names = [f"{name} {written(e.parameters[name])}" for name in e.edits]
    return [*names], [f"{counted(int(stage.value))} edited", *note]


def _of_temperature(e: Explanation, stage: Stage, title: str, note: list[str]) -> Head:
    made = f"T = {stage.temperature:.4g}"
    return [title], [made, *note] if stage.numbers[1] > 0 else note


#: What is said of a stage beside what it kept.
NOTES: dict[str, Callable[[Explanation, Stage, str, list[str]], Head]] = {
    "edits": _of_edits,
    "temperature": _of_temperature,
    "softmax": lambda e, s, title, note: (["no stage"], note),
    "greedy": lambda e, s, title, note: (["temperature 0: greedy"], note),
    "typical_p": lambda e, s, title, note: ([title], [*note, "line: the entropy"]),
    "xtc": lambda e, s, title, note: (
        [title, f"threshold {s.numbers[1]:g}"],
        [*note, *filter(None, [coin_says(s)])],
    ),
}


def _write_heads(
    panels: Sequence[Axes], columns: int, heads: Sequence[Head], names: Sequence[str]
) -> None:
    """Write above panels, where no bar can be in the way, no wider than they are."""
    left = max((_inches(name, 12) for name in names), default=0.0)
    room = (WIDTH - left - 0.3) / columns - 2 * GAP
    titles = [_lines(title, room, HEAD, "bold") for title, _ in heads]
    notes = [_lines(note, room, NOTE) for _, note in heads]
    above, below = max(map(len, titles)), max(map(len, notes))
    for axes, title, note in zip(panels, titles, notes, strict=False):
        # As many lines for each: they begin at one height.
        axes.set_title("\n".join(title) + "\n" * (above - len(title)), pad=23 + 14 * (below - 1))
        text = "\n".join(note) + "\n" * (below - len(note))
        axes.annotate(text, (0, 1), (0, 6), "axes fraction", "offset points", fontsize=NOTE)


def _name_tokens(panels: Sequence[Axes], names: list[str]) -> None:
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(names) - 0.4, -0.6)
    for axes in panels:
        axes.tick_params(axis="y", length=0)


def _legend(figure: Figure, *extra: Patch) -> None:
    colours = {"kept": KEPT, "cut": CUT, "drawn": DRAWN}
    handles = [Patch(color=colour, label=word) for word, colour in colours.items()] + [*extra]
    figure.legend(
        handles=handles,
        loc="upper right",
        ncols=len(handles),
        frameon=False,
        borderaxespad=0,
        columnspacing=1.2,
        handlelength=1.5,
        handletextpad=0.5,
    )


def _draw_uniform(axes: Axes, e: Explanation, write: Write, inches: float) -> None:
    """Draw the line from 0 to 1, by rising id, and where the uniform fell."""
    for i, segment in enumerate(e.draw.segments):
        length = segment.high - segment.low
        mine = segment.token == e.draw.token
        axes.barh(
            0,
            length,
            left=segment.low,
            height=1,
            edgecolor="white",
            linewidth=0.5,
            color=DRAWN if mine else SEGMENTS[i % 2],
        )
        text = f"{segment.count:,} more"
        if segment.token is not None:
            text = _name(write(e.tokens[segment.token].text))
        if _inches(text, 12) + 0.06 < length * inches:
            axes.text(
                segment.low + length / 2,
                0,
                text,
                ha="center",
                va="center",
                color="white" if mine else INK,
            )
    source = "given" if e.draw.seed is None else f"seed {e.draw.seed}, offset {e.draw.offset}"
    # The text stays within the picture, and its arrow upright.
    side, place = (
        ("left", 0) if e.draw.u < 0.33 else ("right", 1) if e.draw.u > 0.67 else ("center", 0.5)
    )
    axes.annotate(
        f"u = {e.draw.u:.4f} ({source}) draws {_name(write(e.drawn.text))} "
        f"(id {e.drawn.id}, p {percent(e.drawn.final)})",
        xy=(e.draw.u, 0), xytext=(e.draw.u, 1.1), fontsize=13, fontweight="bold", color=LINE,
        ha=side, va="center",
        arrowprops={"arrowstyle": "-|>", "color": LINE, "linewidth": 2, "relpos": (place, 0)},
    )  # fmt: skip
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.5, 1.5)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_xlabel("what is left, side by side by rising id: a uniform u in [0, 1) picks one")


def draw_stages(title: str, label: str, e: Explanation, write: Write) -> Figure:
    """Draw one explanation: a panel for each stage, and the draw below."""
    names = [_name(write(token.text)) for token in e.tokens]
    figure = Figure(figsize=(WIDTH, 7.2), layout=_layout())
    figure.suptitle(f"{write(_one_line(title, TITLE))}\n{label}", **HEADLINE)
    parts: Any = figure.subfigures(2, 1, height_ratios=[4.6, 1.6])
    above, below = parts
    panels = above.subplots(1, len(e.stages), sharey=True, squeeze=False)[0]
    heads = [_draw_stage(axes, e, stage) for axes, stage in zip(panels, e.stages, strict=True)]
    _write_heads(panels, len(panels), heads, names)
    _name_tokens(panels, names)
    _draw_uniform(below.subplots(), e, write, inches=12)
    _legend(figure)
    return figure


def _label_bar(axes: Axes, place: int, t: Token) -> None:
    """Write a token's probability beside its bar, and draw what it is after the cuts."""
    text, end = percent(t.prob), max(t.prob, t.final)
    if t.final and percent(t.final) != text:
        text = f"{text} → {percent(t.final)}"
        axes.barh(place, t.final, height=0.72, fill=False, edgecolor=INK, linestyle=":")
    # Not a space before it: in an SVG that is nothing.
    axes.annotate(
        text, (end, place), (4, 0), textcoords="offset points", va="center", fontsize=NOTE
    )


def draw_grid(
    titles: Sequence[str],
    labels: Sequence[str],
    grid: Sequence[Sequence[Explanation]],
    write: Write,
) -> Figure:
    """Draw rows below each other, and their settings side by side."""
    lines = -(-len(labels) // 3)  # of panels, for each row of logits
    columns = -(-len(labels) // lines)
    figure = Figure(
        figsize=(WIDTH, max(5.4, 3.6 * lines * len(titles))),
        layout=_layout(),
    )
    bands: Any = figure.subfigures(len(titles), 1, squeeze=False)
    for band, title, across in zip(bands[:, 0], titles, grid, strict=True):
        band.suptitle(write(_one_line(title, TITLE)), **HEADLINE)
        panels = band.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
        leading = min(len(e.leading) for e in across)
        names = [_name(write(across[0].tokens[i].text)) for i in across[0].leading[:leading]]
        heads = []
        for axes, label, e in zip(panels, labels, across, strict=False):
            for place, at in enumerate(e.leading[:leading]):
                t = e.tokens[at]
                axes.barh(place, t.prob, height=0.72, color=_colour(e, at, t.cut_by is None))
                _label_bar(axes, place, t)
            note = [f"kept {counted(e.kept)}", f"{percent(e.mass)} of p"]
            note.append(f"draws {_name(write(e.drawn.text))}")
            heads.append((label.split(", "), note))
        _write_heads(panels, columns, heads, names)
        for axes in panels:
            axes.xaxis.set_visible(False)
            axes.spines.bottom.set_visible(False)
        for axes in panels[len(labels) :]:
            axes.set_visible(False)
        longest = max(max(t.prob, t.final) for e in across for t in e.tokens)
        panels[0].set_xlim(0, (1.2 + 0.1 * columns) * longest)  # with room for the numbers
        _name_tokens(panels, names)
    _legend(figure, Patch(fill=False, edgecolor=INK, linestyle=":", label="renormalised"))
    return figure


def plot(
    path: str,
    titles: Sequence[str],
    labels: Sequence[str],
    grid: Sequence[Sequence[Explanation]],
) -> set[str]:
    """Write a picture, and return the characters that no installed font has.

    In a PNG these are written as escapes, for an empty box says nothing. In an SVG all text stays
    text, for the reader's fonts.
    """
    shown = {c for row in grid for e in row for t in e.tokens for c in t.text}
    shown.update(*(_one_line(title, TITLE) for title in titles))
    # Families without a bold font are fine.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    families, missing = find_fonts(shown)
    if Path(path).suffix.lower() == ".svg":
        missing = set()

    def write(text: str) -> str:
        text = "".join(c.encode("unicode_escape").decode() if c in missing else c for c in text)
        return text.replace("$", r"\$")  # which would begin a formula

    style: Any = STYLE | {"font.family": families}
    with rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        single = len(grid) == len(labels) == 1
        figure = (
            draw_stages(titles[0], labels[0], grid[0][0], write)
            if single
            else draw_grid(titles, labels, grid, write)
        )
        figure.savefig(path, metadata={"Date": None} if path.lower().endswith("svg") else None)
    return missing
