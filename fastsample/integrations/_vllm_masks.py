"""Which tokens a step of vLLM's may draw: grammars, minima of tokens under them, ends of thinking.

vLLM writes -inf or 1e9 into logits for them; here they are masks of the draw. Needs vLLM's batch,
and what it says of its requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from vllm.v1.sample.logits_processor.builtin import MinTokensLogitsProcessor

Words = npt.NDArray[np.uint32]

_LOW_BFLOAT16 = np.uint16(0xFF80)  # the bits of -inf


class Layout(NamedTuple):
    """Where the rows of requests are: each has one for each of its drafts, and one behind them."""

    counts: Sequence[int]
    starts: Sequence[int]

    @classmethod
    def of(cls, drafts: Sequence[int]) -> Layout:
        """Return that of requests with so many drafts."""
        counts = [1 + n for n in drafts]
        return cls(counts, np.cumsum([0, *counts[:-1]]).tolist())

    @classmethod
    def plain(cls, requests: int) -> Layout:
        """Return that of requests without drafts."""
        return cls([1] * requests, range(requests))


class Grammars:
    """The masks of structured output of one step: rows of the logits, and their words.

    Parameters
    ----------
    grammar : vllm.v1.core.sched.output.GrammarOutput
        What vLLM's scheduler hands on: masks of requests, of which some may have left the batch.
    places : dict of str to int
        Where requests are in the batch.
    drafted : dict of str to list of int
        The drafts of requests, by which each has that many masks more.
    layout : Layout
        Where their rows are.
    """

    def __init__(
        self,
        grammar: Any,
        places: Mapping[str, int],
        drafted: Mapping[str, Sequence[int]],
        layout: Layout,
    ) -> None:
        self.words = np.ascontiguousarray(grammar.grammar_bitmask).view(np.uint32)
        self.rows: list[tuple[int, int]] = []  # of the logits, and of the words
        at = 0
        for request in grammar.structured_output_request_ids:
            count = 1 + len(drafted.get(request, ()))
            if request in places:
                first = layout.starts[places[request]]
                self.rows += [(first + i, at + i) for i in range(count)]
            at += count

    def __iter__(self) -> Iterator[tuple[int, Words]]:
        for row, at in self.rows:
            yield row, self.words[at]

    def write(self, logits: npt.NDArray[Any], vocab: int) -> None:
        """Write what they forbid into logits; of bfloat16 these are the bits."""
        low = _LOW_BFLOAT16 if logits.dtype == np.uint16 else -np.inf
        for row, mask in self:
            forbidden = ~_bits(mask)[:vocab]
            np.copyto(logits[row, : forbidden.size], low, where=forbidden)

    def restrict(self, words: Words) -> None:
        """Leave what they allow; of tokens beyond a mask they say nothing."""
        for row, mask in self:
            words[row, : mask.size] &= mask[: words.shape[1]]


def everything(rows: int, vocab: int) -> Words:
    """Return words that allow all."""
    return np.full((rows, -(-vocab // 32)), 0xFFFFFFFF, np.uint32)


def _bits(words: Words) -> npt.NDArray[np.bool_]:
    little = words.astype("<u4", copy=False)
    return np.unpackbits(little.view(np.uint8), bitorder="little").view(np.bool_)


# ---- a minimum of tokens under a grammar ---------------------------------------------------------


def has_minima(meta: Any) -> bool:
    """Whether a request under a grammar has to have more tokens before it may stop."""
    return any(
        structured and stops
        for processor in meta.logitsprocs.non_argmax_invariant
        if type(processor) is MinTokensLogitsProcessor
        for _, _, stops, structured in processor.min_toks.values()
    )


def hold_minima(words: Words, meta: Any, logits: torch.Tensor, banned: Any, layout: Layout) -> None:
    """Forbid stop tokens while a request has too few, unless its grammar wants nothing else.

    As in vLLM, which lets a text end early then. `banned` gives the ids that are banned in a row.
    """
    vocab = logits.shape[1]
    for processor in meta.logitsprocs.non_argmax_invariant:
        if type(processor) is not MinTokensLogitsProcessor:
            continue
        for request, (least, output, stops, structured) in processor.min_toks.items():
            if not structured or request >= len(layout.counts):
                continue
            ids = np.array(sorted(stops), np.int64)
            missing = max(0, least - len(output))
            for row in range(layout.counts[request])[:missing]:
                _hold(words, layout.starts[request] + row, ids[ids < vocab], logits, banned)


def _hold(
    words: Words, row: int, stops: npt.NDArray[np.int64], logits: torch.Tensor, banned: Any
) -> None:
    left = words[row].copy()
    np.bitwise_and.at(left, stops // 32, ~(np.uint32(1) << (stops % 32).astype(np.uint32)))
    ids = np.setdiff1d(np.flatnonzero(_bits(left)[: logits.shape[1]]), banned(row))
    if bool((logits[row, torch.from_numpy(ids)] != -torch.inf).any()):
        words[row] = left


# ---- budgets of thinking -------------------------------------------------------------------------


def thinks(meta: Any) -> bool:
    """Whether a request of a step has a budget of tokens to think."""
    holder = meta.thinking_budget_state_holder
    return holder is not None and bool(holder.has_tracked_requests())


class _Forced:
    """What vLLM writes a token's logit to that has to be next: it stands for rows of logits."""

    device = torch.device("cpu")

    def __init__(self, rows: int, vocab: int) -> None:
        self.shape = (rows, vocab)
        self.tokens: dict[int, int] = {}

    def new_full(self, size: Any, value: float) -> torch.Tensor:
        return torch.full(size, value)

    def index_put_(self, places: Any, _: torch.Tensor) -> None:
        rows, tokens = (place.tolist() for place in places)
        self.tokens.update(zip(rows, tokens, strict=True))


def forced(meta: Any, vocab: int, layout: Layout, with_drafts: bool) -> dict[int, int]:
    """Return the tokens that have to be next, by rows, so that thinking ends."""
    if not thinks(meta):
        return {}
    holder, drafts = meta.thinking_budget_state_holder, meta.spec_token_ids
    holder.update_state(meta.output_token_ids, drafts, repeat_indices=None)
    last = _Forced(len(layout.counts), vocab)
    holder.apply_to_logits(last, with_drafts, drafts)
    ends = [start + n - 1 for start, n in zip(layout.starts, layout.counts, strict=True)]
    found = {ends[request]: token for request, token in last.tokens.items()}
    if with_drafts:
        others = sorted(set(range(sum(layout.counts))) - set(ends))
        of_drafts = _Forced(len(others), vocab)
        holder.apply_to_logits(of_drafts, False, drafts)
        found |= {others[place]: token for place, token in of_drafts.tokens.items()}
    return found


def force(words: Words, tokens: Mapping[int, int]) -> None:
    """Allow in each row nothing but its token."""
    for row, token in tokens.items():
        words[row] = 0
        words[row, token // 32] = np.uint32(1) << np.uint32(token % 32)
