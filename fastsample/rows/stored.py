"""Logits where they are stored: .npy, .safetensors, folders of .npy, Zarr; read in pieces.

Depends on NumPy, and on zarr where an array of its is opened. A store knows its path and shape, not
its content, so that it can be pickled and read on another machine. bfloat16 is ``V2`` here, as
NumPy reads it from files.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import reprlib
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import MAX_VOCAB
from ..values import any_integer

_SAFETENSORS = {"F16": "<f2", "BF16": "V2", "F32": "<f4", "F64": "<f8"}
_NAMES = {"V2": "bfloat16"}
_MOST_HEADER = 100_000_000  # bytes: what safetensors itself allows


class Stored(ABC):
    """Rows of logits in a store.

    Attributes
    ----------
    path : str
        Where they are, from the root.
    shape : tuple of int
        Rows and tokens, (N, V).
    dtype : numpy.dtype
        Of what `read` returns; ``V2`` for bfloat16.
    chunk : int
        How many rows can only be read together.
    """

    path: str
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    chunk: int = 1

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"{self.path}: {self.shape[0]} rows of {self.shape[1]} {self.dtype_name}"

    @property
    def dtype_name(self) -> str:
        """The dtype's name, which NumPy does not have for bfloat16."""
        return _NAMES.get(self.dtype.str.lstrip("|"), self.dtype.name)

    @property
    def row_bytes(self) -> int:
        """The size of a row."""
        return self.shape[1] * self.dtype.itemsize

    @abstractmethod
    def read(self, first: int, stop: int) -> npt.NDArray[Any]:
        """Return the logits of rows `first` to before `stop`, shape (stop - first, V).

        ``0 <= first <= stop <= N``, or it is a ValueError.
        """

    @abstractmethod
    def _files(self) -> Iterator[str]:
        """Yield all files that the content is in."""

    def _ends(self, first: int, stop: int) -> tuple[int, int]:
        """Return the ends of a piece, which must be within the rows."""
        first, stop = any_integer("first", first), any_integer("stop", stop)
        if not 0 <= first <= len(self):
            raise ValueError(f"first must be in [0, {len(self)}], got {first}")
        if not first <= stop <= len(self):
            raise ValueError(f"stop must be in [{first}, {len(self)}], got {stop}")
        return first, stop

    def file_among(self, paths: Iterable[Path]) -> str | None:
        """Return a file of the content that one of these paths leads to, by whatever link."""
        there = [path.stat() for path in paths if path.exists()]
        for file in self._files() if there else ():
            if any(os.path.samestat(os.stat(file), one) for one in there):
                return file
        return None

    def fingerprint(self) -> str:
        """Return what tells these logits from others: shape, and size and age of every file."""
        digest = 0
        for file in self._files():
            about = os.stat(file)
            name = os.path.relpath(file, self.path)
            digest = zlib.crc32(f"{name} {about.st_size} {about.st_mtime_ns}".encode(), digest)
        return f"{self.shape[0]} x {self.shape[1]} {self.dtype_name}, {digest:08x}"


class Flat(Stored):
    """Rows one after the other in one file, which are mapped into memory a piece at a time."""

    def __init__(self, path: Path, start: int, dtype: np.dtype[Any], shape: tuple[int, ...]):
        self.path, self.start, self.dtype = str(path), start, dtype
        self.shape = _rows_of(shape, self.path)
        self._check(path.stat().st_size)

    def _check(self, size: int) -> None:
        needed = self.start + self.shape[0] * self.row_bytes
        if size < needed:
            raise ValueError(
                f"logits must have {needed} bytes, as the header says, got {size}: {self.path} is "
                f"cut off in row {max(0, size - self.start) // max(1, self.row_bytes)}"
            )

    def read(self, first: int, stop: int) -> npt.NDArray[Any]:
        """Return a view of the file."""
        first, stop = self._ends(first, stop)
        if first == stop:
            return np.empty((0, self.shape[1]), self.dtype)
        begin = self.start + first * self.row_bytes
        page = begin // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        length = begin - page + (stop - first) * self.row_bytes
        with open(self.path, "rb") as file:
            self._check(os.fstat(file.fileno()).st_size)  # beyond its end, reading would be a crash
            view = mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ, offset=page)
        if hasattr(mmap, "MADV_WILLNEED"):
            view.madvise(mmap.MADV_WILLNEED)
        rows = np.frombuffer(view, self.dtype, (stop - first) * self.shape[1], begin - page)
        return rows.reshape(stop - first, self.shape[1])

    def _files(self) -> Iterator[str]:
        yield self.path


class Shards(Stored):
    """Files of rows, one after the other."""

    def __init__(self, path: Path, parts: list[Flat]) -> None:
        self.path, self.parts, self.dtype = str(path), parts, parts[0].dtype
        for part in parts:
            if (part.shape[1], part.dtype) != (parts[0].shape[1], self.dtype):
                raise ValueError(f"logits must be alike in all shards, got {part} and {parts[0]}")
        self.ends = np.cumsum([len(part) for part in parts])
        self.shape = (int(self.ends[-1]), parts[0].shape[1])

    def read(self, first: int, stop: int) -> npt.NDArray[Any]:
        """Return a view of a shard, or a copy where the piece is in several."""
        first, stop = self._ends(first, stop)
        found = []
        at = int(np.searchsorted(self.ends, first, side="right"))
        while first < stop:
            begin = int(self.ends[at]) - len(self.parts[at])
            end = min(stop, int(self.ends[at]))
            found.append(self.parts[at].read(first - begin, end - begin))
            first, at = end, at + 1
        if not found:
            return np.empty((0, self.shape[1]), self.dtype)
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _files(self) -> Iterator[str]:
        for part in self.parts:
            yield part.path


class Zarr(Stored):
    """An array of Zarr, versions 2 and 3."""

    def __init__(self, path: Path, tensor: str | None) -> None:
        self.path, self._tensor = str(path), tensor
        array = self._open()
        self.shape = _rows_of(array.shape, self.path)
        stored = np.dtype(array.dtype)
        self.dtype = _checked_dtype(np.dtype("V2") if stored.name == "bfloat16" else stored)
        self.chunk = int((getattr(array, "shards", None) or array.chunks)[0])
        there, chunks = array.nchunks_initialized, array.nchunks
        if there < chunks:
            raise ValueError(f"logits must have all of their {chunks} chunks, got {there}: {path}")

    def _open(self) -> Any:
        try:
            import zarr
        except ImportError as error:
            from ..integrations import how_to_get

            raise ImportError(f"logits in Zarr need zarr ({error}): {how_to_get('rows')}") from None
        node: Any = zarr.open(self.path, mode="r")
        if not hasattr(node, "dtype"):  # a group
            names = sorted(name for name, _ in node.arrays())
            node = node[_named(self._tensor, names, self.path)]
        return node

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_array"}

    def read(self, first: int, stop: int) -> npt.NDArray[Any]:
        """Return a copy, decompressed."""
        first, stop = self._ends(first, stop)
        if not hasattr(self, "_array"):
            self._array = self._open()
        rows = np.ascontiguousarray(self._array[first:stop])
        return rows.view("V2") if self.dtype == np.dtype("V2") else rows

    def _files(self) -> Iterator[str]:
        for folder, folders, names in os.walk(self.path):
            folders.sort()
            for name in sorted(names):
                yield os.path.join(folder, name)


def open_logits(path: str | os.PathLike[str], tensor: str | None = None) -> Stored:
    """Open stored logits; nothing is read but headers.

    Parameters
    ----------
    path : path
        A ``.npy`` file of shape (N, V); a folder of such files, which follow one another by name,
        with numbers in names by their value; a ``.safetensors`` file; or a folder that is a Zarr
        array or group (with the extra ``rows``). float16, float32, float64 or bfloat16, which in
        ``.npy`` is what ml_dtypes writes (``V2``) or its bits as uint16.
    tensor : str, optional
        The name of the tensor, where there are several.

    Returns
    -------
    Stored
        With ``shape``, ``dtype``, ``len()`` and ``read(first, stop)``.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is none of these, or is cut off, or its shards differ.
    ImportError
        zarr is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsample.rows import open_logits
    >>> np.save("logits.npy", np.zeros((4, 100), np.float16))
    >>> logits = open_logits("logits.npy")
    >>> logits.shape
    (4, 100)
    >>> logits.read(1, 3).shape
    (2, 100)
    """
    place = Path(path).resolve()
    if place.is_dir():
        if any((place / name).exists() for name in ("zarr.json", ".zarray", ".zgroup")):
            return Zarr(place, tensor)
        shards = sorted(place.glob("*.npy"), key=_by_number)
        if not shards:
            raise ValueError(f"logits must be a Zarr array or .npy files, which {place} has not")
        return Shards(place, [_open_npy(shard) for shard in shards])
    with place.open("rb") as file:
        is_npy = file.read(6) == b"\x93NUMPY"
    if is_npy:
        return _open_npy(place)
    if place.suffix == ".safetensors":
        return _open_safetensors(place, tensor)
    kinds = "a .npy or .safetensors file, a folder of .npy files or a Zarr array"
    raise ValueError(f"logits must be {kinds}, got {str(place)!r}")


def _by_number(path: Path) -> list[Any]:
    """Return a key by which shard-10 follows shard-9."""
    parts = re.split(r"(\d+)", path.name)
    return [*parts[:1], *((int(n), text) for n, text in zip(parts[1::2], parts[2::2], strict=True))]


def _rows_of(shape: tuple[int, ...], path: str) -> tuple[int, int]:
    if len(shape) != 2 or min(shape) < 0:
        raise ValueError(f"logits must be of shape (N, V), got {shape} in {path}")
    if not 1 <= shape[1] <= MAX_VOCAB:
        raise ValueError(f"logits must have 1 to {MAX_VOCAB} tokens, got {shape} in {path}")
    return int(shape[0]), int(shape[1])


def _checked_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype == np.uint16:  # the bits of a bfloat16, which logits of integers are not
        return np.dtype("V2")
    if dtype == np.dtype("V2") or (dtype.kind == "f" and dtype.itemsize in (2, 4, 8)):
        return dtype
    raise ValueError(f"logits must be float16, bfloat16, float32 or float64, got {dtype}")


def _named(tensor: str | None, names: list[str], path: str) -> str:
    if tensor is None and len(names) == 1:
        return names[0]
    if tensor not in names:
        raise ValueError(f"tensor must be one of {', '.join(names)} of {path}, got {tensor}")
    return tensor


def _open_npy(path: Path) -> Flat:
    with path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
                version, np.lib.format.read_array_header_2_0
            )
            shape, by_column, dtype = read(file)
        except (ValueError, TokenError) as error:
            raise ValueError(f"logits must have a header of .npy: {path}: {error}") from None
        start = file.tell()
    if by_column and prod(shape) > max(shape, default=0):
        raise ValueError(f"logits must be stored row by row, got Fortran order in {path}")
    return Flat(path, start, _checked_dtype(dtype), shape)


def _open_safetensors(path: Path, tensor: str | None) -> Flat:
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(size)) if size <= _MOST_HEADER else None
        except (ValueError, RecursionError):
            header = None
    if not isinstance(header, dict):
        raise ValueError(f"{path} is no safetensors file: its header must be an object of JSON")
    name = _named(tensor, sorted(name for name in header if name != "__metadata__"), str(path))
    kind, shape, begin, end = _described(header[name], f"{path} is no safetensors file: {name!r}")
    if kind not in _SAFETENSORS:
        known = ", ".join(_SAFETENSORS)
        raise ValueError(f"logits must be {known}, got {kind} in {name!r} of {path}")
    dtype = np.dtype(_SAFETENSORS[kind])
    needed = prod(_rows_of(shape, str(path))) * dtype.itemsize
    if end - begin != needed:
        raise ValueError(
            f"{path} is no safetensors file: {name!r} must have {needed} bytes by its shape, "
            f"got {end - begin} by its data_offsets"
        )
    return Flat(path, 8 + size + begin, dtype, shape)


def _described(about: Any, which: str) -> tuple[str, tuple[int, ...], int, int]:
    """Return dtype, shape and ends of a tensor, as a header of safetensors has them."""
    match about:
        case {"dtype": str(kind), "shape": [*shape], "data_offsets": [begin, end]} if all(
            type(number) is int and number >= 0 for number in (*shape, begin, end)
        ):
            return kind, tuple(shape), begin, end
    raise ValueError(
        f"{which} must have a dtype, and integers >= 0 for shape and two data_offsets, "
        f"got {reprlib.repr(about)}"
    )
