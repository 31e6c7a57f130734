"""Every option of every command, by the table that the parser has: a new one is tested by being
there.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastsample import cli, recorded
from fastsample.cli import values
from fastsample.parameters import OF_STAGE, TABLE

RUN = "import sys; from fastsample.cli import main; sys.exit(main())"
GGUF = "model.gguf"

#: A few of whose tokens are enough.
SMALL = recorded.load()

#: The stages of rows that stand alone.
ROWS = [stage for stage in OF_STAGE if stage not in ("mirostat", "adaptive")]

#: What each command needs to run, and to be quick about it.
BASES = {
    "demo": ["--prompt", "1", "--order", ",".join(OF_STAGE), "--history", "0,1"],
    "explain": ["--logits", "3,2.5,2,1", "--order", ",".join(OF_STAGE), "--history", "0,1"],
    "generate": ["PROMPT"],
    "draw": [
        "LOGITS",
        "--output",
        "tokens.npy",
        "--order",
        ",".join(ROWS),
        "--eos-token-id",
        "1",
    ],
    "bench": ["--smoke", "--works", "greedy", "--rows", "normal", "--rivals", "none"],
}

#: What no number of the command line should be, and what some may be.
NUMBERS = [
    "nan", "-nan", "inf", "-inf", "1e400", "-1e400", "1e39", "1e-400", "-1", "-0", "0",
    "-2147483649", "99999", "4294967295", "4294967296", "9223372036854775807",
    "9223372036854775808", "18446744073709551616", "9" * 50, "9" * 5000, "1.5", ".5", "0x10", "1_0",
    "٣", "", " ", "x", "1,2", "--", "-x", "-1,2", "\udcff", "%s", "%(prog)s",
]  # fmt: skip


class Reached(BaseException):
    """The command has checked its options, and begins."""


def commands():
    (table,) = (a for a in cli.make_parser()._actions if isinstance(a.choices, dict))
    return table.choices


OPTIONS = [
    pytest.param(command, action, id=f"{command} {max([*action.option_strings, action.dest])}")
    for command, parser in commands().items()
    for action in parser._actions
    if action.nargs is None
]
FILES = [p for p in OPTIONS if isinstance(p.values[1].type, values.OutputFile)]


def arguments(command, action, text):
    base = [*BASES[command]]
    name = (action.option_strings or [None])[-1]
    if name in base:  # instead of it
        at = base.index(name)
        del base[at : at + 2]
    if name is None:
        base.remove(action.metavar)
    return [command, *base, *([name] if name else []), text]


@pytest.fixture(autouse=True)
def _begin_is_enough(monkeypatch, tmp_path):
    """Run each command up to what takes long: a model, times, pictures."""

    def reached(*_, **__):
        raise Reached

    monkeypatch.chdir(tmp_path)
    (tmp_path / GGUF).write_bytes(b"GGUF")
    with (tmp_path / "LOGITS").open("wb") as file:
        np.save(file, np.zeros((1, 4), np.float16))
    monkeypatch.setattr(cli.draw, "open_engine", reached)
    monkeypatch.setattr(cli.demo, "MEASURE_SECONDS", 0.0)
    small = SMALL._replace(logits=SMALL.logits[:, :64], pieces=SMALL.pieces[:64])
    monkeypatch.setattr(recorded, "load", lambda: small)
    monkeypatch.setattr(cli.bench, "_measure", reached)
    monkeypatch.setattr(cli.generate, "load", reached)
    monkeypatch.setattr(cli.explain, "model_rows", reached)


@pytest.fixture
def call(capsys):
    """Run the command line; return its exit code, and its error where it refuses something."""

    def run(argv):
        try:
            code = cli.main(argv)
        except SystemExit as exit_:
            code = exit_.code
        except Reached:
            code = 0
        out, err = capsys.readouterr()
        if code:
            assert (code, out) == (2, "")
        return code, err

    return run


def test_every_command_is_tested():
    assert set(BASES) == set(cli.COMMANDS)


@pytest.mark.parametrize(("command", "action"), OPTIONS)
def test_no_option_has_a_number_without_a_range(command, action):
    assert action.type not in (int, float), "its type must be a Number or a Parameter"
    if action.metavar and "FILE" in action.metavar:
        assert isinstance(action.type, values.InputFile | values.OutputFile | values.ModelFile)


@pytest.mark.parametrize(("command", "action"), OPTIONS)
def test_whatever_is_given_is_taken_or_refused_by_name(call, command, action):
    name = (action.option_strings or [action.metavar])[-1]
    for text in NUMBERS:
        code, err = call(arguments(command, action, text))
        if code:
            first, hint = err.splitlines()
            assert first.startswith(f"fastsample {command}: error: ")
            assert name in first, first
            assert "None" not in first, first
            assert len(first) < 400
            assert hint == f"see fastsample {command} --help"
        else:
            assert "Warning" not in err
            assert "Traceback" not in err


@pytest.mark.parametrize(("command", "action"), OPTIONS)
def test_a_number_is_refused_beyond_both_ends(call, command, action):
    if not isinstance(action.type, values.Number | values.Parameter):
        return
    answers = [call(arguments(command, action, text)) for text in ("-2", "nan", "1e400")]
    # Stored rows have their histories in a file, without which a number that is right is of no use.
    refused = [bool(code) and "history must be given" not in err for code, err in answers]
    rule = TABLE.get(action.dest)
    assert refused == [rule is None or rule.listed or rule.low > -2, True, True]


@pytest.mark.parametrize(("command", "action"), FILES)
def test_a_file_that_cannot_be_written_is_refused_at_once(call, command, action, tmp_path):
    suffix = (*action.type.suffixes, ".json")[0]
    (tmp_path / f"folder{suffix}").mkdir()
    (tmp_path / "file").write_text("kept")
    bad = [f"missing/x{suffix}", f"folder{suffix}", f"file/x{suffix}", f"{'x' * 300}{suffix}", ""]
    if sys.platform == "linux":
        bad += [f"/proc/x{suffix}", f"/sys/x{suffix}"]
    before = sorted(tmp_path.rglob("*"))
    for path in bad:
        code, err = call(arguments(command, action, path))
        assert code == 2, path
        assert action.option_strings[-1] in err
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write all")
@pytest.mark.parametrize(("command", "action"), FILES)
def test_a_folder_that_may_not_be_written(call, command, action, tmp_path):
    suffix = (*action.type.suffixes, ".json")[0]
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    assert call(arguments(command, action, str(folder / f"x{suffix}")))[0] == 2


def test_the_growth_of_a_plot_has_a_file_too(call, tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "x-growth.svg").mkdir()
    code, err = call(["bench", "--rivals", "none", "--plot", "x.svg"])
    assert code == 2
    assert "argument --plot" in err
    assert "x-growth.svg" in err


@pytest.mark.parametrize(
    ("given", "same"),
    [
        ("--logits -1,2,3", "--logits=-1,2,3"),
        ("--logits -inf,2,-.5", "--logits=-inf,2,-.5"),
        ("--tokens -,+ --logits -1,-2", "--tokens=-,+ --logits=-1,-2"),
        ("--logits -1e3,2 --top-k -1", "--logits=-1e3,2 --top-k=-1"),
    ],
)
def test_a_value_may_begin_with_a_minus_sign(call, capsys, given, same):
    printed = []
    for options in (given, same):
        assert cli.main(["explain", *options.split()]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]


def test_an_option_is_no_value(call):
    for option in ("--json", "-h", "--top-p"):
        code, err = call(["explain", "--text", option])
        assert code == 2
        assert "argument --text: expected one argument" in err


@pytest.mark.parametrize(("command", "action"), OPTIONS)
def test_what_ends_options_is_no_value(call, command, action):
    for option in action.option_strings:
        code, err = call([command, f"{option}=--"])
        assert code == 2
        assert f"{command}: error: argument {option}: must be a value, got '--'\n" in err


def test_no_name_is_not_the_name_of_a_backend(call):
    code, err = call(["demo", "--backend", ""])
    assert code == 2
    assert "argument --backend: must be one of core, numba, reference, got ''" in err


def test_commands_have_an_option_for_each_parameter():
    """`generate` has those of FastLlama, `draw` those of rows that stand alone."""
    given = {name: {a.dest for a in parser._actions} for name, parser in commands().items()}
    assert given["explain"] >= {*TABLE, "order", "history", "prompt_length"} <= given["demo"]
    alone = {n for n, rule in TABLE.items() if rule.stage not in ("mirostat", "adaptive")}
    assert given["draw"] >= alone
    llama = {"typical_p", "xtc_probability", "dry_multiplier", "mirostat", "repetition_penalty"}
    assert given["generate"] >= {"temperature", "top_k", "top_p", "min_p", "logit_bias"} | llama


def test_others_are_named_as_options_too(call):
    coin = "explain --u 0.5 --xtc-probability 0.5 --order xtc"
    both = "explain --mirostat 2 --adaptive-target 0.5 --order mirostat,adaptive"
    for command, message in (
        (coin, "argument --u-xtc: must be given with --u, where --xtc-probability needs a coin\n"),
        (both, "argument --adaptive-target: must be off where --mirostat is on\n"),
    ):
        code, err = call(command.split())
        assert code == 2
        assert message in err


def test_a_prompt_of_words_is_pointed_to_where_it_goes(call):
    for command, hint in (("explain", "goes to --text"), ("demo", "fastsample generate TEXT")):
        code, err = call([command, "--prompt", "some words"])
        assert code == 2
        assert "argument --prompt: must be an integer in [1, 12], got 'some words'; " in err
        assert hint in err


def test_a_picture_that_nobody_can_read_is_refused(call):
    pytest.importorskip("matplotlib")
    for options in (["--top", "5000"], ["--compare", ";".join(["top_k=1"] * 61)]):
        code, err = call(["explain", *options, "--plot", "x.png"])
        assert code == 2
        assert options[0] in err or "--plot" in err


def test_write_whole_keeps_what_is_there_until_it_is_done(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    values.write_whole(str(path), b"first")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        values.write_whole(str(path), b"second")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.glob("report*")) == [path]


# ---- where the output goes -----------------------------------------------------------------------


def spawn(command, tmp_path, **streams):
    return subprocess.run(
        [sys.executable, "-c", RUN, *command.split()],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams,
        timeout=300,
        check=False,
    )


SHOWN = ["demo --prompt 1", "demo --prompt 1 --json", "explain --prompt 2", "--help", "explain -h"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("command", SHOWN)
def test_a_full_disk_is_an_error_of_one_line(tmp_path, command):
    with open("/dev/full", "w") as full:
        done = spawn(command, tmp_path, stdout=full)
        assert done.returncode == 1
        (line,) = done.stderr.decode().splitlines()
        assert line.startswith("fastsample")
        assert "No space left on device" in line
        assert spawn(command, tmp_path, stdout=full, stderr=full).returncode == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no closed pipes of this kind")
@pytest.mark.parametrize("command", ["demo --prompt 1", "explain -h", "demo --prompt 99", ""])
def test_closed_streams(tmp_path, command):
    shell = f'"{sys.executable}" -c "{RUN}" {command}'
    for closed in (">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"):
        done = subprocess.run(
            ["sh", "-c", f"exec {shell} {closed}"],
            cwd=tmp_path,
            capture_output=True,
            timeout=300,
            check=False,
        )
        assert done.returncode in (0, 2)
        assert b"Traceback" not in done.stderr
        assert b"Exception ignored" not in done.stderr
        if "2>&-" in closed:
            assert b"error:" not in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_report_that_finds_the_disk_full_is_still_shown(monkeypatch, capsys):
    report = {"results": [], "samplers": {}}
    monkeypatch.setattr(cli.bench, "_measure", lambda *_: report)
    monkeypatch.setattr(cli.bench.bench, "summary", lambda _: "what was measured")
    with pytest.raises(SystemExit) as exit_:
        cli.main(["bench", "--brief", "--rivals", "none", "--json", "/dev/full"])
    assert exit_.value.code == 1
    out, err = capsys.readouterr()
    assert out == "what was measured\n"
    assert "argument --json: " in err
    assert "No space left" in err


def test_what_goes_wrong_in_a_command_is_one_line(monkeypatch, capsys):
    def broken(*_, **__):
        raise RuntimeError("the model\nis gone")

    monkeypatch.setattr(cli.demo, "draw", broken)
    assert cli.main(["demo"]) == 1
    assert capsys.readouterr().err == "fastsample demo: error: RuntimeError: the model is gone\n"


def test_a_warning_is_a_line_for_readers(monkeypatch, capsys):
    import warnings

    def warned(*_, **__):
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.showwarning("it is slow here", UserWarning, "file.py", 1)
        raise Reached

    monkeypatch.setattr(cli.demo, "draw", warned)
    with pytest.raises(Reached):
        cli.main(["demo"])
    assert capsys.readouterr().err == "fastsample: warning: it is slow here\n"


def test_argparse_types_say_what_they_are_in_help():
    for parser in commands().values():
        assert isinstance(parser, argparse.ArgumentParser)
        assert parser.format_help()
