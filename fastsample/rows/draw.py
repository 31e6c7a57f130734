"""What is done to rows: their tokens, by the parameters and by the numbers of the rows.

Depends on `sample` and NumPy. A `RowSampler` can be pickled, which is how engines move it.
"""

from __future__ import annotations

import copy
import inspect
import re
import secrets
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..chains import numbers_of, refuse_unknown
from ..orders import ORDERS, parse_order
from ..parameters import DEFAULTS, NAMES, TABLE, Ints, Parameters
from ..plans import make_plan
from ..rules import Rules
from ..sampling import Errors, mark_of, sample
from ..uniforms import keys_of
from ..values import uint64

if TYPE_CHECKING:
    from typing_extensions import Unpack

Ids = npt.NDArray[np.int64]
Columns = Mapping[str, npt.NDArray[Any]]

# What `sample` takes beside parameters, and what a RowSampler says in a way of its own.
_OWN = {"logits", "stream", "u", "u_xtc", "rng", "state", "errors", "out", "threads"}
#: What a column may be of.
COLUMNS = tuple(n for n in inspect.signature(sample).parameters if n not in {*_OWN, "order"})


class RowSampler:
    """The draw from rows of a larger whole: a function of logits and of the rows' numbers.

    ``draw(logits[first:stop], first)`` is ``sample(logits, ...)[first:stop]``.

    Parameters
    ----------
    seed : int, optional
        In [0, 2**64), of all rows: row r uses its stream r, as `sample` has it. By default one from
        the operating system, which the attribute tells.
    offset : int, default 0
        The step, in [0, 2**64).
    errors : {"raise", "mark"}, default "raise"
        What to do with a bad row: raise its number, or yield -1.
    columns : mapping of str to array or list of length N, optional
        Parameters, ``seed``, ``offset``, ``history``, ``prompt_length`` or ``allowed`` that differ
        by row, with a value for each of all rows. A column of seeds draws as `sample` does from an
        array of them.
    **parameters
        Those of `sample`, for all rows alike.

    Attributes
    ----------
    seed : int or None
        The seed; None where a column has it.

    Raises
    ------
    ValueError, TypeError
        As in `sample`; what is wrong with a row is raised when it is drawn, under its own number.
        `draw_file` looks at the numbers of columns before it draws.

    Examples
    --------
    >>> import numpy as np
    >>> import fastsample
    >>> from fastsample.rows import RowSampler
    >>> logits = np.random.default_rng(0).normal(0, 2, (6, 100)).astype(np.float32)
    >>> draw = RowSampler(seed=3, top_p=0.9)
    >>> whole = fastsample.sample(logits, seed=3, top_p=0.9)
    >>> bool((draw(logits[4:], 4) == whole[4:]).all())
    True
    """

    def __init__(
        self,
        seed: int | None = None,
        *,
        offset: int = 0,
        errors: Errors = "raise",
        columns: Columns | None = None,
        **parameters: Unpack[Parameters],
    ) -> None:
        mark_of(errors)
        if columns is not None and not isinstance(columns, Mapping):
            got = f"got {columns!r} ({type(columns).__name__})"
            raise TypeError(f"columns must be a mapping of names to arrays, {got}")
        self.columns = {name: _column(name, values) for name, values in (columns or {}).items()}
        _same_length(self.columns)
        given: dict[str, Any] = {"seed": seed, "offset": offset or None, **parameters}
        for name in self.columns:
            if given.get(name) is not None:
                raise ValueError(f"{name} must be a column or one value, got {given[name]!r} too")
        if seed is None and "seed" not in self.columns:
            seed = secrets.randbits(63)
        self.seed = None if seed is None else uint64("seed", seed)
        self.offset = uint64("offset", offset)
        self.errors = errors
        known: dict[str, Any] = {n: v for n, v in parameters.items() if n in NAMES}
        refuse_unknown("RowSampler", [n for n in parameters if n not in {*COLUMNS, *NAMES}])
        rules = make_plan(1, "RowSampler", known).rules
        needed = rules.needs_history if isinstance(rules, Rules) else None
        if needed and "history" not in self.columns and given.get("history") is None:
            raise ValueError(f"history must be given where {needed} is on")
        self.parameters: dict[str, Any] = dict(parameters)
        self._first = 0  # the row that the columns begin with

    @property
    def rows(self) -> int | None:
        """How many rows the columns are for; None without columns."""
        return next((self._first + len(values) for values in self.columns.values()), None)

    def check_columns(self) -> None:
        """Raise what is wrong with a number of the columns, in whichever row it is."""
        for name, values in self.columns.items():
            if name in TABLE and not TABLE[name].listed:
                numbers_of(name, values, len(values))
            elif name in ("seed", "offset"):
                keys_of(len(values), **{"seed": 0, "offset": 0, "stream": None, name: values})

    def part(self, first: int, stop: int) -> RowSampler:
        """Return what draws rows `first` to `stop` alone: its columns have no others."""
        mine = copy.copy(self)
        at = slice(first - self._first, stop - self._first)
        mine.columns = {name: values[at] for name, values in self.columns.items()}
        mine._first = first
        return mine

    def __call__(
        self, logits: Any, rows: Ints = 0, threads: int | None = None
    ) -> npt.NDArray[np.int64]:
        """Draw the tokens of some rows.

        Parameters
        ----------
        logits : array, shape (n, V)
            As in `sample`.
        rows : int or int array of shape (n,), default 0
            The number of the first row, which the others follow, or the number of each.
        threads : int, optional
            As in `sample`.

        Returns
        -------
        int64 array of shape (n,)
        """
        shape = getattr(logits, "shape", None)
        if shape is None or len(shape) != 2:
            raise ValueError(f"logits must be 2-D, got shape {shape}")
        numbers = _numbers(rows, shape[0])
        if numbers.size and int(numbers.min()) < self._first:
            raise ValueError(f"rows must be >= {self._first}, got {numbers.min()}")
        if self.rows is not None and numbers.size and int(numbers.max()) >= self.rows:
            raise ValueError(f"columns must have a value for row {numbers.max()}, got {self.rows}")
        given: dict[str, Any] = {"seed": self.seed, "offset": self.offset, **self.parameters}
        given |= {n: _some(values, numbers - self._first) for n, values in self.columns.items()}
        stream = None if "seed" in self.columns else numbers.astype(np.uint64)
        try:
            return np.asarray(
                sample(logits, stream=stream, errors=self.errors, threads=threads, **given)
            )
        except (TypeError, ValueError) as error:
            # Only the row's number within the piece is known there.
            said = re.sub(r"\brow (\d+)", lambda m: f"row {numbers[int(m[1])]}", str(error))
            raise type(error)(said) from None

    def batch(self, batch: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
        """Draw a batch of columns, which is what Ray Data and others map functions over.

        Parameters
        ----------
        batch : mapping
            ``row``, the number of each row, and ``logits``, of shape (n, V).

        Returns
        -------
        dict
            ``row`` as it came and ``token``, int64 arrays of shape (n,).
        """
        return {"row": batch["row"], "token": self(batch["logits"], batch["row"])}

    def fingerprint(self) -> dict[str, Any]:
        """Return, by name, what tokens depend on beside logits, as JSON can hold it."""
        given = {**DEFAULTS, **self.parameters, "seed": self.seed, "offset": self.offset}
        stages = parse_order(given["order"])
        given["order"] = next((name for name in ORDERS if ORDERS[name] == stages), stages)
        return {name: _told(value) for name, value in {**given, **self.columns}.items()}


def _numbers(rows: Any, count: int) -> npt.NDArray[Any]:
    """Return the number of each row, of these or of the first."""
    numbers = np.asarray(rows)
    if numbers.dtype.hasobject:  # as integers are that 64 bits do not hold
        of_64_bits = [uint64("rows", number) for number in numbers.flat]
        numbers = np.array(of_64_bits, np.uint64).reshape(numbers.shape)
    if numbers.dtype.kind not in "iu":
        raise TypeError(f"rows must be integers, got {numbers.dtype}")
    if numbers.ndim == 0:
        first = uint64("rows", numbers)
        if first > 2**64 - count:
            raise ValueError(f"rows must be <= {2**64 - count} for {count} rows, got {first}")
        return np.uint64(first) + np.arange(count, dtype=np.uint64)
    if numbers.shape != (count,):
        raise ValueError(f"rows must be one or of shape ({count},), got {numbers.shape}")
    return numbers


def _column(name: str, values: Any) -> npt.NDArray[Any]:
    if not isinstance(name, str):
        raise TypeError(f"columns must have names of parameters, got {name!r}")
    if name not in COLUMNS:
        refuse_unknown("columns of RowSampler", [name])
        raise ValueError(f"{name} must be one value, not a column")
    try:
        array = np.asarray(values)
    except ValueError:  # lists of different lengths
        array = np.empty(len(values), object)
        array[:] = values
    if array.ndim == 0:
        raise ValueError(f"{name} must have a value for each row as a column, got {values!r}")
    return array


def _some(column: npt.NDArray[Any], places: npt.NDArray[Any]) -> Any:
    return column[places].tolist() if column.dtype.hasobject else column[places]


def _same_length(columns: Columns) -> None:
    lengths = {name: len(values) for name, values in columns.items()}
    for name, length in lengths.items():
        first, expected = next(iter(lengths.items()))
        if length != expected:
            raise ValueError(f"{name} must have the {expected} values of {first}, got {length}")


def _told(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        content = repr(value.tolist()).encode() if value.dtype.hasobject else value.tobytes()
        digest = zlib.crc32(content)
        return f"{value.dtype} {list(value.shape)} {digest:08x}"
    if isinstance(value, np.generic):
        value = value.item()
    return value if value is None or isinstance(value, (bool, int, float, str)) else repr(value)
