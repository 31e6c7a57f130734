"""vLLM's rejection sampler with its steps replaced: drafts verified with fastsample. Needs vLLM.

A draft stays where the text without drafts has it ("exact"): so a seed gives the same text with and
without them. Of drafts that are tokens alone, as those of a look-up and of a greedy draft model, no
method keeps more. Where a draft model says what it drew from, and nothing else asks for the same
text, "token" keeps more, and does.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from vllm.v1.outputs import LogprobsTensors, SamplerOutput
from vllm.v1.sample.rejection_sampler import RejectionSampler

from .. import backend
from ..records import Records
from ..reference.inputs import of_rows
from ..reference.verification import EXACT, TOKEN, Side
from ._vllm_logprobs import Asked, asked_of
from ._vllm_masks import Layout
from ._vllm_sampler import (
    CHANGED,
    Chain,
    FastSampler,
    defect,
    foreign,
    records_of,
    rows_of,
    tell,
    write_masks,
)

Drafts = list[list[int]]
Key = tuple[int, int, int]

_HOT = records_of(1, {"temperature": 1.0})


class FastRejectionSampler(RejectionSampler):
    """The rejection sampler of vLLM, verifying with fastsample.

    Parameters
    ----------
    sampler : FastSampler
        Which draws where a step has no drafts.
    theirs : vllm.v1.sample.rejection_sampler.RejectionSampler
        The one whose place this takes.

    Attributes
    ----------
    verified : collections.Counter
        How many drafts were verified, and how many of them stayed, by method: the keys are pairs.
    """

    def __init__(self, sampler: FastSampler, theirs: RejectionSampler) -> None:
        torch.nn.Module.__init__(self)
        self.__dict__.update({n: v for n, v in vars(theirs).items() if not n.startswith("_")})
        self.sampler = sampler
        self.verified: Counter[tuple[str, str]] = Counter()

    def forward(
        self,
        metadata: Any,
        draft_probs: torch.Tensor | None,
        logits: torch.Tensor,
        sampling_metadata: Any,
    ) -> SamplerOutput:
        """Verify the drafts of a step; -1 fills the places behind what is emitted."""
        fast, meta = self.sampler, sampling_metadata
        layout = Layout.of(metadata.num_draft_tokens)
        grammars = fast.take_grammars(layout)
        if logits.stride(1) != 1:
            logits = logits.contiguous()
        why = "drafts at made-up rates" if self.synthetic_mode else foreign(meta)
        if why:
            fast.left[why] += 1
            write_masks(grammars, logits)
            return super().forward(metadata, draft_probs, logits, meta)
        vocab, requests = logits.shape[1], len(layout.counts)
        drafts = _drafts(metadata, vocab)
        asked = asked_of(meta, fast.logprobs_mode) if meta.max_num_logprobs is not None else None
        if asked is not None:  # vLLM has no named tokens here
            asked = asked._replace(named=None)
        stages, records = chain = fast.chain(meta)
        inputs = fast.inputs(meta, logits, layout, drafts, grammars, asked)
        keys, seeded = self._keys(meta, requests)
        out = np.full((requests, metadata.max_spec_len + 1), -1, np.int32)
        told = None
        if asked is None:
            side = _Steps(logits, records, inputs)
            for r in range(requests):
                probs = None
                if draft_probs is not None and r not in seeded and not _is_greedy(stages, r):
                    first = layout.starts[r] - r  # of the drafts
                    probs = draft_probs[first : first + len(drafts[r])]
                self._verify(side, r, layout.starts[r], drafts[r], probs, keys[r], out[r])
        else:
            told = self._tell(logits, chain, inputs, asked, layout, drafts, keys, out)
        return SamplerOutput(torch.from_numpy(out), told)

    def _keys(self, meta: Any, requests: int) -> tuple[list[Key], set[int]]:
        """Return seed, stream and offset of each request, and which have a seed of their own.

        The others' come from torch's stream of the process, so that all workers draw the same.
        """
        own = self.sampler.keys(meta, requests)
        keys: list[Key] = [(0, 0, 0)] * requests
        if len(own) < requests and not meta.all_greedy:
            keys = [(seed, 0, 0) for seed in torch.randint(2**63 - 1, (requests,)).tolist()]
        for row, (seed, offset) in own.items():
            keys[row] = seed, 0, offset
        return keys, set(own)

    def _verify(
        self,
        steps: _Steps,
        request: int,
        first: int,
        drafts: list[int],
        probs: torch.Tensor | None,
        key: Key,
        out: npt.NDArray[np.int32],
    ) -> None:
        """Write what one request emits. Rows behind the first refusal are not read."""
        method, draft = ("exact", EXACT), None
        if probs is not None:
            method = "token", TOKEN
            draft = Side(probs.float().log().numpy(), _HOT, {})
        count = len(drafts)
        emitted = np.empty(count + 1, np.int64)
        side = steps.side(request, first, count + 1)
        try:
            kept = backend.active().verify(
                np.array(drafts, np.int64), side, draft, method[1], key, emitted
            )
        except ValueError:
            wrong = steps.defect(first, count + 1)
            if wrong is None and probs is not None:  # it is the draft's row that is bad
                return self._verify(steps, request, first, drafts, None, key, out)
            if wrong is None:
                raise
            self.sampler.bad[request] = wrong
            out[0] = 0  # the request fails; until then it needs a token
            return None
        out[: kept + 1] = emitted[: kept + 1]
        return self._count(method[0], count, kept)

    def _count(self, method: str, drafted: int, kept: int) -> None:
        self.verified[method, "drafted"] += drafted
        self.verified[method, "accepted"] += kept

    def _tell(
        self,
        logits: torch.Tensor,
        chain: Chain,
        inputs: dict[str, Any],
        asked: Asked,
        layout: Layout,
        drafts: Drafts,
        keys: list[Key],
        out: npt.NDArray[np.int32],
    ) -> LogprobsTensors:
        """Draw at each position and tell of it; write what stays."""
        counts = layout.counts
        stages, records = chain
        if records.size > 1:
            stages = {name: np.repeat(values, counts) for name, values in stages.items()}
            records = np.repeat(records, counts)
        seeds, streams, offsets = (
            np.repeat(np.array(words, np.uint64), counts) for words in zip(*keys, strict=True)
        )
        starts = np.repeat(np.array(layout.starts), counts)
        offsets += (np.arange(len(logits)) - starts).astype(np.uint64)
        uniforms = backend.active().uniforms(seeds, streams, offsets)
        tokens, told = tell(logits, (stages, records), uniforms, inputs, asked)
        drawn = tokens.tolist()
        for r, mine in enumerate(drafts):
            first, kept = layout.starts[r], 0
            while kept < len(mine) and drawn[first + kept] == mine[kept]:
                kept += 1
            emitted = drawn[first : first + kept + 1]
            if emitted[-1] < 0:
                self.sampler.bad[r] = defect(logits, first + kept, inputs) or CHANGED
                emitted = [0]
            out[r, : len(emitted)] = emitted
            self._count("exact", len(mine), kept)
        # vLLM takes a row for each place of `out`, and leaves those of -1 away.
        places = np.array(layout.starts)[:, np.newaxis] + np.arange(out.shape[1])
        rows = torch.from_numpy(np.minimum(places, len(logits) - 1).reshape(-1))
        return LogprobsTensors(*(tensor[rows] for tensor in told[:3]))


class _Steps:
    """The rows of all requests, of which each has some that follow one another."""

    def __init__(self, logits: torch.Tensor, records: Records, inputs: dict[str, Any]) -> None:
        self.logits, self.records, self.inputs = logits, records, inputs
        self.rows = rows_of(logits)

    def side(self, request: int, first: int, count: int) -> Side:
        """Return those of a request, as backends verify them."""
        end, records = first + count, self.records
        if records.size > 1:
            records = records[request : request + 1]
        return Side(self.rows[first:end], records, of_rows(self.inputs, first, end))

    def defect(self, first: int, count: int) -> str | None:
        """Say why the first bad one of some rows cannot be drawn from, or None."""
        found = (defect(self.logits, first + i, self.inputs) for i in range(count))
        return next((words for words in found if words), None)


def _drafts(metadata: Any, vocab: int) -> Drafts:
    """Return the drafts of each request, up to the first that is no token: vLLM pads with -1."""
    flat, at, found = metadata.draft_token_ids.tolist(), 0, []
    for count in metadata.num_draft_tokens:
        mine = flat[at : at + count]
        stop = next((i for i, token in enumerate(mine) if not 0 <= token < vocab), count)
        found.append(mine[:stop])
        at += count
    return found


def _is_greedy(stages: dict[str, Any], request: int) -> bool:
    temperature = stages["temperature"]
    return bool((temperature if np.ndim(temperature) == 0 else temperature[request]) == 0.0)
