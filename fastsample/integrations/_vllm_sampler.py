"""vLLM's sampler with its steps replaced: edits and masks, the draw, log-probabilities.

Custom processors, thinking budgets and what else kernels cannot do is vLLM's own code, in its
order, for the step that has it. Needs vLLM and torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from vllm.v1.outputs import SamplerOutput
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor
from vllm.v1.sample.logits_processor.builtin import (
    LogitBiasLogitsProcessor,
    MinPLogitsProcessor,
    MinTokensLogitsProcessor,
)
from vllm.v1.sample.sampler import Sampler

from .. import backend
from ..arrays import as_rows
from ..chains import make_records
from ..reference import to_float32
from ..reference.inputs import as_drawn_from, defect_of
from ..reference.row import find_defect
from ..sampling import survivors
from ._vllm_logprobs import Asked, asked_of, tensors
from ._vllm_pasts import Pasts, edits_of

GREEDY_BELOW = 1e-5  # vLLM's own bound on the temperature
_LOW_BFLOAT16 = np.uint16(0xFF80)  # the bits of -inf
PROCESSED = ("processed_logits", "processed_logprobs")


class Seed(torch.Generator):
    """A generator that may be told to go back, as vLLM does with requests read in parts.

    Those of the CPU raise there, which ends the engine. Here nothing but the seed is used of them.
    """

    @classmethod
    def of(cls, generator: torch.Generator) -> Seed:
        """Return a generator in the same state."""
        seed = cls()
        seed.set_state(generator.get_state())
        return seed

    def get_offset(self) -> int:
        """Return what `set_offset` takes."""
        return 0

    def set_offset(self, offset: int) -> None:
        """Do nothing: a draw depends on the number of tokens, not on the draws before."""


class FastSampler(Sampler):
    """The sampler of vLLM, drawing with fastsample.

    Parameters
    ----------
    runner : vllm.v1.worker.gpu_model_runner.GPUModelRunner
        Whose sampler this is going to be: the numbers of tokens of its requests are read, and its
        own sampler's options.

    Attributes
    ----------
    bad : dict of int to str
        The rows that could not be drawn from since the last look, and why.
    grammar : vllm.v1.core.sched.output.GrammarOutput or None
        The masks of structured output of the next step, where nobody has applied them to logits.
    left : collections.Counter
        How many steps were edited by vLLM's own code, by what they had to do.
    """

    def __init__(self, runner: Any) -> None:
        super().__init__(runner.sampler.logprobs_mode, runner.sampler.use_fp64_gumbel)
        self.runner = runner
        self.bad: dict[int, str] = {}
        self.grammar: Any = None
        self.left: Counter[str] = Counter()
        self._bonus = False
        self._pasts = Pasts(runner)

    def forward(
        self,
        logits: torch.Tensor,
        sampling_metadata: Any,
        predict_bonus_token: bool = False,
        logprobs_mode_override: Any = None,
    ) -> SamplerOutput:
        """Do the whole step, by kernels that read the logits as they are where they can."""
        meta, rows = sampling_metadata, len(logits)
        if self._bonus is not predict_bonus_token:  # setting an attribute of a module takes long
            self._bonus = predict_bonus_token
        if self.grammar is None and _draw_alone(meta):
            tokens = self._draw(logits, _stages(meta, rows), meta)
            return SamplerOutput(torch.from_numpy(tokens.astype(np.int32)[:, np.newaxis]), None)
        mode = logprobs_mode_override or self.logprobs_mode
        telling = meta.max_num_logprobs is not None or bool(meta.logprob_token_ids)
        asked = asked_of(meta, mode) if telling else None
        if logits.stride(1) != 1:
            logits = logits.contiguous()
        untold = f"log-probabilities of mode {mode}" if telling and asked is None else None
        why = "drafts" if predict_bonus_token else _foreign(meta) or untold
        if why:
            self.left[why] += 1
            self._mask(logits)
            return super().forward(logits, meta, predict_bonus_token, logprobs_mode_override)
        if asked is not None and mode.startswith("raw"):
            self._mask(logits)  # which is a part of vLLM's raw ones
        inputs = self._pasts.inputs(meta, rows, logits.shape[1])
        if self.grammar is not None:
            inputs["allowed"] = self._masks(inputs.get("allowed"), logits)
        arrays = None if asked is None else asked.arrays(rows)
        tokens = self._draw(logits, _stages(meta, rows), meta, inputs, asked, arrays)
        told = None if asked is None or arrays is None else tensors(asked, arrays, tokens, logits)
        return SamplerOutput(torch.from_numpy(tokens.astype(np.int32)[:, np.newaxis]), told)

    def _grammars(self) -> Iterator[tuple[int, npt.NDArray[np.uint32]]]:
        """Yield the rows of structured output, each with its mask, and forget them."""
        grammar, self.grammar = self.grammar, None
        if grammar is None:
            return
        places = self.runner.input_batch.req_id_to_index
        masks = np.ascontiguousarray(grammar.grammar_bitmask).view(np.uint32)
        for request, mask in zip(grammar.structured_output_request_ids, masks, strict=True):
            if request in places:
                yield places[request], mask

    def _mask(self, logits: torch.Tensor) -> None:
        """Write what structured output forbids into the logits, as vLLM's runner does."""
        array = _rows(logits)  # which NumPy writes to on this thread alone
        low = _LOW_BFLOAT16 if array.dtype == np.uint16 else -np.inf
        for row, mask in self._grammars():
            bits = np.unpackbits(mask.astype("<u4", copy=False).view(np.uint8), bitorder="little")
            forbidden = bits[: logits.shape[1]] == 0
            np.copyto(array[row, : forbidden.size], low, where=forbidden)

    def _masks(self, allowed: Any, logits: torch.Tensor) -> npt.NDArray[np.uint32]:
        """Return what is allowed by structured output too."""
        rows, vocab = logits.shape
        words = np.full((rows, -(-vocab // 32)), 0xFFFFFFFF, np.uint32)
        if allowed is not None:
            words[:] = allowed
        for row, mask in self._grammars():
            words[row, : mask.size] &= mask[: words.shape[1]]
        return words

    def sample(
        self, logits: torch.Tensor, sampling_metadata: Any, logprobs_mode_override: Any = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Draw a token from each row; return the logits as processed too, where they are asked for.

        Unlike vLLM's, this leaves the logits as they are, but where a custom processor, which comes
        between temperature and top_k, changes them.
        """
        meta = sampling_metadata
        stages = _stages(meta, len(logits))
        custom = not _min_p_alone(meta)
        rows, greedy = logits, None
        if custom and not meta.all_greedy:
            # vLLM's own processors, min_p's included, after vLLM's own temperature.
            if not meta.all_random:
                greedy = self._draw(logits, {"temperature": 0.0}, None)
            rows = self.apply_temperature(logits, meta.temperature, meta.all_random)
            for processor in meta.logitsprocs.argmax_invariant:
                rows = processor.apply(rows)
            # Where the temperature is 0 it says which rows are greedy, and nothing else.
            stages["temperature"] = np.sign(stages["temperature"])
            stages.pop("min_p", None)
        tokens = self._draw(rows, stages, meta)
        if greedy is not None:
            tokens = np.where(stages["temperature"] == 0.0, greedy, tokens)
        mode = logprobs_mode_override or self.logprobs_mode
        asked = meta.max_num_logprobs is not None or meta.logprob_token_ids
        processed = None
        if asked and mode in PROCESSED:
            processed = _processed(rows, stages)
            if mode == "processed_logprobs":
                processed = self.compute_logprobs(processed)
        return torch.from_numpy(tokens), processed

    def _draw(
        self,
        logits: torch.Tensor,
        stages: dict[str, Any],
        meta: Any,
        inputs: dict[str, Any] | None = None,
        asked: Asked | None = None,
        arrays: Any = None,
    ) -> npt.NDArray[np.int64]:
        rows, inputs = len(logits), inputs or {}
        greedy = isinstance(stages["temperature"], float)
        tokens = np.empty(rows, np.int64)
        # What `fastsample.sample` does after its checks. A step of the model leaves nothing of
        # them in the caches: they take longer than a greedy draw does.
        records = make_records(rows, "sample", **stages, order="vllm")
        uniforms = np.zeros(rows) if greedy else self._uniforms(rows, meta)
        given = _rows(logits), records, uniforms, True, tokens, 1
        if asked is None:
            backend.active().sample(*given, **inputs)
        else:
            backend.active().sample_details(*given, asked.kind, arrays, **inputs)
        if -1 in tokens.tolist():
            for row in np.flatnonzero(tokens < 0).tolist():
                self.bad[row] = _what_is_wrong(given[0], row, inputs)
                tokens[row] = 0  # the request fails; until then it needs a token that there is
        return tokens

    def _uniforms(self, rows: int, meta: Any) -> npt.NDArray[np.float64]:
        """Return a uniform for each row.

        With a seed it is that of (seed, number of output tokens), whatever else is in the batch.
        Without, it comes from torch's stream of the process, which the engine's seed begins: with
        several workers they all draw the same.
        """
        seeded = meta.generators
        if len(seeded) < rows:
            uniforms: npt.NDArray[np.float64] = torch.rand(rows, dtype=torch.float64).numpy()
        else:
            uniforms = np.empty(rows)
        if seeded:
            batch, uniform = self.runner.input_batch, backend.active().uniform
            outputs = (batch.num_tokens_no_spec[:rows] - batch.num_prompt_tokens[:rows]).tolist()
            drafts = meta.spec_token_ids if self._bonus else None
            for row, generator in seeded.items():
                if type(generator) is torch.Generator:
                    seeded[row] = Seed.of(generator)
                if row < rows:
                    offset = outputs[row] + (len(drafts[row]) if drafts else 0)
                    uniforms[row] = uniform(generator.initial_seed(), 0, max(offset, 0))
        return uniforms


def _rows(logits: torch.Tensor) -> npt.NDArray[Any]:
    """Return logits as backends read them: bfloat16 as the uint16 of its bits."""
    if logits.stride(1) != 1:
        return as_rows(logits)[0]
    array: npt.NDArray[Any] = (
        logits.view(torch.uint16) if logits.dtype is torch.bfloat16 else logits
    ).numpy()
    return array


def _min_p_alone(meta: Any) -> bool:
    """Whether min_p is all that vLLM has between temperature and top_k."""
    return all(
        type(p) is MinPLogitsProcessor or _idle(p) for p in meta.logitsprocs.argmax_invariant
    )


def _draw_alone(meta: Any) -> bool:
    """Whether this step has nothing to do but the draw."""
    return (
        meta.max_num_logprobs is None
        and not meta.logprob_token_ids
        and meta.allowed_token_ids_mask is None
        and not meta.bad_words_token_ids
        and meta.no_penalties
        and not _thinks(meta.thinking_budget_state_holder)
        and _min_p_alone(meta)
        and all(_idle(p) for p in meta.logitsprocs.non_argmax_invariant)
    )


def _foreign(meta: Any) -> str | None:
    """Say what this step has to do that is not in our kernels, or None."""
    for processor in meta.logitsprocs.non_argmax_invariant:
        if type(processor) is MinTokensLogitsProcessor:
            # vLLM lets a text end early where its grammar wants nothing else.
            if any(structured for *_, structured in processor.min_toks.values()):
                return "min_tokens under a grammar"
        elif type(processor) is not LogitBiasLogitsProcessor and not _idle(processor):
            return "custom logits processors"
    if not _min_p_alone(meta):
        return "custom logits processors"
    return "a thinking budget" if _thinks(meta.thinking_budget_state_holder) else None


def _thinks(holder: Any) -> bool:
    return holder is not None and bool(holder.has_tracked_requests())


def _idle(processor: Any) -> bool:
    """Whether a processor has no request to work for, as those of vLLM's own kinds tell."""
    if type(processor) is LogitBiasLogitsProcessor:
        return not processor.biases
    if type(processor) is MinTokensLogitsProcessor:
        return not processor.min_toks
    if type(processor) is MinPLogitsProcessor or not isinstance(processor, AdapterLogitsProcessor):
        return False
    usual = type(processor).apply is AdapterLogitsProcessor.apply
    return usual and not getattr(processor, "req_info", True)


def _stages(meta: Any, rows: int) -> dict[str, Any]:
    """Return the parameters of `sample`, an array each; of what is off, nothing."""
    if meta.all_greedy:
        return {"temperature": 0.0}
    temperature = meta.temperature.numpy()
    stages = {"temperature": np.where(temperature < GREEDY_BELOW, 0.0, temperature)}
    if meta.top_k is not None:
        stages["top_k"] = meta.top_k.numpy()
    if meta.top_p is not None:
        stages["top_p"] = meta.top_p.numpy()
    for processor in meta.logitsprocs.argmax_invariant:
        if type(processor) is MinPLogitsProcessor and processor.min_p_count:
            stages["min_p"] = processor.min_p_cpu[:rows]
    return stages


def _processed(logits: torch.Tensor, stages: dict[str, Any]) -> torch.Tensor:
    """Return the logits over the temperature, -inf for what is not kept: what is drawn from."""
    temperature = stages["temperature"]
    if isinstance(temperature, float):  # all are greedy, which cuts nothing
        return logits
    divisors = torch.from_numpy(np.where(temperature == 0.0, 1.0, temperature).astype(np.float32))
    out = logits / divisors[:, None]
    off = {"top_k": (-1, 0, logits.shape[1]), "top_p": (1.0,), "min_p": (0.0,)}
    for row in np.flatnonzero(temperature).tolist():
        chain = {name: values[row].item() for name, values in stages.items()}
        if any(name in chain and chain[name] not in off[name] for name in off):
            kept = torch.from_numpy(_kept(logits[row], chain))
            x = out[row, kept]
            out[row].fill_(-torch.inf)
            out[row, kept] = x
    return out


def _kept(row: torch.Tensor, chain: dict[str, Any]) -> npt.NDArray[np.int64]:
    try:
        return survivors(row, **chain, order="vllm")[0]
    except ValueError:  # nothing can be drawn from it, which `sample` has noted
        return np.zeros(0, np.int64)


def _what_is_wrong(rows: npt.NDArray[Any], row: int, inputs: dict[str, Any]) -> str:
    mine = dict(inputs)
    if "pasts" in mine:
        mine |= edits_of(mine.pop("pasts"), rows.shape[1])
    as_it_came = to_float32(rows[row])
    edited = as_drawn_from(as_it_came, mine, row)
    return (
        defect_of(edited, rows[row], mine, row, row)
        or find_defect(as_it_came, row)
        or "its logits changed while they were read"
    )
