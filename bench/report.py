"""Turn the JSON that `fastsample bench` wrote into Markdown and pictures; nothing is measured.

Depends on the installed fastsample, and on matplotlib for pictures.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from fastsample import bench
from fastsample.bench import vllm_table

R = "R is the time of `x.max()` of the same row"
OTHERS = (
    "`published` is the fastest exact sampler of another package, `by hand` the fastest of what we "
    "wrote in NumPy or torch"
)
TARGETS = "`!` marks what misses its target"


def marks(kind: str) -> tuple[str, str]:
    """Return the lines of a page between which a report of a kind stands."""
    return f"<!-- {kind}: begin -->", f"<!-- {kind}: end -->"


BEGIN, END = marks("bench")


def markdown_table(table: bench.Table) -> str:
    """Return a table in Markdown, numbers to the right."""
    header, lines = table
    rule = ["--:" if to_right else "---" for to_right in bench.numeric(table)]
    # A star would begin emphasis.
    cells = [[cell.strip().replace("*", r"\*") for cell in line] for line in (header, *lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (cells[0], rule, *cells[1:]))


def bullets(lines: list[str]) -> str:
    """Return a list in Markdown."""
    return "\n".join(f"* {line}" for line in lines)


def picture(files: list[str], page: Path | None) -> list[str]:
    """Return what shows the files on a page."""
    start = page.parent if page else Path()
    titles = ("Time to draw one token", "Time by the size of the vocabulary")
    return [
        f"![{title}]({Path(os.path.relpath(file, start)).as_posix()})"
        for title, file in zip(titles, files, strict=False)
    ]


def short(report: bench.Report, pictures: list[str], targets: bool = False) -> str:
    """Return what a reader decides by: the times, the losses, what draws wrongly."""
    about = f"{R}; {OTHERS}; {TARGETS}" if targets else f"{R}; {OTHERS}"
    said = f"{bench.verdict(report)}, {bench.checked(report)}"
    works = bench.WORKS if targets else bench.CHOSEN
    parts = [
        f"`{bench.best(report)}`, one thread, microseconds a draw. {about}.",
        markdown_table(bench.summary_table(report, targets, works)),
        f"{bench.legend(report, works)}.",
        *pictures,
        bullets(
            [
                said if targets else bench.checked(report),
                *bench.losses(report),
                *bench.inexact(report),
            ]
        ),
        f"Measured on {bench.heading(report)}.",
    ]
    return "\n\n".join(parts) + "\n"


def runtimes(report: bench.Report) -> str:
    """Return what runtimes write with and without fastsample."""
    skipped = {name: entry["skipped"] for name, entry in report["runtimes"].items()}
    parts = [
        markdown_table(bench.runtimes_table(report)),
        bullets([f"{name}: skipped, {why}" for name, why in skipped.items() if why]),
        f"Measured on {bench.runtimes_heading(report)}.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def full(report: bench.Report, pictures: list[str]) -> str:
    """Return all that a stored report says."""
    tables = [bench.targets_table(report), *bench.detail_tables(report)]
    parts = [
        short(report, pictures, targets=True).rstrip(),
        *(markdown_table(table) for table in tables if table[1]),
        bullets(bench.notes(report)),
    ]
    return "\n\n".join(parts).rstrip() + "\n"


def insert(path: Path, text: str, kind: str = "bench") -> None:
    """Put a text between the marks in a file, in place of what is there."""
    first, last = marks(kind)
    before, begin, rest = path.read_text().partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise SystemExit(f"{path} must have a line {first} and after it a line {last}")
    path.write_text(f"{before}{begin}\n{text}{end}{after}")


def insert_vllm(args: argparse.Namespace, reports: list[bench.Report]) -> None:
    """Write what `fastsample bench --vllm` measured; the summary is the tokens per second."""
    shown = {args.into: tuple(vllm_table.MEASURES), args.short_into: ("tokens_per_s",)}
    for path, measures in shown.items():
        text = "\n\n".join(vllm_table.table(report, measures) for report in reports)
        if path:
            insert(path, text + "\n", "vllm")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  python bench/report.py docs/bench.json --short-into README.md "
        "--into docs/performance.md --plot docs/images/bench.svg\n"
        "  python bench/report.py docs/runtimes.json --into README.md",
    )
    parser.add_argument("json", type=Path, help="what `fastsample bench --json` wrote")
    text = f"write all tables between {BEGIN} and {END} in this file (default: print them)"
    parser.add_argument("--into", type=Path, metavar="FILE", help=text)
    text = "write the summary between the same marks in this file"
    parser.add_argument("--short-into", type=Path, metavar="FILE", help=text)
    text = "draw it, as .png or .svg, the growth as NAME-growth, and show both in the files"
    parser.add_argument("--plot", metavar="FILE", help=text)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    report = json.loads(args.json.read_text())
    if report.get("kind") == "runtimes":
        if args.into:
            insert(args.into, runtimes(report), "runtimes")
        else:
            print(runtimes(report), end="")
        return
    if "vllm" in report:
        insert_vllm(args, report["vllm"])
        return
    if report["format"] != bench.FORMAT:
        raise SystemExit(f"{args.json} has format {report['format']}, not {bench.FORMAT}")
    files = bench.plot(report, args.plot) if args.plot else []
    if args.into:
        insert(args.into, full(report, picture(files, args.into)))
    if args.short_into:
        insert(args.short_into, short(report, picture(files[:1], args.short_into)))
    if not args.into and not args.short_into:
        print(full(report, picture(files, None)), end="")


if __name__ == "__main__":
    main()
