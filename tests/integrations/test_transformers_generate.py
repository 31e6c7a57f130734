"""Everything else of transformers' `generate` is as it was: wrappers, padding, caches."""

from __future__ import annotations

import copy
import inspect
import pickle
from functools import partial
from types import MethodType
from typing import Any

import pytest
from transformers_models import (
    EOS,
    PAD,
    PROMPT,
    SAMPLING,
    VOCAB,
    Listener,
    ran,
    tokens,
    torch,
    transformers,
)

from fastsample.integrations.transformers import enable, generate

pytestmark = pytest.mark.usefixtures("one_torch_thread")


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


@pytest.mark.parametrize("wrap", [lambda model: model, Wrapper], ids=["model", "wrapper"])
@pytest.mark.parametrize(
    "set_generate",
    [
        lambda model: partial(model.generate, do_sample=True, repetition_penalty=1.5),
        lambda model: partial(
            model.generate,
            generation_config=transformers.GenerationConfig(do_sample=True, repetition_penalty=1.5),
        ),
        lambda model: MethodType(
            lambda self, *args, **named: type(self).generate(
                self, *args, repetition_penalty=1.5, **named
            ),
            model,
        ),
    ],
    ids=["partial", "partial, configuration", "method"],
)
def test_a_generate_that_somebody_has_set(tiny: Any, set_generate: Any, wrap: Any) -> None:
    chain = {"max_length": 20, "seed": 6, "do_sample": True}
    expected = tokens(generate(tiny, PROMPT, repetition_penalty=1.5, **chain))
    assert expected != tokens(generate(tiny, PROMPT, **chain))
    model = copy.deepcopy(tiny)
    model.generate = set_generate(model)
    if isinstance(model.generate, partial):
        del chain["do_sample"]  # which it brings along
    model = wrap(model)
    assert tokens(generate(model, PROMPT, **chain)) == expected
    for _ in range(2):
        assert tokens(enable(model).generate(PROMPT, **chain)) == expected
        assert tokens(generate(model, PROMPT, **chain)) == expected


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


@pytest.mark.parametrize("extra", [{}, {"output_scores": True, "return_dict_in_generate": True}])
def test_a_processor_that_returns_nothing_is_told_of(tiny: Any, extra: dict[str, Any]) -> None:
    chain = {"max_length": 5, **SAMPLING, **extra}
    with pytest.raises(TypeError, match=r"^scores must be a tensor, as every logits processor ret"):
        generate(tiny, PROMPT, logits_processor=[lambda ids, scores: None], **chain)


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


def test_streamer_sees_the_tokens(tiny: Any) -> None:
    listener = Listener()
    drawn = generate(tiny, PROMPT, max_length=20, streamer=listener, seed=3, **SAMPLING)
    assert listener.seen == tokens(drawn)[0]
    assert listener.ended
