"""Pieces of stored rows, and what an engine does with one. Depends on NumPy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .draw import RowSampler
from .stored import Stored


def pieces(rows: int, size: int) -> list[range]:
    """Cut rows into pieces.

    Parameters
    ----------
    rows : int
        How many rows there are, >= 0.
    size : int
        How many a piece has, >= 1; the last one may have fewer.

    Returns
    -------
    list of range
        The numbers of each piece's rows.

    Examples
    --------
    >>> from fastsample.rows import pieces
    >>> pieces(10, 4)
    [range(0, 4), range(4, 8), range(8, 10)]
    """
    if size < 1:
        raise ValueError(f"size must be >= 1, got {size}")
    return list(cut([range(rows)], size))


def cut(gaps: Iterable[range], size: int) -> Iterator[range]:
    """Yield the pieces of stretches of rows, which end at multiples of the size."""
    for gap in gaps:
        start = gap.start
        while start < gap.stop:
            stop = min(gap.stop, (start // size + 1) * size)
            yield range(start, stop)
            start = stop


def draw_piece(
    logits: Stored, draw: RowSampler, first: int, stop: int, threads: int | None = 1
) -> npt.NDArray[np.int64]:
    """Read a piece of stored rows and draw it.

    Parameters
    ----------
    logits : Stored
        What `open_logits` returns.
    draw : RowSampler
        What to do with it.
    first, stop : int
        The piece: rows from `first` to before `stop`.
    threads : int, optional, default 1
        As in `sample`: 1, because engines and `draw_file` draw several pieces at a time.

    Returns
    -------
    int64 array of shape (stop - first,)
    """
    return draw(logits.read(first, stop), first, threads)


def draw_pieces(
    batch: Mapping[str, Any], logits: Stored, draw: RowSampler
) -> dict[str, npt.NDArray[np.int64]]:
    """RowSampler pieces that come as a batch of columns: what Ray Data maps over them.

    Parameters
    ----------
    batch : mapping
        ``first`` and ``stop`` of each piece.
    logits : Stored
        What `open_logits` returns; its path must lead to the same rows wherever this runs.
    draw : RowSampler
        What to do with them.

    Returns
    -------
    dict
        ``row``, the numbers of all rows of these pieces, and ``token``, int64 arrays.
    """
    parts = [(int(a), int(b)) for a, b in zip(batch["first"], batch["stop"], strict=True)]
    tokens = [draw_piece(logits, draw, first, stop) for first, stop in parts]
    numbers = [np.arange(first, stop) for first, stop in parts]
    return {"row": np.concatenate(numbers), "token": np.concatenate(tokens)}
