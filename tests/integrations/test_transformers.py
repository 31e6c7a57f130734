"""`generate` of transformers draws with fastsample: from what, with what parameters."""

from __future__ import annotations

import copy
import doctest
import inspect
from typing import Any

import numpy as np
import pytest
from forked import different
from transformers_models import (
    ARGUMENTS,
    PROMPT,
    SAMPLING,
    VOCAB,
    logits_process,
    tokens,
    torch,
    transformers,
    warpers,
)

import fastsample
from fastsample.integrations.transformers import FastSampleLogitsProcessor, enable, generate

pytestmark = pytest.mark.usefixtures("one_torch_thread")


# ---- what it relies on -------------------------------------------------------------------------


def test_the_private_hook_is_in_place() -> None:
    hook = getattr(transformers.GenerationMixin, "_prepare_generation_config", None)
    assert hook is not None, "transformers has moved GenerationMixin._prepare_generation_config"
    parameters = list(inspect.signature(hook).parameters.values())
    assert [p.name for p in parameters[:2]] == ["self", "generation_config"], (
        "transformers has changed the signature of GenerationMixin._prepare_generation_config"
    )
    assert parameters[-1].kind is inspect.Parameter.VAR_KEYWORD


def test_generate_takes_what_is_passed_on_by_place() -> None:
    names = list(inspect.signature(transformers.GenerationMixin.generate).parameters)
    assert names[:4] == ["self", "inputs", "generation_config", "logits_processor"]


def test_a_new_stage_of_generate_is_noticed() -> None:
    """Every warper that sampling adds is one that fastsample has, or refuses."""
    known = {"Temperature", "TopH", "TopK", "TopP", "MinP", "Typical", "Epsilon", "Eta"}
    found = {name for name in vars(logits_process) if name.endswith("LogitsWarper")}
    assert found - {"LogitsWarper"} == {f"{name}LogitsWarper" for name in known}


def test_examples_of_the_docstrings() -> None:
    from fastsample.integrations import transformers as adapter

    done = doctest.testmod(adapter)
    assert done.attempted > 10
    assert done.failed == 0


# ---- the processor -----------------------------------------------------------------------------


def test_processor_leaves_one_token_and_its_input_alone() -> None:
    scores = torch.randn(5, VOCAB, generator=torch.Generator().manual_seed(0))
    before = scores.clone()
    drawn = FastSampleLogitsProcessor(temperature=0.8, top_k=20, seed=3)(None, scores)
    assert torch.equal(scores, before)
    expected = fastsample.sample(scores, temperature=0.8, top_k=20, seed=3)
    assert drawn.argmax(-1).tolist() == expected.tolist()
    assert (drawn == 0).sum(-1).tolist() == [1] * 5
    assert torch.isinf(drawn).sum() == 5 * (VOCAB - 1)


@pytest.mark.parametrize("do_sample", [False, True])
def test_processor_decides_alone(tiny: Any, do_sample: bool) -> None:
    def draw() -> Any:
        return FastSampleLogitsProcessor(temperature=0.9, top_p=0.8, seed=5)

    result = tiny.generate(
        PROMPT, max_length=20, do_sample=do_sample, logits_processor=[draw()], eos_token_id=None
    )
    own = generate(
        tiny, PROMPT, max_length=20, do_sample=True, temperature=0.9, top_p=0.8, top_k=0, seed=5,
        eos_token_id=None,
    )  # fmt: skip
    assert tokens(result) == tokens(own)


# ---- what is drawn -----------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS)
def test_scores_equal_those_of_the_warpers(tiny: Any, arguments: dict[str, Any]) -> None:
    result = generate(
        tiny, PROMPT, max_new_tokens=6, do_sample=True, seed=1, return_dict_in_generate=True,
        output_scores=True, output_logits=True, eos_token_id=None, **arguments,
    )  # fmt: skip
    assert len(result.scores) == len(result.logits) == 6
    for step, (scores, logits) in enumerate(zip(result.scores, result.logits, strict=True)):
        expected = logits
        for warper in warpers(arguments):
            expected = warper(None, expected)
        assert torch.equal(scores, expected)
        drawn = result.sequences[0, 3 + step]
        assert torch.isfinite(scores[0, drawn])
        raw = tiny(result.sequences[:, : 3 + step]).logits[:, -1]
        assert torch.allclose(logits, raw, atol=1e-4)


def test_transition_scores_are_log_probabilities(tiny: Any) -> None:
    result = generate(
        tiny, PROMPT, max_new_tokens=5, seed=2, return_dict_in_generate=True, output_scores=True,
        output_logits=True, eos_token_id=None, **SAMPLING,
    )  # fmt: skip
    found = tiny.compute_transition_scores(result.sequences, result.scores, normalize_logits=True)[
        0
    ]
    chain = {name: SAMPLING[name] for name in ("temperature", "top_k", "top_p")}
    for value, logits, token in zip(found, result.logits, result.sequences[0, 3:], strict=True):
        p = fastsample.probs(logits[0], **chain)[int(token)]
        assert float(value) == pytest.approx(float(np.log(p)), abs=1e-4)


def test_renormalized_scores(tiny: Any) -> None:
    result = generate(
        tiny, PROMPT, max_new_tokens=2, seed=2, return_dict_in_generate=True, output_scores=True,
        renormalize_logits=True, **SAMPLING,
    )  # fmt: skip
    for scores in result.scores:
        assert float(torch.exp(scores).sum()) == pytest.approx(1.0, abs=1e-5)


def test_each_row_draws_from_its_own_stream(tiny: Any) -> None:
    result = generate(
        tiny, PROMPT.repeat(3, 1), max_new_tokens=4, seed=9, return_dict_in_generate=True,
        output_logits=True, eos_token_id=None, **SAMPLING,
    )  # fmt: skip
    chain = {name: SAMPLING[name] for name in ("temperature", "top_k", "top_p")}
    for step, logits in enumerate(result.logits):
        expected = fastsample.sample(logits, **chain, seed=9, offset=step)
        assert result.sequences[:, 3 + step].tolist() == expected.tolist()


def test_distribution_of_one_step(tiny: Any) -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    draws = 4000
    result = generate(
        tiny, PROMPT, max_new_tokens=1, seed=4, num_return_sequences=draws,
        return_dict_in_generate=True, output_logits=True, **SAMPLING,
    )  # fmt: skip
    scores = result.logits[0][:1]
    for warper in warpers(SAMPLING):
        scores = warper(None, scores)
    p = torch.softmax(scores[0].double(), -1).numpy()
    counts = np.bincount(result.sequences[:, -1].numpy(), minlength=VOCAB)
    assert counts[p == 0].sum() == 0
    common = p * draws >= 5
    observed = [*counts[common], counts[~common].sum()]
    expected = [*p[common] * draws, p[~common].sum() * draws]
    if expected[-1] == 0:
        observed, expected = observed[:-1], expected[:-1]
    assert len(observed) > 10
    assert stats.chisquare(observed, expected).pvalue > 1e-4


def test_ties_at_the_cut() -> None:
    """Hugging Face's top_k keeps all that tie with the k-th; fastsample keeps k."""
    scores = torch.tensor([[3.0, 1.0, 1.0, 1.0, 0.0]])
    theirs = logits_process.TopKLogitsWarper(2)(None, scores)
    assert torch.isfinite(theirs).sum() == 4
    assert fastsample.survivors(scores[0], top_k=2)[0].tolist() == [0, 1]


# ---- parameters ----------------------------------------------------------------------------------


@pytest.mark.parametrize("as_config", [False, True])
def test_reproducible_by_seed(tiny: Any, as_config: bool) -> None:
    def run(seed: int | None) -> list[list[int]]:
        if as_config:
            config = transformers.GenerationConfig(max_length=24, **SAMPLING)
            return tokens(generate(tiny, PROMPT, config, seed=seed))
        return tokens(generate(tiny, PROMPT, max_length=24, seed=seed, **SAMPLING))

    assert run(1) == run(1)
    assert len({str(run(seed)) for seed in range(4)}) > 1
    assert len({str(run(None)) for _ in range(6)}) > 1


@pytest.mark.parametrize("seeded", [transformers.set_seed, torch.manual_seed], ids=str)
def test_seeds_of_torch_repeat_a_text(tiny: Any, seeded: Any) -> None:
    model = enable(copy.deepcopy(tiny))
    chain = {"max_length": 24, "eos_token_id": None, **SAMPLING}
    seeded(0)
    first, second = (tokens(model.generate(PROMPT, **chain)) for _ in range(2))
    assert first != second
    seeded(0)
    assert tokens(generate(tiny, PROMPT, **chain)) == first
    assert tokens(model.generate(PROMPT, **chain)) == second
    seeded(1)
    assert tokens(model.generate(PROMPT, **chain)) != first
    # A seed of the call, or greedy search, takes none of torch's.
    seeded(0)
    model.generate(PROMPT, seed=3, **chain)
    model.generate(PROMPT, max_length=5)
    config = transformers.GenerationConfig(**chain)
    config.seed = 3
    model.generate(PROMPT, config)
    assert tokens(model.generate(PROMPT, **chain)) == first


def test_rows_without_a_seed_take_torchs(tiny: Any) -> None:
    batch = {"max_length": 24, "eos_token_id": None, **SAMPLING, "attention_mask": None}
    prompts, texts = torch.cat([PROMPT[:1]] * 3), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        texts.append(tokens(generate(tiny, prompts, seed=[4, None, None], **batch)))
    assert texts[0] == texts[1]
    assert texts[2][0] == texts[0][0]
    assert len({str(row) for text in texts for row in text}) == 5


FORK = """
import torch, transformers
from fastsample.integrations.transformers import FastSampleLogitsProcessor, enable
torch.set_num_threads(1)
sizes = {"vocab_size": 300, "n_embd": 8, "n_layer": 1, "n_head": 1}
config = transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=None)
model = enable(transformers.GPT2LMHeadModel(config).eval())
def text(**seed):
    chain = {"max_length": 30, "do_sample": True, **seed}
    return lambda: model.generate(torch.tensor([[5]]), **chain).tolist()
def seeded():
    torch.manual_seed(0)
    return text()()
def row(draw):
    draw(None, torch.zeros(1, 300))
    return lambda: [int(draw(None, torch.zeros(1, 300)).argmax()) for _ in range(20)]
draws = {"model": text(), "model, seed": text(seed=3), "model, torch's seed": seeded,
         "processor": row(FastSampleLogitsProcessor()),
         "processor, seed": row(FastSampleLogitsProcessor(seed=3))}
"""


def test_what_is_alive_across_a_fork() -> None:
    found = different(FORK)
    assert {found.pop("model"), found.pop("processor")} == {3}
    assert set(found.values()) == {1}


def test_a_seed_of_torch_that_was_set_before_the_import() -> None:
    found = different("import torch; torch.manual_seed(5)" + FORK)
    assert found["model"] == 1
    # And a child that seeds with the same again repeats a text.
    script = FORK.replace("torch.manual_seed(0)", "torch.manual_seed(5)")
    assert different("import torch; torch.manual_seed(5)" + script)["model, torch's seed"] == 1


def test_configuration_arguments_and_defaults_agree(tiny: Any) -> None:
    by_argument = generate(tiny, PROMPT, max_length=24, seed=3, **SAMPLING)
    config = transformers.GenerationConfig(max_length=24, **SAMPLING)
    kept = copy.deepcopy(config)
    assert tokens(generate(tiny, PROMPT, config, seed=3)) == tokens(by_argument)
    assert config.to_dict() == kept.to_dict()
    config.seed = 3
    assert tokens(generate(tiny, PROMPT, config)) == tokens(by_argument)

    model = copy.deepcopy(tiny)
    model.generation_config.update(**SAMPLING)
    assert tokens(generate(model, PROMPT, max_length=24, seed=3)) == tokens(by_argument)
    assert model.generation_config.temperature == SAMPLING["temperature"]


def test_no_warning_is_logged(
    tiny: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = transformers.logging.get_logger("transformers")
    monkeypatch.setattr(logger, "propagate", True)
    type(logger).warning_once.cache_clear()  # what was said before is said again
    for several in (1, 2):
        generate(tiny, PROMPT, max_new_tokens=2, num_return_sequences=several, **SAMPLING)
        config = transformers.GenerationConfig(
            max_new_tokens=2, num_return_sequences=several, **SAMPLING
        )
        generate(tiny, PROMPT, config)
    assert caplog.records == []


def test_order(tiny: Any) -> None:
    chain = {"do_sample": True, "temperature": 3.0, "top_p": 0.6, "max_length": 30}
    runs = {
        order: str(tokens(generate(tiny, PROMPT, seed=1, order=order, **chain)))
        for order in ("hf", "llama.cpp")
    }
    assert runs["hf"] != runs["llama.cpp"]


def test_temperature_zero_is_greedy(tiny: Any) -> None:
    drawn = generate(tiny, PROMPT, max_length=16, do_sample=True, temperature=0.0)
    assert tokens(drawn) == tokens(tiny.generate(PROMPT, max_length=16, do_sample=False))


REFUSED: dict[str, dict[str, Any]] = {
    "watermarking_config": {"watermarking_config": transformers.WatermarkingConfig()},
    "beam_sample": {"num_beams": 2},
    "assisted_generation": {"prompt_lookup_num_tokens": 2},
    "custom_generate": {"custom_generate": lambda *_, **__: None},
    "cache_implementation": {"cache_implementation": "paged"},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_lacking_is_refused(tiny: Any, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        generate(tiny, PROMPT, max_length=8, do_sample=True, **REFUSED[name])


@pytest.mark.parametrize("as_config", [False, True])
def test_what_generate_ignores_when_it_samples_is_ignored(tiny: Any, as_config: bool) -> None:
    chain = {**SAMPLING, "max_length": 12}
    expected = tokens(generate(tiny, PROMPT, seed=1, **chain))
    for several in (1, 2):
        chain |= {"penalty_alpha": 0.6, "num_return_sequences": several}
        if as_config:
            drawn = generate(tiny, PROMPT, transformers.GenerationConfig(**chain), seed=1)
        else:
            drawn = generate(tiny, PROMPT, seed=1, **chain)
        assert drawn.shape[0] == several
        assert tokens(drawn)[0] == expected[0]


def test_bad_input(tiny: Any) -> None:
    with pytest.raises(ValueError, match=r"top_p must be in \[0, 1\], got 1.5"):
        generate(tiny, PROMPT, max_length=8, do_sample=True, top_p=1.5)
    with pytest.raises(TypeError, match="seed must be an integer"):
        generate(tiny, PROMPT, max_length=8, do_sample=True, seed=1.5)
    with pytest.raises(TypeError, match=r"do_sample must be True or False, got 1 \(int\)"):
        generate(tiny, PROMPT, max_length=8, do_sample=1)
    with pytest.raises(ValueError, match="typo"):
        generate(tiny, PROMPT, max_length=8, do_sample=True, typo=1)
    with pytest.raises(TypeError, match="model must be"):
        generate(torch.nn.Linear(2, 2), PROMPT)
    with pytest.raises(TypeError, match="model must be"):
        enable(torch.nn.Linear(2, 2))
