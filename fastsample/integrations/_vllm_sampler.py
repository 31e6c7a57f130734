"""vLLM's sampler with its steps replaced: edits and masks, the draw, log-probabilities.

Where a request has a custom processor, the edits of its step are vLLM's own code, in its order, but
for penalties; the draw is ours. Needs vLLM and torch.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
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
from ..records import Records
from ..reference import to_float32
from ..reference.inputs import as_drawn_from, defect_of, edits_at
from ..reference.row import find_defect
from ..sampling import survivors
from ._vllm_logprobs import RAW, Asked, Telling, asked_of
from ._vllm_masks import (
    Grammars,
    Layout,
    everything,
    force,
    forced,
    has_minima,
    hold_minima,
    thinks,
)
from ._vllm_pasts import Pasts, edits_of

GREEDY_BELOW = 1e-5  # vLLM's own bound on the temperature
PROCESSED = ("processed_logits", "processed_logprobs")

Ids = npt.NDArray[np.int64]
Chain = tuple[dict[str, Any], Records]  # parameters, and the same as backends take them


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
    drafted : dict of str to list of int
        The drafts of the next step by its requests, for which masks come too.
    left : collections.Counter
        How many steps were edited by vLLM's own code, by what they had to do.
    """

    def __init__(self, runner: Any) -> None:
        super().__init__(runner.sampler.logprobs_mode, runner.sampler.use_fp64_gumbel)
        self.runner = runner
        self.bad: dict[int, str] = {}
        self.grammar: Any = None
        self.drafted: dict[str, list[int]] = {}
        self.left: Counter[str] = Counter()
        self.pasts = Pasts(runner)
        # What vLLM said last of a batch: one that has nothing to do but the draw, and any.
        self._plain: Any = None
        self._meta: Any = None
        self._chain: Chain = ({}, _GREEDY)

    def __call__(self, *args: Any, **kwargs: Any) -> SamplerOutput:
        """Do `forward`, without a look for hooks, which takes as long as a greedy draw."""
        return self.forward(*args, **kwargs)

    def forward(
        self,
        logits: torch.Tensor,
        sampling_metadata: Any,
        predict_bonus_token: bool = False,
        logprobs_mode_override: Any = None,
    ) -> SamplerOutput:
        """Do the whole step, by kernels that read the logits as they are where they can."""
        meta = sampling_metadata
        if self.grammar is None and (meta is self._plain or self._is_plain(meta)):
            uniforms = self._uniforms(logits.shape[0], meta)
            tokens = draw(logits, self.chain(meta)[1], uniforms, {})
            return SamplerOutput(self._settled(tokens, logits, {}), None)
        if logits.stride(1) != 1:
            logits = logits.contiguous()
        mode = logprobs_mode_override or self.logprobs_mode
        asked, layout = asked_of(meta, mode), Layout.plain(logits.shape[0])
        grammars = self.take_grammars(layout)
        why = "drafts that vLLM's own code verifies" if predict_bonus_token else foreign(meta)
        if why:
            self.left[why] += 1
            write_masks(grammars, logits)
            return super().forward(logits, meta, predict_bonus_token, logprobs_mode_override)
        inputs = self.inputs(meta, logits, layout, None, grammars, asked)
        uniforms = self._uniforms(logits.shape[0], meta)
        tokens, told = tell(logits, self.chain(meta), uniforms, inputs, asked)
        return SamplerOutput(self._settled(tokens, logits, inputs), told)

    def _is_plain(self, meta: Any) -> bool:
        """Whether this step has nothing to do but the draw; vLLM says anew where that changes."""
        if not _draw_alone(meta):
            return False
        self._plain = meta
        return True

    def chain(self, meta: Any) -> Chain:
        """Return what the rows of a batch are drawn with; vLLM says anew where that changes."""
        if meta is not self._meta:
            rows = 1 if meta.all_greedy else meta.temperature.shape[0]
            stages = stages_of(meta, rows)
            self._meta, self._chain = meta, (stages, records_of(rows, stages))
        return self._chain

    def take_grammars(self, layout: Layout) -> Grammars | None:
        """Return the masks of structured output, and forget them."""
        grammar, self.grammar = self.grammar, None
        if grammar is None:
            return None
        return Grammars(grammar, self.runner.input_batch.req_id_to_index, self.drafted, layout)

    def inputs(
        self,
        meta: Any,
        logits: torch.Tensor,
        layout: Layout,
        drafts: list[list[int]] | None,
        grammars: Grammars | None,
        asked: Asked | None,
    ) -> dict[str, Any]:
        """Return what edits and masks rows, those of drafts too, as backends take it."""
        rows, vocab = logits.shape
        if asked is not None and asked.kind == RAW:
            write_masks(grammars, logits)  # which is a part of vLLM's raw ones
        must = forced(meta, vocab, layout, drafts is not None)
        if drafts is None:
            found = self.pasts.inputs(meta, rows, vocab, must)
        else:
            found = self.pasts.inputs_ahead(meta, drafts, layout, vocab, must)
        held = has_minima(meta)
        if grammars is None and not must and not held:
            return found
        words = everything(rows, vocab)
        if "allowed" in found:
            words[:] = found["allowed"]
        if grammars is not None:
            grammars.restrict(words)
        if held:
            hold_minima(words, meta, logits, partial(_banned, found, vocab), layout)
        force(words, must)
        return found | {"allowed": words}

    def sample(
        self, logits: torch.Tensor, sampling_metadata: Any, logprobs_mode_override: Any = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Draw a token from each row; return the logits as processed too, where they are asked for.

        Unlike vLLM's, this leaves the logits as they are, but where a custom processor, which comes
        between temperature and top_k, changes them.
        """
        meta = sampling_metadata
        stages = stages_of(meta, logits.shape[0])
        uniforms = self._uniforms(logits.shape[0], meta)
        custom = not _min_p_alone(meta)
        rows, greedy = logits, None
        if custom and not meta.all_greedy:
            # vLLM's own processors, min_p's included, after vLLM's own temperature.
            if not meta.all_random:
                greedy = draw(logits, _GREEDY, np.zeros(len(uniforms)), {})
            rows = self.apply_temperature(logits, meta.temperature, meta.all_random)
            for processor in meta.logitsprocs.argmax_invariant:
                rows = processor.apply(rows)
            # Where the temperature is 0 it says which rows are greedy, and nothing else.
            stages["temperature"] = np.sign(stages["temperature"])
            stages.pop("min_p", None)
        tokens = draw(rows, records_of(len(uniforms), stages), uniforms, {})
        if greedy is not None:
            tokens = np.where(stages["temperature"] == 0.0, greedy, tokens)
        mode = logprobs_mode_override or self.logprobs_mode
        asked = meta.max_num_logprobs is not None or meta.logprob_token_ids
        processed = None
        if asked and mode in PROCESSED:
            processed = _processed(rows, stages)
            if mode == "processed_logprobs":
                processed = self.compute_logprobs(processed)
        return self._settled(tokens, rows, {})[:, 0].long(), processed

    def apply_penalties(
        self, logits: torch.Tensor, sampling_metadata: Any, output_token_ids: Any
    ) -> torch.Tensor:
        """Edit rows that vLLM's own code is editing: they keep their histories."""
        del output_token_ids
        self.pasts.penalise(sampling_metadata, logits)
        return logits

    def _settled(self, tokens: Ids, logits: torch.Tensor, inputs: dict[str, Any]) -> torch.Tensor:
        """Return tokens as vLLM takes them; the request of a bad row fails, and needs one."""
        if -1 in tokens.tolist():
            for row in np.flatnonzero(tokens < 0).tolist():
                self.bad[row] = defect(logits, row, inputs) or CHANGED
                tokens[row] = 0
        return torch.from_numpy(tokens.astype(np.int32)[:, np.newaxis])

    def _uniforms(self, rows: int, meta: Any) -> npt.NDArray[np.float64]:
        """Return a uniform for each row.

        With a seed it is that of (seed, number of output tokens), whatever else is in the batch.
        Without, it comes from torch's stream of the process, which the engine's seed begins: with
        several workers they all draw the same.
        """
        seeded = meta.generators
        if meta.all_greedy:
            return np.zeros(rows)
        if len(seeded) < rows:
            uniforms: npt.NDArray[np.float64] = torch.rand(rows, dtype=torch.float64).numpy()
        else:
            uniforms = np.empty(rows)
        uniform = backend.active().uniform
        for row, (seed, offset) in self.keys(meta, rows).items():
            uniforms[row] = uniform(seed, 0, offset)
        return uniforms

    def keys(self, meta: Any, requests: int) -> dict[int, tuple[int, int]]:
        """Return seed and number of output tokens of the requests that have a seed."""
        seeded, found = meta.generators, {}
        if seeded:
            batch = self.runner.input_batch
            outputs = batch.num_tokens_no_spec[:requests] - batch.num_prompt_tokens[:requests]
            for row, generator in seeded.items():
                if type(generator) is torch.Generator:
                    seeded[row] = Seed.of(generator)
                if row < requests:
                    found[row] = generator.initial_seed(), max(int(outputs[row]), 0)
        return found


def records_of(rows: int, stages: dict[str, Any]) -> Records:
    """Return the parameters of so many rows as backends take them."""
    return make_records(rows, "sample", **stages, order="vllm")


_GREEDY = records_of(1, {"temperature": 0.0})


def draw(
    logits: torch.Tensor,
    records: Records,
    uniforms: npt.NDArray[np.float64],
    inputs: dict[str, Any],
    told: tuple[int, dict[str, Any]] | None = None,
) -> Ids:
    """Draw from each row, -1 where that cannot be done, and tell of it.

    What `fastsample.sample` does after its checks. A step of the model leaves nothing of them in
    the caches: they take longer than a greedy draw does.
    """
    tokens = np.empty(logits.shape[0], np.int64)
    given = rows_of(logits), records, uniforms, True, tokens, 1
    if told is None:
        backend.active().sample(*given, **inputs)
    else:
        backend.active().sample_details(*given, *told, **inputs)
    return tokens


def tell(
    logits: torch.Tensor,
    chain: Chain,
    uniforms: npt.NDArray[np.float64],
    inputs: dict[str, Any],
    asked: Asked | None,
) -> tuple[Ids, Any]:
    """Draw from each row; return what is asked for too."""
    own, records = chain
    if asked is None:
        return draw(logits, records, uniforms, inputs), None

    def drawn(rows: slice, stages: Any, inputs: Any, kind: int, arrays: Any) -> Ids:
        mine = records if stages is own else records_of(rows.stop - rows.start, stages)
        return draw(logits[rows], mine, uniforms[rows], inputs, (kind, arrays))

    return Telling(asked, logits, own, inputs, drawn).run()


def write_masks(grammars: Grammars | None, logits: torch.Tensor) -> None:
    """Write what structured output forbids into the logits, as vLLM's runner does."""
    if grammars is not None:
        grammars.write(rows_of(logits), logits.shape[1])  # NumPy writes on this thread alone


def _banned(inputs: dict[str, Any], vocab: int, row: int) -> npt.NDArray[np.int32]:
    """Return the ids that are banned in a row."""
    if "pasts" in inputs:
        past = inputs["pasts"][row]
        edits = None if past is None else past.edits(vocab)
    else:
        edits = edits_at(inputs, row) if "edits" in inputs else None
    if edits is None:
        return np.empty(0, np.int32)
    ids: npt.NDArray[np.int32] = edits["id"][edits["banned"] != 0]
    return ids


def rows_of(logits: torch.Tensor) -> npt.NDArray[Any]:
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
        and not thinks(meta)
        and _min_p_alone(meta)
        and all(_idle(p) for p in meta.logitsprocs.non_argmax_invariant)
    )


def foreign(meta: Any) -> str | None:
    """Say what this step has to do that is not in our kernels, or None."""
    own = (LogitBiasLogitsProcessor, MinTokensLogitsProcessor)
    others = (p for p in meta.logitsprocs.non_argmax_invariant if type(p) not in own)
    if not _min_p_alone(meta) or any(not _idle(p) for p in others):
        return "custom logits processors"
    return None


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


def stages_of(meta: Any, rows: int) -> dict[str, Any]:
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


def defect(logits: torch.Tensor, row: int, inputs: dict[str, Any]) -> str | None:
    """Say why a row cannot be drawn from, or None."""
    mine, given = dict(inputs), rows_of(logits)[row]
    if "pasts" in mine:
        mine |= edits_of(mine.pop("pasts"), logits.shape[1])
    as_it_came = to_float32(given)
    edited = as_drawn_from(as_it_came, mine, row)
    return defect_of(edited, given, mine, row, row) or find_defect(as_it_came, row)


CHANGED = "its logits changed while they were read"
