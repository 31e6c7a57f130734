"""vLLM's engine with the plugin, on random weights."""

from __future__ import annotations

import re
import sys
from collections import Counter
from importlib.metadata import entry_points
from types import SimpleNamespace

import pytest
from vllm_env import (
    LLM,
    RejectionSampler,
    Sampler,
    SamplingParams,
    StructuredOutputsParams,
    current_platform,
    runner_of,
    torch,
    vllm,
    worker_of,
)

from fastsample.bench.vllm_models import make_random
from fastsample.integrations import vllm as plugin

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's and vLLM's own

VOCAB = 512


# ---- the plugin ------------------------------------------------------------------------------


@pytest.fixture
def said(monkeypatch):
    """What the plugin writes to vLLM's log."""
    lines = []

    def line(text, *values):
        lines.append(text % values)

    log = SimpleNamespace(warning=line, info=line, error=line)
    monkeypatch.setattr(plugin, "_log", lambda: log)
    return lines


@pytest.fixture
def untouched(monkeypatch):
    """The two methods that the plugin wraps, as vLLM has them."""
    owners = {}
    for path, name in (
        ("vllm.platforms.cpu:CpuPlatform", "check_and_update_config"),
        ("vllm.v1.core.sched.scheduler:Scheduler", "update_from_output"),
    ):
        module, _, kind = path.partition(":")
        owner = getattr(sys.modules.get(module) or __import__(module, fromlist=["x"]), kind)
        found = vars(owner)[name]
        function = getattr(found, "__func__", found)
        original = getattr(function, "__wrapped__", function)
        monkeypatch.setattr(
            owner, name, type(found)(original) if found is not function else original
        )
        owners[name] = owner, vars(owner)[name]
    return owners


def is_untouched(owners):
    return all(vars(owner)[name] is before for name, (owner, before) in owners.items())


def test_vllm_finds_the_plugin():
    (point,) = entry_points(group="vllm.general_plugins", name="fastsample")
    assert point.load() is plugin.register


@pytest.mark.parametrize("value", [None, "", "0"])
def test_it_is_off_by_default(value, monkeypatch, said, untouched):
    monkeypatch.delenv("FASTSAMPLE_VLLM")
    if value is not None:
        monkeypatch.setenv("FASTSAMPLE_VLLM", value)
    plugin.register()
    assert is_untouched(untouched)
    assert said == []


def test_it_may_be_loaded_more_than_once(said, untouched):
    plugin.register()
    assert not is_untouched(untouched)
    once = [vars(owner)[name] for name, (owner, _) in untouched.items()]
    plugin.register()
    assert once == [vars(owner)[name] for name, (owner, _) in untouched.items()]
    assert said == []


def test_another_value_of_the_switch(monkeypatch, said, untouched):
    monkeypatch.setenv("FASTSAMPLE_VLLM", "yes")
    plugin.register()
    assert is_untouched(untouched)
    assert said == [
        "fastsample: FASTSAMPLE_VLLM must be 0 or 1, got 'yes'; vLLM's own sampler stays"
    ]


def test_another_platform(monkeypatch, said, untouched):
    monkeypatch.setattr(type(current_platform), "is_cpu", lambda self: False)
    monkeypatch.setattr(type(current_platform), "device_name", "cuda")
    plugin.register()
    assert is_untouched(untouched)
    assert said == ["fastsample: it draws on CPUs only, and this is cuda; vLLM's own sampler stays"]


@pytest.mark.parametrize("version", ["0.31.2", "0.33.0rc1", "1.0", "dev"])
def test_a_version_that_was_not_tested(version, monkeypatch, said, untouched):
    monkeypatch.setattr("vllm.version.__version__", version)
    plugin.register()
    assert is_untouched(untouched)
    must = "vLLM must be 0.32, which was tested"
    assert said == [f"fastsample: {must}, got {version}; vLLM's own sampler stays"]


@pytest.mark.parametrize("name", plugin.NAMES)
def test_a_name_that_moved_is_named(name, monkeypatch, said, untouched):
    gone = name.replace(":", ":Old").replace("(", "(older, ")
    monkeypatch.setattr(plugin, "NAMES", (*plugin.NAMES, gone))
    plugin.register()
    assert is_untouched(untouched)
    assert said == [
        f"fastsample: this vLLM {vllm.__version__} has no {gone}; vLLM's own sampler stays"
    ]
    assert not plugin._missing((name,))


def test_other_parameters_are_named_too():
    name = "vllm.v1.sample.sampler:Sampler.sample"
    assert plugin._missing((f"{name}(self, logits)", f"{name}s", "vllm.nowhere:x")) == [
        f"{name}(self, logits)",
        f"{name}s",
        "vllm.nowhere:x",
    ]


# ---- the engine, on random weights -----------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """An engine in this process, that reads prompts in parts and has too little memory."""
    llm = LLM(
        make_random(tmp_path_factory.mktemp("tiny"), VOCAB, words=True),
        load_format="dummy",
        dtype="float32",
        enforce_eager=True,
        seed=0,
        max_model_len=256,
        max_num_seqs=8,
        max_num_batched_tokens=32,
        block_size=32,
        num_gpu_blocks_override=13,
        enable_prefix_caching=False,
    )
    yield llm
    llm.llm_engine.engine_core.shutdown()


@pytest.fixture
def worker(tiny):
    return worker_of(tiny)


@pytest.fixture
def preemptions(tiny, monkeypatch):
    scheduler = tiny.llm_engine.engine_core.engine_core.scheduler
    seen, theirs = [], scheduler._preempt_request
    monkeypatch.setattr(
        scheduler, "_preempt_request", lambda r, *a, **k: (seen.append(r), theirs(r, *a, **k))[1]
    )
    return seen


def ids(llm, prompts, params):
    outputs = llm.generate([{"prompt_token_ids": p} for p in prompts], params, use_tqdm=False)
    return [list(out.token_ids) for o in outputs for out in o.outputs]


def tokens_of(**parameters):
    return SamplingParams(
        **{"max_tokens": 40, "detokenize": False, "ignore_eos": True, **parameters}
    )


LONG = [[5 + (i * 37 + j) % 500 for j in range(12 * i + 3)] for i in range(8)]
LIST = {"type": "array", "items": {"type": "string"}, "minItems": 40}
OWN = [
    tokens_of(temperature=1.0, seed=1),
    tokens_of(temperature=0.5, top_k=100, seed=2),
    tokens_of(temperature=0.0),
    tokens_of(top_p=0.9, seed=4),
    tokens_of(
        **{"temperature": 2.0, "min_p": 0.2, "presence_penalty": 0.5, "logprobs": 2, "seed": 5},
        structured_outputs=StructuredOutputsParams(json=LIST),
    ),
    tokens_of(presence_penalty=1.0, frequency_penalty=0.5, seed=6),
    tokens_of(top_p=0.8, top_k=300, repetition_penalty=1.2, seed=7),
    tokens_of(
        **{"logit_bias": {9: 5.0}, "min_tokens": 4, "stop_token_ids": [11], "logprobs": 3},
        **{"repetition_penalty": 1.3, "allowed_token_ids": list(range(0, VOCAB, 3)), "seed": 8},
    ),
]


def test_the_worker_is_ours_and_says_so(worker, said):
    assert type(worker).__name__ == "FastSampleWorker"
    assert worker.model_runner.sampler is worker.fast
    assert worker._why_not() is None


def test_a_name_of_the_runner_that_moved_is_named(worker):
    batch = worker.model_runner.input_batch
    counts, batch.num_tokens_no_spec = batch.num_tokens_no_spec, None
    try:
        assert worker._why_not() == "this vLLM has no input_batch.num_tokens_no_spec"
    finally:
        batch.num_tokens_no_spec = counts
    worker.use_v2_model_runner = True
    try:
        assert worker._why_not().startswith("vLLM's V2 model runner serves here")
    finally:
        worker.use_v2_model_runner = False


def test_a_name_of_drafts_that_moved_is_named(worker, monkeypatch):
    gone = "vllm.v1.spec_decode.metadata:SpecDecodeMetadata.draft_tokens"
    monkeypatch.setattr("fastsample.integrations._vllm_worker.DRAFTS", (gone,))
    assert worker._why_not() == f"this vLLM has no {gone}"


def test_a_seed_draws_the_same_alone_in_any_batch_and_after_a_preemption(tiny, preemptions):
    alone = [ids(tiny, [prompt], p)[0] for prompt, p in zip(LONG, OWN, strict=True)]
    assert not preemptions
    assert ids(tiny, LONG, OWN) == alone
    assert preemptions
    assert ids(tiny, LONG[::-1], OWN[::-1]) == alone[::-1]
    assert all(len(set(text)) > 5 for text, p in zip(alone, OWN, strict=True) if p.seed)
    words = list(tiny.get_tokenizer().convert_ids_to_tokens(alone[4]))
    assert words[0].startswith("[")  # by its grammar


def test_n_sequences_of_one_request(tiny):
    (prompt,) = LONG[1:2]
    texts = ids(tiny, [prompt], tokens_of(n=3, seed=20, temperature=1.0))
    # vLLM gives its children the seeds that follow.
    assert texts == [ids(tiny, [prompt], tokens_of(seed=20 + i))[0] for i in range(3)]


def test_without_a_seed_texts_differ(tiny):
    assert len({tuple(text) for text in ids(tiny, LONG[:1] * 8, tokens_of())}) == 8


def test_greedy_text_is_vllms(tiny, worker):
    params = [tokens_of(temperature=0.0, presence_penalty=i / 4) for i in range(8)]
    ours = ids(tiny, LONG, params)
    worker.model_runner.sampler = Sampler()
    try:
        assert ids(tiny, LONG, params) == ours
    finally:
        worker.model_runner.sampler = worker.fast


def test_what_is_left_to_vllm_is_said_once(worker, said, monkeypatch):
    monkeypatch.setattr("fastsample.integrations._vllm_worker._log", plugin._log)
    monkeypatch.setattr(worker, "_told", 0)
    monkeypatch.setattr(worker.fast, "left", Counter({"one thing": 1}))
    worker._report_left()
    worker.fast.left.update({"one thing": 1, "another": 1})
    worker._report_left()
    lines = [f"fastsample: vLLM's own code edits steps with {w}" for w in worker.fast.left]
    assert said == lines


def test_log_probabilities(tiny):
    (out,) = tiny.generate(
        [{"prompt_token_ids": LONG[2]}], tokens_of(seed=3, logprobs=4, max_tokens=6), use_tqdm=False
    )
    (completion,) = out.outputs
    for token, found in zip(completion.token_ids, completion.logprobs, strict=True):
        best = sorted(found.values(), key=lambda entry: entry.rank)
        assert found[token].rank >= 1
        assert [entry.logprob for entry in best] == sorted((e.logprob for e in best), reverse=True)
        assert [entry.rank for entry in best][:4] == [1, 2, 3, 4]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_bad_logits_fail_their_own_request(tiny, worker, monkeypatch, said, temperature, value):
    monkeypatch.setattr("fastsample.integrations._vllm_worker._log", plugin._log)
    model = worker.model_runner.model
    theirs, steps = model.compute_logits, []

    def poisoned(hidden):
        logits = theirs(hidden)
        steps.append(len(logits))
        if len(logits) == 3 and steps.count(3) == 4:  # the fourth step of the three
            logits[1, 100] = value
        return logits

    prompts, params = LONG[:1] * 3, [tokens_of(temperature=temperature, seed=i) for i in range(3)]
    good = ids(tiny, prompts, params)
    monkeypatch.setattr(model, "compute_logits", poisoned)
    inputs = [{"prompt_token_ids": p} for p in prompts]
    outputs = [o.outputs[0] for o in tiny.generate(inputs, params, use_tqdm=False)]
    assert [o.finish_reason for o in outputs] == ["length", "error", "length"]
    assert list(outputs[1].token_ids) == good[1][:3]
    assert [list(outputs[i].token_ids) for i in (0, 2)] == [good[0], good[2]]
    (line,) = said
    assert re.search(r"request \S+ fails: logits.*(NaN|inf)", line)
    assert ids(tiny, prompts, params)[0] == good[0]  # the engine goes on


def test_vllms_own_sampler_ends_the_engine_where_a_seeded_prompt_is_read_in_parts(tiny, worker):
    """The end of this engine: it is lost. With ours, LONG was read so above."""
    worker.model_runner.sampler = Sampler()
    with pytest.raises(RuntimeError, match="CPU Generator does not use offset"):
        ids(tiny, LONG[-1:], OWN[-1])


@pytest.mark.parametrize("method", ["draft_model", "probabilistic", "ngram"])
def test_speculative_decoding(tmp_path, method):
    """The text of a seed is the one without drafts, in any batch; greedy text is vLLM's.

    Last: to shut an engine down takes from the others of the process what they share, and vLLM
    makes none where numba is, which it imports for look-ups.
    """
    model = make_random(tmp_path / "model", VOCAB, words=True)
    drafts = {"num_speculative_tokens": 3, "method": "draft_model"}
    if method == "ngram":
        drafts |= {"method": method, "prompt_lookup_max": 2, "prompt_lookup_min": 1}
    else:  # the model itself, whose drafts would all be good, but for a draw
        drafts |= {"model": model, "draft_load_config": {"load_format": "dummy"}}
    if method == "probabilistic":
        drafts["draft_sample_method"] = method
    prompts = [[5, 6, 7, 8, 5, 6, 7, 8, 5, 6], [9, 8, 9, 8, 9], [5] * 30]
    works = [
        tokens_of(temperature=0.0),
        tokens_of(temperature=0.3, top_p=0.9, seed=3),
        tokens_of(temperature=0.2, seed=4, presence_penalty=0.3, logprobs=2),
        tokens_of(seed=5, structured_outputs=StructuredOutputsParams(json=LIST)),
    ]
    found, kept = [], {}
    for speculative in (None, drafts):
        llm = LLM(
            model,
            load_format="dummy",
            dtype="float32",
            enforce_eager=True,
            max_model_len=96,
            max_num_seqs=4,
            speculative_config=speculative,
            seed=0,
        )
        texts = [ids(llm, prompts, work) for work in works]
        found.append(texts)
        if speculative:
            worker, runner = worker_of(llm), runner_of(llm)
            rejecting = runner.rejection_sampler
            assert type(rejecting).__name__ == "FastRejectionSampler"
            assert rejecting.sampler is runner.sampler is worker.fast
            assert [ids(llm, prompts[:1], work) for work in works] == [t[:1] for t in texts]
            assert not worker.fast.left
            kept = dict(rejecting.verified)
            assert all(map(len, ids(llm, prompts, tokens_of(temperature=0.7))))  # without a seed
            by_token = rejecting.verified["token", "drafted"]
            assert bool(by_token) is (method == "probabilistic")
            rejecting.sampler = Sampler()
            runner.rejection_sampler = RejectionSampler(rejecting.sampler)
            assert ids(llm, prompts, works[0]) == texts[0]  # by vLLM's own
        llm.llm_engine.engine_core.shutdown()
    assert found[0] == found[1]
    assert 0 < kept["exact", "accepted"] < kept["exact", "drafted"]
