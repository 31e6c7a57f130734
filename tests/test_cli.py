"""The command line: what it prints is what the library returns."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

import fastsample
from fastsample import cli, recorded
from fastsample.cli import screen
from fastsample.orders import stages_of

DEMO = {"temperature": 0.8, "top_k": 50, "top_p": 0.95, "min_p": 0.05}
DATA = recorded.load()
RUN = "import sys; from fastsample.cli import main; sys.exit(main())"


@pytest.fixture(autouse=True)
def _short_measurements(monkeypatch):
    monkeypatch.setattr(cli.demo, "MEASURE_SECONDS", 0.0)


@pytest.fixture
def demo(command_line):
    return partial(command_line.run, "demo")


@pytest.fixture
def report(demo):
    return lambda *options: json.loads(demo("--json", *options))


@pytest.fixture
def refusal(command_line):
    return command_line.refusal


@pytest.fixture
def spawn(tmp_path):
    """Run the installed command from a folder that knows nothing of the package."""

    def run(*arguments, **environment):
        return subprocess.run(
            [sys.executable, "-c", RUN, *arguments],
            cwd=tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            timeout=120,
        )

    return run


def test_recorded():
    v = len(DATA.pieces)
    assert len(DATA.prompts) == 12
    assert DATA.logits.shape == (12, v)
    assert DATA.logits.dtype == np.float16
    assert b"".join(DATA.pieces).count(b" Paris") >= 1
    assert "Apache-2.0" in DATA.source
    assert recorded.load() is DATA


def test_every_byte_of_a_token_can_be_seen():
    shown = [DATA.show(token) for token in range(len(DATA.pieces))]
    assert all(text and text.isprintable() and " " not in text for text in shown)
    assert DATA.show(DATA.pieces.index(b" Paris")) == "␣Paris"
    assert DATA.show(DATA.pieces.index(b"\n\n")) == "⏎⏎"
    assert DATA.show(DATA.pieces.index(b"\xe7")) == "<0xE7>"


def test_all_prompts_are_shown(demo):
    out = demo()
    for prompt in DATA.prompts:
        for line in prompt.splitlines():
            assert f"│ {line}".rstrip(" ") in out
    assert DATA.source in " ".join(out.split())
    assert f"V = {len(DATA.pieces)}" in out
    assert max(map(screen.cells, out.splitlines())) <= 100
    assert "\x1b" not in out


@pytest.mark.parametrize("columns", [80, 100])
@pytest.mark.parametrize("options", [(), ("--temperature", 2.5, "--top-k", 0, "--min-p", 0)])
def test_lines_fit_the_terminal(demo, monkeypatch, columns, options):
    monkeypatch.setenv("COLUMNS", str(columns))
    # Times are of this machine, and may be long.
    lines = [line for line in demo(*options).splitlines() if " us" not in line]
    assert max(map(screen.cells, lines)) <= columns


def test_counts_per_stage_are_those_of_survivors(report, demo):
    stages = ["top_k", "top_p", "min_p"]
    for d in report()["draws"]:
        row = DATA.logits[d["prompt"] - 1]
        expected = {}
        for i, stage in enumerate(stages):
            on = {name: DEMO[name] for name in ["temperature", *stages[: i + 1]]}
            expected[stage] = len(fastsample.survivors(row, **on)[0])
        assert d["kept"] == expected
        cells = " +".join(f"→ {n}" for n in expected.values())
        assert re.search(f"{len(DATA.pieces)} tokens +{cells}\n", demo("--prompt", d["prompt"]))


def test_a_stage_before_temperature_sees_temperature_1(report):
    (d,) = report("--order", "llama.cpp", "--temperature", 5, "--prompt", 1)["draws"]
    for stage, on in (("top_k", ["top_k"]), ("top_p", ["top_k", "top_p"])):
        kept, _ = fastsample.survivors(DATA.logits[0], **{name: DEMO[name] for name in on})
        assert d["kept"][stage] == len(kept)
    assert list(d["kept"]) == ["top_k", "top_p", "min_p"]


def test_fate_of_each_token(report):
    for d in report()["draws"]:
        row = DATA.logits[d["prompt"] - 1]
        ids, values = [t["id"] for t in d["leading"]], [t["logit"] for t in d["leading"]]
        assert ids == fastsample.top_k(row, 8)[1].tolist()
        assert values == row[ids].astype(np.float32).tolist()
        survivors, probs = fastsample.survivors(row, **DEMO)
        assert [t["id"] for t in d["leading"] if t["cut_by"] is None] == survivors[:8].tolist()
        at_temperature = fastsample.softmax(row, 0.8)
        probs_shown = [t["prob"] for t in d["leading"]]
        assert probs_shown == pytest.approx(at_temperature[ids].tolist(), rel=1e-5, abs=1e-7)
        assert d["drawn"]["cut_by"] is None
        final = probs[survivors == d["drawn"]["id"]].item()
        assert d["drawn"]["final_prob"] == pytest.approx(final, rel=1e-5)


@pytest.mark.parametrize("seed", [0, 7, 2**64 - 1])
@pytest.mark.parametrize("order", [*fastsample.ORDERS, "top_p,top_k,temperature", "min_p"])
def test_token_is_that_of_sample(report, order, seed):
    stages = fastsample.ORDERS.get(order, tuple(order.split(",")))
    on = {name: value for name, value in DEMO.items() if name in stages_of(stages)}
    for d in report("--order", order, "--seed", seed)["draws"]:
        row, offset = DATA.logits[d["prompt"] - 1], d["offset"]
        token = d["drawn"]["id"]
        assert token == fastsample.sample(row, **on, order=stages, seed=seed, offset=offset)
        assert token == fastsample.sample(row, **on, order=stages, u=d["u"])
        assert d["drawn"]["text"] == DATA.pieces[token].decode(errors="replace")


def test_numpy_draws_the_same_token(report):
    summary = report()["summary"]
    assert summary["same_token_as_numpy"] == summary["draws"] == 12


def test_another_token_of_numpy_is_said(demo, monkeypatch):
    monkeypatch.setattr(cli.demo, "numpy_draw", lambda *_: 123)
    out = demo("--prompt", 2)
    assert "another token: 123" in out
    assert "same token in 0 of 1" in out


def test_a_seed_gives_the_same_draws(report):
    def tokens(*options):
        return [(d["u"], d["drawn"]) for d in report(*options)["draws"]]

    assert tokens() == tokens("--seed", 0)
    assert tokens() != tokens("--seed", 1)
    assert tokens("--prompt", 4, "--prompt", 3) == [tokens()[3], tokens()[2]]


@pytest.mark.parametrize("backend", fastsample.backends())
def test_backends_draw_the_same_tokens(report, backend):
    expected = [
        fastsample.sample(row, **DEMO, seed=0, offset=i) for i, row in enumerate(DATA.logits)
    ]
    found = report("--backend", backend)
    assert [d["drawn"]["id"] for d in found["draws"]] == expected
    assert found["summary"]["backend"] == backend
    assert (found["summary"]["isa"] is None) == (backend != "core")


@pytest.mark.parametrize("order", ["hf", "llama.cpp", "top_k"])
def test_greedy(report, demo, order):
    options = ("--temperature", 0, "--order", order, "--prompt", 2)
    (d,) = report(*options)["draws"]
    assert d["kept"] == {"greedy": 1}
    assert d["drawn"]["id"] == DATA.logits[1].argmax()
    assert d["drawn"]["final_prob"] == 1.0
    assert "greedy" in demo(*options)


def test_all_stages_off(report, demo):
    off = ("--temperature", 1, "--top-k", -1, "--top-p", 1, "--min-p", 0, "--prompt", 3)
    (d,) = report(*off)["draws"]
    assert d["kept"] == {}
    assert d["numpy_id"] == d["drawn"]["id"]
    assert "cut" not in demo(*off)


def test_a_token_beyond_the_leading_ones_has_a_row(report, demo):
    for seed in range(20):
        options = ("--prompt", 12, "--seed", seed)
        (d,) = report(*options)["draws"]
        if d["drawn"]["id"] not in [t["id"] for t in d["leading"]]:
            break
    shown = re.escape(DATA.show(d["drawn"]["id"]))
    assert re.search(f"    …\n  ▸ {shown} .* kept +kept +kept\n", demo(*options))


def test_chinese(demo):
    out = demo("--prompt", 10)
    assert "10 │ 今天天气很好，我们一起去\n" in out  # noqa: RUF001
    rows = [line for line in out.splitlines() if re.search(r"\d%.* kept", line)]
    assert len(rows) == 8
    assert any("的" in row for row in rows)
    # Wide characters take two columns, and what follows still stands below each other.
    assert len({screen.cells(row.partition("%")[0]) for row in rows}) == 1
    assert len({screen.cells(row.partition("kept")[0]) for row in rows}) == 1


def test_fold():
    assert screen.fold("to be or not", 6) == ["to be", "or not"]
    assert screen.fold("今天天气很好", 5) == ["今天", "天气", "很好"]
    assert screen.fold("abcdef", 6) == ["abcdef"]
    assert screen.fold("", 6) == [""]


def test_ascii_stdout(spawn):
    result = spawn("demo", PYTHONIOENCODING="ascii", COLUMNS="80")
    assert result.stderr == b""
    assert result.returncode == 0
    out = result.stdout.decode("ascii")
    assert "_Paris" in out
    assert "\\u4eca" in out
    assert "-> 50" in out
    assert max(len(line) for line in out.splitlines() if " us" not in line) <= 80


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no closed pipes of this kind")
def test_a_closed_pipe_is_quiet(tmp_path):
    command, pipe = [sys.executable, "-c", RUN, "demo"], subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_ctrl_c_is_quiet(monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.demo, "draw", interrupt)
    assert cli.main(["demo"]) == 130
    assert capsys.readouterr().err == ""


def test_colour_only_on_a_terminal_that_wants_it(demo, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert "\x1b[1;32m" in demo("--prompt", 1)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in demo("--prompt", 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--top-p 1.5", "argument --top-p: must be in [0, 1], got 1.5"),
        ("--top-p many", "argument --top-p: must be a number, got 'many'"),
        ("--top-k -2", "argument --top-k: must be -1, 0 or >= 1, got -2"),
        ("--min-p nan", "argument --min-p: must be in [0, 1], got nan"),
        ("--temperature -1", "argument --temperature: must be finite and >= 0"),
        ("--seed -1", "argument --seed: must be in [0, 2**64), got -1"),
        ("--order new", "argument --order: must be one of 'hf'"),
        ("--order top_k,new", "argument --order: must be made of temperature"),
        ("--order top_k,top_k", "argument --order: must not name a stage twice, got top_k"),
        ("--order top_k --top-p 0.5", "argument --order: must name top_p, which is active"),
        ("--prompt 99", "argument --prompt: must be an integer in [1, 12], got 99"),
        ("--prompt 1 --prompt 0", "argument --prompt: must be an integer in [1, 12], got 0"),
        ("--backend new", "argument --backend: must be one of core, numba, reference"),
    ],
)
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_bad_options(refusal, options, message, form):
    line = refusal("demo", *options.split(), *form)
    assert line.startswith(f"fastsample demo: error: {message}")


def test_bad_environment(spawn):
    result = spawn("demo", FASTSAMPLE_BACKEND="new")
    assert result.returncode == 2
    assert b"FASTSAMPLE_BACKEND must be one of" in result.stderr
    assert b"Traceback" not in result.stderr


def test_help_has_an_example_of_each_command(capsys):
    for arguments in ([], *([name] for name in cli.COMMANDS)):
        with pytest.raises(SystemExit) as exit_:
            cli.main([*arguments, "--help"])
        assert exit_.value.code == 0
        text = capsys.readouterr().out
        for name, command in cli.COMMANDS.items():
            if arguments in ([], [name]):
                assert command.example in text
                assert command.example.startswith(f"fastsample {name} ")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_examples_run(name, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # where one writes its report
    if name == "generate":
        pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    if name == "draw":
        np.save("logits.npy", np.zeros((5, 100), np.float16))
    assert cli.main(shlex.split(cli.COMMANDS[name].example)[1:]) == 0
    assert capsys.readouterr().out


def test_without_a_command_there_is_help(capsys):
    assert cli.main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == cli.make_parser().format_help()


@pytest.mark.parametrize(
    ("arguments", "prog"),
    [(["new"], "fastsample"), (["explain", "--top-k", "x"], "fastsample explain")],
    ids=str,
)
def test_an_error_is_a_line_and_a_hint(capsys, arguments, prog):
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    assert exit_.value.code == 2
    line, hint = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{prog}: error: argument ")
    assert "invalid" in line or "must be" in line
    assert hint == f"see {prog} --help"


def test_version(capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"fastsample {fastsample.__version__}\n"
