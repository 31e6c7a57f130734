"""Explanations as lines of text: bars, thresholds, and where the uniform fell."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..explain import Explanation, Stage
from .looks import counted, look_of, percent
from .screen import BAR, Screen, cells, fold
from .values import written

NAME = 14  # columns of a token's text
SIDE, SIDE_CUT = 24, 30  # least columns of a setting beside others; with what is left by cuts
DRAWN, CUT, TITLE = "1;32", "2", "1"  # ANSI styles


def bar(low: float, high: float, room: int, *, cut: bool = False, line: float | None = None) -> str:
    """Return a bar from `low` to `high`, within 0 to 1, with a line across, in `room` + 1 columns.

    What is cut has another shade, so that it can be told without colours.
    """
    start, end = round(low * room), round(high * room * 8)
    end = max(end, start * 8 + (high > low))
    if cut:
        drawn = "░" * max(round(end / 8) - start, int(high > low))
    else:
        drawn = "█" * (end // 8 - start) + (BAR[end % 8 - 1] if end % 8 else "")
    columns = list((" " * start + drawn).ljust(room + 1))
    if line is not None:
        columns[round(line * room)] = "│"
    return "".join(columns)


def hidden(e: Explanation, stage: Stage) -> Iterator[tuple[str, int, float]]:
    """Yield what became of tokens that are not shown: "kept" or "cut", how many, their mass."""
    for fate, total, mass in (
        ("kept", stage.kept, stage.mass),
        ("cut", stage.entered - stage.kept, 1.0 - stage.mass),
    ):
        shown = [
            p
            for p, after in zip(stage.before, stage.after, strict=True)
            if p is not None and (after is not None) == (fate == "kept")
        ]
        if total > len(shown):
            yield fate, total - len(shown), max(mass - sum(shown), 0.0)


def show_stage(screen: Screen, e: Explanation, stage: Stage) -> None:
    """Show a stage: its rule, what it keeps, and a bar for each token that it saw."""
    look = look_of(stage)
    for part in fold(look.rule(stage), screen.width):
        screen.line(part, TITLE)
    if stage.name == "edits":
        for name, count in e.edits.items():
            value = written(e.parameters[name])
            for part in fold(f"{name} {value}: {counted(count)}", screen.width):
                screen.line(part)
    elif stage.name not in ("softmax", "temperature", "adaptive"):
        least = f" (min_tokens_to_keep {e.parameters['min_tokens_to_keep']})" if stage.held else ""
        text = (
            f"kept {stage.kept:,} of {counted(stage.entered)}{least}, with "
            f"{percent(stage.mass)} of the probability at T = {stage.temperature:g}"
        )
        for part in fold(text, screen.width):
            screen.line(part)
    fates = 7 if stage.name == "edits" else 6  # columns
    room = screen.width - 4 - NAME - 9 - 10 - 3 - 1 - fates
    cutting = stage.entered > stage.kept

    def row(name: str, numbers: tuple[str, str], drawing: str, fate: str, style: str) -> None:
        mark = "▸" if style == DRAWN else " "
        left = f"  {mark} {screen.cell(name, NAME)}{numbers[0]:>9}{numbers[1]:>10}   "
        screen.line(f"{left}{screen.cell(drawing, room + 1)}{fate:>{fates}}", style)

    row("token", look.heads(stage), "", "", "")
    for place, token in enumerate(e.tokens):
        if stage.before[place] is None:
            continue
        cut = stage.after[place] is None
        fate = "cut" if cut else "kept"
        if stage.name == "edits":
            fate = "banned" if cut else "edited" if token.edited_by else ""
        low, high, line = look.bar(stage, place)
        row(
            token.text,
            look.numbers(stage, token, place),
            bar(low, high, room, cut=cut, line=line),
            fate if cutting or stage.name == "edits" else "",
            DRAWN if place == e.draw.token else CUT if cut else "",
        )
    for fate, n, mass in hidden(e, stage):
        numbers = {"p": percent(mass)}
        pair = (numbers.get(look.heads(stage)[0], ""), numbers.get(look.heads(stage)[1], ""))
        row(f"… {n:,} more", pair, "", fate if cutting else "", CUT if fate == "cut" else "")
    screen.line()


def uniform_line(screen: Screen, e: Explanation, width: int) -> tuple[str, int]:
    """Return the line from 0 to 1, divided among what can be drawn, and the column of u."""
    text, at, mark = "│", 0, 0
    for segment in e.draw.segments:
        end = round(segment.high * (width - 1))
        if segment.token == e.draw.token:
            mark = round(e.draw.u * (width - 1))
            if end - at > 1:
                mark = min(max(mark, at + 1), end - 1)
        name = f"{segment.count:,} more" if segment.token is None else e.tokens[segment.token].text
        name = screen.encodable(name)
        room = end - at - 1
        if room >= 0:
            name = name if cells(name) <= room else "…"[:room]
            left = (room - cells(name)) // 2
            text += " " * left + name + " " * (room - left - cells(name)) + "│"
            at = end
    return text, mark


def show_draw(screen: Screen, e: Explanation) -> None:
    """Show the uniform, where it fell, and the token."""
    source = "as given" if e.draw.seed is None else f"seed {e.draw.seed}, offset {e.draw.offset}"
    text = f"draw: u = {e.draw.u:.6f} ({source}) on the sums of p by rising id"
    for part in fold(text, screen.width):
        screen.line(part, TITLE)
    width = screen.width - 2
    line, mark = uniform_line(screen, e, width)
    half = "0.5".center(width - 2)
    screen.line(f"0{half}1")
    screen.line(line)
    note = f"u = {e.draw.u:.4f}"
    left = mark > width - len(note) - 3
    screen.line(" " * (mark - len(note) - 1) + f"{note} ▲" if left else " " * mark + f"▲ {note}")
    t = e.drawn
    facts = (
        f"  id {t.id}, final p {percent(t.final)}, for u in [{e.draw.low:.4f}, {e.draw.high:.4f})"
    )
    name = screen.cell(t.text, min(40, screen.width - len("drawn: ") - len(facts))).rstrip()
    screen.line(f"drawn: {name}{facts}\n", DRAWN)


def show(screen: Screen, e: Explanation) -> None:
    """Show one explanation, stage by stage."""
    for stage in e.stages:
        show_stage(screen, e, stage)
    show_draw(screen, e)


def show_beside(screen: Screen, labels: list[str], explanations: list[Explanation]) -> None:
    """Show the settings of one row side by side, as many as the width has room for."""
    cutting = any(e.kept < e.vocabulary - e.masked for e in explanations)
    room = (screen.width - 2 - NAME) // (SIDE_CUT if cutting else SIDE)
    lines = -(-len(labels) // room)
    room = -(-len(labels) // lines)  # as many on each
    scale = max(t.prob for e in explanations for t in e.tokens)
    for i in range(0, len(labels), room):
        _show_columns(screen, labels[i : i + room], explanations[i : i + room], scale, cutting)


def heading_lines(label: str, width: int) -> list[str]:
    """Break a setting's label into lines at its commas, so that all of it is seen."""
    lines: list[str] = []
    for part in label.replace(", ", ",\n").splitlines():
        if lines and cells(f"{lines[-1]} {part}") <= width:
            lines[-1] += f" {part}"
        else:
            lines += fold(part, width)
    return lines


def _show_columns(
    screen: Screen, labels: list[str], explanations: list[Explanation], scale: float, cutting: bool
) -> None:
    width = (screen.width - 2 - NAME) // len(labels)
    arrow = screen.encodable(" → ")
    room = width - 9 - (len(arrow) + 6) * cutting  # for a bar, between two spaces and percentages

    def row(name: str, columns: list[str], style: str = "") -> None:
        cut = [screen.cell("  " + column, width) for column in columns]
        screen.line(f"  {screen.cell(name, NAME)}{''.join(cut)}", style)

    heads = [heading_lines(screen.encodable(label), width - 2) for label in labels]
    for i in range(max(map(len, heads))):
        row("" if i else "token", [head[i] if i < len(head) else "" for head in heads], TITLE)
    leading = min(len(e.leading) for e in explanations)
    for i in range(leading):
        columns = []
        for e in explanations:
            t = e.tokens[e.leading[i]]
            drawing = bar(0.0, t.prob / scale, room, cut=t.cut_by is not None)
            after = percent(t.final) if t.cut_by is None else "cut"
            becomes = f"{arrow}{after:>6}" if cutting else ""
            columns.append(f"{screen.encodable(drawing)}{percent(t.prob):>6}{becomes}")
        row(t.text, columns)
    facts: dict[str, Callable[[Explanation], str]] = {
        "others": lambda e: _others(e, leading),
        "kept": lambda e: f"{counted(e.kept)}, {percent(e.mass)}",
        "entropy": lambda e: f"{e.entropy:.2f} bits",
        "drawn": lambda e: f"{e.drawn.text}, final p {percent(e.drawn.final)}",
    }
    for name, fact in facts.items():
        row(name, [fact(e) for e in explanations])
    screen.line()


def _others(e: Explanation, leading: int) -> str:
    """Say what became of the tokens below the leading ones."""
    of_these = sum(e.tokens[place].cut_by is None for place in e.leading[:leading])
    kept, all_ = e.kept - of_these, e.vocabulary - e.masked - leading
    return f"{f'{kept:,}' if kept else 'none'} of {all_:,} kept" if all_ else "none"


def show_sentences(screen: Screen, sentences: list[str]) -> None:
    """Show a story's text."""
    for part in fold(screen.encodable(" ".join(sentences)), screen.width):
        screen.line(part)
