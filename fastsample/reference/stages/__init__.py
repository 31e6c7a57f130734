"""One file per stage: what it keeps, and where it is off. The table of all of them.

A file depends on ``distribution.py`` and ``stage.py`` alone, and has a ``STAGE``.
"""

from __future__ import annotations

from importlib import import_module

from ...records import KINDS
from .stage import Stage

TABLE: dict[str, Stage] = {name: import_module(f".{name}", __name__).STAGE for name in KINDS}
