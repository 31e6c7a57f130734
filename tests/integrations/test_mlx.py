"""mlx-lm generates with fastsample's sampler and processors, on a tiny model of random weights."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from forked import different

import fastsample
from fastsample.arrays import to_array

EXTRA = "pip install '.[mlx]'"
mx = pytest.importorskip("mlx.core", reason=f"mlx is not installed: {EXTRA}")
mlx_lm = pytest.importorskip("mlx_lm", reason=f"mlx-lm is not installed: {EXTRA}")

import mlx.nn as nn  # noqa: E402
import tiny_mlx  # noqa: E402
from mlx_lm import sample_utils as theirs  # noqa: E402
from mlx_lm.generate import BatchGenerator, generate_step  # noqa: E402
from mlx_lm.tokenizer_utils import TokenizerWrapper  # noqa: E402
from tiny_mlx import ROW, TYPES, V, as_float32, edited, row_of  # noqa: E402

from fastsample.integrations import mlx as adapter  # noqa: E402
from fastsample.integrations.mlx import make_logits_processors, make_sampler  # noqa: E402

PROMPT = [5, 6, 7]

# What a sampler of mlx-lm is given, and the same for fastsample.
CHAINS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "temp": ({"temp": 0.7}, {"temperature": 0.7}),
    "top_p": ({"temp": 1.5, "top_p": 0.8}, {"temperature": 1.5, "top_p": 0.8}),
    "top_p of 0": ({"temp": 1.0, "top_p": 0.0}, {}),
    "top_p of 1": ({"temp": 1.0, "top_p": 1.0}, {}),
    "min_p": ({"temp": 1.0, "min_p": 0.1}, {"min_p": 0.1}),
    "min_tokens_to_keep": (
        {"temp": 1.0, "min_p": 0.9, "min_tokens_to_keep": 5},
        {"min_p": 0.9, "min_tokens_to_keep": 5},
    ),
    "top_k": ({"temp": 2.0, "top_k": 7}, {"temperature": 2.0, "top_k": 7}),
    "all": (
        {"temp": 0.9, "top_p": 0.95, "min_p": 0.02, "top_k": 30},
        {"temperature": 0.9, "top_p": 0.95, "min_p": 0.02, "top_k": 30},
    ),
}
XTC = {"xtc_probability": 0.5, "xtc_threshold": 0.05}
# What mlx-lm lacks, with an order that has it.
BEYOND: dict[str, dict[str, Any]] = {
    "typical_p": {"typical_p": 0.6, "order": ("typical_p", "temperature")},
    "top_n_sigma": {"top_n_sigma": 1.0, "order": "llama.cpp"},
    "eta_cutoff": {"eta_cutoff": 0.01, "order": "hf"},
    "dynatemp": {"dynatemp_range": 0.5},
    "mirostat": {"mirostat": 2, "mirostat_tau": 2.0, "order": "llama.cpp"},
    "adaptive": {"adaptive_target": 0.2, "order": "llama.cpp"},
}


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_mlx.make_model()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return TokenizerWrapper(tiny_mlx.make_tokenizer())


class Constant(nn.Module):
    """A model whose logits are ROW whatever it reads, alone as in any batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = []

    def __call__(self, inputs: Any, cache: Any = None) -> Any:
        return mx.broadcast_to(mx.array(ROW), (*inputs.shape, V)).astype(mx.bfloat16)


class Recorded:
    """A sampler, or a processor, that keeps what it is given and what it returns."""

    def __init__(self, inner: Callable[..., Any]) -> None:
        self.inner, self.given, self.returned = inner, [], []

    def __call__(self, *arrays: Any) -> Any:
        self.given.append([as_float32(a) if a.ndim > 1 else np.array(a) for a in arrays])
        self.returned.append(self.inner(*arrays))
        return self.returned[-1]


# ---- the draw ----------------------------------------------------------------------------------


def test_names_and_defaults_are_mlx_lms() -> None:
    for ours in (make_sampler, make_logits_processors):
        mine = inspect.signature(ours).parameters.values()
        named = {p.name: p.default for p in mine if p.kind is p.POSITIONAL_OR_KEYWORD}
        original = inspect.signature(getattr(theirs, ours.__name__)).parameters.values()
        assert list(named.items()) == [(p.name, p.default) for p in original]


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(("given", "chain"), CHAINS.values(), ids=CHAINS)
def test_draws_are_those_of_sample(given: dict[str, Any], chain: dict[str, Any], kind: str) -> None:
    sampler = make_sampler(**given, seed=7)
    row = row_of(kind)
    drawn = [sampler(row) for _ in range(20)]
    assert all(token.dtype == mx.uint32 and token.shape == (1,) for token in drawn)
    wide = as_float32(row)[0]
    assert [token.item() for token in drawn] == [
        fastsample.sample(wide, **chain, order="mlx-lm", seed=7, offset=i) for i in range(20)
    ]
    assert len({token.item() for token in drawn}) > 1


@pytest.mark.parametrize("chain", [XTC, *BEYOND.values()], ids=["xtc", *BEYOND])
def test_more_than_mlx_lm_has(chain: dict[str, Any]) -> None:
    sampler = make_sampler(temp=0.8, **chain, seed=3)
    expected = fastsample.Sampler(temperature=0.8, **{"order": "mlx-lm"} | chain, seed=3)
    row = row_of("bfloat16")
    wide = as_float32(row)[0]
    assert [sampler(row).item() for _ in range(20)] == [expected(wide) for _ in range(20)]


@pytest.mark.parametrize(("given", "chain"), CHAINS.values(), ids=CHAINS)
def test_mlx_lm_draws_from_the_same_distribution(
    given: dict[str, Any], chain: dict[str, Any]
) -> None:
    """What the parameters mean is what mlx-lm itself does with them."""
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    logprobs = nn.log_softmax(row_of(rows=4000), axis=-1)
    p = fastsample.probs(as_float32(logprobs)[0], **chain, order="mlx-lm").astype(float)
    mx.random.seed(1)
    for make, seed in ((theirs.make_sampler, {}), (make_sampler, {"seed": 3})):
        counts = np.bincount(np.array(make(**given, **seed)(logprobs)), minlength=V)
        assert counts[p == 0].sum() == 0
        common = p * 4000 >= 5
        observed = np.append(counts[common], counts[~common].sum())
        expected = np.append(p[common], p[~common].sum())
        used = expected > 0
        expected = expected[used] / expected[used].sum() * 4000
        assert stats.chisquare(observed[used], expected).pvalue > 1e-4


@pytest.mark.parametrize("kind", TYPES)
def test_greedy_is_mlx_lms(kind: str) -> None:
    rows = mx.random.normal((30, V), key=mx.random.key(0)).astype(getattr(mx, kind))
    assert make_sampler()(rows).tolist() == theirs.make_sampler()(rows).tolist()


def test_bfloat16_is_read_where_it_is() -> None:
    row = row_of("bfloat16") + 0
    mx.eval(row)
    bits = to_array(row)
    assert bits.dtype == np.uint16
    assert np.shares_memory(bits, np.asarray(row.view(mx.uint16)))


def test_seeds() -> None:
    def run(**arguments: Any) -> list[int]:
        sampler = make_sampler(temp=2.0, **arguments)
        return [sampler(row_of()).item() for _ in range(12)]

    assert run(seed=1) == run(seed=1)
    assert run(seed=1) != run(seed=2)
    mx.random.seed(4)
    first = run(), run()
    assert first[0] != first[1]
    mx.random.seed(4)
    assert (run(), run()) == first
    sampler = make_sampler(temp=2.0, seed=1)
    once = [sampler(row_of()).item() for _ in range(12)]
    sampler.sampler.reset()
    assert [sampler(row_of()).item() for _ in range(12)] == once


def test_what_is_alive_across_a_fork() -> None:
    found = different("""
import mlx.core as mx, numpy as np
from fastsample.integrations.mlx import make_sampler
def drawn_by(sampler):
    sampler(mx.zeros((1, 300)))
    return lambda: [int(sampler.sampler(np.zeros(300))) for _ in range(20)]
draws = {"none": drawn_by(make_sampler(temp=1.0)), "seed": drawn_by(make_sampler(temp=1.0, seed=3))}
""")
    assert found == {"none": 3, "seed": 1}


def test_rows_of_one_call() -> None:
    """A scalar seed has a stream for each row; a list has a seed for each, as if it were alone."""
    rows = row_of("bfloat16", 5)
    chain = {"top_k": 50, "order": "mlx-lm"}
    drawn = make_sampler(temp=1.0, top_k=50, seed=9)(rows)
    assert drawn.tolist() == fastsample.sample(as_float32(rows), **chain, seed=9).tolist()
    assert len(set(drawn.tolist())) > 1
    seeded = make_sampler(temp=1.0, top_k=50, seed=range(5))(rows)
    assert seeded.tolist() == [
        make_sampler(temp=1.0, top_k=50, seed=seed)(rows[:1]).item() for seed in range(5)
    ]
    assert make_sampler(temp=1.0, seed=9)(rows[0]).shape == ()


# ---- inside mlx-lm -------------------------------------------------------------------------------


def test_stream_generate(model: Any, tokenizer: Any) -> None:
    """Every token is the draw from what the sampler is given; edits come before it."""
    sampler = Recorded(make_sampler(temp=1.0, top_p=0.9, seed=5))
    (processor,) = make_logits_processors(
        repetition_penalty=1.5, repetition_context_size=6, suppress_tokens=[1]
    )
    process = Recorded(processor)
    stream = mlx_lm.stream_generate(
        model, tokenizer, PROMPT, max_tokens=24, sampler=sampler, logits_processors=[process]
    )
    tokens = [response.token for response in stream]
    assert len(tokens) == 24
    ours = {"repetition_penalty": 1.5, "penalty_last_n": 6, "suppress_tokens": [1]}
    text = [*PROMPT]
    for step, token in enumerate(tokens):
        (row,) = sampler.given[step][0]
        assert token == fastsample.sample(row, top_p=0.9, order="mlx-lm", seed=5, offset=step)
        seen, logits = process.given[step]
        assert seen.tolist() == text
        expected = edited(logits[0], text, **ours)
        out = process.returned[step]
        assert out.dtype == mx.bfloat16
        assert np.array_equal(as_float32(out)[0], as_float32(mx.array(expected).astype(out.dtype)))
        text.append(token)


def test_generate_repeats_a_text(model: Any, tokenizer: Any) -> None:
    def write(seed: int) -> str:
        text = mlx_lm.generate(
            model,
            tokenizer,
            "w5 w6 w7",
            max_tokens=16,
            sampler=make_sampler(temp=1.0, min_p=0.01, seed=seed),
            logits_processors=make_logits_processors(suppress_tokens=[0, 1]),
        )
        assert isinstance(text, str)
        return text

    assert len(write(1).split()) == 16
    assert write(1) == write(1)
    assert write(1) != write(2)


def test_batch_generate(model: Any, tokenizer: Any) -> None:
    """One sampler for all: call i draws from row r with offset i in stream r."""
    sampler = Recorded(make_sampler(temp=1.0, top_k=20, seed=8))
    prompts = [[5, 6], [7, 8, 9], [3]]
    processors = make_logits_processors(no_repeat_ngram_size=1, suppress_tokens=[1])
    out = mlx_lm.batch_generate(
        model, tokenizer, prompts, max_tokens=[4, 9, 6], return_token_ids=True, sampler=sampler,
        logits_processors=processors,
    )  # fmt: skip
    assert [len(ids) for ids in out.token_ids] == [4, 9, 6]
    for prompt, ids in zip(prompts, out.token_ids, strict=True):
        assert len({*prompt, *ids}) == len(prompt) + len(ids)
    assert {len(rows) for (rows,) in sampler.given} == {1, 2, 3}
    for call, ((rows,), drawn) in enumerate(zip(sampler.given, sampler.returned, strict=True)):
        chain = {"top_k": 20, "order": "mlx-lm", "seed": 8, "offset": call}
        assert drawn.tolist() == fastsample.sample(rows, **chain).tolist()


def insert(generator: Any, prompts: list[list[int]], seeds: list[int], **options: Any) -> Any:
    return generator.insert(
        prompts,
        samplers=[make_sampler(temp=1.0, mirostat=2, order="llama.cpp", seed=s) for s in seeds],
        logits_processors=[
            make_logits_processors(frequency_penalty=0.5, no_repeat_ngram_size=2) for _ in seeds
        ],
        **options,
    )


def finish(generator: Any, found: dict[int, list[int]]) -> dict[int, list[int]]:
    while responses := generator.next_generated():
        for response in responses:
            found.setdefault(response.uid, []).append(response.token)
    generator.close()
    return found


def test_a_sampler_for_each_sequence_draws_as_it_does_alone() -> None:
    """Also where sequences end, and others come, at other times."""
    prompts, seeds, lengths = [[5, 6], [7, 8, 9], [3], [4, 4]], [11, 12, 13, 14], [5, 12, 9, 7]
    alone = []
    for prompt, seed, length in zip(prompts, seeds, lengths, strict=True):
        generator = BatchGenerator(Constant())
        insert(generator, [prompt], [seed], max_tokens=[length])
        alone += finish(generator, {}).values()
    assert [len(ids) for ids in alone] == lengths
    generator = BatchGenerator(Constant())
    uids = insert(generator, prompts[:3], seeds[:3], max_tokens=lengths[:3])
    found: dict[int, list[int]] = {}
    for response in (r for _ in range(4) for r in generator.next_generated()):
        found.setdefault(response.uid, []).append(response.token)
    uids += insert(generator, prompts[3:], seeds[3:], max_tokens=lengths[3:])
    assert [finish(generator, found)[uid] for uid in uids] == alone


def test_drafts(model: Any, tokenizer: Any) -> None:
    """A draft model's tokens, and those that judge them, are drawn and edited too."""
    sampler = Recorded(make_sampler(temp=1.0, top_k=5, seed=2))
    processors = make_logits_processors(no_repeat_ngram_size=1, suppress_tokens=[1])
    for given in (processors, None):
        responses = list(
            mlx_lm.stream_generate(
                model, tokenizer, PROMPT, max_tokens=12, draft_model=model, num_draft_tokens=3,
                sampler=sampler, logits_processors=given,
            )
        )  # fmt: skip
        tokens = [response.token for response in responses[:12]]
        assert tokens
        if given:
            assert len({*PROMPT, *tokens}) == len(PROMPT) + len(tokens)
    for call, ((rows,), drawn) in enumerate(zip(sampler.given, sampler.returned, strict=True)):
        chain = {"top_k": 5, "order": "mlx-lm", "seed": 2, "offset": call}
        assert drawn.tolist() == fastsample.sample(rows, **chain).tolist()


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"temp": -1.0}, ValueError, "temperature must be finite and >= 0, got -1.0"),
        ({"top_p": 1.5}, ValueError, r"top_p must be in \[0, 1\], got 1.5"),
        ({"top_p": ""}, TypeError, r"^top_p must be a number, got ''"),
        ({"temp": "hot"}, TypeError, "temperature must be"),
        ({"seed": "x"}, TypeError, "seed must be an integer"),
        ({"order": "mlx"}, ValueError, "order must be one of"),
        ({"typical_p": 0.5}, ValueError, "typical_p"),
        ({"temperature": 1.0}, TypeError, "make_sampler has no parameter temperature: .* temp$"),
        ({"repetition_penalty": 1.2}, TypeError, "repetition_penalty: .* make_logits_processors$"),
        ({"min_pp": 0.1}, TypeError, r"make_sampler\(\) got .* 'min_pp': did you mean 'min_p'"),
        (XTC | {"xtc_special_tokens": [1]}, ValueError, "xtc_special_tokens must be empty"),
        ({"xtc_special_tokens": 5}, TypeError, r"xtc_special_tokens must be a list of ids, got 5"),
    ],
)
def test_bad_parameters_of_a_sampler(given: Any, kind: Any, message: str) -> None:
    with pytest.raises(kind, match=message):
        make_sampler(**{"temp": 1.0} | given)


def test_special_tokens_where_xtc_is_off() -> None:
    """As mlx-lm's own programs give them."""
    assert make_sampler(xtc_special_tokens=[1, 2])(row_of()).item() == ROW.argmax()
    make_sampler(**XTC, xtc_special_tokens=[])


def test_bad_rows() -> None:
    sampler = make_sampler(temp=1.0, seed=1)
    with pytest.raises(ValueError, match="logits row 1 must not contain NaN, got one at token 2"):
        sampler(mx.array([[0.0, 1.0, 2.0], [0.0, 1.0, mx.nan]], mx.bfloat16))
    assert sampler.sampler.offset == 0
    for wrong, kind, message in (
        (ROW, TypeError, "logprobs must be an mlx array, got ndarray"),
        (mx.zeros((1, 2, 3)), ValueError, "logits must be 1-D or 2-D, got shape"),
        (mx.zeros((1, 3), mx.int32), TypeError, "logits must be float32"),
    ):
        with pytest.raises(kind, match=message):
            sampler(wrong)
    stateful = make_sampler(temp=1.0, mirostat=2, order="llama.cpp")
    with pytest.raises(ValueError, match="logits must be one row for a sampler with a state"):
        stateful(row_of(rows=2))


def test_a_row_of_which_everything_is_banned(model: Any) -> None:
    processors = make_logits_processors(allowed_token_ids=[])
    with pytest.raises(ValueError, match="logits row 0 must not contain NaN"):
        next(generate_step(
            mx.array(PROMPT), model, sampler=make_sampler(temp=1.0), logits_processors=processors
        ))  # fmt: skip


def test_examples() -> None:
    result = doctest.testmod(adapter)
    assert result.attempted >= 9
    assert result.failed == 0
