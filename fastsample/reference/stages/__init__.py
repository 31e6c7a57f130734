"""One file per stage: what it keeps, and where it is off. The table of all of them.

A file depends on ``distribution.py`` and ``stage.py`` alone, and has a ``STAGE``.
"""

from __future__ import annotations

from importlib import import_module

from .stage import Stage

NAMES = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "epsilon_cutoff",
    "eta_cutoff",
    "top_a",
    "p_less",
    "top_n_sigma",
    "top_h",
    "xtc",
    "mirostat",
    "adaptive",
)
TABLE: dict[str, Stage] = {name: import_module(f".{name}", __name__).STAGE for name in NAMES}
