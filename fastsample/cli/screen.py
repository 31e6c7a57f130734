"""Text on a terminal: its width, its encoding, its colours."""

from __future__ import annotations

import os
import shutil
import unicodedata
from typing import TextIO

BAR = "▏▎▍▌▋▊▉█"  # by eighths
_ASCII = {"␣": "_", "⏎": "\\n", "⇥": "\\t", "→": "->", "▸": ">", "…": "~", "│": "|", "▲": "^"}
_ASCII |= dict.fromkeys(BAR, " ") | {"█": "#", "░": ".", "─": "-"}


def cells(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def fold(text: str, width: int) -> list[str]:
    """Break a text into lines of at most `width` columns, at spaces where there are any."""
    lines = [""]
    for c in text:
        if cells(lines[-1] + c) > width:
            head, space, tail = lines[-1].rpartition(" ")
            lines[-1:] = [head, tail] if space else [tail, ""]
        lines[-1] += c
    return lines


class Screen:
    """A stream for lines of text: its encoding, its width, and whether it shows colour."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.width = max(72, min(100, shutil.get_terminal_size((100, 24)).columns))
        self.colour = stream.isatty() and not os.environ.get("NO_COLOR")

    def line(self, text: str = "", style: str = "") -> None:
        """Write a line; `style` is the number of an ANSI style."""
        text = self.encodable(text.rstrip(" "))
        print(f"\x1b[{style}m{text}\x1b[m" if style and self.colour else text, file=self.stream)

    def encodable(self, text: str) -> str:
        """Return a text that the stream's encoding has; what ASCII lacks takes more columns."""
        encoding = self.stream.encoding or "ascii"
        try:
            text.encode(encoding)
        except UnicodeEncodeError:
            text = "".join(_ASCII.get(c, c) for c in text)
        return text.encode(encoding, "backslashreplace").decode(encoding)

    def cell(self, text: str, width: int) -> str:
        """Return a text cut or filled to exactly `width` columns."""
        text = self.encodable(text)
        if cells(text) > width:
            text = fold(text, width - 1)[0] + self.encodable("…")
        return text + " " * (width - cells(text))
