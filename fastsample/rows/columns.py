"""Columns of a file: parameters, seeds and offsets that differ by row. Depends on NumPy."""

from __future__ import annotations

import csv
import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..parameters import TABLE
from ..values import flag, integer
from .draw import COLUMNS

#: What has one number a row, as a .csv file can hold it.
_NUMBERS = {n for n in COLUMNS if n in TABLE and not TABLE[n].listed} | {"seed", "offset"}
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


def read_columns(path: str | os.PathLike[str]) -> dict[str, npt.NDArray[Any]]:
    r"""Read columns of parameters, with a value for each row of logits.

    Parameters
    ----------
    path : path
        A ``.npz`` file of arrays of length N, or a ``.csv`` file with names in its first line. A
        name is that of a parameter of `sample`, ``seed`` or ``offset``; in ``.npz`` ``history``,
        ``prompt_length`` or ``allowed`` too.

    Returns
    -------
    dict of str to array of length N
        For `RowSampler`.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        A name is none of these, a value is no number, or the file is not what its name says.

    Examples
    --------
    >>> from pathlib import Path
    >>> from fastsample.rows import read_columns
    >>> _ = Path("columns.csv").write_text("seed,top_p\n7,0.9\n8,1\n")
    >>> read_columns("columns.csv")["top_p"]
    array([0.9, 1. ])
    """
    place = Path(path)
    suffix = place.suffix.lower()
    if suffix not in _READERS:
        raise ValueError(f"columns must be a .npz or .csv file, got {str(path)!r}")
    read, must, wrong = _READERS[suffix]
    try:
        return read(place)
    except MemoryError:
        raise
    except wrong as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # of a place before any
            raise
        raise ValueError(f"columns must be {must}, got {str(path)!r}: {error}") from None


def _read_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    with path.open("rb") as file:  # which np.load leaves open where it fails
        found = np.load(file, allow_pickle=False)
        if isinstance(found, np.ndarray):
            raise ValueError("it is .npy, of one array without a name")
        with found:
            return {name: found[name] for name in found.files}


def _read_csv(path: Path) -> dict[str, npt.NDArray[Any]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file)
        names = [name.strip() for name in next(lines, [])]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"columns must have names, each once, got {names} in {path}")
        for name in names:
            if name not in _NUMBERS:
                raise ValueError(f"columns must be of parameters' numbers, got {name!r} in {path}")
        cells: list[list[Any]] = [[] for _ in names]
        for number, line in enumerate(lines):
            if len(line) != len(names):
                where = f"(row {number})"
                raise ValueError(f"columns must have {len(names)} values, got {len(line)} {where}")
            for name, text, column in zip(names, line, cells, strict=True):
                column.append(_value(name, text.strip(), number))
    return {name: _array(column, _kind(name)) for name, column in zip(names, cells, strict=True)}


_Reader = Callable[[Path], dict[str, npt.NDArray[Any]]]
#: How each kind of file is read, what it must be, and what says that it is not. An archive that is
#: none fails in whatever way the first part fails that is not as it should be.
_READERS: dict[str, tuple[_Reader, str, tuple[type[Exception], ...]]] = {
    ".npz": (_read_npz, "a .npz file of arrays of numbers", (Exception,)),
    ".csv": (_read_csv, "a .csv file in UTF-8", (csv.Error, UnicodeError)),
}


def _array(column: list[Any], kind: type) -> npt.NDArray[Any]:
    for dtype in (kind, np.uint64):  # of which seeds may have the upper half
        with suppress(OverflowError):
            return np.array(column, dtype)
    return np.array(column, object)  # is refused where it is drawn, by row


def _kind(name: str) -> type:
    if name not in TABLE:  # seed and offset
        return int
    convert = TABLE[name].convert
    return int if convert is integer else bool if convert is flag else float


def _value(name: str, text: str, row: int) -> Any:
    kind = _kind(name)
    try:
        return _FLAGS[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        must = {int: "an integer", bool: "true or false", float: "a number"}[kind]
        raise ValueError(f"{name} must be {must}, got {text!r} (row {row})") from None
