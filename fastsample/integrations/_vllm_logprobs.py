"""Log-probabilities as vLLM hands them on, out of what our kernels tell of a draw. Needs vLLM.

Of a row vLLM wants those of the token that was drawn and of the n most probable, in one array with
the token first, and as its rank how many are at least as probable. Or those of tokens that are
named.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from vllm.v1.outputs import LogprobsTensors

Arrays = dict[str, npt.NDArray[Any]]
Ids = npt.NDArray[np.int64]

RAW, PROCESSED = 1, 2  # by fs_logprobs


class Asked(NamedTuple):
    """What a step asks for beside tokens."""

    mode: str
    top: int  # how many of the most probable; None is 0
    named: dict[int, list[int]] | None  # ids by row, which come first

    @property
    def kind(self) -> int:
        """The number of an ``fs_logprobs``."""
        return RAW if self.mode.startswith("raw") else PROCESSED

    def arrays(self, rows: int) -> Arrays:
        """Return the arrays that a backend is to fill."""
        top = max(1, self.top)  # the first says how much all of the row weigh
        return {
            "logprob": np.empty(rows, np.float32),
            "at_least": np.empty(rows, np.int64),
            "top_ids": np.empty((rows, top), np.int32),
            "top_logprobs": np.empty((rows, top), np.float32),
        }


def asked_of(meta: Any, mode: str) -> Asked | None:
    """Return what is asked for that kernels tell; None where vLLM has to."""
    top, named = meta.max_num_logprobs, meta.logprob_token_ids
    if top == -1:
        return None
    if mode.startswith("raw"):
        return Asked(mode, top or 0, named)
    # Of a greedy row vLLM's are those of a draw at temperature 1.
    told = mode == "processed_logprobs" and meta.all_random and not named
    return Asked(mode, top or 0, None) if told else None


def tensors(asked: Asked, arrays: Arrays, tokens: Ids, logits: torch.Tensor) -> LogprobsTensors:
    """Return what vLLM hands on."""
    ranks = torch.from_numpy(arrays["at_least"])
    if asked.named:
        return LogprobsTensors(*_named(asked, arrays, tokens, logits), ranks)
    top = slice(asked.top)
    ids = np.concatenate([tokens[:, np.newaxis], arrays["top_ids"][:, top]], 1, dtype=np.int32)
    logprobs = np.concatenate(
        [arrays["logprob"][:, np.newaxis], arrays["top_logprobs"][:, top]], axis=1
    )
    if ids.size and ids.min() < 0:
        _name_others(ids, logits.shape[1])
    found = torch.from_numpy(ids)
    if asked.mode == "raw_logits":
        return LogprobsTensors(found, _gathered(logits, found), ranks)
    return LogprobsTensors(found, torch.from_numpy(logprobs), ranks)


def _gathered(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return logits.gather(1, ids.long()).float()


def _name_others(ids: npt.NDArray[np.int32], vocab: int) -> None:
    """Give places beyond what is kept ids that are not: vLLM looks up the text of each."""
    for row in np.flatnonzero((ids < 0).any(axis=1)).tolist():
        here, missing = ids[row], ids[row] < 0
        others = np.arange(min(2 * here.size, vocab), dtype=np.int32)
        here[missing] = np.setdiff1d(others, here)[: np.count_nonzero(missing)]


def _named(
    asked: Asked, arrays: Arrays, tokens: Ids, logits: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and raw values of the tokens and of those that are named; -inf for none."""
    assert asked.named is not None
    ids = np.zeros((tokens.size, 1 + max(map(len, asked.named.values()))), np.int64)
    valid = np.zeros(ids.shape, np.bool_)
    ids[:, 0], valid[:, 0] = tokens, True
    for row, named in asked.named.items():
        ids[row, 1 : 1 + len(named)] = named
        valid[row, 1 : 1 + len(named)] = True
    found = torch.from_numpy(ids)
    values = _gathered(logits, found)
    if asked.mode == "raw_logprobs":
        first = torch.from_numpy(np.maximum(arrays["top_ids"][:, :1], 0))
        total = _gathered(logits, first).double() - torch.from_numpy(arrays["top_logprobs"][:, :1])
        values = (values.double() - total).float()
    return found.int(), values.masked_fill_(~torch.from_numpy(valid), -torch.inf)
