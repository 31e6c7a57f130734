"""The sampler of vLLM's model runner alone, on requests that have written much: without a model.

An engine would have to write those tokens first. vLLM's own batch describes the requests to it.
Needs vLLM.
"""

from __future__ import annotations

import time
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np

BLOCK = 16


def make_batch(params: list[Any], outputs: list[list[int]], vocab: int, more: int) -> Any:
    """Return vLLM's batch of requests that stand at these outputs and may write so many more."""
    torch = import_module("torch")
    processors = import_module("vllm.v1.sample.logits_processor")
    module = import_module("vllm.v1.worker.gpu_input_batch")
    cpu = torch.device("cpu")
    config = SimpleNamespace(scheduler_config=SimpleNamespace(max_num_seqs=len(params)))
    kinds = ("MinTokensLogitsProcessor", "LogitBiasLogitsProcessor", "MinPLogitsProcessor")
    length = 1 + max(map(len, outputs)) + more
    batch = module.InputBatch(
        max_num_reqs=len(params),
        max_model_len=length,
        max_num_batched_tokens=BLOCK,
        device=cpu,
        vocab_size=vocab,
        block_sizes=[BLOCK],
        max_num_blocks_per_req=[-(-length // BLOCK)],
        logitsprocs=processors.LogitsProcessors(
            [getattr(processors, kind)(config, cpu, False) for kind in kinds]
        ),
    )
    for i, (sampling, output) in enumerate(zip(params, outputs, strict=True)):
        batch.add_request(
            module.CachedRequestState(
                req_id=str(i),
                prompt_token_ids=[0],
                mm_features=[],
                sampling_params=sampling,
                generator=None,
                block_ids=([0],),
                num_computed_tokens=1,
                output_token_ids=list(output),
            )
        )
    batch.refresh_metadata()
    return batch


def time_alone(
    ours: bool, vocab: int, batch: int, steps: int, params: dict[str, Any], output: int
) -> list[float]:
    """Return the seconds of so many steps of a batch, each of whose requests has so much output."""
    torch = import_module("torch")
    rng = np.random.default_rng(batch)
    sampling = [import_module("vllm").SamplingParams(**params) for _ in range(batch)]
    # Texts repeat a few tokens often, and most of them never.
    outputs = np.minimum(rng.zipf(1.3, (batch, output)), vocab - 1).tolist()
    requests = make_batch(sampling, outputs, vocab, steps)
    sampler = import_module("vllm.v1.sample.sampler").Sampler()
    if ours:
        module = import_module("fastsample.integrations._vllm_sampler")
        alive = dict.fromkeys(requests.req_ids)
        sampler = module.FastSampler(
            SimpleNamespace(sampler=sampler, input_batch=requests, requests=alive)
        )
    times = []
    for _ in range(steps):
        logits = torch.randn(batch, vocab, dtype=torch.float32).mul_(3.0).bfloat16()
        start = time.perf_counter()
        out = sampler(logits=logits, sampling_metadata=requests.sampling_metadata)
        times.append(time.perf_counter() - start)
        tokens = out.sampled_token_ids[:, 0].tolist()
        for written, token in zip(requests.req_output_token_ids, tokens, strict=True):
            written.append(token)
    return times
