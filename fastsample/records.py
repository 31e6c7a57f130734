"""Chains as every backend reads them: a record is ``min_tokens_to_keep`` and the stages in turn.

The stages mirror ``fs_stage`` of ``csrc/fastsample.h``. An array of records has one for all rows,
or one per row; all have the same stages, with numbers of their own. Depends on NumPy alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Records: TypeAlias = npt.NDArray[np.void]

#: The kinds of ``fs_stage_kind``, of which the first is 1, and how many numbers each has.
NUMBERS = {
    "temperature": 3,
    "top_k": 1,
    "top_p": 1,
    "min_p": 1,
    "typical_p": 1,
    "epsilon_cutoff": 1,
    "eta_cutoff": 1,
    "top_a": 1,
    "p_less": 1,
    "top_n_sigma": 1,
    "top_h": 1,
    "xtc": 2,
    "mirostat": 3,
    "adaptive": 2,
    "p_less_norm": 1,
}
KINDS = tuple(NUMBERS)

#: How many numbers the state of a stage has, of those that have one.
STATES = {"mirostat": 1, "adaptive": 2}

STAGE = np.dtype(
    [("struct_size", "u4"), ("kind", "i4"), ("joint", "i4"), ("reserved", "i4"),
     ("value", "f8", (4,))]
)  # fmt: skip

#: What happens to the logit of one token, as ``fs_edit`` has it.
EDIT = np.dtype(
    [("id", "i4"), ("banned", "i4"), ("factor", "f8"), ("subtract", "f8"), ("bias", "f8")]
)


@lru_cache
def record_type(stages: int) -> np.dtype[np.void]:
    """Return the type of a record of so many stages."""
    return np.dtype([("min_tokens_to_keep", "i8"), ("stages", STAGE, (stages,))])


def steps(record: np.void) -> Iterator[tuple[str, tuple[float, ...], bool]]:
    """Yield name, numbers and joint of each stage of a record."""
    for stage in record["stages"]:
        name = KINDS[stage["kind"] - 1]
        yield name, tuple(stage["value"][: NUMBERS[name]].tolist()), bool(stage["joint"])
