"""A file of tokens that is written in pieces, and the journal that a stopped run is resumed by.

Until all is there the tokens are in ``NAME.part``, which is the .npy file to be, and
``NAME.journal`` has a line of JSON for what is drawn and one for each piece that is in the file:
its rows and the checksum of its tokens. A line is written after the tokens, and counts where the
tokens have its checksum: so a run may end at any moment, and the machine too. Depends on NumPy.
"""

from __future__ import annotations

import errno
import io
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

try:
    import fcntl
except ImportError:  # Windows, where two runs are not kept apart
    fcntl = None  # type: ignore[assignment]

Ids = npt.NDArray[np.int64]
Fingerprint = dict[str, Any]
_TOKEN = np.dtype("<i8")


class TokensFile:
    """The tokens of all rows, written in pieces of any order.

    Parameters
    ----------
    path : path
        The .npy file to be, which replaces one that is there.
    rows : int
        How many tokens it shall have.
    fingerprint : dict
        What is drawn; a resumed run must have the same.
    resume : bool
        Go on with what a stopped run has written, if there is such a run.
    """

    def __init__(
        self, path: str | os.PathLike[str], rows: int, fingerprint: Fingerprint, resume: bool
    ) -> None:
        self.path = Path(path).resolve()
        self.rows = rows
        self._part = part_of(self.path)
        self._journal = journal_of(self.path)
        self._files: list[int] = []
        try:
            self._lines = self._open(self._journal, os.O_RDWR | os.O_CREAT)
            self._lock()
            lines = _read_lines(self._lines)
        except BaseException:
            self.close()
            raise
        try:
            if len(lines) < 2:  # a run that finished nothing leaves nothing to resume
                lines = []
            if lines and not resume:
                raise ValueError(
                    f"resume must be True, or {self._journal} be removed: it is of a run that did "
                    "not end"
                )
            if lines:
                _refuse_another(lines[0], fingerprint)
            self._tokens = self._open(self._part, os.O_RDWR | os.O_CREAT)
            self._start = self._allocate()
            self.done = self._checked(lines[1:])
            self._rewrite([fingerprint, *(self._line(piece) for piece in self.done)])
        except BaseException:
            if not lines:  # nothing has begun
                self._part.unlink(missing_ok=True)
                self._journal.unlink()
            self.close()
            raise

    def _open(self, path: Path, flags: int) -> int:
        self._files.append(os.open(path, flags, 0o666))
        return self._files[-1]

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._lines, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno != errno.EWOULDBLOCK:  # a file system without locks
                return
            raise ValueError(f"output must not be written by another run: {self.path}") from None

    def _allocate(self) -> int:
        """Make the file as large as it will be, so that the disk is too full now or never."""
        header = io.BytesIO()
        about = {"descr": _TOKEN.str, "fortran_order": False, "shape": (self.rows,)}
        np.lib.format.write_array_header_1_0(header, about)
        start = header.tell()
        size = start + self.rows * _TOKEN.itemsize
        os.ftruncate(self._tokens, size)
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(self._tokens, 0, size)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise
        _write_all(self._tokens, header.getvalue(), 0)
        return start

    def _checked(self, lines: list[list[int]]) -> list[range]:
        """Return the pieces of a journal that are in the file, none of them twice."""
        kept: list[range] = []
        for first, stop, checksum in sorted(lines):
            after = kept[-1].stop if kept else 0
            if after <= first < stop <= self.rows and self._checksum(first, stop) == checksum:
                kept.append(range(first, stop))
        return kept

    def _read(self, first: int, stop: int) -> bytes:
        size = (stop - first) * _TOKEN.itemsize
        return os.pread(self._tokens, size, self._start + first * _TOKEN.itemsize)

    def _checksum(self, first: int, stop: int) -> int:
        return zlib.crc32(self._read(first, stop))

    def _line(self, piece: range) -> list[int]:
        return [piece.start, piece.stop, self._checksum(piece.start, piece.stop)]

    def _rewrite(self, lines: list[Any]) -> None:
        """Begin the journal anew, without a line that was not written to its end."""
        text = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
        _write_all(self._lines, text, 0)
        os.ftruncate(self._lines, len(text))
        self._end = len(text)

    @property
    def gaps(self) -> Iterator[range]:
        """The stretches of rows that have no tokens."""
        after = 0
        for piece in sorted(self.done, key=lambda piece: piece.start):
            if piece.start > after:
                yield range(after, piece.start)
            after = piece.stop
        if after < self.rows:
            yield range(after, self.rows)

    def marked(self, piece: range) -> Ids:
        """Return the numbers of the rows of a piece whose token is -1."""
        tokens = np.frombuffer(self._read(piece.start, piece.stop), _TOKEN)
        return piece.start + np.flatnonzero(tokens == -1)

    def write(self, first: int, tokens: Ids) -> None:
        """Write the tokens of a piece, then its line."""
        content = np.ascontiguousarray(tokens, _TOKEN).tobytes()
        _write_all(self._tokens, content, self._start + first * _TOKEN.itemsize)
        stop = first + len(tokens)
        line = f"{json.dumps([first, stop, zlib.crc32(content)])}\n".encode()
        _write_all(self._lines, line, self._end)
        self._end += len(line)
        self.done.append(range(first, stop))

    def finish(self) -> None:
        """Put the whole file in its place, and remove the journal."""
        gap = next(self.gaps, None)
        if gap is not None:
            raise ValueError(f"tokens must be written of all rows, got none of row {gap.start}")
        os.fsync(self._tokens)
        self._part.replace(self.path)
        self._journal.unlink()

    def close(self) -> None:
        """Close the files, and leave them as they are."""
        while self._files:
            os.close(self._files.pop())

    def __enter__(self) -> TokensFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def part_of(path: Path) -> Path:
    """Return where a file of tokens is until it is whole."""
    return path.with_name(f"{path.name}.part")


def journal_of(path: Path) -> Path:
    """Return where the journal of a file of tokens is."""
    return path.with_name(f"{path.name}.journal")


def stored_fingerprint(path: str | os.PathLike[str]) -> Fingerprint | None:
    """Return what a stopped run draws, or None where there is no such run."""
    try:
        file = os.open(journal_of(Path(path).resolve()), os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        lines = _read_lines(file)
    finally:
        os.close(file)
    return dict(lines[0]) if lines else None


def _read_lines(file: int) -> list[Any]:
    """Return the lines of a journal up to one that is not whole."""
    with os.fdopen(os.dup(file), "rb") as content:
        content.seek(0)
        found: list[Any] = []
        for text in content:
            try:
                line = json.loads(text) if text.endswith(b"\n") else None
            except ValueError:
                break
            if not isinstance(line, list if found else dict) or (found and len(line) != 3):
                break
            found.append(line)
    return found


def _refuse_another(stored: Fingerprint, fingerprint: Fingerprint) -> None:
    stored, mine = dict(stored), json.loads(json.dumps(fingerprint))
    for name in [*stored, *(name for name in mine if name not in stored)]:
        if stored.get(name) != mine.get(name):
            raise ValueError(
                f"{name} must be {stored.get(name)!r} as in the run to be resumed, "
                f"got {mine.get(name)!r}"
            )


def _write_all(file: int, content: bytes, at: int) -> None:
    """Write at a place; a disk that takes a part of it refuses the rest."""
    left = memoryview(content)
    while left:
        written = os.pwrite(file, left, at)
        left, at = left[written:], at + written
