"""`fastsample draw`: what it writes and says, and what it refuses by the names of its options."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from stored import CHAIN, HALF, OPTIONS, WHOLE, N, stopped

import fastsample as fs
from fastsample import cli
from fastsample.rows import RowSampler


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("logits.npy", HALF)
    return tmp_path


def main(*arguments):
    """Run the command line."""
    try:
        return cli.main(["draw", *map(str, arguments)])
    except SystemExit as exit_:
        return exit_.code


def test_the_command_draws_what_sample_draws(capsys):
    assert main("logits.npy", "-o", "tokens.npy", *OPTIONS) == 0
    assert np.array_equal(np.load("tokens.npy"), WHOLE)
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == "tokens.npy: 403 tokens, 0 bad rows"
    assert "rows/s" in second
    assert third == "seed: 7"


def test_the_command_resumes_with_the_seed_that_was_drawn_for_it(capsys):
    random = RowSampler(**CHAIN)
    stopped(draw=random)
    options = OPTIONS[:3]
    assert main("logits.npy", "-o", "tokens.npy", *options, "--resume", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["rows"], report["resumed"], report["bad"]) == (N, 50, 0)
    assert report["seed"] == random.seed
    assert np.array_equal(np.load("tokens.npy"), random(HALF))


def test_the_command_takes_columns_and_flags(capsys):
    Path("c.csv").write_text("seed,top_p\n" + "".join(f"{i},{i / N}\n" for i in range(N)))
    assert main("logits.npy", "-o", "t.npy", "--columns", "c.csv", "--p-less") == 2
    assert "argument --order: must name p_less" in capsys.readouterr().err
    order = "p_less,temperature,top_p"
    assert (
        main("logits.npy", "-o", "t.npy", "--columns", "c.csv", "--p-less", "--order", order) == 0
    )
    whole = fs.sample(
        HALF, seed=range(N), top_p=[i / N for i in range(N)], p_less=True, order=order.split(",")
    )
    assert np.array_equal(np.load("t.npy"), whole)
    assert "seed: by row" in capsys.readouterr().out


def test_the_command_takes_lists_and_histories(capsys):
    history = np.random.default_rng(0).integers(0, 600, (N, 9))
    np.savez("c.npz", history=history)
    options = ["--repetition-penalty=1.3", "--suppress-tokens=1,2", "--logit-bias=3:-inf"]
    given = {"repetition_penalty": 1.3, "suppress_tokens": [1, 2], "logit_bias": {3: -np.inf}}
    command = ["logits.npy", "-o", "tokens.npy", "--seed=1", *options]
    assert main(*command, "--columns=c.npz") == 0
    whole = fs.sample(HALF, seed=1, history=history, **given)
    assert np.array_equal(np.load("tokens.npy"), whole)
    capsys.readouterr()
    Path("tokens.npy").unlink()
    assert main(*command) == 2
    must = "argument --columns: history must be given where --repetition-penalty is on"
    assert must in capsys.readouterr().err
    assert sorted(os.listdir()) == ["c.npz", "logits.npy"]
    assert main("logits.npy", "-o", "tokens.npy", "--suppress-tokens=1,x") == 2
    assert "argument --suppress-tokens: must be ids with commas between" in capsys.readouterr().err


def test_the_command_stops_at_a_bad_row_or_counts_them(capsys):
    spoilt = HALF.copy()
    spoilt[[300, 301]] = np.inf
    np.save("logits.npy", spoilt)
    assert main("logits.npy", "-o", "tokens.npy", *OPTIONS) == 1
    error = capsys.readouterr().err
    assert "logits row 300 must not contain +inf" in error
    assert len(error.splitlines()) == 1
    assert main("logits.npy", "-o", "tokens.npy", *OPTIONS, "--mark-bad", "--resume") == 0
    assert "403 tokens, 2 bad rows" in capsys.readouterr().out
    assert np.flatnonzero(np.load("tokens.npy") == -1).tolist() == [300, 301]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--top-p", "0.9"], "argument --top-p: must be 0.95 as in the run to be resumed, got 0.9"),
        (["--seed", "8"], "argument --seed: must be 7 as in the run to be resumed, got 8"),
        (["--memory", "1"], ""),
        (["--tensor", "x"], ""),
    ],
)
def test_the_command_refuses_by_option(options, message, capsys):
    stopped()
    code = main("logits.npy", "-o", "tokens.npy", "--resume", *OPTIONS, *options)
    assert code == (2 if message else 0)
    assert message in capsys.readouterr().err


def test_the_command_without_resume_leaves_a_stopped_run(capsys):
    stopped()
    assert main("logits.npy", "-o", "tokens.npy", *OPTIONS) == 2
    assert "argument --resume: must be True, or " in capsys.readouterr().err


def test_the_command_does_not_write_over_its_logits(capsys):
    before = Path("logits.npy").read_bytes()
    assert main("logits.npy", "-o", "logits.npy", *OPTIONS) == 2
    assert "argument --output: must not lead to logits, got 'logits.npy'" in capsys.readouterr().err
    assert Path("logits.npy").read_bytes() == before
    assert os.listdir() == ["logits.npy"]


def test_the_command_refuses_columns_before_it_draws(capsys):
    Path("c.csv").write_text("top_p\n" + "1\n" * (N - 1) + "2\n")
    assert main("logits.npy", "-o", "tokens.npy", "--columns", "c.csv") == 2
    assert "argument --top-p: must be in [0, 1], got 2.0 (row 402)" in capsys.readouterr().err
    Path("c.csv").write_bytes(b"top_p\n\xff\n")
    assert main("logits.npy", "-o", "tokens.npy", "--columns", "c.csv") == 2
    assert "argument --columns: must be a .csv file in UTF-8" in capsys.readouterr().err
    assert sorted(os.listdir()) == ["c.csv", "logits.npy"]


def test_the_command_refuses_logits_without_tokens(capsys):
    np.save("logits.npy", np.zeros((5, 0)))
    assert main("logits.npy", "-o", "tokens.npy") == 2
    assert "argument LOGITS: must have 1 to 4194304 tokens" in capsys.readouterr().err
    assert os.listdir() == ["logits.npy"]


def test_the_command_refuses_logits_by_their_name(capsys):
    os.truncate("logits.npy", 1000)
    assert main("logits.npy", "-o", "tokens.npy") == 2
    assert "error: argument LOGITS: must have " in capsys.readouterr().err
    assert os.listdir() == ["logits.npy"]
