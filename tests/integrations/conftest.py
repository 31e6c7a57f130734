"""The models that the tests of llama-cpp-python share, and those of transformers."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def fast():
    from llama_models import adapter, load

    llm = load(adapter.FastLlama)
    yield llm
    llm.close()


@pytest.fixture(scope="module")
def original():
    from llama_models import Original, load

    llm = load(Original)
    yield llm
    llm.close()


@pytest.fixture(autouse=True)
def _as_new(request):
    """Forget the cached prefix: logits of a prompt read in other parts may have other bits."""
    for name in {"fast", "original"} & set(request.fixturenames):
        llm = request.getfixturevalue(name)
        llm.reset()
        llm.set_seed(5)


@pytest.fixture(scope="module")
def one_torch_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tiny():
    from transformers_models import make_tiny

    return make_tiny()


@pytest.fixture(scope="module")
def real():
    from transformers_models import load_real

    return load_real()
