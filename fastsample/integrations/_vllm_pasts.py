"""What requests of vLLM have behind them: the history of each that needs one, and allowed ids.

vLLM counts the tokens of all its requests anew at each step. Here a request's history is kept from
step to step and grows by what was drawn. Needs vLLM's batch, and what it says of its requests; the
parameters are those that it has put there.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from vllm.v1.sample.logits_processor.builtin import (
    LogitBiasLogitsProcessor,
    MinTokensLogitsProcessor,
)

from .. import backend
from ..inputs import Edits, together
from ..masks import Words, packed
from ..records import EDIT
from ..reference.edits import exactly
from ..reference.inputs import edits_at
from ..rules import Rules, make_rules
from ._vllm_masks import Layout, everything

# An id that no row has: it stands between prompt and output, over which no bad word reaches in
# vLLM, and for tokens that vLLM does not know yet.
NO_TOKEN = 2**31 - 1

Wants = dict[str, Any]


class Past:
    """The history of one request, which follows vLLM's own list of its output.

    Parameters
    ----------
    wants : dict
        What edits its rows, as `make_rules` takes it.
    prompt : int array, shape (n,)
        Its prompt.
    outputs : list of int
        vLLM's list, which grows; where the request is another one, so is the list.
    """

    __slots__ = ("_count", "_last", "_unknown", "history", "outputs", "wants")

    def __init__(self, wants: Wants, prompt: npt.NDArray[Any], outputs: list[int]) -> None:
        rules = make_rules(None, wants)
        assert isinstance(rules, Rules)
        self.wants, self.outputs = wants, outputs
        self.history = backend.history(rules.rules)
        self.start(prompt)

    def start(self, prompt: npt.NDArray[Any]) -> None:
        """Begin anew."""
        known = np.where(prompt < 0, NO_TOKEN, prompt)
        self.history.start(np.append(known, NO_TOKEN), prompt.size + 1)
        self._count = self._unknown = 0  # of the output: tokens taken, and those at its end unknown
        self._last = NO_TOKEN

    def follow(self) -> bool:
        """Take what has been added to the output, or give back what is gone; False: begin anew."""
        outputs, back = self.outputs, self._unknown
        back = max(back, self._count - len(outputs))
        if back:
            self.history.pop(back)
            self._count -= back
            self._unknown, self._last = 0, outputs[self._count - 1] if self._count else NO_TOKEN
        if self._count and outputs[self._count - 1] != self._last:
            return False
        more = outputs[self._count :]
        if more:
            if min(more) < 0:
                self._unknown = sum(token < 0 for token in more)
                more = [NO_TOKEN if token < 0 else token for token in more]
            self.history.push(more)
            self._count += len(more)
            self._last = outputs[-1]
        return True

    def ahead(self, drafts: list[int], vocab: int) -> list[npt.NDArray[np.void]]:
        """Return the edits of the next row and of those behind each of some drafts."""
        made = [self.history.edits(vocab)]
        for token in drafts:
            self.history.push((token,))
            made.append(self.history.edits(vocab))
        if drafts:
            self.history.pop(len(drafts))
        return made


class Pasts:
    """The histories of a runner's requests, by their ids, and the rows that they are for.

    Parameters
    ----------
    runner : vllm.v1.worker.gpu_model_runner.GPUModelRunner
        Whose batch it is.
    """

    def __init__(self, runner: Any) -> None:
        self.runner = runner
        self.of_requests: dict[str, Past] = {}
        self._module: Any = None
        self._meta: Any = None  # vLLM makes another one wherever its batch changes
        self._rows: list[tuple[int, Past]] = []
        self._allowed: Words | None = None

    def inputs(self, meta: Any, rows: int, vocab: int, but: Container[int] = ()) -> dict[str, Any]:
        """Return what edits and masks the rows of a step, `but` for some, as backends take it."""
        self._look(meta, rows, vocab)
        found: dict[str, Any] = {} if self._allowed is None else {"allowed": self._allowed}
        if not self._rows:
            return found
        histories: list[Any] = [None] * rows
        for row, past in self._rows:
            self._follow(row, past)
            if row not in but:
                histories[row] = past.history
        if hasattr(self._module, "Sequence"):  # which reads histories where they are
            return found | {"pasts": histories}
        return found | edits_of(histories, vocab)

    def inputs_ahead(
        self, meta: Any, drafts: list[list[int]], layout: Layout, vocab: int, but: Container[int]
    ) -> dict[str, Any]:
        """Return the same for rows of drafts: the history of each has the drafts before it."""
        self._look(meta, len(drafts), vocab)
        found: dict[str, Any] = {}
        if self._allowed is not None:
            found["allowed"] = np.repeat(self._allowed, layout.counts, axis=0)
        if not self._rows:
            return found
        made = [np.empty(0, EDIT)] * sum(layout.counts)
        for request, past in self._rows:
            self._follow(request, past)
            for i, edits in enumerate(past.ahead(drafts[request], vocab)):
                row = layout.starts[request] + i
                if row not in but:
                    made[row] = edits
        return found | together(made)

    def penalise(self, meta: Any, logits: torch.Tensor) -> None:
        """Write the penalties of requests into float32 logits, which have all other edits."""
        rows, vocab = logits.shape
        inputs = self.inputs(meta, rows, vocab)
        if "pasts" in inputs:
            inputs |= edits_of(inputs["pasts"], vocab)
        if "edits" not in inputs:
            return
        values = logits.numpy()
        for row in range(rows):
            edits = edits_at(inputs, row)
            ids = edits["id"]
            values[row, ids] = exactly(values[row, ids], edits["factor"], edits["subtract"], 0.0, 0)

    def _follow(self, row: int, past: Past) -> None:
        if not past.follow():
            past.start(_prompt(self.runner.input_batch, row))
            past.follow()

    def _look(self, meta: Any, rows: int, vocab: int) -> None:
        """Find the rows that have a past, and those that only some ids are allowed in."""
        module = backend.active()
        if module is not self._module:
            self._module, self._meta, self.of_requests = module, None, {}
        if meta is self._meta:
            return
        batch = self.runner.input_batch
        self._meta, self._rows = meta, []
        alive = self.runner.requests
        self.of_requests = {r: past for r, past in self.of_requests.items() if r in alive}
        for row, request in enumerate(batch.req_ids[:rows]):
            wants = _wants(batch, meta, row)
            if wants:
                self._rows.append((row, self._past(request, row, wants)))
        self._allowed = _allowed(batch, meta, rows, vocab)

    def _past(self, request: str, row: int, wants: Wants) -> Past:
        batch = self.runner.input_batch
        outputs = batch.req_output_token_ids[row]
        past = self.of_requests.get(request)
        # A minimum of tokens that is reached is no longer wanted: the rule knows by itself.
        if past and outputs and past.outputs is outputs and past.wants | wants == past.wants:
            return past
        past = self.of_requests[request] = Past(wants, _prompt(batch, row), outputs)
        return past


def edits_of(histories: list[Any], vocab: int) -> Edits:
    """Return the edits of rows, of which some have no history."""
    none = backend.history(()).edits(vocab)
    return together([none if h is None else h.edits(vocab) for h in histories])


def _prompt(batch: Any, row: int) -> npt.NDArray[Any]:
    prompt: npt.NDArray[Any] = batch.token_ids_cpu[row, : batch.num_prompt_tokens[row]]
    return prompt


def _wants(batch: Any, meta: Any, row: int) -> Wants:
    """Return what edits a row, by the names of our parameters."""
    wants: Wants = {}
    if not meta.no_penalties:
        for name, values, off in (
            ("repetition_penalty", batch.repetition_penalties_cpu, 1.0),
            ("frequency_penalty", batch.frequency_penalties_cpu, 0.0),
            ("presence_penalty", batch.presence_penalties_cpu, 0.0),
        ):
            value = float(values[row])
            if value != off:
                wants[name] = value
    words = batch.bad_words_token_ids.get(row)
    if words:
        wants["bad_words_ids"] = words
    for processor in meta.logitsprocs.non_argmax_invariant:
        if type(processor) is LogitBiasLogitsProcessor and row in processor.biases:
            wants["logit_bias"] = processor.biases[row]
        elif type(processor) is MinTokensLogitsProcessor and row in processor.min_toks:
            number, _, stops, structured = processor.min_toks[row]
            if stops and not structured:  # that is a mask's
                wants |= {"min_new_tokens": number, "eos_token_id": sorted(stops)}
    return wants


def _allowed(batch: Any, meta: Any, rows: int, vocab: int) -> Words | None:
    """Return the ids that requests allow, as a mask of all rows."""
    if meta.allowed_token_ids_mask is None:
        return None
    words = everything(rows, vocab)
    forbidden = meta.allowed_token_ids_mask.numpy()
    for request in batch.has_allowed_token_ids:
        row = batch.req_id_to_index[request]
        words[row] = packed(~forbidden[row : row + 1])[0]
    return words
