"""Grammars of llama.cpp in FastLlama: masks of the draw, with the results of Llama."""

from __future__ import annotations

import json

import numpy as np
import pytest
from llama_models import PROMPTS, adapter, complete, draws, llama_cpp, load, our_chain, own_chain

import fastsample

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer"},
        "pets": {"type": "array", "items": {"enum": ["cat", "dog"]}, "maxItems": 2},
        "tall": {"type": "boolean"},
    },
    "required": ["name", "age", "pets", "tall"],
}
GRAMMAR = llama_cpp.LlamaGrammar.from_json_schema(json.dumps(SCHEMA), verbose=False)
ANSWER = llama_cpp.LlamaGrammar.from_string('root ::= " yes" | " no"', verbose=False)
PROMPT = "A person as JSON: "
SETTINGS = {
    "defaults": {},
    "hot": {"temp": 1.5, "top_k": 0, "top_p": 1.0, "min_p": 0.0},
    "two": {"temp": 1.0, "top_k": 2, "top_p": 1.0, "min_p": 0.0},
    "penalties": {"repeat_penalty": 1.3, "frequency_penalty": 0.4},
    "below 0": {"temp": -1.0},
    "mirostat 2": {"temp": 1.0, "mirostat_mode": 2, "mirostat_tau": 1.5},
}


def assert_valid(text):
    person = json.loads(text)
    assert set(person) == set(SCHEMA["properties"])
    assert isinstance(person["name"], str)
    assert len(person["name"]) <= 12
    assert type(person["age"]) is int
    assert set(person["pets"]) <= {"cat", "dog"}
    assert type(person["tall"]) is bool


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_text_is_json_of_the_schema(fast, setting):
    options = {"max_tokens": 200, "grammar": GRAMMAR} | SETTINGS[setting]
    options["temperature"] = options.pop("temp", 0.8)
    texts = [complete(fast, PROMPT, seed=seed, **options) for seed in range(3)]
    for text in texts:
        assert_valid(text)
    assert len(set(texts)) > 1
    assert texts[2] == complete(fast, PROMPT, seed=2, **options)


@pytest.mark.parametrize("penalties", [{}, SETTINGS["penalties"]], ids=["plain", "penalties"])
def test_greedy_is_the_originals_token_for_token(fast, original, penalties):
    asked = {"temp": 0.0, "grammar": GRAMMAR, **penalties}
    expected = draws(original, PROMPT, 60, **asked)
    tokens = draws(fast, PROMPT, 60, **asked)
    assert tokens == expected
    assert fast.draws == 60
    assert fast.token_eos() in tokens
    assert_valid(fast.detokenize(tokens[: tokens.index(fast.token_eos())]).decode())


@pytest.mark.parametrize("setting", SETTINGS)
def test_support_and_probabilities_are_the_originals(fast, setting):
    """Also where a stage cuts: what it cuts is what the grammar allows."""
    fast.eval(fast.tokenize(PROMPT.encode()))
    begin = fast.tokenize(b'{"name": "', add_bos=False)
    parameters = {**SETTINGS[setting], "grammar": GRAMMAR}
    for history in ([], begin):
        ours = our_chain(fast, history, **parameters)
        theirs = own_chain(fast, history, **parameters)
        assert set(ours) == set(theirs)
        for token, p in theirs.items():
            assert ours[token] == pytest.approx(p, rel=1e-3, abs=1e-8)


@pytest.mark.parametrize(
    "more",
    [
        {"temperature": 0.0},  # a token is checked before there is a mask
        {"temperature": 1.2},  # only what top_k may keep is
        {"temperature": 1.2, "xtc_probability": 0.5, "xtc_threshold": 0.02},
        {"temperature": 1.2, "top_n_sigma": 1.0},
        {"temperature": 1.2, "top_k": 3, "dry_multiplier": 0.8, "dry_allowed_length": 1},
    ],
    ids=str,
)
def test_token_n_is_that_of_a_sampler_with_the_whole_mask(fast, more):
    rows = []

    def keep(ids, row):
        rows.append(row.copy())
        return row

    own = {name: value for name, value in more.items() if name not in ("temperature", "top_k")}
    asked = {"temp": more["temperature"], "top_k": more.get("top_k", 40), "repeat_penalty": 1.5}
    for name, value in own.items():
        setattr(fast, name, value)
    try:
        fast.set_seed(7)
        tokens = draws(fast, PROMPT, 40, logits_processor=[keep], grammar=GRAMMAR, **asked)
        assert draws(fast, PROMPT, 40, grammar=GRAMMAR, **asked) == tokens  # without the copy
    finally:
        for name in own:
            delattr(fast, name)
    sampler = fastsample.Sampler(
        **{"top_k": 40, "top_p": 0.95, "min_p": 0.05, **more},
        **{"repetition_penalty": 1.5, "penalty_last_n": 64, "order": "llama.cpp", "seed": 7},
    )
    prompt = fast.tokenize(PROMPT.encode()) if "dry_multiplier" in more else []
    sampler.start(prompt, prompt_length=0)
    grammar = adapter.Grammar(fast._model.vocab, fast.n_vocab(), GRAMMAR)
    for token, row in zip(tokens, rows, strict=True):
        mask = grammar.mask()
        assert [grammar.allows(t) for t in (token, 5, 500)] == mask[[token, 5, 500]].tolist()
        assert sampler(row, allowed=mask) == token
        grammar.accept(token)


def test_a_whole_mask_is_made_where_it_matters(fast, monkeypatch):
    masks = []
    real = adapter.Grammar.mask
    monkeypatch.setattr(
        adapter.Grammar, "mask", lambda self, ids=None: masks.append(ids) or real(self, ids)
    )
    words = llama_cpp.LlamaGrammar.from_string("root ::= [a-zA-Z ,.]*", verbose=False)
    for asked, least, most in (
        ({"grammar": words}, 0, 4),
        ({"grammar": GRAMMAR}, 1, 19),
        ({"grammar": GRAMMAR, "temp": 0.0}, 1, 19),
        ({"grammar": words, "top_k": 0}, 20, 20),
        ({"grammar": words, "mirostat_mode": 2}, 20, 20),
    ):
        masks.clear()
        draws(fast, PROMPT, 20, **asked)
        assert least <= sum(ids is None for ids in masks) <= most


def test_one_of_two_words(fast):
    asked = {"grammar": ANSWER, "temperature": 2.0}
    texts = {complete(fast, "Is the sky blue? Answer:", seed=s, **asked) for s in range(8)}
    assert texts == {" yes", " no"}


def test_a_bias_beside_a_grammar(fast):
    for word in (" yes", " no"):
        bias = {fast.tokenize(word.encode(), add_bos=False)[0]: 100.0}
        assert complete(fast, "Is the sky blue?", grammar=ANSWER, logit_bias=bias) == word


def test_a_processor_beside_a_grammar(fast):
    for word in (b" yes", b" no"):
        wanted = fast.tokenize(word, add_bos=False)[0]

        def process(ids, row, wanted=wanted):
            row[wanted] += 100.0
            row[5] += 200.0  # which is not allowed
            return row

        text = complete(fast, "Is the sky blue?", grammar=ANSWER, logits_processor=[process])
        assert text.encode() == word


def test_a_draft_model_beside_a_grammar(fast):
    from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

    prompt = 'As JSON: {"name": "Anna", "age": 31, "pets": ["cat"], "tall": true}\nAgain: '
    llm = load(adapter.FastLlama, draft_model=LlamaPromptLookupDecoding())
    for temperature in (0.0, 0.8):
        asked = {"grammar": GRAMMAR, "temperature": temperature, "max_tokens": 100}
        text = complete(llm, prompt, **asked)
        assert_valid(text)
        assert text == complete(fast, prompt, **asked)
    llm.close()


def test_the_format_of_a_chat(fast):
    messages = [{"role": "user", "content": "A person as JSON."}]
    form = {"type": "json_object", "schema": SCHEMA}
    out = fast.create_chat_completion(messages, response_format=form, max_tokens=200, seed=1)
    assert_valid(out["choices"][0]["message"]["content"])
    fast.reset()
    stream = fast.create_chat_completion(
        messages, response_format=form, max_tokens=200, seed=1, stream=True
    )
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in stream)
    assert text == out["choices"][0]["message"]["content"]


def test_all_of_it_with_a_grammar(fast):
    fast.dry_multiplier, fast.xtc_probability = 0.8, 0.5
    try:
        for seed in range(2):
            assert_valid(complete(fast, PROMPT, grammar=GRAMMAR, seed=seed, max_tokens=200))
    finally:
        del fast.dry_multiplier, fast.xtc_probability


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"grammar": 'root ::= "x"'}, r"^grammar must be a LlamaGrammar, got 'root ::= .* \(str\)"),
        (
            {"grammar": llama_cpp.LlamaGrammar.from_string("root ::= (", verbose=False)},
            r"^grammar must be one that llama.cpp parses, got 'root ::= \('",
        ),
        (
            {"grammar": ANSWER, "logits_processor": [lambda _, row: np.full_like(row, -np.inf)]},
            "an allowed token, got none|a finite value, got only -inf",
        ),
    ],
    ids=["type", "syntax", "nothing left"],
)
def test_bad_grammars(fast, wrong, message):
    with pytest.raises((TypeError, ValueError), match=message):
        complete(fast, **wrong)
    assert complete(fast, PROMPTS[0])  # and nothing is broken
