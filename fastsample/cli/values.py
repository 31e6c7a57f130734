"""Kinds of values that options take, each checked where the command line is read.

What argparse calls with the text of an option: it returns the value, or says what it must be, and
argparse names the option. Depends on the package, NumPy and the standard library.
"""

from __future__ import annotations

import os
import re
import stat
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .. import sample
from ..chains import checked
from ..parameters import TABLE
from ..values import flag, integer
from .lists import FORMS

SHOWN = 40  # characters of a value that an error repeats


def shown(text: str) -> str:
    """Return a value as it was written, for an error: in quotes unless it is a number."""
    short = text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
    with suppress(ValueError):
        float(text)
        return short if text.isascii() and text == text.strip() else ascii(short)
    return ascii(short)


def as_written(requirement: str) -> str:
    """Return what a value must be, without the None that no option can say."""
    return re.sub(r"\bNone(, | or )", "", requirement)


def written(value: Any) -> str:
    """Return a parameter's value as an option has it."""
    if isinstance(value, dict):
        return ",".join(f"{written(key)}:{bias:g}" for key, bias in value.items())
    if isinstance(value, tuple):
        return "+".join(map(str, value))
    if isinstance(value, list):
        return ",".join(map(written, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


class Number:
    """A number in a range; `low` and `high` are in it unless `open_low` or `open_high` is set."""

    def __init__(
        self,
        low: float,
        high: float,
        *,
        open_low: bool = False,
        open_high: bool = False,
        hint: str = "",
    ) -> None:
        self.low, self.high, self.hint = low, high, hint
        self.open_low, self.open_high = open_low, open_high

    @property
    def requirement(self) -> str:
        """What a value must be."""
        kind = "an integer" if isinstance(self.low, int) else "a number"
        first, last = "(" if self.open_low else "[", ")" if self.open_high else "]"
        return f"must be {kind} in {first}{self.low:.16g}, {self.high:.16g}{last}"

    def __call__(self, text: str) -> Any:
        """Return the number; one with an integer for `low` is an integer."""
        with suppress(ValueError):
            value = int(text) if isinstance(self.low, int) else float(text)
            above = value > self.low if self.open_low else value >= self.low
            below = value < self.high if self.open_high else value <= self.high
            if above and below:
                return value
        raise ArgumentTypeError(f"{self.requirement}, got {shown(text)}{self.hint}")


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


#: What reads a text for what converts a parameter; and the parameters that no table has.
_READ: dict[Any, Callable[[str], Any]] = {integer: int, flag: _flag}
_OTHERS: dict[str, Callable[[str], Any]] = {"seed": int, "offset": int, "u": float, "u_xtc": float}


class Parameter:
    """What `sample` takes under a name, in the range that `sample` has."""

    def __init__(self, name: str) -> None:
        self.name, rule = name, TABLE.get(name)
        self.convert = _READ.get(rule.convert, float) if rule else _OTHERS[name]
        self.form = FORMS.get(rule.convert) if rule else None

    @property
    def metavar(self) -> str:
        """What help shows in place of a value."""
        kinds: dict[Any, str] = {int: "N", float: "X"}
        return self.form.metavar if self.form else kinds.get(self.convert, "BOOL")

    def _read(self, text: str) -> Any:
        try:
            return self.form.read(text) if self.form else self.convert(text)
        except ValueError:
            kinds: dict[Any, str] = {int: "an integer", float: "a number"}
            must = self.form.must if self.form else kinds.get(self.convert, "true or false")
            raise ArgumentTypeError(f"must be {must}, got {shown(text)}") from None

    def _check(self, value: Any) -> None:
        rule = TABLE.get(self.name)
        if rule is None:
            sample([0.0], **({"seed": 0} if self.name == "offset" else {}) | {self.name: value})
        elif rule.listed:
            rule.convert(self.name, value, "")
        else:  # by itself: whether it goes with others is seen when all are there
            checked(self.name, value)

    def __call__(self, text: str) -> Any:
        """Return the value."""
        value = self._read(text)
        try:
            self._check(value)
        except (TypeError, ValueError) as error:
            said, _, got = str(error).rpartition(", got ")
            # A number is repeated as it was written; of a list, what is wrong in it.
            got = got if self.form else shown(text)
            said = re.sub(rf"^{self.name} | of {self.name}\b", "", as_written(said or str(error)))
            raise ArgumentTypeError(f"{said}, got {got}") from None
        return value


class Text:
    """Text for a model."""

    def __call__(self, text: str) -> str:
        """Return the text."""
        if not text:
            raise ArgumentTypeError("must not be empty")
        if any("\ud800" <= c <= "\udfff" for c in text):  # what Python makes of other bytes
            raise ArgumentTypeError(f"must be text in the terminal's encoding, got {shown(text)}")
        return text


class ModelFile:
    """A file of weights for llama.cpp."""

    def __call__(self, text: str) -> str:
        """Return the path."""
        with suppress(OSError, ValueError), open(text, "rb") as file:
            if file.read(4) == b"GGUF":
                return text
        raise ArgumentTypeError(f"must be a GGUF file, got {shown(text)}")


class _File:
    """A file by its path, which may have to end in certain suffixes."""

    def __init__(self, *suffixes: str) -> None:
        self.suffixes = suffixes

    def refuse_suffix(self, text: str) -> None:
        """Refuse a path that ends otherwise."""
        if self.suffixes and Path(text).suffix.lower() not in self.suffixes:
            raise ArgumentTypeError(f"must end in {' or '.join(self.suffixes)}, got {shown(text)}")


class InputFile(_File):
    """A file or folder that a command reads."""

    def __call__(self, text: str) -> str:
        """Return the path."""
        self.refuse_suffix(text)
        with suppress(OSError, ValueError):
            if text and os.access(text, os.R_OK):
                return text
        raise ArgumentTypeError(f"must be a file that can be read, got {shown(text)}")


class Names:
    """Names with commas between, out of those that are known; returned in the order of these."""

    def __init__(self, known: Sequence[str], nothing: str | None = None) -> None:
        self.known, self.nothing = known, nothing

    def __call__(self, text: str) -> list[str]:
        """Return the names; none where that is what was said."""
        names = [name.strip() for name in text.split(",")]
        if self.nothing and names == [self.nothing]:
            return []
        for unknown in (name for name in names if name not in self.known):
            allowed = ", ".join([*self.known, *([self.nothing] if self.nothing else [])])
            raise ArgumentTypeError(f"must be out of {allowed}, got {shown(unknown)}")
        return [name for name in self.known if name in names]


class OutputFile(_File):
    """A file that a command writes: refused here if it cannot be, not after the work is done."""

    def __call__(self, text: str) -> str:
        """Return the path."""
        self.refuse_suffix(text)
        try:
            check_writable(Path(text))
        except (OSError, ValueError) as error:  # ValueError: of a null byte
            why = getattr(error, "strerror", None) or str(error)
            raise ArgumentTypeError(
                f"must be a file that can be written, got {shown(text)}: {why}"
            ) from None
        return text


def check_writable(path: Path) -> None:
    """Raise what writing a file would raise, and leave everything as it was."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        # Nothing less than trying tells of file systems that are read-only, or that make no files.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        path.unlink()
        return
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        os.close(os.open(path, os.O_WRONLY))
    elif not os.access(path, os.W_OK):  # of a pipe, which opening and closing would end
        raise PermissionError(None, "it is not writable")


def write_whole(path: str, content: bytes) -> None:
    """Write a file at once: what is there stays until all of the new content is written."""
    place = Path(path)
    if place.exists() and not place.is_file():  # a device or a pipe
        place.write_bytes(content)
        return
    place = place.resolve()  # a link stays one
    part = place.with_name(f"{place.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(place)
    except PermissionError:  # a file that may be written, in a folder that may not
        place.write_bytes(content)
    finally:
        with suppress(OSError):
            part.unlink()
