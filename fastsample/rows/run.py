"""A whole store into a file of tokens: cut, drawn by an engine, written as it comes, resumed.

Depends on the other files of this package.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .. import backend
from ..values import integer
from .draw import RowSampler
from .engines import Dask, Engine, Threads, processors
from .journal import Fingerprint, TokensFile, journal_of, part_of
from .pieces import cut, draw_piece
from .stored import Stored

MEMORY = 256 * 2**20
_PIECE = 64 * 2**20  # bytes: larger ones are no faster, and more is drawn again after a stop


class Drawn(NamedTuple):
    """What `draw_file` did."""

    rows: int
    """How many rows the file has."""
    resumed: int
    """How many of them were there already."""
    bad: int
    """How many are marked -1."""


def draw_file(
    logits: Stored,
    output: str | os.PathLike[str],
    draw: RowSampler,
    *,
    memory: int = MEMORY,
    threads: int | None = None,
    resume: bool = False,
    dask: str | None = None,
    progress: Callable[[int], object] | None = None,
) -> Drawn:
    """Draw a token from each stored row and write them all to a file.

    Until it ends, the tokens are in ``output.part``, with a journal of the finished pieces beside
    it, by which it can be resumed wherever it was stopped. Tokens do not depend on `memory`,
    `threads` or `dask`, nor on stops.

    Parameters
    ----------
    logits : Stored
        What `open_logits` returns.
    output : path
        A ``.npy`` file of int64, which is replaced at the end and not before. It must be none of
        the files of `logits`.
    draw : RowSampler
        Parameters and seed.
    memory : int, default 2**28
        Bytes of logits that are read at a time, by all threads together.
    threads : int, optional
        How many pieces are drawn at a time, >= 1; by default as many as this process may use
        processors. With `dask` it is the cluster's.
    resume : bool, default False
        Go on with the run that was stopped, if there is one. What it draws must be the same.
    dask : str, optional
        The address of dask's scheduler. `logits` must be found under the same path by its workers.
    progress : callable, optional
        Called with the number of rows of each piece that is written.

    Returns
    -------
    Drawn
        ``rows``, ``resumed`` and ``bad``.

    Raises
    ------
    ValueError, TypeError
        As in `sample`, under the row's number among all; a run to be resumed drew with something
        else; the logits were cut off, or are what would be written to.
    OSError
        A file cannot be read or written.

    Notes
    -----
    Whatever is raised, the pieces that are finished are kept for `resume`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsample.rows import RowSampler, draw_file, open_logits
    >>> np.save("logits.npy", np.random.default_rng(0).normal(0, 2, (1000, 50)))
    >>> draw_file(open_logits("logits.npy"), "tokens.npy", RowSampler(seed=1, top_p=0.9))
    Drawn(rows=1000, resumed=0, bad=0)
    >>> np.load("tokens.npy").shape
    (1000,)
    """
    _refuse_other("logits", logits, Stored, "what open_logits returns")
    _refuse_other("draw", draw, RowSampler, "a RowSampler")
    with closing(open_engine(threads, dask)) as engine:
        size = piece_rows(logits, memory, engine.width)
        with open_output(logits, output, draw, resume) as file:
            return fill(file, logits, draw, engine, size, progress or (lambda rows: None))


def _refuse_other(name: str, value: object, kind: type, what: str) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {what}, got {value!r} ({type(value).__name__})")


def open_engine(threads: int | None, dask: str | None) -> Engine:
    """Return what draws pieces."""
    if dask is not None:
        return Dask(dask)
    width = processors() if threads is None else integer("threads", threads)
    if width < 1:
        raise ValueError(f"threads must be None or >= 1, got {threads!r}")
    return Threads(width)


def open_output(
    logits: Stored, output: str | os.PathLike[str], draw: RowSampler, resume: bool
) -> TokensFile:
    """Check what is wanted, and open the file for it; `fill` does the rest."""
    if draw.rows is not None and draw.rows != len(logits):
        raise ValueError(f"columns must have {len(logits)} values, got {draw.rows}")
    draw.check_columns()
    if len(logits):  # one row tells what does not go with the number of tokens
        draw.part(0, 1)(np.zeros((1, logits.shape[1]), np.float32))
    _refuse_input(logits, output)
    file = TokensFile(output, len(logits), fingerprint(logits, draw), resume)
    for piece in file.done if draw.errors == "raise" else []:
        marked = file.marked(piece)
        if marked.size:
            file.close()
            raise ValueError(
                f"errors must be 'mark' as in the run to be resumed, which marked row {marked[0]}"
            )
    return file


def _refuse_input(logits: Stored, output: str | os.PathLike[str]) -> None:
    """Refuse to write where logits are read from."""
    place = Path(output).resolve()
    file = logits.file_among([place, part_of(place), journal_of(place)])
    if file is not None:
        raise ValueError(f"output must not lead to logits, got {str(output)!r} ({file})")


def fingerprint(logits: Stored, draw: RowSampler) -> Fingerprint:
    """Return, by name, all that tokens depend on."""
    from .. import __version__

    kind = "reference" if backend.active().__name__.endswith("reference") else "core or numba"
    return {
        "logits": logits.fingerprint(),
        "version": __version__,
        "backend": kind,
        **draw.fingerprint(),
    }


def fill(
    file: TokensFile,
    logits: Stored,
    draw: RowSampler,
    engine: Engine,
    size: int,
    report: Callable[[int], object],
) -> Drawn:
    """RowSampler what a file lacks, in pieces of at most so many rows."""
    resumed = sum(len(piece) for piece in file.done)
    bad = sum(file.marked(piece).size for piece in file.done)
    for first, tokens in drawn(engine, logits, draw, cut(list(file.gaps), size)):
        file.write(first, tokens)
        bad += int(np.count_nonzero(tokens == -1))
        report(len(tokens))
    file.finish()
    return Drawn(len(logits), resumed, bad)


def piece_rows(logits: Stored, memory: int, width: int) -> int:
    """Return how many rows a piece has, so that `width` of them fit."""
    least = max(1, logits.chunk * logits.row_bytes)
    if integer("memory", memory) < least:
        raise ValueError(f"memory must be >= {least}, what is read at once, got {memory}")
    return max(1, min(memory // width, _PIECE) // least) * logits.chunk


def drawn(
    engine: Engine, logits: Stored, draw: RowSampler, todo: Iterator[range]
) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Yield the first row and the tokens of each piece, as they are done.

    Those that are done together come in order. After an error no piece is begun, but those that
    were are waited for. Pieces are begun in order, so that the error raised is that of the first
    bad row, however fast each piece is.
    """
    waiting: dict[Any, range] = {}
    failed: dict[int, Exception] = {}
    while True:
        while not failed and len(waiting) < 2 * engine.width:
            piece = next(todo, None)
            if piece is None:
                break
            ends = piece.start, piece.stop
            waiting[engine.submit(draw_piece, logits, draw.part(*ends), *ends)] = piece
        if not waiting:
            break
        for future in sorted(engine.wait(waiting), key=lambda done: waiting[done].start):
            piece = waiting.pop(future)
            try:
                tokens = future.result()
            except Exception as error:
                failed[piece.start] = error
            else:
                yield piece.start, tokens
    if failed:
        raise failed[min(failed)]
