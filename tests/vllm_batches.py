"""vLLM's own description of batches of requests, for the tests of its sampler; skips without it."""

from __future__ import annotations

import os
import warnings
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest

import fastsample
from fastsample import recorded

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    if find_spec("vllm") is None:
        pytest.skip("vLLM is not installed: see docs/vllm.md", allow_module_level=True)
    import torch
    from vllm import SamplingParams
    from vllm.platforms import current_platform
    from vllm.sampling_params import StructuredOutputsParams
    from vllm.v1.sample.logits_processor import AdapterLogitsProcessor, LogitsProcessors
    from vllm.v1.sample.logits_processor.builtin import (
        LogitBiasLogitsProcessor,
        MinPLogitsProcessor,
        MinTokensLogitsProcessor,
    )
    from vllm.v1.sample.logits_processor.interface import LogitsProcessor
    from vllm.v1.sample.sampler import Sampler
    from vllm.v1.sample.thinking_budget_state import ThinkingBudgetStateHolder
    from vllm.v1.spec_decode.metadata import SpecDecodeMetadata
    from vllm.v1.structured_output.utils import apply_grammar_bitmask
    from vllm.v1.worker.gpu_input_batch import CachedRequestState, InputBatch

    if not current_platform.is_cpu():
        pytest.skip("this vLLM is not for CPUs", allow_module_level=True)
    current_platform.import_kernels()
    current_platform.register_triton_kernel_overrides()
    from vllm.v1.sample.rejection_sampler import RejectionSampler, expand_batch_to_tokens

    from fastsample.integrations._vllm_drafts import FastRejectionSampler
    from fastsample.integrations._vllm_pasts import Past
    from fastsample.integrations._vllm_sampler import FastSampler

__all__ = [
    "CHAINS",
    "COUNT",
    "EDITS",
    "MODES",
    "ROWS",
    "VOCAB",
    "WORDS",
    "AdapterLogitsProcessor",
    "LogitsProcessor",
    "Past",
    "RejectionSampler",
    "Sampler",
    "SamplingParams",
    "StructuredOutputsParams",
    "ThinkingBudgetStateHolder",
    "alone",
    "apply_grammar_bitmask",
    "draw",
    "edited",
    "expand_batch_to_tokens",
    "make",
    "make_batch",
    "make_drafts",
    "make_request",
    "rejecting",
    "theirs",
    "torch",
    "with_edits",
    "without_ties",
]

CPU = torch.device("cpu")
ROWS = torch.from_numpy(recorded.load().logits.astype(np.float32))
COUNT, VOCAB = ROWS.shape
WORDS = -(-VOCAB // 32)
MODES = ("raw_logprobs", "raw_logits", "processed_logprobs", "processed_logits")
CHAINS = {
    "plain": {"temperature": 1.0},
    "temperature": {"temperature": 0.6},
    "top_k": {"temperature": 0.8, "top_k": 50},
    "top_p": {"temperature": 0.8, "top_p": 0.95},
    "hot top_p": {"temperature": 2.0, "top_p": 0.99},
    "both": {"temperature": 0.8, "top_k": 50, "top_p": 0.95},
    "min_p": {"temperature": 1.3, "min_p": 0.05},
    "all": {"temperature": 0.7, "top_k": 300, "top_p": 0.9, "min_p": 0.01},
}


def make_batch(params, outputs=None, vocab=VOCAB, prompt=3, custom=()):
    """vLLM's own description of requests that stand at these outputs."""
    outputs = outputs or [[] for _ in params]
    config = SimpleNamespace(scheduler_config=SimpleNamespace(max_num_seqs=len(params)))
    kinds = (MinTokensLogitsProcessor, LogitBiasLogitsProcessor, MinPLogitsProcessor, *custom)
    batch = InputBatch(
        max_num_reqs=len(params),
        max_model_len=64,
        max_num_batched_tokens=64,
        device=CPU,
        vocab_size=vocab,
        block_sizes=[16],
        max_num_blocks_per_req=[4],
        logitsprocs=LogitsProcessors([kind(config, CPU, False) for kind in kinds]),
        logitsprocs_need_output_token_ids=True,
    )
    for i, (p, output) in enumerate(zip(params, outputs, strict=True)):
        batch.add_request(make_request(str(i), p, output, prompt))
    batch.refresh_metadata()
    return batch


def make_request(name, params, output=(), prompt=3):
    seeded = params.seed is not None and params.temperature > 0
    return CachedRequestState(
        req_id=name,
        prompt_token_ids=[5, 6, 7][:prompt],
        mm_features=[],
        sampling_params=params,
        generator=torch.Generator().manual_seed(params.seed) if seeded else None,
        block_ids=([0],),
        num_computed_tokens=prompt,
        output_token_ids=list(output),
    )


def make(batch, mode="raw_logprobs"):
    requests = dict.fromkeys(batch.req_ids)
    return FastSampler(SimpleNamespace(sampler=Sampler(mode), input_batch=batch, requests=requests))


def make_drafts(batch, drafts):
    """vLLM's own description of the drafts of each request, whose rows follow one another."""
    for i, mine in enumerate(drafts):
        batch.spec_token_ids[i][:] = mine
    meta = SpecDecodeMetadata.make_dummy(drafts, CPU)
    counts = [len(mine) + 1 for mine in drafts]
    ends = np.cumsum(counts)
    last = set((ends - 1).tolist())
    meta.bonus_logits_indices = torch.from_numpy(ends - 1).int()
    meta.target_logits_indices = torch.tensor(
        [i for i in range(ends[-1]) if i not in last], dtype=torch.int32
    )
    return meta


def rejecting(batch, mode="raw_logprobs"):
    """Our rejection sampler for a batch, as the worker makes it."""
    sampler = make(batch, mode)
    return FastRejectionSampler(sampler, RejectionSampler(Sampler(mode)))


def draw(rows, params, outputs=None, mode="raw_logprobs", **options):
    batch = make_batch(params, outputs, vocab=rows.shape[1], **options)
    sampler = make(batch, mode)
    out = sampler(logits=rows.clone(), sampling_metadata=batch.sampling_metadata)
    assert out.sampled_token_ids.dtype == torch.int32
    assert out.sampled_token_ids.shape == (len(rows), 1)
    assert not sampler.bad
    return out.sampled_token_ids[:, 0].tolist()


def theirs(rows, params, outputs=None, mode="raw_logprobs", **options):
    batch = make_batch(params, outputs, vocab=rows.shape[1], **options)
    return Sampler(mode)(logits=rows.clone(), sampling_metadata=batch.sampling_metadata)


def alone(row, seed, offset, **chain):
    """The token that fastsample draws from one row; vLLM keeps parameters as float32."""
    chain = {n: float(np.float32(v)) if n != "top_k" else v for n, v in chain.items()}
    return fastsample.sample(row, **chain, order="vllm", seed=[seed], offset=offset)


def without_ties(rows):
    """Real logits, recorded in 16 bits, a few last bits apart where they were equal."""
    x = rows.numpy().copy()
    for row in x:
        order = np.argsort(-row, kind="stable")
        equal = np.diff(row[order], prepend=np.inf) == 0
        place = np.arange(row.size)
        behind = place - np.maximum.accumulate(np.where(equal, 0, place))  # the first of its kind
        row[order] -= behind.astype(np.float32) * np.spacing(np.abs(row[order]))
        assert np.unique(row).size == row.size
    return torch.from_numpy(x)


EDITS = {
    "presence": {"presence_penalty": 1.5},
    "frequency": {"frequency_penalty": 0.7},
    "repetition": {"repetition_penalty": 1.4},
    "logit_bias": {"logit_bias": {11: 30.0, 12: 29.0}},
    "min_tokens": {"min_tokens": 9, "stop_token_ids": [0, 28, 260, 253]},
    "allowed ids": {"allowed_token_ids": [3, 260, 1000, 20_000]},
    "bad words": {"_bad_words_token_ids": [[260], [28, 30], [7, 11], [260, 28, 17], [5]]},
    "all": {
        "presence_penalty": 0.5,
        "frequency_penalty": 0.2,
        "repetition_penalty": 1.1,
        "logit_bias": {11: 8.0},
        "min_tokens": 9,
        "stop_token_ids": [28, 253],
        "allowed_token_ids": list(range(0, 3000, 3)),
        "_bad_words_token_ids": [[12], [28, 30]],
    },
}


def with_edits(params, edits):
    params = params.clone()
    for name, value in edits.items():
        setattr(params, name, value)
    params.__post_init__()
    params._all_stop_token_ids = set(edits.get("stop_token_ids", ()))
    return params


def edited(rows, params, outputs, **options):
    batch = make_batch(params, outputs, **options)
    return Sampler().apply_logits_processors(rows.clone(), batch.sampling_metadata, False)
