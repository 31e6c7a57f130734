"""SmolLM2 in FastLlama and in llama-cpp-python's own Llama, for the tests of both.

Skips the module that imports it where they are not installed.
"""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

import fastsample

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


def own_chain(llm, history=(), **parameters):
    """{token: probability} by llama.cpp's own samplers, for the current logits."""
    chain = llama_cpp.Llama._init_sampler(llm, **parameters)
    for token in history:
        chain.accept(token)
    row = np.ctypeslib.as_array(llm._ctx.get_logits_ith(-1), (llm.n_vocab(),))
    data = (llama_cpp.llama_token_data * row.size)()
    for i, x in enumerate(row.tolist()):
        data[i].id, data[i].logit = i, x
    array = llama_cpp.llama_token_data_array(data=data, size=row.size, selected=-1, sorted=False)
    llama_cpp.llama_sampler_apply(chain.sampler, ctypes.byref(array))
    ids = [array.data[i].id for i in range(array.size)]
    x = np.array([array.data[i].logit for i in range(array.size)])
    weights = np.exp(x - x.max())
    p = weights / weights.sum()
    # llama.cpp leaves what a grammar refuses where it is, with a logit of -inf.
    return {token: p[i] for i, token in enumerate(ids) if x[i] > -np.inf}


def our_chain(llm, history=(), **parameters):
    """{token: probability} by what a completion of FastLlama draws with."""
    row = np.ctypeslib.as_array(llm._ctx.get_logits_ith(-1), (llm.n_vocab(),))
    draws = llm._init_sampler(**parameters)
    for token in history if draws._grammar else ():
        draws._grammar.accept(token)
    ids, p = fastsample.survivors(
        row,
        **draws._sampler._parameters,
        history=history,
        allowed=draws._grammar and draws._grammar.mask(),
    )
    return dict(zip(ids.tolist(), p.tolist(), strict=True))
