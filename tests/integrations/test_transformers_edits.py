"""Penalties, bans and biases of `generate` of transformers are made with the draw."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from transformers_models import (
    EOS,
    PAD,
    PROMPT,
    SAMPLING,
    ran,
    tokens,
    torch,
    transformers,
    warpers,
)

import fastsample
from fastsample.integrations.transformers import FastSampleLogitsProcessor, generate

pytestmark = pytest.mark.usefixtures("one_torch_thread")

#: Edits, of which each changes the greedy text of the tiny model.
EDITS: dict[str, dict[str, Any]] = {
    "repetition_penalty": {"repetition_penalty": 1.7},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 1},
    "bad_words_ids": {"bad_words_ids": "greedy words"},
    "sequence_bias": {"sequence_bias": "greedy words"},
    "suppress_tokens": {"suppress_tokens": "greedy tokens"},
    "min_new_tokens": {"min_new_tokens": 6, "eos_token_id": "a greedy token"},
    "min_length": {"min_length": 9, "eos_token_id": ["a greedy token", EOS]},
    "all": {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "bad_words_ids": "greedy words",
            "suppress_tokens": [40, 41], "min_new_tokens": 3},
}  # fmt: skip


@pytest.fixture
def edit(request: pytest.FixtureRequest, tiny: Any) -> dict[str, Any]:
    """An edit that concerns what the tiny model would write."""
    text = tokens(tiny.generate(PROMPT, max_new_tokens=8, eos_token_id=None))[0]
    words = [text[4:6], text[6:7], [250, 251, 252], [EOS]]
    values = {
        "bad_words_ids": words,
        "sequence_bias": {tuple(word): -9.0 for word in words},
        "suppress_tokens": [text[3], text[5]],
    }
    made = dict(EDITS[request.param])
    for name, value in made.items():
        if "greedy" in str(value):
            eos = [text[5], EOS] if isinstance(value, list) else text[5]
            made[name] = eos if name == "eos_token_id" else values[name]
    return made


every_edit = pytest.mark.parametrize("edit", EDITS, indirect=True)


@every_edit
@pytest.mark.parametrize("as_config", [False, True])
def test_greedy_with_edits_is_generates_own(
    tiny: Any, edit: dict[str, Any], as_config: bool
) -> None:
    theirs = tokens(tiny.generate(PROMPT, max_new_tokens=12, **edit))
    if as_config:
        config = transformers.GenerationConfig(max_new_tokens=12, **edit)
        assert tokens(generate(tiny, PROMPT, config)) == theirs
    else:
        assert tokens(generate(tiny, PROMPT, max_new_tokens=12, **edit)) == theirs
    plain = {n: v for n, v in edit.items() if n == "eos_token_id"}
    assert tokens(tiny.generate(PROMPT, max_new_tokens=12, **plain)) != theirs


@every_edit
def test_draws_with_edits_are_those_of_generates_own_scores(
    tiny: Any, edit: dict[str, Any]
) -> None:
    """The scores that are returned are `generate`'s; without them the edits are fastsample's."""
    chain: dict[str, Any] = {**SAMPLING, "max_new_tokens": 8, "seed": 5, "num_return_sequences": 3}
    told = generate(tiny, PROMPT, return_dict_in_generate=True, output_scores=True, **chain, **edit)
    assert tokens(generate(tiny, PROMPT, **chain, **edit)) == tokens(told.sequences)
    for step, scores in enumerate(told.scores):
        before = told.sequences[:, : 3 + step]
        logits = tiny(before).logits[:, -1].detach()
        for processor in tiny._get_logits_processor(
            config_of(tiny, edit), input_ids_seq_length=3, device="cpu"
        ):
            logits = processor(before, logits)
        for warper in warpers({n: SAMPLING[n] for n in ("temperature", "top_k", "top_p")}):
            logits = warper(None, logits)
        assert torch.equal(torch.isfinite(scores), torch.isfinite(logits))
        kept = torch.isfinite(scores)
        assert torch.allclose(scores[kept], logits[kept], atol=1e-4)


def config_of(model: Any, edit: dict[str, Any]) -> Any:
    config, _ = model._prepare_generation_config(None, **edit)
    model._prepare_special_tokens(config, True, device="cpu")
    return config


@every_edit
@pytest.mark.parametrize("do_sample", [False, True])
@pytest.mark.parametrize("as_config", [False, True])
def test_edits_are_made_once(
    tiny: Any, edit: dict[str, Any], do_sample: bool, as_config: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    made = ran(tiny, monkeypatch)
    chain = {"max_new_tokens": 3, "do_sample": do_sample, **edit}
    if as_config:
        generate(tiny, PROMPT, transformers.GenerationConfig(**chain))
    else:
        generate(tiny, PROMPT, **chain)
    assert made == ["FastSampleLogitsProcessor"]


@pytest.mark.parametrize(
    "beside",
    [
        {"logits_processor": [lambda ids, scores: scores]},
        {"prefix_allowed_tokens_fn": lambda batch, ids: [40, 41, 42]},
        {"forced_eos_token_id": 40},
        {"begin_suppress_tokens": [40]},
        {"remove_invalid_values": True},
    ],
    ids=lambda beside: next(iter(beside)),
)
def test_edits_beside_other_processors_are_generates(
    tiny: Any, beside: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ran(tiny, monkeypatch)
    chain = {"max_new_tokens": 6, "repetition_penalty": 1.7, **beside}
    theirs = tokens(tiny.generate(PROMPT, **chain))
    made.clear()
    assert tokens(generate(tiny, PROMPT, **chain)) == theirs
    assert made[0] == "RepetitionPenaltyLogitsProcessor"
    drawn = generate(tiny, PROMPT, do_sample=True, temperature=0.0, **chain)
    assert tokens(drawn) == theirs


def test_edits_of_the_models_own_configuration(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = copy.deepcopy(tiny)
    text = tokens(model.generate(PROMPT, max_new_tokens=8))[0]
    own = {"repetition_penalty": 1.7, "suppress_tokens": text[3:5], "min_new_tokens": 3,
           "bad_words_ids": [text[5:6]], "top_h": 0.9}  # fmt: skip
    model.generation_config.update(**own)
    made = ran(model, monkeypatch)
    theirs = tokens(model.generate(PROMPT, max_new_tokens=8))
    assert theirs[0] != text
    for several in (1, 2):
        made.clear()
        chain = {"do_sample": True, "temperature": 0.0, "num_return_sequences": several}
        drawn = generate(model, PROMPT, max_new_tokens=8, **chain)
        assert tokens(drawn) == theirs * several
        assert made == ["FastSampleLogitsProcessor"]
        config = transformers.GenerationConfig(max_new_tokens=8, **chain)
        assert tokens(generate(model, PROMPT, config)) == theirs * several
    assert tokens(generate(model, PROMPT, max_new_tokens=8)) == theirs


def test_padding_is_no_history(tiny: Any) -> None:
    """A row draws as it does alone; the mask says what pads, or else the padding token."""
    prompts = [[11, 12, 13, 14, 15], [21, 22, 23], [31]]
    ids = torch.tensor([[PAD] * (5 - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (5 - len(p)) + [1] * len(p) for p in prompts])
    chain: dict[str, Any] = {"max_new_tokens": 12, "eos_token_id": None, "repetition_penalty": 1.4,
                             "no_repeat_ngram_size": 2}  # fmt: skip
    for sampling in ({}, SAMPLING):
        seeds = [1, 2, 3]
        extra = {"seed": seeds} if sampling else {}
        batch = generate(tiny, ids, attention_mask=mask, **extra, **sampling, **chain)
        without = generate(tiny, ids, pad_token_id=PAD, **extra, **sampling, **chain)
        assert tokens(without) == tokens(batch)
        for row, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
            extra = {"seed": [seed]} if sampling else {}
            alone = generate(tiny, torch.tensor([prompt]), **extra, **sampling, **chain)
            assert tokens(batch)[row][5:] == tokens(alone)[0][len(prompt) :]


@pytest.mark.parametrize("parameters", [
    {"repetition_penalty": 1.5}, {"frequency_penalty": 2.0, "temperature": 0.5},
    {"dry_multiplier": 2.0, "dry_allowed_length": 1}, {"mirostat": 2, "order": "llama.cpp"},
    {"min_new_tokens": 4, "eos_token_id": 3},
], ids=str)  # fmt: skip
def test_processor_takes_the_history_from_generate(tiny: Any, parameters: dict[str, Any]) -> None:
    draw = FastSampleLogitsProcessor(seed=[7, 8], **parameters)
    prompt = torch.tensor([[11, 12, 13], [12, 12, 12]])
    for place in (0, 8):  # a second text, on which the same processor goes on
        result = tiny.generate(
            prompt, max_new_tokens=8, logits_processor=[draw], eos_token_id=None,
            return_dict_in_generate=True, output_logits=True,
        )  # fmt: skip
        for row, seed in enumerate((7, 8)):
            sampler = fastsample.Sampler(seed=seed, offset=place, **parameters)
            sampler.start(prompt[row].tolist())
            alone = [sampler(logits[row]) for logits in result.logits]
            assert result.sequences[row, 3:].tolist() == alone
    assert draw.sampler.offset == 16


@pytest.mark.parametrize("do_sample", [False, True])
def test_bad_edits(tiny: Any, do_sample: bool) -> None:
    chain: dict[str, Any] = {"max_new_tokens": 3, "do_sample": do_sample}
    with pytest.raises(ValueError, match="repetition_penalty must be finite and > 0, got -1"):
        generate(tiny, PROMPT, repetition_penalty=-1.0, **chain)
    with pytest.raises(ValueError, match="bad_words_ids must not have an empty sequence"):
        generate(tiny, PROMPT, bad_words_ids=[[]], **chain)


def test_ids_that_are_tensors_or_of_no_token(tiny: Any) -> None:
    text = tokens(tiny.generate(PROMPT, max_new_tokens=8, eos_token_id=None))[0]
    edits: list[dict[str, Any]] = [
        {"suppress_tokens": torch.tensor([text[3], text[5]])},
        {"min_new_tokens": 6, "eos_token_id": torch.tensor(text[5])},
        {"min_new_tokens": 6, "eos_token_id": torch.tensor([text[5], -1])},
        {"min_new_tokens": 6, "eos_token_id": -1},  # which no text ends with
    ]
    for edit in edits:
        chain = {"max_new_tokens": 8, **edit}
        assert tokens(generate(tiny, PROMPT, **chain)) == tokens(tiny.generate(PROMPT, **chain))
        drawn = generate(tiny, PROMPT, do_sample=True, seed=1, **chain)
        assert drawn.shape[1] >= 9
