"""vLLM's worker for CPUs, whose model runner draws with fastsample. Needs vLLM.

vLLM imports this by its name, in the worker's process, where the plugin has chosen it.
"""

from __future__ import annotations

from typing import Any

from vllm.v1.worker.cpu_worker import CPUWorker

from .. import __version__, build_info
from ._vllm_drafts import FastRejectionSampler
from ._vllm_sampler import FastSampler
from .vllm import UNDRAWN, _log, _missing

# What is used of the model runner and of vLLM's own logits processors, which only instances have.
RUNNER = (
    "sampler.logprobs_mode",
    "sampler.use_fp64_gumbel",
    "input_batch.num_tokens_no_spec",
    "input_batch.num_prompt_tokens",
    "input_batch.req_ids",
    "input_batch.req_id_to_index",
    "input_batch.req_output_token_ids",
    "input_batch.token_ids_cpu",
    "input_batch.repetition_penalties_cpu",
    "input_batch.frequency_penalties_cpu",
    "input_batch.presence_penalties_cpu",
    "input_batch.bad_words_token_ids",
    "input_batch.has_allowed_token_ids",
    "requests",
    "input_batch.logitsprocs.argmax_invariant",
    "input_batch.logitsprocs.non_argmax_invariant",
    "discard_request_mask.np",
)
DRAFTS = (
    "vllm.v1.core.sched.output:SchedulerOutput.scheduled_spec_decode_tokens",
    "vllm.v1.sample.rejection_sampler:RejectionSampler.forward"
    "(self, metadata, draft_probs, logits, sampling_metadata)",
    "vllm.v1.spec_decode.metadata:SpecDecodeMetadata.draft_token_ids",
    "vllm.v1.spec_decode.metadata:SpecDecodeMetadata.num_draft_tokens",
    "vllm.v1.worker.gpu_model_runner:ExecuteModelState.scheduler_output",
)
PROCESSORS = {
    "MinPLogitsProcessor": ("min_p_count", "min_p_cpu"),
    "LogitBiasLogitsProcessor": ("biases",),
    "MinTokensLogitsProcessor": ("min_toks",),
}


class FastSampleWorker(CPUWorker):
    """The worker of vLLM, drawing with fastsample."""

    fast: FastSampler | None = None
    _told = 0  # how many of its reasons to leave a step to vLLM the log has

    def init_device(self) -> None:
        """Make the model runner, as vLLM does, and put our sampler in the place of its own."""
        super().init_device()
        reason = self._why_not()
        if reason:
            if self.rank == 0:
                _log().warning("fastsample: %s; vLLM's own sampler stays", reason)
            return
        runner = self.model_runner
        runner.sampler = self.fast = FastSampler(runner)
        if hasattr(runner, "rejection_sampler"):
            runner.rejection_sampler = FastRejectionSampler(self.fast, runner.rejection_sampler)
        if self.rank == 0:
            info = build_info()
            how = " ".join(filter(None, (info["backend"], info["isa"])))
            _log().info("fastsample %s draws the tokens (%s)", __version__, how)

    def _why_not(self) -> str | None:
        if self.use_v2_model_runner:
            return "vLLM's V2 model runner serves here, whose sampler is another"
        absent = _absent("", self.model_runner, RUNNER)
        if not hasattr(self.model_runner, "speculative_config"):  # which may be None
            absent.append("speculative_config")
        absent += _missing(DRAFTS)
        if not hasattr(self.model_runner, "execute_model_state"):
            absent.append("execute_model_state")
        if not absent:
            logitsprocs = self.model_runner.input_batch.logitsprocs
            for processor in logitsprocs.all:
                name = type(processor).__name__
                absent += _absent(f"{name}.", processor, PROCESSORS.get(name, ()))
        return f"this vLLM has no {', no '.join(absent)}" if absent else None

    def sample_tokens(self, grammar_output: Any) -> Any:
        """Do what vLLM does; then say which requests' logits could not be drawn from."""
        fast = self.fast
        if fast is None:
            return super().sample_tokens(grammar_output)
        runner = self.model_runner
        state = runner.execute_model_state
        if runner.sampler is fast and state is not None:
            # The masks of structured output are for the draw: else the runner applies them.
            fast.grammar, grammar_output = grammar_output, None
            fast.drafted = state.scheduler_output.scheduled_spec_decode_tokens
        try:
            output = super().sample_tokens(grammar_output)
        finally:
            if fast.grammar is not None:
                fast.grammar = None
        if fast.bad:
            self._report_bad(output)
        if len(fast.left) != self._told:
            self._report_left()
        return output

    def _report_left(self) -> None:
        assert self.fast is not None
        for reason in list(self.fast.left)[self._told :] if self.rank == 0 else ():
            _log().info("fastsample: vLLM's own code edits steps with %s", reason)
        self._told = len(self.fast.left)

    def _report_bad(self, output: Any) -> None:
        assert self.fast is not None
        bad, self.fast.bad = self.fast.bad, {}
        # Of a prompt that is read in parts, the rows before the last part are not drawn from.
        unused = self.model_runner.discard_request_mask.np
        bad = {output.req_ids[row]: why for row, why in bad.items() if not unused[row]}
        for request, why in bad.items():
            _log().error("fastsample: request %s fails: %s", request, why)
        counts = output.num_nans_in_logits or {}
        output.num_nans_in_logits = {**counts, **dict.fromkeys(bad, UNDRAWN)}


def _absent(of: str, owner: Any, paths: tuple[str, ...]) -> list[str]:
    """Return the paths that lead nowhere."""
    absent = []
    for path in paths:
        found = owner
        for name in path.split("."):
            found = getattr(found, name, None)
        if found is None:
            absent.append(f"{of}{path}")
    return absent
