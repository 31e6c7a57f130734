"""vLLM on a CPU: a general plugin after which its requests are drawn with fastsample.

vLLM loads it by its entry point in each of its processes. It does nothing unless the environment
variable FASTSAMPLE_VLLM is 1. It imports vLLM only then, and depends on the standard library alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from multiprocessing import parent_process
from typing import Any

SWITCH = "FASTSAMPLE_VLLM"
UNDRAWN = -1  # where vLLM counts a request's NaN: its logits could not be drawn from
TESTED = ("0.32",)  # series of vLLM's versions

_THEIR_WORKER = "vllm.v1.worker.cpu_worker.CPUWorker"
_OUR_WORKER = "fastsample.integrations._vllm_worker.FastSampleWorker"

# What is used of vLLM's inside, "module:name", with its parameters where they matter. Modules that
# change torch when they are imported are looked at in the worker, which imports them anyway.
NAMES = (
    "vllm.platforms.cpu:CpuPlatform.check_and_update_config(vllm_config)",
    "vllm.v1.core.sched.output:GrammarOutput.grammar_bitmask",
    "vllm.v1.core.sched.output:GrammarOutput.structured_output_request_ids",
    "vllm.v1.core.sched.scheduler:Scheduler.update_from_output"
    "(self, scheduler_output, model_runner_output)",
    "vllm.v1.outputs:LogprobsTensors",
    "vllm.v1.outputs:ModelRunnerOutput.num_nans_in_logits",
    "vllm.v1.outputs:ModelRunnerOutput.prompt_logprobs_dict",
    "vllm.v1.outputs:ModelRunnerOutput.req_id_to_index",
    "vllm.v1.outputs:ModelRunnerOutput.req_ids",
    "vllm.v1.outputs:ModelRunnerOutput.sampled_token_ids",
    "vllm.v1.outputs:SamplerOutput.logprobs_tensors",
    "vllm.v1.outputs:SamplerOutput.sampled_token_ids",
    "vllm.v1.sample.logits_processor:AdapterLogitsProcessor.apply(self, logits)",
    "vllm.v1.sample.logits_processor.builtin:LogitBiasLogitsProcessor",
    "vllm.v1.sample.logits_processor.builtin:MinPLogitsProcessor",
    "vllm.v1.sample.logits_processor.builtin:MinTokensLogitsProcessor",
    "vllm.v1.sample.metadata:SamplingMetadata.all_greedy",
    "vllm.v1.sample.metadata:SamplingMetadata.all_random",
    "vllm.v1.sample.metadata:SamplingMetadata.allowed_token_ids_mask",
    "vllm.v1.sample.metadata:SamplingMetadata.bad_words_token_ids",
    "vllm.v1.sample.metadata:SamplingMetadata.generators",
    "vllm.v1.sample.metadata:SamplingMetadata.logitsprocs",
    "vllm.v1.sample.metadata:SamplingMetadata.logprob_token_ids",
    "vllm.v1.sample.metadata:SamplingMetadata.max_num_logprobs",
    "vllm.v1.sample.metadata:SamplingMetadata.no_penalties",
    "vllm.v1.sample.metadata:SamplingMetadata.spec_token_ids",
    "vllm.v1.sample.metadata:SamplingMetadata.temperature",
    "vllm.v1.sample.metadata:SamplingMetadata.thinking_budget_state_holder",
    "vllm.v1.sample.metadata:SamplingMetadata.top_k",
    "vllm.v1.sample.metadata:SamplingMetadata.top_p",
    "vllm.v1.sample.sampler:Sampler(logprobs_mode, use_fp64_gumbel)",
    "vllm.v1.sample.sampler:Sampler.apply_penalties(logits, sampling_metadata, output_token_ids)",
    "vllm.v1.sample.sampler:Sampler.apply_temperature(logits, temp, all_random)",
    "vllm.v1.sample.sampler:Sampler.compute_logprobs(logits)",
    "vllm.v1.sample.sampler:Sampler.forward"
    "(self, logits, sampling_metadata, predict_bonus_token, logprobs_mode_override)",
    "vllm.v1.sample.sampler:Sampler.sample"
    "(self, logits, sampling_metadata, logprobs_mode_override)",
    "vllm.v1.sample.thinking_budget_state:ThinkingBudgetStateHolder.apply_to_logits"
    "(self, logits, predict_bonus_token, spec_token_ids)",
    "vllm.v1.sample.thinking_budget_state:ThinkingBudgetStateHolder.update_state"
    "(self, output_token_ids, spec_token_ids, repeat_indices)",
)


def register() -> None:
    """Let vLLM draw with fastsample, where FASTSAMPLE_VLLM is 1 and vLLM runs on a CPU.

    The entry point ``fastsample`` of ``vllm.general_plugins``: vLLM calls it in each of its
    processes, unless ``VLLM_PLUGINS`` names others. The worker's log says that fastsample draws.

    Where it cannot, vLLM's own sampler stays, and the log says why: on another platform, with a
    version of vLLM that was not tested, or where a name of vLLM's inside that this needs is not
    there.

    Examples
    --------
    >>> from fastsample.integrations.vllm import register
    >>> register()  # nothing without FASTSAMPLE_VLLM=1
    """
    wanted = os.environ.get(SWITCH, "")
    if wanted in ("", "0"):
        return
    reason = f"{SWITCH} must be 0 or 1, got {wanted!r}" if wanted != "1" else _why_not()
    if reason:
        if parent_process() is None:  # once, and not in each process
            _log().warning("fastsample: %s; vLLM's own sampler stays", reason)
        return
    platform = import_module("vllm.platforms.cpu").CpuPlatform
    _wrap(platform, "check_and_update_config", _choosing_our_worker)
    scheduler = import_module("vllm.v1.core.sched.scheduler").Scheduler
    _wrap(scheduler, "update_from_output", _failing_bad_rows)


def _log() -> Any:
    return import_module("vllm.logger").init_logger("vllm.fastsample")


def _why_not() -> str | None:
    """Say why this vLLM cannot draw with fastsample, or None."""
    version = import_module("vllm.version").__version__
    series = re.match(r"\d+\.\d+", version)
    if series is None or series[0] not in TESTED:
        return f"vLLM must be {' or '.join(TESTED)}, which was tested, got {version}"
    platform = import_module("vllm.platforms").current_platform
    if not platform.is_cpu():
        return f"it draws on CPUs only, and this is {platform.device_name or platform.device_type}"
    absent = _missing(NAMES)
    if find_spec("vllm.v1.worker.cpu_worker") is None:
        absent.append("vllm.v1.worker.cpu_worker")
    return f"this vLLM {version} has no {', no '.join(absent)}" if absent else None


def _missing(names: tuple[str, ...]) -> list[str]:
    """Return those of NAMES that are not there, or have other parameters."""
    return [name for name in names if not _is_there(name)]


def _is_there(name: str) -> bool:
    path, _, parameters = name.partition("(")
    module, _, attributes = path.partition(":")
    try:
        found: Any = import_module(module)
    except ImportError:
        return False
    for attribute in attributes.split("."):
        fields = getattr(found, "__dataclass_fields__", {})
        if attribute in fields and "." in attributes:
            return True
        found = getattr(found, attribute, None)
    if found is None:
        return False
    return not parameters or list(signature(found).parameters) == parameters[:-1].split(", ")


def _wrap(owner: type, name: str, around: Callable[[Any], Any]) -> None:
    """Replace a method by a function of it, once however often a process loads its plugins."""
    theirs = vars(owner)[name]
    if isinstance(theirs, classmethod):
        function = theirs.__func__
        ours: Any = classmethod(wraps(function)(around(function)))
    else:
        function = theirs
        ours = wraps(function)(around(function))
    if not hasattr(function, "__wrapped__"):
        setattr(owner, name, ours)


def _choosing_our_worker(theirs: Callable[..., None]) -> Callable[..., None]:
    def check_and_update_config(cls: Any, vllm_config: Any) -> None:
        parallel = vllm_config.parallel_config
        unsaid = parallel.worker_cls == "auto"  # the user has not chosen one
        theirs(cls, vllm_config)
        if unsaid and parallel.worker_cls == _THEIR_WORKER:
            parallel.worker_cls = _OUR_WORKER

    return check_and_update_config


def _failing_bad_rows(theirs: Callable[..., Any]) -> Callable[..., Any]:
    """Fail the requests of which the worker says that their logits cannot be drawn from.

    vLLM counts NaN and goes on with whatever token comes out. It fails single requests for other
    reasons, in the same place.
    """

    def update_from_output(self: Any, scheduler_output: Any, model_runner_output: Any) -> Any:
        output = model_runner_output
        counts = output.num_nans_in_logits or {}
        bad = {request for request, count in counts.items() if count == UNDRAWN}
        if bad and hasattr(self, "grammar_compile_error_reqs"):
            for request in bad:
                counts[request] = 1  # a number of NaN, for vLLM
                output.sampled_token_ids[output.req_id_to_index[request]] = []
                output.prompt_logprobs_dict.pop(request, None)
                getattr(output, "prompt_token_id_logprobs_dict", {}).pop(request, None)
            self.grammar_compile_error_reqs |= bad
        return theirs(self, scheduler_output, output)

    return update_from_output
