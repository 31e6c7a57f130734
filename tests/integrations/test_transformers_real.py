"""`generate` of transformers with the real weights of SmolLM2."""

from __future__ import annotations

from typing import Any

import pytest
from transformers_models import Listener, tokens, torch, transformers, warpers

import fastsample
from fastsample.integrations.transformers import enable, generate

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def test_real_greedy(real: tuple[Any, Any]) -> None:
    model, tokenizer = real
    ids = tokenizer("The weather today is", return_tensors="pt")
    theirs = model.generate(**ids, max_new_tokens=12, do_sample=False)
    assert tokens(generate(model, **ids, max_new_tokens=12)) == tokens(theirs)
    zero = generate(model, **ids, max_new_tokens=12, do_sample=True, temperature=0.0)
    assert tokens(zero) == tokens(theirs)


def test_real_greedy_with_edits(real: tuple[Any, Any]) -> None:
    model, tokenizer = real
    for prompt in ("The weather today is", "one two three one two three one"):
        ids = tokenizer(prompt, return_tensors="pt")
        for edits in ({"repetition_penalty": 1.2}, {"no_repeat_ngram_size": 2}):
            theirs = model.generate(**ids, max_new_tokens=24, do_sample=False, **edits)
            assert tokens(generate(model, **ids, max_new_tokens=24, **edits)) == tokens(theirs)


def test_real_text(real: tuple[Any, Any]) -> None:
    """Left padding, scores, logits and the warpers' support, on the real weights."""
    model, tokenizer = real
    tokenizer.padding_side = "left"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token  # not every version reads it
    prompts = ["The weather today is", "Once upon a time there was a"]
    ids = tokenizer(prompts, return_tensors="pt", padding=True)
    chain = {"temperature": 0.8, "top_p": 0.95, "top_k": 50}
    result = generate(
        model, **ids, max_length=ids["input_ids"].shape[1] + 8, do_sample=True, seed=1,
        return_dict_in_generate=True, output_scores=True, output_logits=True, eos_token_id=None,
        **chain,
    )  # fmt: skip
    start = ids["input_ids"].shape[1]
    for step, (scores, logits) in enumerate(zip(result.scores, result.logits, strict=True)):
        expected = logits
        for warper in warpers(chain):
            expected = warper(None, expected)
        assert torch.equal(scores, expected)
        drawn = fastsample.sample(logits, **chain, seed=1, offset=step)
        assert result.sequences[:, start + step].tolist() == drawn.tolist()


def test_real_stop_strings_and_streamer(real: tuple[Any, Any]) -> None:
    model, tokenizer = real
    ids = tokenizer("Count: one, two, three,", return_tensors="pt")
    listener = Listener()
    drawn = generate(
        model, **ids, max_new_tokens=30, stop_strings=[","], tokenizer=tokenizer,
        streamer=listener, do_sample=True, top_k=3, seed=1,
    )  # fmt: skip
    text = tokenizer.decode(drawn[0, ids["input_ids"].shape[1] :])
    assert text.count(",") == 1
    assert "," in text[-3:]
    assert listener.seen == tokens(drawn)[0]
    assert drawn.shape[1] < ids["input_ids"].shape[1] + 30


def test_real_pipeline(real: tuple[Any, Any]) -> None:
    model, tokenizer = real
    enable(model)
    try:
        pipe = transformers.pipeline("text-generation", model=model, tokenizer=tokenizer)
        texts = [
            pipe("The weather today is", do_sample=True, max_new_tokens=6, seed=seed)
            for seed in (1, 1, 2, 3)
        ]
    finally:
        del model.generate
    assert texts[0] == texts[1]
    assert len({str(text) for text in texts}) > 1
