"""Logits of any library as a NumPy view that every backend can read.

bfloat16, which NumPy lacks, travels as the uint16 of its bits.
"""

from __future__ import annotations

import sys
from array import array as _array
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from .parameters import SupportsArray
from .values import named


class SupportsDLPack(Protocol):
    """An array of a library that hands out its memory by DLPack."""

    def __dlpack__(self, *args: Any, **named: Any) -> Any: ...


_Real: TypeAlias = float | np.floating[Any] | np.integer[Any]
#: What is one row, what is several, and what may be either, such as an array.
Row: TypeAlias = "Sequence[_Real] | _array[float]"
Rows: TypeAlias = Sequence[Sequence[_Real]]
Logits: TypeAlias = (
    "Row | Rows | Sequence[SupportsArray] | SupportsArray | SupportsDLPack | memoryview"
)

MAX_VOCAB = 4_194_304  # FS_MAX_VOCAB
_MUST = "logits must be an array of numbers"
_MASKED = "logits must not be a masked array: fill it, e.g. x.filled(-np.inf)"
_STORED_BFLOAT16 = np.dtype("V2")
_READABLE = (np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16))


def _from_torch(tensor: Any) -> npt.NDArray[Any]:
    torch = sys.modules["torch"]
    if tensor.device.type != "cpu":
        raise TypeError(f"logits must be on the CPU, got a tensor on {tensor.device}")
    with named(_MUST):  # sparse, quantised, conjugated, or of a dtype that NumPy lacks
        array: npt.NDArray[Any]
        if tensor.dtype == torch.bfloat16:
            array = tensor.detach().view(torch.int16).numpy()
            return array.view(np.uint16)
        array = tensor.detach().numpy()
    return _readable(array, tensor)


def _from_mlx(array: Any) -> npt.NDArray[Any]:
    mlx = sys.modules["mlx.core"]
    with named(_MUST):
        if array.dtype == mlx.bfloat16:  # of which NumPy's buffers know nothing
            return np.asarray(array.view(mlx.uint16))
        numbers = np.asarray(array)
    return _readable(numbers, array)


def _from_any(logits: Any) -> npt.NDArray[Any]:
    try:
        if hasattr(logits, "__dlpack__") and not hasattr(logits, "__array__"):
            return np.from_dlpack(logits)
        return np.asarray(logits)
    except (MemoryError, RecursionError):
        raise
    except Exception as error:
        hint = ": convert it to float32 first" if "bfloat16" in str(error).lower() else ""
        raise TypeError(f"{_MUST}: {error}{hint}") from error


def widen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return what NumPy can calculate with: bfloat16, the uint16 of its bits, as float32."""
    if array.dtype != np.uint16:
        return array
    return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _plain_list(logits: Any) -> Any:
    """Return nested lists whose tensors are NumPy's."""
    if isinstance(logits, (list, tuple)):
        return [_plain_list(item) for item in logits]
    if isinstance(logits, np.ndarray) and logits.dtype.name != "bfloat16":
        return logits
    return widen(to_array(logits)) if hasattr(logits, "dtype") else logits


def _from_list(logits: Any) -> npt.NDArray[Any]:
    try:
        array = np.array(logits)
        whole = array.dtype.kind in "iuf"
    except (MemoryError, RecursionError):
        raise
    except Exception:  # of tensors that NumPy cannot read, or ragged
        whole = False
    if not whole:
        logits = _plain_list(logits)
        with named(_MUST):
            array = np.array(logits)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"logits must be an array of numbers, got a list of {array.dtype}")
    if array.ndim > 1 and any(isinstance(row, np.ma.MaskedArray) for row in logits):
        raise TypeError(_MASKED)  # of rows NumPy drops the masks
    return array.astype(np.float64)


def to_array(logits: Any) -> npt.NDArray[Any]:
    """Return logits of any number of dimensions; bfloat16 as the uint16 of its bits."""
    if type(logits) is np.ndarray:
        array = logits
    elif isinstance(logits, np.ma.MaskedArray):
        raise TypeError(_MASKED)
    elif isinstance(logits, np.ndarray):
        array = np.ndarray.view(logits, np.ndarray)
    elif "torch" in sys.modules and isinstance(logits, sys.modules["torch"].Tensor):
        return _from_torch(logits)
    elif "mlx.core" in sys.modules and isinstance(logits, sys.modules["mlx.core"].array):
        return _from_mlx(logits)
    elif isinstance(logits, (list, tuple)):
        return _from_list(logits)
    else:
        array = _from_any(logits)
    return _readable(array, logits)


def _readable(array: npt.NDArray[Any], logits: Any) -> npt.NDArray[Any]:
    if array.dtype in _READABLE or array.dtype.newbyteorder("=") in _READABLE:
        return array
    # Of ml_dtypes and JAX, or as NumPy without them reads such an array from a file.
    if array.dtype.name == "bfloat16" or array.dtype == _STORED_BFLOAT16:
        return array.view(np.uint16)
    raise TypeError(
        f"logits must be float32, float64, float16 or bfloat16, got {array.dtype} "
        f"({type(logits).__name__})"
    )


def as_rows(logits: Any) -> tuple[npt.NDArray[Any], bool]:
    """Return logits as (B, V) rows, and whether they came as a single row (V,)."""
    array = to_array(logits)
    if array.ndim not in (1, 2):
        raise ValueError(f"logits must be 1-D or 2-D, got shape {array.shape}")
    if not 1 <= array.shape[-1] <= MAX_VOCAB:
        raise ValueError(f"logits must have 1 to {MAX_VOCAB} tokens, got shape {array.shape}")
    single = array.ndim == 1
    rows = array[np.newaxis] if single else array
    flags = rows.flags
    contiguous = flags.c_contiguous or rows.shape[1] == 1 or rows.strides[1] == rows.itemsize
    if not (contiguous and flags.aligned and rows.dtype.isnative):
        rows = np.array(rows, rows.dtype.newbyteorder("="), order="C")
    return rows, single
