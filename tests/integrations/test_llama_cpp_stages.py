"""Stages and penalties of FastLlama that llama-cpp-python runs otherwise, or has no names for."""

from __future__ import annotations

import pytest
from llama_models import PROMPTS, adapter, complete, draws, load

import fastsample


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
def test_all_is_drawn_as_by_one_sampler(fast, asked):
    rows = []

    def keep(ids, row):
        rows.append(row.copy())
        return row

    fast.set_seed(7)
    tokens = draws(fast, PROMPTS[1], 16, logits_processor=[keep], **asked)
    asked = {"temp": 0.8, **asked}
    names = {"temp": "temperature", "mirostat_mode": "mirostat",
             "repeat_penalty": "repetition_penalty"}  # fmt: skip
    chain = {names.get(name, name): value for name, value in asked.items()}
    if "mirostat_mode" not in asked:
        chain |= {"top_k": 40, "top_p": 0.95, "min_p": 0.05}
    sampler = fastsample.Sampler(**chain, penalty_last_n=64, order="llama.cpp", seed=7)
    assert tokens == [sampler(row) for row in rows]
    assert draws(fast, PROMPTS[1], 16, **asked) == tokens  # without the processor's copy


def test_penalties_beside_a_stage_are_drawn_with(fast):
    penalties = {"repeat_penalty": 1.2, "frequency_penalty": 0.1, "presence_penalty": 0.1}
    for asked in ({"typical_p": 0.8}, {"mirostat_mode": 1}, {"mirostat_mode": 2}):
        texts = [complete(fast, **penalties, **asked) for _ in range(2)]
        assert texts[0] == texts[1] != complete(fast, **penalties)
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
