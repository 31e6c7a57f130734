"""What vLLM wants to know of a step beside tokens, out of what our kernels tell. Needs vLLM.

Of a row vLLM wants those of the token that was drawn and of the n most probable, in one array with
the token first, and as its rank how many are at least as probable. Or those of tokens that are
named. Values are logarithms of probabilities, or logits; "raw" ones of the logits as they came,
"processed" ones of what is drawn from: of a greedy row, of all of it at temperature 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from vllm.v1.outputs import LogprobsTensors

from ..reference.edits import exactly
from ..reference.inputs import edits_at, of_row
from ._vllm_pasts import edits_of

Arrays = dict[str, npt.NDArray[Any]]
Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Stages = dict[str, Any]
Inputs = dict[str, Any]
#: Draws from rows, by stages and inputs, and fills arrays: (rows, stages, inputs, kind, arrays).
Draw = Callable[[slice, Stages, Inputs, int, Arrays], Ids]

RAW, PROCESSED = 1, 2  # by fs_logprobs
_CUTS = {"top_k", "top_p", "min_p"}


class Asked(NamedTuple):
    """What a step asks for beside tokens."""

    mode: str
    top: int  # how many of the most probable; None is 0
    named: dict[int, list[int]] | None  # ids by row, which come first

    @property
    def kind(self) -> int:
        """The number of an ``fs_logprobs``."""
        return RAW if self.mode.startswith("raw") else PROCESSED

    @property
    def logits(self) -> bool:
        """Whether values are logits."""
        return self.mode.endswith("logits")


def asked_of(meta: Any, mode: str) -> Asked | None:
    """Return what is asked for, or None."""
    top, named = meta.max_num_logprobs, meta.logprob_token_ids
    return Asked(mode, top or 0, named) if top is not None or named else None


class Telling:
    """One step's rows, and what is told of their draws.

    Parameters
    ----------
    asked : Asked
        What is asked for.
    logits : torch.Tensor
        The rows as they came.
    stages, inputs : dict
        What they are drawn with.
    draw : callable
        The kernel.
    """

    def __init__(
        self, asked: Asked, logits: torch.Tensor, stages: Stages, inputs: Inputs, draw: Draw
    ) -> None:
        self.asked, self.logits, self.draw = asked, logits, draw
        self.rows, self.vocab = logits.shape
        self.processed = asked.kind == PROCESSED
        self.stages, self.inputs = stages, inputs
        self.greedy = np.zeros(self.rows, np.bool_)
        if self.processed:
            temperature = np.broadcast_to(stages["temperature"], self.rows)
            self.greedy = temperature == 0.0
            if self.greedy.any():
                self.stages = {**stages, "temperature": np.where(self.greedy, 1.0, temperature)}
        self.arrays: Arrays = {}
        self.tokens = np.empty(0, np.int64)

    def run(self) -> tuple[Ids, LogprobsTensors]:
        """Return the tokens, -1 where there is none, and what vLLM hands on."""
        asked = self.asked
        # The first of the most probable says how much all of a row weigh; of a greedy row it is
        # the token, and the second says whether others tie with it.
        top = min(max(asked.top, 2 if self.greedy.any() else 1), self.vocab)
        with_support = bool(asked.named and self.processed and _CUTS & self.stages.keys())
        self.arrays = _arrays(self.rows, top, self.vocab if with_support else 0)
        self.tokens = self.draw(
            slice(0, self.rows), self.stages, self.inputs, asked.kind, self.arrays
        )
        for row in np.flatnonzero(self.greedy).tolist():
            self._take_most_probable(row)
        ids, values = self._named() if asked.named else self._listed()
        ranks = torch.from_numpy(self.arrays["at_least"])
        return self.tokens, LogprobsTensors(torch.from_numpy(ids), torch.from_numpy(values), ranks)

    # ---- greedy rows ----

    def _take_most_probable(self, row: int) -> None:
        mine = {name: array[row] for name, array in self.arrays.items()}
        token, first = mine["top_ids"][0], mine["top_logprobs"][0]
        self.tokens[row] = token
        if token < 0:
            return
        listed, top = mine["top_logprobs"], mine["top_ids"].size
        stages = {n: np.broadcast_to(v, self.rows)[row : row + 1] for n, v in self.stages.items()}
        while top < self.vocab and listed[-1] == first:  # more may tie than were asked for
            top = min(4 * top, self.vocab)
            more = _arrays(1, top)
            self.draw(slice(row, row + 1), stages, _of_row(self.inputs, row), PROCESSED, more)
            listed = more["top_logprobs"][0]
        self.arrays["logprob"][row] = first
        self.arrays["at_least"][row] = np.count_nonzero(listed == first)

    # ---- values ----

    def _listed(self) -> tuple[npt.NDArray[np.int32], Floats]:
        top = slice(self.asked.top)
        ids = np.concatenate(
            [self.tokens[:, np.newaxis], self.arrays["top_ids"][:, top]], axis=1, dtype=np.int32
        )
        if self.asked.logits:
            values = self._logits_at(ids)
        else:
            values = np.concatenate(
                [self.arrays["logprob"][:, np.newaxis], self.arrays["top_logprobs"][:, top]], axis=1
            )
        if ids.size and ids.min() < 0:
            _name_others(ids, self.vocab)
        return ids, values

    def _named(self) -> tuple[npt.NDArray[np.int32], Floats]:
        """Return ids and values of the tokens and of those that are named; -inf for none."""
        named = self.asked.named
        assert named is not None
        ids = np.full((self.rows, 1 + max(map(len, named.values()))), -1, np.int32)
        ids[:, 0] = self.tokens
        for row, mine in named.items():
            ids[row, 1 : 1 + len(mine)] = mine
        values = self._logits_at(ids)
        if not self.asked.logits:
            best = self.arrays["top_ids"][:, :1]
            lowered = self._logits_at(best).astype(np.float64)
            lowered -= self.arrays["top_logprobs"][:, :1]
            with np.errstate(invalid="ignore"):  # of bad rows
                values = (values - lowered).astype(np.float32)
        if "support" in self.arrays:
            for row, count in enumerate(self.arrays["support_count"].tolist()):
                kept = self.arrays["support"][row, :count]
                values[row, ~np.isin(ids[row], kept)] = -np.inf
        return np.maximum(ids, 0), values

    def _logits_at(self, ids: npt.NDArray[np.int32]) -> Floats:
        """Return the logits of tokens of each row, as they came or are drawn from; -inf for -1."""
        places = torch.from_numpy(np.maximum(ids, 0).astype(np.int64))
        values: Floats = self.logits.gather(1, places).float().numpy()
        if self.processed:
            self._edit(values, ids)
            temperature = np.broadcast_to(self.stages["temperature"], self.rows)
            values /= temperature.astype(np.float32)[:, np.newaxis]
        values[ids < 0] = -np.inf
        return values

    def _edit(self, values: Floats, ids: npt.NDArray[np.int32]) -> None:
        inputs = self.inputs
        if "pasts" in inputs:
            inputs = inputs | edits_of(inputs["pasts"], self.vocab)
        if "edits" in inputs:
            for row in range(self.rows):
                edits = edits_at(inputs, row)  # by rising id
                places = np.searchsorted(edits["id"], ids[row])
                found = places < len(edits)
                found[found] = edits["id"][places[found]] == ids[row][found]
                if found.any():
                    mine = edits[places[found]]
                    how = (mine[name] for name in ("factor", "subtract", "bias", "banned"))
                    values[row, found] = exactly(values[row, found], *how)
        if "allowed" in inputs:
            known = np.maximum(ids, 0)
            words = np.take_along_axis(inputs["allowed"], known // 32, axis=1)
            values[(words >> (known % 32).astype(np.uint32)) & 1 == 0] = -np.inf


def _arrays(rows: int, top: int, support: int = 0) -> Arrays:
    """Return the arrays that a backend is to fill."""
    arrays: Arrays = {
        "logprob": np.empty(rows, np.float32),
        "at_least": np.empty(rows, np.int64),
        "top_ids": np.empty((rows, top), np.int32),
        "top_logprobs": np.empty((rows, top), np.float32),
    }
    if support:
        arrays["support"] = np.empty((rows, support), np.int32)  # of which most is never touched
        arrays["support_count"] = np.empty(rows, np.int64)
    return arrays


def _of_row(inputs: Mapping[str, Any], row: int) -> Inputs:
    mine = of_row(inputs, row)
    if "pasts" in inputs:
        mine["pasts"] = [inputs["pasts"][row]]
    return mine


def _name_others(ids: npt.NDArray[np.int32], vocab: int) -> None:
    """Give places beyond what is kept ids that are not: vLLM looks up the text of each."""
    for row in np.flatnonzero((ids < 0).any(axis=1)).tolist():
        here, missing = ids[row], ids[row] < 0
        others = np.arange(min(2 * here.size, vocab), dtype=np.int32)
        here[missing] = np.setdiff1d(others, here)[: np.count_nonzero(missing)]
