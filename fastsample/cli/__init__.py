"""The command line, `fastsample`. Depends on the package, NumPy and the standard library."""

from __future__ import annotations

import argparse
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

from .. import __version__, bench
from . import demo, explain, generate


class Command(NamedTuple):
    """What the parser knows of a command; the docstring of `run` is its help."""

    example: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


COMMANDS = {
    "demo": Command(
        example="fastsample demo --prompt 2 --temperature 1.5 --order llama.cpp",
        add_options=demo.options,
        run=demo.demo,
    ),
    "explain": Command(
        example="fastsample explain --prompt 2 --temperature 0.8 --top-k 50 --top-p 0.95",
        add_options=explain.options,
        run=explain.run,
    ),
    "generate": Command(
        example='fastsample generate "The weather today is" --temperature 0.6 --seed 1',
        add_options=generate.options,
        run=generate.generate,
    ),
    "bench": Command(
        example="fastsample bench --quick --works chain,top_p --json bench.json",
        add_options=bench.options,
        run=bench.bench,
    ),
}


class _Parser(argparse.ArgumentParser):
    """A parser whose error is a line and a hint, not lost below the usage of all options."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\nsee {self.prog} --help\n")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the table of commands."""
    keep_lines = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        prog="fastsample",
        description="Draw the next token from a row of logits.",
        epilog="\n  ".join(["examples:", *(c.example for c in COMMANDS.values())]),
        formatter_class=keep_lines,
    )
    parser.add_argument("--version", action="version", version=f"fastsample {__version__}")
    table = parser.add_subparsers(metavar="COMMAND")
    for name, (example, add_options, run) in COMMANDS.items():
        text = inspect.getdoc(run) or ""
        short = text.partition("\n")[0]
        sub = table.add_parser(name, help=short, description=text, formatter_class=keep_lines)
        sub.epilog = f"example:\n  {example}"
        add_options(sub)
        sub.set_defaults(run=run, parser=sub)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code; argparse exits by itself."""
    try:
        try:
            parser = make_parser()
            args = parser.parse_args(argv)
            if not hasattr(args, "run"):  # no command
                parser.print_help(sys.stderr)
                return 2
            args.run(args)
        finally:
            sys.stdout.flush()  # now and not at exit, so that a closed pipe is met here
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT
    except BrokenPipeError:
        # The interpreter flushes once more at exit, and must find a stream that takes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # 128 + SIGPIPE
    return 0
