"""Continuous batching with llama.cpp: one call of `fastsample.sample` a step, for all requests.

Eight requests share a model. They arrive and leave at different times, and each has parameters, a
seed and an offset of its own. What a request gets does not depend on the others:

    python continuous_batching.py
    python continuous_batching.py --alone 3    # the same text
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from types import TracebackType

import llama_cpp
import numpy as np
import numpy.typing as npt

import fastsample
from fastsample.integrations.llama_cpp import FastLlama, smollm2_path

SLOTS = 8  # sequences that the context holds at a time
CONTEXT = 256  # tokens of each


@dataclass
class Request:
    """A prompt, how to continue it, and what has come of it."""

    arrives: int  # the step at which it may start
    prompt: str
    max_tokens: int
    seed: int
    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    tokens: list[int] = field(default_factory=list)
    left: int = -1  # the step at which it ended


def requests() -> list[Request]:
    """Return eight requests, no two alike."""
    return [
        Request(0, "The weather today is", 24, seed=1),
        Request(0, "The capital of France is", 6, seed=2, temperature=0.0),
        Request(0, "Once upon a time", 30, seed=3, temperature=1.2, min_p=0.1),
        Request(2, "def fibonacci(n):", 28, seed=4, temperature=0.5, top_k=0),
        Request(5, "My favourite food is", 12, seed=5, top_p=0.8),
        Request(9, "今天天气很好", 16, seed=6, top_k=5),
        Request(9, "The opposite of hot is", 8, seed=7, temperature=1.0, top_p=1.0),
        Request(14, "Water boils at", 20, seed=8, temperature=1.5, top_k=20),
    ]


class Model:
    """llama.cpp's model with a context for several sequences at a time."""

    def __init__(self, path: str) -> None:
        self.llm = FastLlama(path, n_ctx=CONTEXT, verbose=False)  # loads, tokenizes
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_seq_max = SLOTS * CONTEXT, SLOTS
        params.n_threads = params.n_threads_batch = self.llm.n_threads
        self.context = llama_cpp.llama_init_from_model(self.llm.model, params)
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.batch = llama_cpp.llama_batch_init(SLOTS * CONTEXT, 0, 1)

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: object, trace: TracebackType | None
    ) -> None:
        llama_cpp.llama_batch_free(self.batch)
        llama_cpp.llama_free(self.context)
        self.llm.close()

    def logits(self, parts: dict[int, tuple[int, list[int]]]) -> npt.NDArray[np.float32]:
        """Decode {slot: (position, tokens)}; return the logits after each slot's last token."""
        batch, n = self.batch, 0
        for slot, (position, tokens) in parts.items():
            for i, token in enumerate(tokens):
                batch.token[n], batch.pos[n] = token, position + i
                batch.n_seq_id[n], batch.seq_id[n][0] = 1, slot
                batch.logits[n] = i == len(tokens) - 1
                n += 1
        batch.n_tokens = n
        if llama_cpp.llama_decode(self.context, batch) != 0:
            raise RuntimeError("llama.cpp could not decode the batch")
        # llama.cpp's own memory, valid until it decodes again: rows in the order of the batch.
        shape = len(parts), self.llm.n_vocab()
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits(self.context), shape)

    def forget(self, slot: int) -> None:
        """Free a slot."""
        llama_cpp.llama_memory_seq_rm(self.memory, slot, -1, -1)

    def ends(self, token: int) -> bool:
        """Return whether the token ends a text."""
        vocabulary = llama_cpp.llama_model_get_vocab(self.llm.model)
        return bool(llama_cpp.llama_vocab_is_eog(vocabulary, token))

    def text(self, tokens: list[int]) -> str:
        """Return the text of tokens."""
        return str(self.llm.detokenize(tokens).decode(errors="replace"))


def serve(model: Model, waiting: list[Request]) -> None:
    """Run the requests to their ends, as many at a time as there are slots."""
    waiting = sorted(waiting, key=lambda request: request.arrives)
    active: dict[int, Request] = {}
    parts: dict[int, tuple[int, list[int]]] = {}
    step = 0
    while waiting or active:
        for slot in range(SLOTS):
            if slot not in active and waiting and waiting[0].arrives <= step:
                active[slot] = waiting.pop(0)
                parts[slot] = 0, model.llm.tokenize(active[slot].prompt.encode())
        if active:
            rows = model.logits(parts)
            batch = [active[slot] for slot in parts]
            drawn = fastsample.sample(
                rows,
                temperature=[r.temperature for r in batch],
                top_k=[r.top_k for r in batch],
                top_p=[r.top_p for r in batch],
                min_p=[r.min_p for r in batch],
                order="llama.cpp",
                seed=[r.seed for r in batch],
                offset=[len(r.tokens) for r in batch],
            )
            for slot, token in zip(list(parts), drawn.tolist(), strict=True):
                request, (position, tokens) = active[slot], parts[slot]
                request.tokens.append(token)
                parts[slot] = position + len(tokens), [token]
                if model.ends(token) or len(request.tokens) == request.max_tokens:
                    request.left = step
                    model.forget(slot)
                    del active[slot], parts[slot]
        step += 1


def main() -> None:
    """Serve the requests and print their texts."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    every = requests()
    numbers = range(1, len(every) + 1)
    parser.add_argument("--alone", type=int, choices=numbers, help="only this request, from 1")
    number = parser.parse_args().alone
    chosen = every if number is None else [every[number - 1]]
    with Model(smollm2_path()) as model:
        serve(model, chosen)
        for r in chosen:
            print(f"steps {r.arrives:>2} to {r.left:>2}, seed {r.seed}: {r.prompt}", end="")
            print(model.text(r.tokens))


if __name__ == "__main__":
    main()
