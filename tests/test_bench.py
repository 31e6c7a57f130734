"""The bench: what it checks and what it reports. No test here looks at a time."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from fastsample import Sampler, bench, cli, survivors, use_backend

ROOT = Path(__file__).resolve().parents[1]
SHORT = 1000  # logits of a row
CASE = bench.Case("top_p", "normal")


def prepare_least_probable(row, params):
    return bench.Prepared(lambda: int(row.argmin()))


def prepare_nothing(row, params):
    raise NotImplementedError("it cannot do this")


@pytest.fixture
def smoke(tmp_path, capsys):
    def run(*options):
        path = tmp_path / "bench.json"
        assert cli.main(["bench", "--smoke", "--json", str(path), *options]) == 0
        return json.loads(path.read_text()), capsys.readouterr()

    return run


def first_sampler():
    own = [*bench.cores(), *(rival for rival in bench.RIVALS if rival.exact)]
    found = [rival for rival in own if not rival.missing()][:1]
    if not found:
        pytest.skip("only the reference can run here")
    return found


def load_script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "bench" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_smoke_checks_every_case(smoke):
    first_sampler()
    report, (out, err) = smoke("--rivals", "NumPy")
    own = {name for name, s in report["samplers"].items() if s["own"]}
    assert own == {core.name for core in bench.cores()}
    checked = {(r["work"], r["row"], r["dtype"]) for r in report["results"] if r["sampler"] in own}
    assert checked == set(bench.grid(list(bench.ROWS), list(bench.WORKS), bench.DTYPES))
    said = {r["check"] for r in report["results"] if r["sampler"] not in own}
    assert {r["check"] for r in report["results"] if r["sampler"] in own} == {"ok"}
    assert all(check == "ok" or check.startswith("cannot: it has no ") for check in said)
    assert not any("us" in r for r in report["results"])
    assert {b["check"] for b in report["batches"]} == {"ok"}
    assert {t["check"] for t in report["told"]} == {"ok"}
    assert {t["work"] for t in report["told"]} == {"raw, 20", "support", "log_mass", "5 drafts"}
    able = [r for r in report["results"] if r["check"] == "ok"]
    assert f"{len(able)} results checked" in out
    assert "normal float32: greedy chain" in err


def test_what_is_told_of_a_draw_is_timed():
    told = bench.run_told(first_sampler(), 0.001, SHORT)
    assert {t["sampler"] for t in told} >= {"NumPy sort", "NumPy partition"}
    assert all(t["check"] == "ok" and t["us"] > 0 and t["r_us"] > 0 for t in told)
    assert {t["work"] for t in told if "basis_us" in t} == {
        "raw, 20",
        "support",
        "log_mass",
        "5 drafts",
    }


def test_report_says_on_what_it_was_taken(smoke):
    first_sampler()
    report, (out, _) = smoke("--rivals", "none", "--rows", "constant", "--works", "greedy")
    machine = report["machine"]
    assert report["format"] == bench.FORMAT
    named = {
        "cpu",
        "cpus",
        "commit",
        "date",
        "isa",
        "l2_bytes",
        "load",
        "numpy",
        "python",
        "version",
    }
    assert named <= set(machine)
    assert machine["cpu"] in out.replace("\n", " ")
    assert {r["row"] for r in report["results"]} == {"constant"}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--rows", "sideways"),
        ("--works", "nap"),
        ("--rivals", "dice"),
        ("--parts", "spare"),
        ("--isa", "mmx"),
    ],
)
def test_unknown_names_are_refused(capsys, option, value):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["bench", option, value])
    assert exit_.value.code == 2
    assert f"argument {option}: must be out of" in capsys.readouterr().err


OTHERS = [rival for rival in bench.RIVALS if not rival.exact]


@pytest.mark.parametrize("rival", OTHERS, ids=lambda rival: rival.name)
def test_rivals_draw_tokens_of_the_row(rival):
    if rival.missing():
        pytest.skip(f"{rival.name}: {rival.missing()}")
    for result in bench.run_case(bench.Case(rival.has, "normal"), [rival], 0.0, SHORT):
        assert result["check"] == "ok" or result["check"].startswith("inexact (")


def test_an_inexact_rival_is_reported_and_is_nobodys_fastest():
    broken = bench.Rival("broken", {}, prepare_least_probable)
    report = bench.run([CASE], [*first_sampler(), broken], 1e-4, vocab=SHORT)
    own, inexact = report["results"]
    assert own["check"] == "ok"
    pattern = r"inexact \((\d+) of \1 outside, 500 of 500 on a Zipf row\)"
    assert re.fullmatch(pattern, inexact["check"])
    assert any(note.startswith("broken: inexact") for note in bench.notes(report))
    assert bench.inexact(report) == [f"broken on normal, top_p: {inexact['check']}"]
    assert not any("broken" in cell for line in bench.summary_table(report)[1] for cell in line)


def test_wrong_draws_of_an_exact_sampler_are_caught():
    broken = bench.Rival("broken", {}, prepare_least_probable, exact=True)
    (result,) = bench.run_case(CASE, [broken], 1e-4, SHORT)
    assert result["check"].startswith("wrong: drew")
    assert "us" not in result


def test_a_wrong_draw_fails_the_command(monkeypatch, capsys):
    def broken():
        return [bench.Rival("core broken", {}, prepare_least_probable, exact=True)]

    monkeypatch.setattr(bench, "cores", broken)
    with pytest.raises(SystemExit) as exit_:
        cli.main(["bench", "--smoke", "--works", "chain", "--rows", "normal", "--rivals", "none"])
    assert exit_.value.code == 1
    assert "were drawn wrongly" in capsys.readouterr().err


def test_what_a_rival_lacks_is_said():
    unable = bench.Rival("unable", {}, prepare_nothing)
    (result,) = bench.run_case(CASE, [unable], 0.0, SHORT)
    assert result["check"] == "cannot: it cannot do this"
    absent = bench.Rival("absent", {"no_such_module": "no-such-package"}, prepare_nothing)
    assert absent.missing() == "not installed: pip install no-such-package"


def test_equal_values_at_the_cut_are_interchangeable():
    row = np.array([1.0, 2.0, 2.0, 0.0], np.float32)
    expected = bench.Expected(row, {"top_k": 1})
    assert expected.outside([1, 2]) == 0
    assert expected.outside([0, 3]) == 2


def prepare_nonsense(row, params):
    raise RuntimeError("no such thing")


def test_a_rival_that_breaks_does_not_end_the_run():
    broken = bench.Rival("broken", {}, prepare_nonsense)
    (result,) = bench.run_case(CASE, [broken], 1e-4, SHORT)
    assert result["check"] == "failed: RuntimeError: no such thing"
    report = bench.run([CASE], [*first_sampler(), broken], 0.0, vocab=SHORT)
    assert [r["sampler"] for r in report["results"]] == [first_sampler()[0].name]
    assert any("broken: skipped, it does not run" in note for note in bench.notes(report))


def test_calls_are_timed_beside_an_empty_one(monkeypatch):
    (result,) = bench.run_calls(first_sampler(), works=["greedy"])
    assert {"x.max()", "Sampler", "sample()"} <= set(result["us"])
    assert all(us > 0 for us in result["us"].values())


def test_16_bit_and_adversarial_rows_are_timed_beside_their_basis():
    (sampler,) = first_sampler()
    for case in (bench.Case("chain", "constant"), bench.Case("chain", "normal", "float16")):
        assert bench.basis(case) == bench.Case("chain", "normal")
        (result,) = bench.run_case(case, [sampler], 1e-4, SHORT)
        assert result["basis_us"] > 0
    assert bench.basis(CASE) is None


def test_interleaved_times_are_of_each_call():
    made = []
    calls = {
        "a": (bench.Prepared(lambda: made.append("a")), nullcontext),
        "b": (
            bench.Prepared(lambda: made.append("b"), lambda: made.append("-")),
            nullcontext,
        ),
    }
    times = bench.measure(calls, 1e-4)
    assert all(len(t) >= 5 and t == sorted(t) for t in times.values())
    assert "-b" in "".join(made)
    assert made.count("-") == made.count("b")


# ---- runtimes ------------------------------------------------------------------------------------


def made_up_runtime(share=0.25):
    def prepare(sequences):
        calls = []

        def writer(share):
            def write(params, tokens):
                calls.append((share, params, tokens))
                return tokens * sequences, share and 1e-9

            return write

        prepare.calls = calls
        return writer(None), writer(share)

    return bench.Runtime("made up", {}, (1, 8), "4 bits", prepare), prepare


def test_runtimes_write_in_turns_with_both_samplers(monkeypatch, tmp_path, capsys):
    runtime, prepare = made_up_runtime()
    absent = bench.Runtime("absent", {"no_such_module": "no-such"}, (1,), "", prepare)
    monkeypatch.setattr(bench.runtimes, "RUNTIMES", (runtime, absent))
    report = bench.run_runtimes(tokens=3, repeats=2)
    cases = [(r["runtime"], r["sequences"], r["work"]) for r in report["results"]]
    assert cases == [("made up", n, work) for n in (1, 8) for work in ("chain", "top_p")]
    works = [bench.WORKS[work].params for work in ("chain", "top_p")]
    assert [c[0] for c in prepare.calls] == [None, 0.25] * 6
    assert [c[1] for c in prepare.calls] == [works[0]] * 6 + [works[1]] * 6
    assert {c[2] for c in prepare.calls} == {3}
    assert report["runtimes"]["absent"]["skipped"] == "not installed: pip install no-such"
    header, lines = bench.runtimes_table(report)
    assert len(lines) == 4
    assert all(len(line) == len(header) for line in lines)
    assert "top_p=0.95" in lines[1][3]
    assert lines[0][-1].endswith("%")
    script, page = load_script("report"), tmp_path / "page.md"
    first, last = script.marks("runtimes")
    page.write_text(f"above\n{first}\nold\n{last}\n{script.BEGIN}\nkept\n{script.END}\n")
    (tmp_path / "runtimes.json").write_text(json.dumps(report))
    script.main([str(tmp_path / "runtimes.json"), "--into", str(page)])
    text = page.read_text()
    assert "| made up | 4 bits | 1 |" in text
    assert "* absent: skipped, not installed: pip install no-such" in text
    assert "old" not in text
    assert f"{script.BEGIN}\nkept\n{script.END}" in text
    script.main([str(tmp_path / "runtimes.json")])
    assert capsys.readouterr().out in text


def test_the_factor_is_of_the_rates():
    result = {"runtime": "x", "sequences": 1, "work": "chain", "own": {"tokens_per_second": 4.0}}
    report = {
        "runtimes": {"x": {"weights": "float32"}},
        "results": [result | {"fastsample": {"tokens_per_second": 5.0}}],
    }
    _, (line,) = bench.runtimes_table(report)
    assert line[4:] == ["4.00", "5.00", "1.25", ""]


def test_the_command_of_runtimes(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench.runtimes, "RUNTIMES", (made_up_runtime()[0],))
    monkeypatch.setattr(bench, "RUNTIMES", bench.runtimes.RUNTIMES)
    path = tmp_path / "runtimes.json"
    assert cli.main(["bench", "--runtimes", "--smoke", "--json", str(path)]) == 0
    report = json.loads(path.read_text())
    assert (report["kind"], len(report["results"])) == ("runtimes", 4)
    assert bench.runtimes_heading(report) in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["bench", "--runtimes", "--rows", "normal"])
    assert "argument --rows: must not come with --runtimes" in capsys.readouterr().err
    monkeypatch.setattr(
        bench, "RUNTIMES", [bench.Runtime("absent", {"no_such_module": "no-such"}, (), "", None)]
    )
    with pytest.raises(SystemExit):
        cli.main(["bench", "--runtimes"])
    assert "absent is not installed: pip install no-such" in capsys.readouterr().err


def test_the_published_table_of_runtimes_is_that_of_the_stored_report():
    script = load_script("report")
    first, last = script.marks("runtimes")
    text = (ROOT / "README.md").read_text()
    assert text.count(first) == text.count(last) == 1
    shown = text.partition(first)[2].partition(last)[0]
    stored = ROOT / "docs" / "runtimes.json"
    # Until it is measured on a quiet machine there is no table, and no figure either.
    made = script.runtimes(json.loads(stored.read_text())) if stored.is_file() else ""
    assert shown == f"\n{made}"


def test_compare_times_every_case_of_an_installation():
    folder = Path(bench.__file__).parents[2]
    command = [sys.executable, str(ROOT / "bench" / "compare.py"), "--time", str(folder)]
    env = os.environ | {"PYTHONPATH": str(folder)}
    done = subprocess.run(
        [*command, "--seconds", "0"], env=env, capture_output=True, text=True, check=True
    )
    script = load_script("compare")
    assert set(json.loads(done.stdout)) == {f"{r} {w}" for r in script.rows() for w in script.WORKS}
    assert {w: x.params for w, x in bench.MAIN.items()} == script.WORKS


def test_a_sampler_is_as_fast_whichever_backend_had_its_parameters_first():
    params = {"temperature": 0.8125, "top_k": 49}
    with use_backend("reference"):
        survivors(np.zeros(8, np.float32), **params)
    for rival in first_sampler():
        with rival.active():
            own = Sampler(**params, seed=1)
            fresh = Sampler(**params, top_p=0.9375, seed=1)
        assert (own._draw is None) == (fresh._draw is None)
