"""vLLM as its tests import it: in this process, on CPUs, with the plugin; skips where it is not."""

from __future__ import annotations

import os
import warnings
from importlib.util import find_spec

import pytest

ENVIRONMENT = {
    "FASTSAMPLE_VLLM": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
if find_spec("vllm") is None:
    pytest.skip("vLLM is not installed: see docs/vllm.md", allow_module_level=True)
os.environ.update(ENVIRONMENT)  # before vLLM reads it
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    import vllm
    from vllm import LLM, SamplingParams
    from vllm.platforms import current_platform
    from vllm.sampling_params import StructuredOutputsParams
    from vllm.v1.sample.rejection_sampler import RejectionSampler
    from vllm.v1.sample.sampler import Sampler

if not current_platform.is_cpu():
    pytest.skip("this vLLM is not for CPUs", allow_module_level=True)

__all__ = [
    "LLM",
    "RejectionSampler",
    "Sampler",
    "SamplingParams",
    "StructuredOutputsParams",
    "current_platform",
    "runner_of",
    "torch",
    "vllm",
    "worker_of",
]


def worker_of(llm):
    """The worker of an engine in this process."""
    return llm.llm_engine.model_executor.driver_worker.worker


def runner_of(llm):
    """Its model runner, which has the sampler."""
    return worker_of(llm).model_runner
