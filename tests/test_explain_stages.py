"""`fastsample explain`: each stage of the table, joint ones, coins, and edits before them all."""

from __future__ import annotations

import json
import re
from functools import partial

import numpy as np
import pytest

import fastsample
from fastsample import recorded
from fastsample.explain import explain
from fastsample.parameters import OF_STAGE

DATA = recorded.load()
ROUNDING = 1e-5  # of sums of float32 probabilities


@pytest.fixture
def run(command_line):
    return partial(command_line.run, "explain")


@pytest.fixture
def refusal(command_line):
    error = "fastsample explain: error: "
    return lambda *options: command_line.refusal("explain", *options).removeprefix(error)


#: Each stage of the table with a number that does something, and in the order of the table.
EACH = {
    "temperature": {"temperature": 0.7, "dynatemp_range": 0.3},
    "top_k": {"top_k": 9},
    "top_p": {"top_p": 0.9},
    "min_p": {"min_p": 0.05},
    "typical_p": {"typical_p": 0.6},
    "epsilon_cutoff": {"epsilon_cutoff": 0.02},
    "eta_cutoff": {"eta_cutoff": 0.02},
    "top_a": {"top_a": 0.2},
    "p_less": {"p_less": True},
    "top_n_sigma": {"top_n_sigma": 1.0},
    "top_h": {"top_h": 0.5},
    "xtc": {"xtc_probability": 0.5, "xtc_threshold": 0.06},
    "mirostat": {"mirostat": 2, "mirostat_tau": 2.5},
    "adaptive": {"adaptive_target": 0.1},
    "p_less_norm": {"p_less_norm": True},
}


@pytest.mark.parametrize("stage", OF_STAGE)
@pytest.mark.parametrize("number", [0, 6, 8])
def test_each_stage_of_the_table(run, stage, number):
    options = {**EACH[stage], "order": (stage,), "seed": 2}
    row = DATA.logits[number]
    e = explain(row, DATA.show, top=30, **options)
    ids, probs = fastsample.survivors(row, **options)
    if stage in ("mirostat", "adaptive"):
        sampler = fastsample.Sampler(**options)
        assert e.drawn.id == sampler(row)
    else:
        assert e.drawn.id == fastsample.sample(row, **options)
    final = dict(zip(ids.tolist(), probs.tolist(), strict=True))
    (only,) = e.stages
    assert (only.name, only.kept, e.kept) == (stage, ids.size, ids.size)
    for token, after in zip(e.tokens, only.after, strict=True):
        assert (token.cut_by is None) == (token.id in final) == (after is not None)
        assert token.final == pytest.approx(final.get(token.id, 0.0), abs=ROUNDING)
    no_floor = {"temperature", "top_k", "top_p", "typical_p", "top_h", "xtc", "adaptive"}
    if stage not in no_floor and only.kept > 1:
        assert only.threshold is not None
        for before, after in zip(only.before, only.after, strict=True):
            assert (after is not None) == (before >= only.threshold * (1 - 1e-6))
    flags = {name: f"--{name.replace('_', '-')}" for name in EACH[stage]}
    words = [flags[n] if v is True else f"{flags[n]}={v}" for n, v in EACH[stage].items()]
    out = run("--prompt", number + 1, "--order", stage, "--seed", 2, *words)
    assert f"kept {only.kept:,} of" in out or stage in ("temperature", "adaptive")


def test_a_band_cuts_the_first_and_the_last():
    e = explain(DATA.logits[6], DATA.show, typical_p=0.5)
    assert e.tokens[0].cut_by == "typical_p"
    assert e.tokens[5].cut_by is None
    (stage,) = e.stages
    ids, _ = fastsample.survivors(DATA.logits[6], typical_p=0.5)
    assert stage.cumulative[0] > 0.5  # it comes after those that are kept
    assert e.kept == ids.size


def test_the_coin_of_xtc():
    on = {"xtc_probability": 0.5, "xtc_threshold": 0.06, "order": ("xtc",)}
    for seed in range(6):
        e = explain(DATA.logits[8], DATA.show, **on, seed=seed)
        (stage,) = e.stages
        assert stage.coin == fastsample.reference.uniform(seed, 0, 0, 1)
        cut = [t.rank for t in e.tokens if t.cut_by == "xtc"]
        assert cut == ([1, 2] if stage.coin < 0.5 else [])
    (always,) = explain(DATA.logits[8], **on | {"xtc_probability": 1.0}).stages
    assert always.coin is None
    (given,) = explain(DATA.logits[8], **on, u=0.5, u_xtc=0.25).stages
    assert given.coin == 0.25


def test_joint_stages_see_the_same():
    row = DATA.logits[3]
    on = {"temperature": 0.8, "top_k": 40, "top_p": 0.5, "min_p": 0.1}
    e = explain(row, **on, order="sglang", seed=1)
    _, *group = e.stages
    assert [stage.name for stage in group] == ["top_k", "top_p", "min_p"]
    assert len({stage.entered for stage in group}) == len({stage.before for stage in group}) == 1
    assert e.kept == min(stage.kept for stage in group)
    assert e.drawn.id == fastsample.sample(row, **on, order="sglang", seed=1)


def test_edits_are_said_before_and_after():
    row = np.array([4.0, 3.0, 2.0, 1.0, 0.0], np.float32)
    history = [0, 0, 1, 4]
    edits = {
        "repetition_penalty": 2.0,
        "presence_penalty": 0.5,
        "logit_bias": {3: 2.5},
        "bad_words_ids": [[4, 2]],
    }
    past = {"history": history, "prompt_length": 1}
    e = explain(row, "ABCDE", **edits, **past, top_k=2, seed=3)
    assert [stage.name for stage in e.stages] == ["edits", "top_k"]
    tokens = {token.text: token for token in e.tokens}
    assert [tokens[name].given_logit for name in "ABCDE"] == row.tolist()
    assert [tokens[name].logit for name in "ABCDE"] == [1.5, 1.0, None, 3.5, -0.5]
    assert tokens["A"].edited_by == ("repetition_penalty", "presence_penalty")
    assert tokens["C"].edited_by == ("bad_words_ids",)
    assert tokens["C"].cut_by == "edits"
    assert tokens["B"].cut_by == "top_k"
    assert e.edits == {
        "repetition_penalty": 3, "presence_penalty": 3, "logit_bias": 1, "bad_words_ids": 1,
    }  # fmt: skip
    assert [tokens[name].rank for name in "DAB"] == [1, 2, 3]
    assert [tokens[name].given_rank for name in "ABCDE"] == [1, 2, 3, 4, 5]
    before, after = e.stages[0].before, e.stages[0].after
    places = [[t.text for t in e.tokens].index(name) for name in "ABCDE"]
    assert [before[i] for i in places] == pytest.approx(fastsample.softmax(row).tolist())
    probs = fastsample.probs(row, **edits, **past)
    assert [after[i] or 0.0 for i in places] == pytest.approx(probs.tolist())
    assert e.drawn.id == fastsample.sample(row, **edits, **past, top_k=2, seed=3)


def test_edits_on_the_command_line(run, refusal):
    options = (
        "--logits 4,3,2,1,0 --tokens A,B,C,D,E --history 0,0,1,4 --prompt-length 1 "
        "--repetition-penalty 2 --logit-bias 3:2.5,1:-inf --bad-words-ids 4+2 "
        "--sequence-bias 1+4+0:-1.5 --seed 3"
    )
    out = run(*options.split())
    assert "edits change 5 logits" in out
    assert "repetition_penalty 2: 3 tokens" in out
    assert "sequence_bias 1+4+0:-1.5: 1 token" in out
    assert re.search(r"^ +▸? *C +2\.00 +-inf .* banned$", out, flags=re.MULTILINE)
    (e,) = json.loads(run(*options.split(), "--json"))["explanations"]
    assert e["parameters"]["sequence_bias"] == {"1+4+0": -1.5}
    compare = "suppress_tokens=0,1;frequency_penalty=1;temperature=1"
    found = json.loads(run("--logits", "4,3,2", "--history", "0,0", "--compare", compare, "--json"))
    masses = [len(e["tokens"]) - len([t for t in e["tokens"] if t["cut_by"]])
              for e in found["explanations"]]  # fmt: skip
    assert masses == [1, 3, 3]
    for wrong, message in (
        ("--repetition-penalty 2", "argument --history: must be given where --repetition-penalty"),
        ("--logit-bias 1", "argument --logit-bias: must be ids with biases, as in 5:-1.5,17:2"),
        ("--logit-bias 9:1", "argument --logit-bias: must have ids in [0, 4), got 9"),
        ("--logit-bias 1:nan", "argument --logit-bias: a bias must be finite or -inf, got nan"),
        ("--suppress-tokens -1", "argument --suppress-tokens: an id must be in [0, 2**31), got -1"),
        ("--bad-words-ids 1+,2", "argument --bad-words-ids: must be sequences of ids, as in"),
        ("--min-new-tokens 1", "argument --eos-token-id: must be given where --min-new-tokens"),
        ("--prompt-length 1", "argument --prompt-length: must come with --history"),
        ("--top-a 0.5", "argument --order: must name top_a, which is active"),
    ):
        assert refusal("--logits", "4,3,2,1", *wrong.split()).startswith(message)


def test_the_stories_of_the_family(run):
    def explanations(name):
        return json.loads(run("--story", name, "--json"))["explanations"]

    plain, penalised, dry = explanations("repetition")
    assert (plain["edits"], dry["edits"]) == ({}, {"dry_multiplier": 1})
    assert penalised["edits"] == {"repetition_penalty": 6}
    before, now = (next(t for t in e["tokens"] if t["text"] == "mat") for e in (plain, dry))
    assert now["prob"] < 0.1 < before["prob"]
    without, tails, heads = explanations("xtc")
    assert without["kept"] == tails["kept"] > heads["kept"]
    top, band = explanations("typical-p")
    assert top["tokens"][0]["cut_by"] is None
    assert band["tokens"][0]["cut_by"] == "typical_p"
