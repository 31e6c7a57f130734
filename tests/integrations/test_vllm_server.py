"""SmolLM2 in vLLM with the plugin: in this process, and in vLLM's server."""

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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from vllm_env import LLM, Sampler, SamplingParams, StructuredOutputsParams, runner_of, torch

from fastsample.integrations import _vllm_sampler

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's and vLLM's own

PROMPTS = [
    "The weather today is",
    "Once upon a time",
    "def fibonacci(n):",
    "The capital of France is",
]
CHOICE = ["sunny", "raining", "a number"]
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "year": {"type": "integer"}},
    "required": ["name", "year"],
    "additionalProperties": False,
}


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
        {"structured_outputs": StructuredOutputsParams(choice=CHOICE)},
        {"structured_outputs": StructuredOutputsParams(choice=CHOICE), "min_tokens": 8},
        {
            **{"structured_outputs": StructuredOutputsParams(json=SCHEMA), "max_tokens": 60},
            **{"logprobs": 2, "presence_penalty": 0.5},
        },
    ],
    ids=["plain", "penalised", "structured", "structured minimum", "schema"],
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
    pattern = StructuredOutputsParams(regex=r'\{"name": "[a-z]{3,9}", "year": [1-9][0-9]{3}\}')
    drawn = texts(real, structured_outputs=pattern, max_tokens=60, frequency_penalty=0.3)
    assert all(json.loads(text).keys() == {"name", "year"} for text in drawn)
    assert len(set(drawn)) > 1


def test_logits_of_a_real_model_are_read_where_they_are(real, monkeypatch):
    given, read = [], []
    runner = runner_of(real)
    theirs, rows_of = runner.model.compute_logits, _vllm_sampler.rows_of

    def keep(*arguments):
        given.append(theirs(*arguments))
        return given[-1]

    def look(logits):
        read.append(rows_of(logits))
        return read[-1]

    monkeypatch.setattr(runner.model, "compute_logits", keep)
    monkeypatch.setattr(_vllm_sampler, "rows_of", look)
    texts(real, max_tokens=3, top_p=0.9)
    assert {logits.dtype for logits in given} == {torch.bfloat16}
    pointers = [rows.__array_interface__["data"][0] for rows in read]
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
    assert all(pieces > 1 for _, pieces in together)  # how many is a matter of time
    assert len({text for text, _ in together}) == len(REQUESTS)
    alone = [complete(server, request) for request in REQUESTS[::-1]][::-1]
    assert [text for text, _ in together] == [text for text, _ in alone]
    log = server.log.read_text()
    assert len(re.findall(r"fastsample \S+ draws the tokens", log)) == 1
    assert "vLLM's own code edits" not in log  # its processor has no request to work for


def test_bad_logits_fail_their_own_request_and_not_the_server(server):
    good, _ = complete(server, REQUESTS[1])
    poisoned = {**REQUESTS[1], "stream": False, "vllm_xargs": {"poison": 1}}
    with ThreadPoolExecutor(3) as pool:
        others = [pool.submit(complete, server, REQUESTS[1]) for _ in range(2)]
        with pytest.raises(urllib.error.HTTPError) as caught:
            complete(server, poisoned)
        assert caught.value.code == 500
        caught.value.close()
        assert [other.result()[0] for other in others] == [good, good]
    log = server.log.read_text()
    assert re.search(r"fastsample: request \S+ fails: logits", log)
    assert log.count("vLLM's own code edits steps with custom logits processors") == 1
    assert server.process.poll() is None
