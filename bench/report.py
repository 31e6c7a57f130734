"""Turn the JSON that `fastsample bench` wrote into Markdown, and into a plot; nothing is measured.

Depends on the installed fastsample, and on matplotlib for the plot.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fastsample import bench

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


def markdown_table(table: bench.Table) -> str:
    """Return a table in Markdown, numbers to the right."""
    header, lines = table
    rule = ["--:" if to_right else "---" for to_right in bench.numeric(table)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *lines))


def markdown(report: bench.Report) -> str:
    """Return what a stored report says: what it was taken on, its tables and its notes."""
    tables = {
        "Every sampler, microseconds a draw": bench.rivals_table(report),
        "fastsample": bench.targets_table(report),
        "Calls": bench.overhead_table(report),
        "Growth": bench.growth_table(report),
    }
    parts = [f"Measured on {bench.heading(report)}. R is the time of `x.max()`."]
    parts += [f"**{title}**\n\n{markdown_table(t)}" for title, t in tables.items() if t[1]]
    parts.append("\n".join(f"* {note}" for note in bench.notes(report)))
    return "\n\n".join(parts).rstrip() + "\n"


def insert(path: Path, text: str) -> None:
    """Put a text between the marks in a file, in place of what is there."""
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{path} must have a line {BEGIN} and after it a line {END}")
    path.write_text(f"{before}{begin}\n{text}{end}{after}")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else None,
        epilog="example: python bench/report.py bench.json --into README.md --plot bench.svg",
    )
    parser.add_argument("json", type=Path, help="what `fastsample bench --json` wrote")
    text = f"write it between {BEGIN} and {END} in this file (default: print it)"
    parser.add_argument("--into", type=Path, metavar="FILE", help=text)
    parser.add_argument("--plot", metavar="FILE", help="draw it, as .png or .svg")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    report = json.loads(args.json.read_text())
    if args.into:
        insert(args.into, markdown(report))
    else:
        print(markdown(report), end="")
    if args.plot:
        bench.plot(report, args.plot)


if __name__ == "__main__":
    main()
