"""vLLM's engine and server with the plugin, on random weights and on SmolLM2."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

import fastsample
from fastsample.bench.vllm_models import make_random
from fastsample.integrations import vllm as plugin

ENVIRONMENT = {
    "FASTSAMPLE_VLLM": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
if find_spec("vllm") is None:
    pytest.skip("vLLM is not installed: see docs/vllm.md", allow_module_level=True)
os.environ.update(ENVIRONMENT)  # before vLLM reads it
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    import vllm
    from vllm import LLM, SamplingParams
    from vllm.platforms import current_platform
    from vllm.sampling_params import StructuredOutputsParams
    from vllm.v1.sample.sampler import Sampler

if not current_platform.is_cpu():
    pytest.skip("this vLLM is not for CPUs", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's and vLLM's own

VOCAB = 512
PROMPTS = [
    "The weather today is",
    "Once upon a time",
    "def fibonacci(n):",
    "The capital of France is",
]


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
        make_random(tmp_path_factory.mktemp("tiny"), VOCAB),
        load_format="dummy",
        skip_tokenizer_init=True,
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


def worker_of(llm):
    return llm.llm_engine.model_executor.driver_worker.worker


def runner_of(llm):
    return worker_of(llm).model_runner


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
OWN = [
    tokens_of(temperature=1.0, seed=1),
    tokens_of(temperature=0.5, top_k=100, seed=2),
    tokens_of(temperature=0.0),
    tokens_of(top_p=0.9, seed=4),
    tokens_of(temperature=2.0, min_p=0.2, seed=5),
    tokens_of(presence_penalty=1.0, frequency_penalty=0.5, seed=6),
    tokens_of(top_p=0.8, top_k=300, repetition_penalty=1.2, seed=7),
    tokens_of(logit_bias={9: 5.0}, min_tokens=4, seed=8),
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


def test_a_seed_draws_the_same_alone_in_any_batch_and_after_a_preemption(tiny, preemptions):
    alone = [ids(tiny, [prompt], p)[0] for prompt, p in zip(LONG, OWN, strict=True)]
    assert not preemptions
    assert ids(tiny, LONG, OWN) == alone
    assert preemptions
    assert ids(tiny, LONG[::-1], OWN[::-1]) == alone[::-1]
    assert all(len(set(text)) > 5 for text, p in zip(alone, OWN, strict=True) if p.seed)


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


def test_speculative_decoding(tmp_path):
    """The accepting is vLLM's; the token behind accepted drafts is drawn with fastsample."""
    drafts = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 2}
    drafts["prompt_lookup_min"] = 1
    found = []
    for speculative in (None, drafts):
        llm = LLM(
            make_random(tmp_path / "model", VOCAB),
            load_format="dummy",
            skip_tokenizer_init=True,
            dtype="float32",
            enforce_eager=True,
            max_model_len=64,
            max_num_seqs=2,
            speculative_config=speculative,
        )
        runner = runner_of(llm)
        if speculative:
            assert runner.rejection_sampler.sampler is runner.sampler is worker_of(llm).fast
        prompts = [[5, 6, 7, 8, 5, 6, 7, 8, 5, 6]] * 2
        found.append(ids(llm, prompts, tokens_of(temperature=0.0, max_tokens=20)))
        assert all(map(len, ids(llm, prompts, tokens_of(top_p=0.9, seed=3, max_tokens=8))))
        llm.llm_engine.engine_core.shutdown()
    assert found[0] == found[1]


def test_vllms_own_sampler_ends_the_engine_where_a_seeded_prompt_is_read_in_parts(tiny, worker):
    """Last of this engine: it is lost. With ours, LONG was read so above."""
    worker.model_runner.sampler = Sampler()
    with pytest.raises(RuntimeError, match="CPU Generator does not use offset"):
        ids(tiny, LONG[-1:], OWN[-1])


# ---- SmolLM2 ---------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory):
    """Made in a process of its own: vLLM looks into every module that is imported in its own."""
    folder = tmp_path_factory.mktemp("smollm2")
    code = "import sys; from fastsample.bench import vllm_models as m; m.make_smollm2(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, folder], cwd=folder, check=True)
    return str(folder)


@pytest.fixture(scope="module")
def real(smollm2):
    llm = LLM(smollm2, dtype="bfloat16", enforce_eager=True, max_model_len=256, max_num_seqs=8)
    yield llm
    llm.llm_engine.engine_core.shutdown()


def texts(llm, prompts=PROMPTS, **parameters):
    params = SamplingParams(**{"max_tokens": 16, **parameters})
    return [out.outputs[0].text for out in llm.generate(prompts, params, use_tqdm=False)]


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"frequency_penalty": 1.0, "bad_words": [" the", "the"], "logprobs": 3},
        {"structured_outputs": StructuredOutputsParams(choice=["sunny", "raining", "a number"])},
    ],
    ids=["plain", "penalised", "structured"],
)
def test_greedy_text_of_a_real_model_is_vllms(real, parameters):
    runner = runner_of(real)
    fast, kinds = runner.sampler, []
    assert type(fast).__name__ == "FastSampler"
    for sampler in (fast, Sampler()):
        runner.sampler = sampler
        try:
            kinds.append(texts(real, temperature=0.0, **parameters))
        finally:
            runner.sampler = fast
    assert kinds[0] == kinds[1]
    assert len(set(kinds[0])) > 1


def test_sampled_text_of_a_real_model(real):
    chain = {"temperature": 0.8, "top_k": 50, "top_p": 0.95}
    first, again, other = (texts(real, seed=seed, **chain) for seed in (7, 7, 8))
    assert first == again != other
    choice = StructuredOutputsParams(choice=["sunny", "raining"])
    drawn = texts(real, PROMPTS[:1] * 8, temperature=2.0, structured_outputs=choice)
    assert set(drawn) == {"sunny", "raining"}


def test_logits_of_a_real_model_are_read_where_they_are(real, monkeypatch):
    given, read = [], []
    runner = runner_of(real)
    theirs, as_rows = runner.model.compute_logits, fastsample.arrays.as_rows

    def keep(*arguments):
        given.append(theirs(*arguments))
        return given[-1]

    def look(logits):
        read.append(as_rows(logits))
        return read[-1]

    monkeypatch.setattr(runner.model, "compute_logits", keep)
    monkeypatch.setattr("fastsample.sampling.as_rows", look)
    texts(real, max_tokens=3, top_p=0.9)
    assert {logits.dtype for logits in given} == {torch.bfloat16}
    pointers = [rows.__array_interface__["data"][0] for rows, _ in read]
    assert pointers == [logits.data_ptr() for logits in given]


def environment(**changes):
    ours = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1", "VLLM_LOGGING_LEVEL": "INFO"}
    return os.environ | ours | changes


POISON = """
import torch
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

class Poison(AdapterLogitsProcessor):
    def is_argmax_invariant(self):
        return False

    def new_req_logits_processor(self, params):
        if not (params.extra_args or {}).get("poison"):
            return None
        return lambda output, logits: logits.fill_(torch.nan) if len(output) == 2 else logits
"""


@pytest.fixture(scope="module")
def server(smollm2, tmp_path_factory):
    """vLLM's own server, with an OpenAI API, on a port of this machine."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "poison.py").write_text(POISON)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).parent / "vllm", "serve", smollm2, "--port", str(port)]
    if not command[0].exists():
        command[:1] = [sys.executable, "-m", "vllm.entrypoints.cli.main"]
    options = ["--host", "127.0.0.1", "--dtype", "float32", "--enforce-eager"]
    options += ["--max-model-len", "512", "--max-num-seqs", "16"]
    options += ["--logits-processors", "poison:Poison"]
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*map(str, command), *options],
            env=environment(PYTHONPATH=os.pathsep.join(filter(None, paths))),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(process, url, folder / "log")
        yield SimpleNamespace(url=url, model=smollm2, log=folder / "log", process=process)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the engine's and the worker's, too
            process.wait()


def wait_for(process, url, log):
    deadline = time.monotonic() + 900
    while not answers(f"{url}/health"):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(1)


def answers(url):
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except OSError:
        return False
    return True


def complete(server, request):
    """Stream a completion; return its text and the number of pieces that it came in."""
    body = {"model": server.model, "stream": True, "max_tokens": 24, **request}
    asked = urllib.request.Request(
        f"{server.url}/v1/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    pieces = []
    with urllib.request.urlopen(asked, timeout=300) as answer:
        for line in answer:
            data = line.decode().removeprefix("data: ").strip()
            if data and data != "[DONE]":
                piece = json.loads(data)
                assert "error" not in piece, piece
                pieces.append(piece["choices"][0]["text"])
    return "".join(pieces), len(pieces)


REQUESTS = [
    {"prompt": PROMPTS[0], "temperature": 0.0},
    {"prompt": PROMPTS[1], "temperature": 0.8, "top_k": 50, "seed": 1},
    {"prompt": PROMPTS[2], "temperature": 0.8, "top_p": 0.95, "seed": 2},
    {"prompt": PROMPTS[3], "temperature": 1.2, "min_p": 0.05, "seed": 3},
    {"prompt": PROMPTS[0], "temperature": 0.7, "presence_penalty": 1.0, "seed": 4},
    {"prompt": PROMPTS[1], "temperature": 0.6, "top_k": 20, "top_p": 0.9, "seed": 5},
    {"prompt": PROMPTS[2], "temperature": 1.0, "logit_bias": {"28": -5.0}, "seed": 2**40},
    {"prompt": PROMPTS[3], "temperature": 0.9, "repetition_penalty": 1.2, "seed": 7},
]


def test_eight_streams_at_once_draw_what_they_draw_alone(server):
    with ThreadPoolExecutor(len(REQUESTS)) as pool:
        together = list(pool.map(lambda request: complete(server, request), REQUESTS))
    assert all(pieces > 5 for _, pieces in together)
    assert len({text for text, _ in together}) == len(REQUESTS)
    alone = [complete(server, request) for request in REQUESTS[::-1]][::-1]
    assert [text for text, _ in together] == [text for text, _ in alone]
    assert len(re.findall(r"fastsample \S+ draws the tokens", server.log.read_text())) == 1


def test_bad_logits_fail_their_own_request_and_not_the_server(server):
    good = complete(server, REQUESTS[1])
    poisoned = {**REQUESTS[1], "stream": False, "vllm_xargs": {"poison": 1}}
    with ThreadPoolExecutor(3) as pool:
        others = [pool.submit(complete, server, REQUESTS[1]) for _ in range(2)]
        with pytest.raises(urllib.error.HTTPError) as caught:
            complete(server, poisoned)
        assert caught.value.code == 500
        caught.value.close()
        assert [other.result() for other in others] == [good, good]
    assert re.search(r"fastsample: request \S+ fails: logits", server.log.read_text())
    assert server.process.poll() is None
