"""One side of the table of vLLM: an engine in a process of its own, which answers with times.

Questions come as lines of JSON on standard input; answers go to the file descriptor that the first
argument names, since libraries write to standard output. Needs vLLM.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from .vllm_alone import time_alone


def make_engine(folder: str, rows: int, length: int, dtype: str, weights: str) -> Any:
    """Load a model, and its tokenizer if it has one, which grammars need."""
    from vllm import LLM

    return LLM(
        folder,
        load_format=weights,
        skip_tokenizer_init=not has_tokenizer(folder),
        dtype=dtype,
        enforce_eager=True,
        max_model_len=length,
        max_num_seqs=rows,
        enable_prefix_caching=False,
        seed=0,
    )


def has_tokenizer(folder: str) -> bool:
    """Whether a folder has what vLLM reads a tokenizer from."""
    return any((Path(folder) / name).exists() for name in ("tokenizer.json", "tokenizer.model"))


class Side:
    """An engine, and the times of its sampler."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.llm = make_engine(**options)
        worker = self.llm.llm_engine.model_executor.driver_worker.worker
        self.runner = worker.model_runner
        self.ours = type(self.runner.sampler).__name__ == "FastSampler"
        self.vocab = self.runner.input_batch.vocab_size
        self.grammars = has_tokenizer(options["folder"])
        self.steps: list[float] = []
        self._masking = 0.0
        self._time_the_sampler()

    def _time_the_sampler(self) -> None:
        theirs = self.runner.sampler.forward
        module: Any = import_module("vllm.v1.worker.gpu_model_runner")
        mask = module.apply_grammar_bitmask

        def masked(*args: Any) -> None:  # by vLLM's runner, before its sampler
            start = time.perf_counter()
            mask(*args)
            self._masking = time.perf_counter() - start

        def forward(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            out = theirs(*args, **kwargs)
            self.steps.append(time.perf_counter() - start + self._masking)
            self._masking = 0.0
            return out

        self.runner.sampler.forward = forward
        module.apply_grammar_bitmask = masked

    def run(self, batch: int, tokens: int, params: dict[str, Any], seeds: bool) -> dict[str, Any]:
        """Generate so many tokens for each of a batch of short prompts."""
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        rng = np.random.default_rng(batch)
        prompts = rng.integers(3, self.vocab, (batch, 16)).tolist()
        common = {"max_tokens": tokens, "ignore_eos": True, "detokenize": False, **params}
        if "output" in common:
            written, drafts = common.pop("output"), common.pop("drafts", 0)
            steps = min(tokens, 4 if drafts else 8)  # vLLM's own take a second each
            times = time_alone(self.ours, self.vocab, batch, steps, common, written, drafts)
            return {"sampler_ms": float(np.median(times[1:] or times)) * 1e3}
        if "json" in common:
            common["structured_outputs"] = StructuredOutputsParams(json=common.pop("json"))
        sampling = [SamplingParams(**common, seed=i if seeds else None) for i in range(batch)]
        self.steps.clear()
        start = time.perf_counter()
        outputs = self.llm.generate(
            [{"prompt_token_ids": prompt} for prompt in prompts], sampling, use_tqdm=False
        )
        seconds = time.perf_counter() - start
        texts = [list(output.outputs[0].token_ids) for output in outputs]
        return {
            "tokens_per_s": sum(map(len, texts)) / seconds,
            "sampler_ms": float(np.median(self.steps[1:] or self.steps))
            * 1e3,  # the first reads prompts
            "texts": texts,
        }


def versions() -> dict[str, str]:
    """Return what runs here beside fastsample."""
    import torch
    import vllm

    return {"vllm": vllm.__version__, "torch": torch.__version__}


def main() -> None:
    """Answer until there are no more questions."""
    answers = os.fdopen(int(sys.argv[1]), "w")
    side: Side | None = None
    for line in sys.stdin:
        question = json.loads(line)
        if side is None:
            side = Side(question)
            answer: dict[str, Any] = {"ours": side.ours, "vocab": side.vocab, **versions()}
            answer["grammars"] = side.grammars
        else:
            answer = side.run(**question)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
