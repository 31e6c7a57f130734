"""SmolLM2 in FastLlama and in llama-cpp-python's own Llama, for the tests of both.

Skips the module that imports it where they are not installed.
"""

from __future__ import annotations

import pytest

llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
from fastsample.integrations import llama_cpp as adapter  # noqa: E402

try:
    MODEL = adapter.smollm2_path()
except ImportError as error:
    pytest.skip(str(error), allow_module_level=True)

PROMPTS = [
    "The weather today is",
    "Once upon a time",
    "今天天气很好，我们",  # noqa: RUF001
    "def fibonacci(n):",
]


def load(kind, **options):
    own = {"n_ctx": 512, "n_threads": 1, "n_threads_batch": 1, "verbose": False}
    return kind(MODEL, **own | options)


class Original(llama_cpp.Llama):
    """llama-cpp-python's own, with the weights laid out as FastLlama's: for equal logits."""

    model_params = adapter.FastLlama.model_params


def complete(llm, prompt=PROMPTS[0], **parameters):
    llm.reset()
    parameters = {"max_tokens": 12, "seed": 1} | parameters
    return llm.create_completion(prompt, **parameters)["choices"][0]["text"]


def draws(llm, prompt, count, **parameters):
    """Tokens, not text: what `generate` yields."""
    llm.reset()
    steps = llm.generate(llm.tokenize(prompt.encode()), **parameters)
    return [token for _, token in zip(range(count), steps, strict=False)]
