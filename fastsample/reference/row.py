"""A row as every backend sees it, and what may be wrong with it. Depends on NumPy alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.generic]
Floats32 = npt.NDArray[np.float32]


def to_float32(rows: Rows) -> Floats32:
    """Return rows as every backend sees them: bfloat16 (as uint16) widened, float64 rounded."""
    if rows.dtype == np.uint16:
        return (rows.astype(np.uint32) << np.uint32(16)).view(np.float32)
    with np.errstate(over="ignore"):
        return rows.astype(np.float32)


def find_defect(
    row: Floats32, index: int, given: npt.NDArray[Any] | None = None, *, none_allowed: bool = False
) -> str | None:
    """Say what is wrong with a row of logits, or None; `given` is the row as it came."""
    must = f"logits row {index} must"
    for name, wrong in (("NaN", np.isnan(row)), ("+inf", row == np.inf)):
        if not wrong.any():
            continue
        token = int(np.argmax(wrong))
        value = float(given[token]) if given is not None and given.dtype == np.float64 else np.inf
        if name == "+inf" and value < np.inf:  # which is not infinite yet
            return f"{must} not go beyond float32, got {value!r} at token {token}"
        return f"{must} not contain {name}, got one at token {token}"
    if none_allowed:
        return f"{must} have an allowed token, got none"
    if row.max() == -np.inf:
        return f"{must} have a finite value, got only -inf"
    return None
