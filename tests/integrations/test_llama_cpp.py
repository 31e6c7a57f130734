"""FastLlama draws what llama-cpp-python's own Llama does, on the weights of SmolLM2."""

from __future__ import annotations

import ctypes
import doctest
import inspect

import numpy as np
import pytest
from llama_models import PROMPTS, adapter, complete, draws, llama_cpp, load, our_chain, own_chain
from scipy import stats

import fastsample
from fastsample.integrations._llama_draws import logits_address

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
    assert {"_grammar", "_root"} <= set(vars(llama_cpp.LlamaGrammar.from_string("root ::= [a]")))
    assert fast._model.vocab
    assert isinstance(fast._ctx.ctx, int), "LlamaContext.ctx is not an address"
    fast.eval([1])
    pointer = fast._ctx.get_logits_ith(-1)
    assert ctypes.addressof(pointer.contents) == logits_address(fast._ctx.ctx, -1)


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
