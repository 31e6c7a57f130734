"""The seeds of FastLlama: of a completion, of the object, of the operating system."""

from __future__ import annotations

import subprocess
import sys

import pytest
from llama_models import PROMPTS, adapter, complete, draws, llama_cpp, load


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_seed_repeats_a_text(fast, prompt):
    texts = [complete(fast, prompt, seed=seed) for seed in (1, 2, 2**63, 1)]
    assert texts[0] == texts[3]
    assert len(set(texts)) == 3


def test_the_seed_of_the_object(fast):
    def series(seed):
        fast.set_seed(seed)
        return [complete(fast, seed=None) for _ in range(3)]

    assert series(11) == series(11)
    assert len({*series(11), *series(12)}) == 6


def test_seeds_that_mean_a_random_one(fast):
    seeds = set()
    for seed in (-1, llama_cpp.LLAMA_DEFAULT_SEED) * 2:
        complete(fast, seed=seed, max_tokens=1)
        seeds.add(fast._sampler._sampler.seed)
    assert len(seeds) == 4


def test_a_completions_own_seed_leaves_that_of_the_object_as_it_is(fast):
    fast.set_seed(11)
    whole = [complete(fast, seed=None) for _ in range(3)]
    fast.set_seed(11)
    mixed = []
    for seed in (1, -1, 2):
        complete(fast, seed=seed)
        mixed.append(complete(fast, seed=None))
    assert mixed == whole
    # generate draws with the object's seed, whatever a completion had.
    fast.set_seed(11)
    direct = draws(fast, PROMPTS[0], 8)
    complete(fast, seed=3)
    assert draws(fast, PROMPTS[0], 8) == direct


@pytest.mark.parametrize("seed", [{}, {"seed": -1}, {"seed": 0}, {"seed": None},
                                  {"seed": llama_cpp.LLAMA_DEFAULT_SEED}], ids=str)  # fmt: skip
def test_without_a_seed_every_text_is_another(seed):
    llm = load(adapter.FastLlama, n_ctx=128, **seed)
    messages = [{"role": "user", "content": "Write a story."}]
    hot = {"temperature": 1.5, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "max_tokens": 8}
    chat = llm.create_chat_completion
    texts = [complete(llm, PROMPTS[1], seed=None, **hot)]
    complete(llm, PROMPTS[1], seed=7, **hot)  # a seed of a completion is that completion's
    texts.append(complete(llm, PROMPTS[1], seed=None, **hot))
    chunks = list(llm.create_completion(PROMPTS[1], stream=True, **hot))
    texts.append("".join(chunk["choices"][0]["text"] for chunk in chunks))
    texts.append(llm(PROMPTS[1], **hot)["choices"][0]["text"])
    for own in (None, 7, None):
        answer = chat(messages, seed=own, **hot)["choices"][0]["message"]["content"]
        if own is None:
            texts.append(answer)
    texts.append(str(draws(llm, PROMPTS[1], 8, temp=1.5, top_k=0, top_p=1.0, min_p=0.0)))
    llm.set_seed(-1)
    texts.append(complete(llm, PROMPTS[1], seed=None, **hot))
    assert len(set(texts)) == len(texts)
    llm.close()


def test_processes_without_a_seed_write_different_texts():
    script = """
import sys
from fastsample.integrations.llama_cpp import FastLlama, smollm2_path
llm = FastLlama(smollm2_path(), n_ctx=64, n_threads=1, verbose=False)
for _ in range(2):
    print(llm.create_completion("Once", max_tokens=12, temperature=1.5)["choices"])
"""
    command = [sys.executable, "-c", script]
    runs = [subprocess.run(command, cwd="/", capture_output=True, check=True) for _ in range(2)]
    assert len({line for run in runs for line in run.stdout.splitlines()}) == 4


def test_a_copy_has_the_seed_of_the_object():
    llm = load(adapter.FastLlama, n_ctx=64, seed=5)
    complete(llm, seed=9, max_tokens=1)
    assert llm.__getstate__()["seed"] == 5
    llm.close()


@pytest.fixture(scope="module")
def texts(fast):
    return [complete(fast, prompt, temperature=1.2) for prompt in PROMPTS]


def test_variants_write_the_same_text(fast, texts, fast_variant):
    assert texts == [complete(fast, prompt, temperature=1.2) for prompt in PROMPTS]
