"""The programs of docs/examples that run llama.cpp."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from llama_models import MODEL

import fastsample

ROOT = Path(__file__).resolve().parents[2]


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
