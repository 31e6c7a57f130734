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
    ours: bool,
    vocab: int,
    batch: int,
    steps: int,
    params: dict[str, Any],
    output: int,
    drafts: int = 0,
) -> list[float]:
    """Return the seconds of so many steps of a batch, each of whose requests has so much output.

    With drafts, each has so many, of which the first two are so probable that they stay.
    """
    torch = import_module("torch")
    rng = np.random.default_rng(batch)
    sampling = [import_module("vllm").SamplingParams(**params) for _ in range(batch)]
    # Texts repeat a few tokens often, and most of them never.
    outputs = np.minimum(rng.zipf(1.3, (batch, output)), vocab - 1).tolist()
    requests = make_batch(sampling, outputs, vocab, steps + drafts)
    sampler: Any = import_module("vllm.v1.sample.sampler").Sampler()
    if ours:
        module = import_module("fastsample.integrations._vllm_sampler")
        alive = dict.fromkeys(requests.req_ids)
        sampler = module.FastSampler(
            SimpleNamespace(sampler=sampler, input_batch=requests, requests=alive)
        )
    verify = _verifier(sampler, ours) if drafts else None
    times = []
    for _ in range(steps):
        logits = torch.randn(batch * (1 + drafts), vocab, dtype=torch.float32).mul_(3.0)
        if verify:
            guesses = rng.integers(0, vocab, (batch, drafts))
            rows = np.arange(batch)[:, np.newaxis] * (1 + drafts) + np.arange(min(2, drafts))
            logits[rows, guesses[:, : rows.shape[1]]] = 40.0
            meta = _drafts(requests, guesses)
        logits = logits.bfloat16()
        start = time.perf_counter()
        if verify:
            verify(meta, None, logits, requests.sampling_metadata)
        else:
            out = sampler(logits=logits, sampling_metadata=requests.sampling_metadata)
        times.append(time.perf_counter() - start)
        if not verify:
            tokens = out.sampled_token_ids[:, 0].tolist()
            for written, token in zip(requests.req_output_token_ids, tokens, strict=True):
                written.append(token)
    return times


def _verifier(sampler: Any, ours: bool) -> Any:
    """Return a rejection sampler, vLLM's own or ours.

    vLLM's reads temperature, top_k and top_p of drafts from memory that nobody has written to, and
    may end with an error: here they are given to it.
    """
    platforms = import_module("vllm.platforms")
    platforms.current_platform.register_triton_kernel_overrides()
    module: Any = import_module("vllm.v1.sample.rejection_sampler")
    kind = module.RejectionSampler
    if not ours:
        module.expand_batch_to_tokens = _expanded
        return kind(sampler)
    own = kind(import_module("vllm.v1.sample.sampler").Sampler())
    return import_module("fastsample.integrations._vllm_drafts").FastRejectionSampler(sampler, own)


def _expanded(x: Any, ends: Any, total: int, replace_from: int = 0, replace_to: int = 0) -> Any:
    """Return what each draft's request has, as vLLM's own function says that it does."""
    torch = import_module("torch")
    counts = torch.diff(ends, prepend=torch.zeros(1, dtype=ends.dtype))
    x = torch.where(x == replace_from, replace_to, x) if replace_from != replace_to else x
    return x.repeat_interleave(counts, output_size=total)


def _drafts(requests: Any, guesses: Any) -> Any:
    """Return vLLM's description of drafts, the same number for each request."""
    torch = import_module("torch")
    batch, count = guesses.shape
    for mine, tokens in zip(requests.spec_token_ids, guesses.tolist(), strict=False):
        mine[:] = tokens
    kind = import_module("vllm.v1.spec_decode.metadata").SpecDecodeMetadata
    meta = kind.make_dummy(guesses.tolist(), torch.device("cpu"))
    rows = np.arange(batch * (1 + count)).reshape(batch, -1)
    meta.target_logits_indices = torch.from_numpy(rows[:, :count].reshape(-1)).int()
    meta.bonus_logits_indices = torch.from_numpy(rows[:, count].copy()).int()
    return meta
