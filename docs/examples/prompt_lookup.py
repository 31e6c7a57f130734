"""Prompt lookup: drafts from the text itself, which the model reads several of in one pass.

The last tokens are looked up earlier in the text; what followed them there is proposed. With
`method="exact"` the text is the one without drafts, so that these cost nothing but time:

    python prompt_lookup.py

prints tokens per second with and without, on a text that repeats much of its prompt. Drafts pay
where a pass over several tokens takes little longer than one over a single token. With SmolLM2's
weights as float16 it does; with the 4 bits of its file, which `--as-it-is` leaves, it does not.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from types import TracebackType

import llama_cpp
import numpy as np
import numpy.typing as npt

import fastsample
from fastsample.integrations.llama_cpp import FastLlama, smollm2_path

PROMPT = """\
The opening hours of the bakery and of the library:

Monday: the bakery opens at seven in the morning and closes at four in the afternoon.
Monday: the library opens at nine in the morning and closes at eight in the evening.
Tuesday: the bakery opens at seven in the morning and closes at four in the afternoon.
Tuesday: the library opens at nine in the morning and closes at eight in the evening.
Wednesday: the bakery"""
SAMPLING = {"temperature": 0.6, "top_p": 0.95, "seed": 1}


def look_up(text: list[int], count: int, length: int = 3) -> list[int]:
    """Return at most `count` tokens that followed the last `length` where they stood before."""
    for at in range(len(text) - length - 1, -1, -1):
        if text[at : at + length] == text[-length:]:
            return text[at + length : at + length + count]
    return []


def as_float16(path: str, folder: str) -> str:
    """Write a model's weights as float16 and return where."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize = llama_cpp.LLAMA_FTYPE_MOSTLY_F16, True
    written = str(Path(folder) / "float16.gguf")
    if llama_cpp.llama_model_quantize(path.encode(), written.encode(), params) != 0:
        raise RuntimeError(f"llama.cpp could not convert {path}")
    return written


class Model:
    """llama.cpp's model over one text, read several tokens at a time."""

    def __init__(self, path: str, context: int = 1024) -> None:
        self.llm = FastLlama(path, n_ctx=64, verbose=False)  # loads, tokenizes
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = context
        params.n_threads = params.n_threads_batch = self.llm.n_threads
        self.context = llama_cpp.llama_init_from_model(self.llm.model, params)
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.batch = llama_cpp.llama_batch_init(context, 0, 1)

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: object, trace: TracebackType | None
    ) -> None:
        llama_cpp.llama_batch_free(self.batch)
        llama_cpp.llama_free(self.context)
        self.llm.close()

    def logits(self, position: int, tokens: list[int], rows: int) -> npt.NDArray[np.float32]:
        """Read tokens from a position on, and forget what was there; return the last rows."""
        llama_cpp.llama_memory_seq_rm(self.memory, 0, position, -1)
        for i, token in enumerate(tokens):
            self.batch.token[i], self.batch.pos[i] = token, position + i
            self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, 0
            self.batch.logits[i] = i >= len(tokens) - rows
        self.batch.n_tokens = len(tokens)
        if llama_cpp.llama_decode(self.context, self.batch) != 0:
            raise RuntimeError("llama.cpp could not decode the batch")
        # llama.cpp's own memory, valid until it decodes again.
        shape = rows, self.llm.n_vocab()
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits(self.context), shape)


def write(model: Model, prompt: list[int], count: int, drafted: int) -> tuple[list[int], int]:
    """Return at most `count` tokens after a prompt, and in how many passes they came."""
    text, read, passes, end = list(prompt), 0, 0, model.llm.token_eos()
    while len(text) < len(prompt) + count and end not in text[len(prompt) :]:
        drafts = look_up(text, drafted)
        rows = model.logits(read, [*text[read:], *drafts], len(drafts) + 1)
        said = fastsample.verify(
            drafts, rows, method="exact", offset=len(text) - len(prompt), **SAMPLING
        )
        read = len(text) + said.accepted  # the last token that is new has not been read
        text += said.tokens[: said.accepted + 1].tolist()
        passes += 1
    tokens = text[len(prompt) :][:count]
    return tokens[: tokens.index(end)] if end in tokens else tokens, passes


def compare(model: Model, count: int, drafted: int) -> list[int]:
    """Write a text without and with drafts, say how long each took, and return it."""
    prompt = model.llm.tokenize(PROMPT.encode())
    texts = []
    for drafts in 0, drafted:
        since = perf_counter()
        tokens, passes = write(model, prompt, count, drafts)
        seconds = perf_counter() - since
        n = len(tokens)
        print(f"{drafts} drafts: {n / seconds:.1f} tokens/s, {n / passes:.2f} tokens a pass")
        texts.append(tokens)
    assert texts[0] == texts[1], "the text is another with drafts"
    return texts[0]


def main() -> None:
    """Compare a text with and without drafts."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--tokens", type=int, default=160)
    parser.add_argument("--drafts", type=int, default=5, help="at most, for each pass")
    parser.add_argument("--as-it-is", action="store_true", help="the weights as the file has them")
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        path = smollm2_path()
        with Model(path if given.as_it_is else as_float16(path, folder)) as model:
            tokens = compare(model, given.tokens, given.drafts)
            print(model.llm.detokenize(tokens).decode(errors="replace"))


if __name__ == "__main__":
    main()
