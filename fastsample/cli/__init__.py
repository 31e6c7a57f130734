"""The command line, `fastsample`. Depends on the package, NumPy and the standard library."""

from __future__ import annotations

import argparse
import inspect
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, NoReturn, TextIO

from .. import __version__
from . import bench, demo, draw, explain, generate


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
    "draw": Command(
        example="fastsample draw logits.npy -o tokens.npy --temperature 0.8 --top-p 0.95 --seed 1",
        add_options=draw.options,
        run=draw.draw,
    ),
    "bench": Command(
        example="fastsample bench --quick --works chain,top_p --json bench.json",
        add_options=bench.options,
        run=bench.run,
    ),
}


class _Parser(argparse.ArgumentParser):
    """A parser whose error is a line and a hint, not lost below the usage of all options.

    An option takes its value also where that begins with a minus sign: ``--logits -1,2,3``.
    """

    def parse_known_args(  # type: ignore[override, unused-ignore]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        """Parse, with such values joined to their options."""
        options = {name: a for a in self._actions for name in a.option_strings}
        left = list(sys.argv[1:] if args is None else args)
        joined: list[str] = []
        while left and left[0] != "--":
            joined.append(left.pop(0))
            action = options.get(joined[-1])
            name, _, value = joined[-1].partition("=")
            if value == "--" and name in options:  # which argparse takes for the end of options
                self.error(f"argument {name}: must be a value, got '--'")
            takes_value = action is not None and action.nargs is None
            value = left[0] if left and left[0] not in options else ""
            if takes_value and value[:1] == "-" and value[1:2] not in ("", "-"):
                joined[-1] += f"={left.pop(0)}"
        return super().parse_known_args([*joined, *left], namespace)

    def error(self, message: str) -> NoReturn:
        """Exit with a line and a hint."""
        message = re.sub(r"\S{80,}", lambda long: f"{long[0][:77]}...", message)
        self.exit(2, f"{self.prog}: error: {message}\nsee {self.prog} --help\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        """Write, and let `main` hear of a disk that is full, which argparse hides."""
        (file or sys.stderr).write(message)


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
    # A stream that the caller closed is None, where print would write to the other one.
    sys.stdout, sys.stderr = _or_nowhere(sys.stdout), _or_nowhere(sys.stderr)
    args = argparse.Namespace(parser=None)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            try:
                parser = make_parser()
                parser.parse_args(argv, args)
                if not hasattr(args, "run"):  # no command
                    parser.print_help(sys.stderr)
                    return 2
                args.run(args)
            finally:
                sys.stdout.flush()  # now and not at exit, so that a full disk is met here
        except KeyboardInterrupt:
            return 130  # 128 + SIGINT
        except BrokenPipeError:
            _give_up_streams()
            return 141  # 128 + SIGPIPE
        except Exception as error:
            if sys.flags.dev_mode:  # python -X dev
                raise
            said = str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
            prog = args.parser.prog if args.parser else "fastsample"
            with suppress(OSError):
                print(f"{prog}: error: {' '.join(said.split())}", file=sys.stderr, flush=True)
            _give_up_streams()
            return 1
    return 0


def _or_nowhere(stream: TextIO | None) -> TextIO:
    return stream or open(os.devnull, "w", encoding="utf-8")


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Show a warning to a reader, to whom a line of Python says nothing."""
    print(f"fastsample: warning: {message}", file=sys.stderr)


def _give_up_streams() -> None:
    """Let the flush at exit find streams that take what is left."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # of a stream that is no file
            try:
                stream.flush()
            except OSError:
                os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
