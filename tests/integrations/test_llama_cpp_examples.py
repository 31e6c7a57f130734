"""The programs of docs/examples that run llama.cpp."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from llama_models import MODEL

import fastsample
from fastsample.masks import mask_words

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def example(monkeypatch):
    def load(name):
        path = ROOT / "docs" / "examples" / f"{name}.py"
        if not path.is_file():
            pytest.skip("these tests run outside of a checkout, which has the example")
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)  # dataclasses look there
        spec.loader.exec_module(module)
        return module

    return load


def test_each_request_of_a_batch_is_reproduced_alone(example, monkeypatch):
    batching = example("continuous_batching")
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
    with batching.Model(MODEL) as model:
        together = batching.requests()
        batching.serve(model, together)
        assert max(len(tokens) for _, _, tokens in calls) >= 6  # it was a batch
        assert len({r.left for r in together}) > 5
        in_batch = {r.seed: rows_of(r.seed) for r in together}
        for n, request in enumerate(together):
            calls.clear()
            alone = batching.requests()[n]
            batching.serve(model, [alone])
            # Equal logits give equal tokens. llama.cpp need not give equal logits to the same
            # sequence alone and in a batch; on most processors it does.
            pairs = zip(in_batch[alone.seed], rows_of(alone.seed), strict=False)
            equal = next((i for i, (a, b) in enumerate(pairs) if not np.array_equal(a, b)), None)
            assert alone.tokens[:equal] == request.tokens[:equal]
            assert alone.tokens


# ---- grammars --------------------------------------------------------------------------------


# llguidance 1.9 asks llama.cpp by a name that is on its way out.
@pytest.mark.filterwarnings("ignore:llama_token_get_attr is deprecated:DeprecationWarning")
@pytest.mark.parametrize("engine", ["xgrammar", "llguidance"])
def test_json_by_schema(example, fast, engine):
    """Every text parses and validates; the mask is read where the grammar has written it."""
    pytest.importorskip(engine)
    jsonschema = pytest.importorskip("jsonschema")
    module = example("json_by_schema")
    texts = []
    for seed in (1, 2, 3, 1):
        grammar = module.GRAMMARS[engine](fast, module.SCHEMA)
        drawn = fastsample.Sampler(temperature=1.0, top_p=0.95, seed=seed)
        texts.append(module.write(fast, grammar, drawn))
        jsonschema.validate(json.loads(texts[-1]), module.SCHEMA)
        assert drawn.offset > 10
        words = mask_words(grammar.mask, 1, True, fast.n_vocab())
        assert np.shares_memory(words, grammar.mask)
    assert texts[0] == texts[3]
    assert len(set(texts)) == 3


# ---- drafts ----------------------------------------------------------------------------------


def test_look_up(example):
    look_up = example("prompt_lookup").look_up
    assert look_up([1, 2, 3, 4, 5, 9, 1, 2, 3], 2) == [4, 5]
    assert look_up([1, 2, 3, 4], 2) == []


def test_prompt_lookup(example):
    lookup = example("prompt_lookup")
    with lookup.Model(MODEL) as model:
        prompt = model.llm.tokenize(lookup.PROMPT.encode())
        tokens, passes = lookup.write(model, prompt, 40, 0)
        assert (len(tokens), passes) == (40, 40)
        drafted, passes = lookup.write(model, prompt, 40, 6)
    assert drafted == tokens
    assert passes < 20


def test_prompt_lookup_says_what_it_gains(example, monkeypatch, capfd):
    lookup = example("prompt_lookup")
    monkeypatch.setattr(sys, "argv", ["prompt_lookup.py", "--tokens", "24"])
    lookup.main()  # which asserts that both texts are the same
    out = capfd.readouterr().out
    assert re.search(r"^0 drafts: [\d.]+ tokens/s, 1\.00 tokens a pass$", out, re.MULTILINE)
    assert re.search(r"^5 drafts: [\d.]+ tokens/s, [2-6]\.\d\d tokens a pass$", out, re.MULTILINE)
    assert "opens at seven in the morning" in out
