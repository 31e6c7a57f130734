"""A generator of ONNX Runtime GenAI draws with fastsample, and is otherwise as it was."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastsample
import fastsample.reference

EXTRA = "pip install '.[onnxruntime-genai]' --group integration-tests"
og = pytest.importorskip("onnxruntime_genai", reason=f"onnxruntime-genai is not installed: {EXTRA}")
onnx = pytest.importorskip("onnx", reason=f"onnx, which makes the model, is not installed: {EXTRA}")
pytest.importorskip("onnx.parser")

from fastsample.bench.rivals import ONNX_DECODER, ONNX_MODEL  # noqa: E402
from fastsample.integrations.onnxruntime_genai import FastGenerator  # noqa: E402

ROW = np.random.default_rng(0).normal(0, 2, 500).astype(np.float32)
PROMPT = np.array([1, 2], np.int32)
LIKELY = np.argsort(-ROW)
EOS = int(LIKELY[9])
ORDER = "onnxruntime-genai"

# Search options, and what they are to fastsample.
OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "default": ({}, {"top_k": 50}),
    "temperature": ({"temperature": 0.5}, {"temperature": 0.5, "top_k": 50}),
    "top_k": ({"top_k": 5, "temperature": 2.0}, {"top_k": 5, "temperature": 2.0}),
    "top_p": ({"top_k": 0, "top_p": 0.5}, {"top_p": 0.5}),
    "top_p 1": ({"top_k": 0, "top_p": 1.0}, {}),
    "both": (
        {"top_k": 20, "top_p": 0.75, "temperature": 1.5},
        {"top_k": 20, "top_p": 0.75, "temperature": 1.5},
    ),
}
GREEDY: dict[str, dict[str, Any]] = {
    "do_sample": {"do_sample": False},
    "top_k": {"do_sample": True, "top_k": 1},
    "temperature": {"do_sample": True, "temperature": 0.0},
    "top_k and top_p of 0": {"do_sample": True, "top_k": 0, "top_p": 0.0},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model that answers every prompt with ROW."""
    folder = tmp_path_factory.mktemp("model")
    graph = onnx.parser.parse_model(ONNX_MODEL)
    graph.graph.initializer.append(onnx.numpy_helper.from_array(ROW, "row"))
    onnx.save(graph, folder / "model.onnx")
    config = {"type": "llama", "vocab_size": ROW.size, "context_length": 4096, "bos_token_id": 0}
    config |= {"eos_token_id": EOS, "pad_token_id": 0, "decoder": ONNX_DECODER}
    Path(folder, "genai_config.json").write_text(json.dumps({"model": config, "search": {}}))
    return og.Model(str(folder))


Make = Callable[..., Any]


@pytest.fixture
def make(model: Any) -> Make:
    """A generator of a class, with a prompt and search options."""

    def made(cls: Any, prompt: Any = PROMPT, seed: Any = None, **options: Any) -> Any:
        params = og.GeneratorParams(model)
        params.set_search_options(**options)
        generator = cls(model, params, **({} if cls is og.Generator else {"seed": seed}))
        generator.append_tokens(np.asarray(prompt, np.int32))
        return generator

    return made


def finish(generator: Any) -> list[int]:
    while not generator.is_done():
        generator.generate_next_token()
    return [int(token) for token in generator.get_sequence(0)]


def test_what_it_relies_on() -> None:
    """The public names that the adapter calls or replaces."""
    for name in ("generate_next_token", "get_logits", "set_logits", "get_sequence", "is_done"):
        assert hasattr(og.Generator, name), f"onnxruntime-genai has moved Generator.{name}"
    assert hasattr(og.GeneratorParams, "get_search_options"), (
        "onnxruntime-genai has moved GeneratorParams.get_search_options"
    )
    assert inspect.isclass(og.Generator)


def test_options_that_are_read_exist(model: Any) -> None:
    options = og.GeneratorParams(model).get_search_options()
    read = {"do_sample", "temperature", "top_k", "top_p", "repetition_penalty", "random_seed"}
    assert read | {"num_beams", "min_length", "no_repeat_ngram_size"} <= set(options)


def test_logits_are_a_copy_of_the_models(make: Make) -> None:
    generator = make(og.Generator)
    logits = generator.get_logits()
    assert logits.dtype == np.float32
    assert np.array_equal(logits[0, -1], ROW)
    logits.fill(0)
    assert np.array_equal(generator.get_logits()[0, -1], ROW)


@pytest.mark.parametrize("options", GREEDY.values(), ids=GREEDY)
def test_greedy_equals_the_runtimes(make: Make, options: dict[str, Any]) -> None:
    options = {"max_length": 12, "repetition_penalty": 1.5, "min_length": 5, **options}
    generator = make(FastGenerator, **options)
    assert generator.sampler is None
    assert finish(generator) == finish(make(og.Generator, **options))


@pytest.mark.parametrize(("options", "chain"), OPTIONS.values(), ids=OPTIONS)
def test_draws_are_those_of_sample(
    make: Make, options: dict[str, Any], chain: dict[str, Any]
) -> None:
    generator = make(FastGenerator, seed=7, do_sample=True, max_length=40, **options)
    expected = []
    for step in range(38):
        token = fastsample.sample(ROW, **chain, order=ORDER, seed=7, offset=step)
        if token == EOS:
            break
        expected.append(token)
    assert finish(generator)[2:] == expected


@pytest.mark.parametrize(("options", "chain"), OPTIONS.values(), ids=OPTIONS)
def test_the_runtime_draws_from_the_same_distribution(
    make: Make, options: dict[str, Any], chain: dict[str, Any]
) -> None:
    """What the search options mean is what the runtime itself does with them."""
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    p = fastsample.probs(ROW, **chain, order=ORDER).astype(float)
    draws = 2000
    classes = [(FastGenerator, 3)]
    if not (chain.get("top_p") and "top_k" not in chain):  # without top_k, its top_p is inexact
        classes.append((og.Generator, None))
    for cls, seed in classes:
        generator = make(cls, seed=seed, do_sample=True, random_seed=3, **options)
        counts = np.zeros(ROW.size)
        for _ in range(draws):
            generator.rewind_to(0)
            generator.append_tokens(PROMPT)
            generator.generate_next_token()
            counts[generator.get_next_tokens()[0]] += 1
        assert counts[p == 0].sum() == 0
        common = p * draws >= 5
        observed = np.append(counts[common], counts[~common].sum())
        expected = np.append(p[common], p[~common].sum())
        used = expected > 0
        expected = expected[used] / expected[used].sum() * draws
        assert stats.chisquare(observed[used], expected).pvalue > 1e-4


def test_seeds(make: Make) -> None:
    def run(**arguments: Any) -> list[int]:
        return finish(make(FastGenerator, do_sample=True, max_length=40, **arguments))

    assert run(seed=1) == run(seed=1)
    assert len({str(run(seed=seed)) for seed in range(4)}) > 1
    assert run(random_seed=1) == run(seed=1)
    assert run(random_seed=2, seed=1) == run(seed=1)
    assert len({str(run()) for _ in range(6)}) > 1


def test_repetition_penalty(make: Make) -> None:
    options = {"repetition_penalty": 1.5, "max_length": 30, "do_sample": True}
    generator = make(FastGenerator, seed=2, **options)
    sequence = [*map(int, PROMPT)]
    for step in range(28):
        logits = ROW.copy()
        seen = sorted(set(sequence))
        penalty = np.float32(1.5)
        logits[seen] = np.where(ROW[seen] < 0, ROW[seen] * penalty, ROW[seen] / penalty)
        token = fastsample.sample(logits, top_k=50, order=ORDER, seed=2, offset=step)
        if token == EOS:
            break
        sequence.append(token)
    assert finish(generator) == sequence


def test_batch(make: Make) -> None:
    """Each row has its stream, and ends by itself; a seed per row gives what it gives alone."""
    prompts = [[1, 2], [3, 4], [5, 6]]
    options = {"do_sample": True, "max_length": 40, "top_k": 20, "temperature": 1.3}
    seeds = [11, 12, 13]
    for seed in (5, seeds):
        generator = make(FastGenerator, prompts, seed, batch_size=3, **options)
        finish(generator)
        rows = [[int(token) for token in generator.get_sequence(i)] for i in range(3)]
        chain = {"top_k": 20, "temperature": float(np.float32(1.3)), "order": ORDER}
        for i, row in enumerate(rows):
            ended = False
            for step, token in enumerate(row[2:]):
                u = fastsample.reference.uniform(
                    seed if seed == 5 else seeds[i], i if seed == 5 else 0, step
                )
                assert token == (0 if ended else fastsample.sample(ROW, **chain, u=u))
                ended = ended or token == EOS
        assert any(EOS in row for row in rows)
        if seed == seeds:
            alone = finish(make(FastGenerator, prompts[1], seeds[1], **options))
            assert rows[1][: len(alone)] == alone


def test_the_end_of_a_sequence_is_the_runtimes(make: Make) -> None:
    """Done at the end of sequence or at max_length, and then not to be called again."""
    ended = 0
    for seed in range(20):
        generator = make(FastGenerator, seed=seed, do_sample=True, top_k=20, max_length=30)
        length = len(finish(generator))
        ended += length < 30
        with pytest.raises(RuntimeError):
            generator.generate_next_token()
        assert generator.sampler.offset <= 28
    assert 0 < ended < 20


def test_params_stay_as_they_are(make: Make, model: Any) -> None:
    params = og.GeneratorParams(model)
    params.set_search_options(do_sample=True, top_k=9)
    before = params.get_search_options()
    FastGenerator(model, params, seed=1)
    assert params.get_search_options() == before


def test_order(make: Make, model: Any) -> None:
    params = og.GeneratorParams(model)
    params.set_search_options(do_sample=True, temperature=3.0, top_k=50, top_p=0.5, max_length=60)
    runs = []
    for order in (ORDER, "llama.cpp"):
        generator = FastGenerator(model, params, seed=1, order=order)
        generator.append_tokens(PROMPT)
        runs.append(finish(generator))
    assert runs[0] != runs[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 2}, "num_beams must be 1"),
        ({"min_length": 5}, "min_length must be 0"),
        ({"no_repeat_ngram_size": 2}, "no_repeat_ngram_size must be 0"),
        ({"top_p": 1.5}, r"top_p must be in \[0, 1\], got 1.5"),
        ({"temperature": -1.0}, "temperature must be finite and >= 0, got -1"),
        ({"num_beams": 0}, "num_beams must be 1 to draw with fastsample, got 0$"),
        ({"min_length": -1}, "min_length must be 0 to draw with fastsample, got -1$"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size must be 0 to draw with .*, got -1$"),
        ({"top_p": -0.5}, r"top_p must be in \[0, 1\], got -0.5"),
        ({"top_p": np.nan}, r"top_p must be in \[0, 1\], got nan"),
        ({"temperature": np.nan}, "temperature must be finite and >= 0, got nan"),
        ({"temperature": np.inf}, "temperature must be finite and >= 0, got inf"),
        ({"repetition_penalty": -1.0}, "^repetition_penalty must be finite and > 0, got -1$"),
        ({"repetition_penalty": 0.0}, "^repetition_penalty must be finite and > 0, got 0$"),
        ({"repetition_penalty": np.nan}, "^repetition_penalty must be finite and > 0, got nan$"),
        ({"repetition_penalty": np.inf}, "^repetition_penalty must be finite and > 0, got inf$"),
        ({"top_k": -1}, "^top_k must be >= 0, got -1$"),
        ({"top_k": ROW.size + 1}, rf"^top_k \({ROW.size + 1}\) must be .*\({ROW.size}\)"),
        ({"max_length": -1}, "^max_length must be >= 1, got -1$"),
        ({"max_length": 0}, "^max_length must be >= 1, got 0$"),
        ({"random_seed": -2}, "^random_seed must be >= -1, got -2$"),
        ({"length_penalty": np.nan}, "^length_penalty must be finite, got nan$"),
        ({"diversity_penalty": np.inf}, "^diversity_penalty must be finite, got inf$"),
        ({"batch_size": 0}, "batch_size"),
        ({"num_return_sequences": 2}, "num_return_sequences"),
        ({"max_length": 5000}, "max_length"),
    ],
    ids=str,
)
def test_bad_options(make: Make, model: Any, options: dict[str, Any], message: str) -> None:
    params = og.GeneratorParams(model)
    params.set_search_options(do_sample=True, **options)
    before = str(params.get_search_options())
    for batch in (1, 2):
        if "batch_size" not in options:
            params.set_search_options(batch_size=batch)
            before = str(params.get_search_options())
        with pytest.raises(ValueError, match=message):
            FastGenerator(model, params)
        assert str(params.get_search_options()) == before
    with pytest.raises(TypeError, match="seed must be an integer"):
        make(FastGenerator, do_sample=True, seed="x")


def test_greedy_refuses_what_plays_a_part_in_it(make: Make) -> None:
    with pytest.raises(ValueError, match=r"^repetition_penalty must be finite and > 0, got -1$"):
        make(FastGenerator, repetition_penalty=-1.0)
    for options in ({"max_length": 5000}, {"batch_size": 33}):
        with pytest.raises(ValueError, match=next(iter(options))):
            make(FastGenerator, **options)
    make(FastGenerator, top_k=ROW.size + 1)  # which plays none


@pytest.mark.parametrize("greedy", [o for o in GREEDY.values() if o.get("do_sample")], ids=str)
@pytest.mark.parametrize(
    "wrong", [{"temperature": -1.0}, {"temperature": np.nan}, {"top_p": 2.0}], ids=str
)
def test_sampling_that_is_greedy_refuses_what_plays_no_part(
    make: Make, greedy: dict[str, Any], wrong: dict[str, Any]
) -> None:
    (name,) = wrong
    if name not in greedy:
        with pytest.raises(ValueError, match=f"^{name} must be "):
            make(FastGenerator, **greedy, **wrong)


@pytest.mark.parametrize("top_k", [ROW.size, ROW.size - 1, 0])
def test_the_largest_top_k(make: Make, top_k: int) -> None:
    finish(make(FastGenerator, do_sample=True, top_k=top_k, top_p=0.9, max_length=9))


@pytest.mark.parametrize("penalty", [1e-3, 0.7, 1.3, 1e30])
def test_a_penalty_in_a_batch_appends_what_was_drawn(make: Make, penalty: float) -> None:
    prompts = [[1, 2], [int(LIKELY[0]), int(LIKELY[1])], [int(LIKELY[-1]), 6]]
    options = {"repetition_penalty": penalty, "batch_size": 3, "do_sample": True, "top_k": 20}
    generator = make(FastGenerator, prompts, 5, max_length=20, **options)
    drawn, draw = [], generator._drawn

    def keep(rows: Any) -> Any:
        drawn.append(draw(rows))
        return drawn[-1]

    generator._drawn = keep
    ended = np.zeros(3, bool)
    while not generator.is_done():
        generator.generate_next_token()
        appended = np.array([generator.get_sequence(i)[-1] for i in range(3)])
        assert np.array_equal(appended[~ended], drawn[-1][~ended])
        ended |= appended == EOS


def test_a_step_that_does_not_append_the_draw_raises(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under guidance, which masks after the draw."""
    seed = next(s for s in range(99) if fastsample.sample(ROW, top_k=50, seed=s) != LIKELY[0])
    generator = make(FastGenerator, do_sample=True, seed=seed)
    monkeypatch.setattr(FastGenerator, "set_logits", lambda *_: None)
    with pytest.raises(RuntimeError, match="guidance must not be set"):
        generator.generate_next_token()
