"""Seeds from torch's generator, for what is given none. Depends on torch."""

from __future__ import annotations

import os
import secrets
from typing import Any

import torch

from ..values import plain


class _TorchSeeds:
    """Seeds of torch's generator, which ``torch.manual_seed`` and ``set_seed`` repeat.

    A forked child inherits its state. Where nothing has seeded it, a child must not repeat its
    parent, nor its siblings.
    """

    def __init__(self) -> None:
        self._first, self._salt = torch.initial_seed(), 0
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self._salt = secrets.randbits(63)

    def next(self) -> int:
        seed: int = torch.randint(2**63 - 1, (), device="cpu").item()
        # Its own first seed has 53 bits: a small one is of somebody who was here before.
        unseeded = self._first >= 2**32 and torch.initial_seed() == self._first
        return seed ^ self._salt if unseeded else seed

    def in_place_of_none(self, seed: Any) -> Any:
        """Return a seed, or seeds of rows, with those that are not given."""
        seeds = plain("seed", seed)
        if isinstance(seeds, list):
            return [self.next() if one is None else one for one in seeds]
        return self.next() if seeds is None else seeds


torch_seeds = _TorchSeeds()
