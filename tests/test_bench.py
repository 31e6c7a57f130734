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


def core_result(work, row="normal", dtype="float32", sampler="core avx512", **times):
    """A result as a run gives it; `us` and the like among `times`."""
    vocab = 49_152 if row.startswith("recorded") else bench.VOCAB
    case = {"work": work, "row": row, "dtype": dtype, "vocab": vocab}
    ratio = times["us"] / times["r_us"]
    return case | {"sampler": sampler, "check": "ok", "ratio": ratio} | times


def made_up():
    """A report with a time of every kind: of each target at least one is met or missed."""
    samplers = {"core avx512": True, "core avx2": True, "numba": True, "NumPy": False}
    entry = {"skipped": None, "versions": {}}
    return {
        "format": bench.FORMAT,
        "machine": bench.machine() | {"l2_bytes": 2**20, "cpus": 2},
        "samplers": {name: entry | {"own": own} for name, own in samplers.items()},
        "results": [
            core_result("chain", us=14.0, r_us=10.0),
            core_result("chain", sampler="core avx2", us=31.0, r_us=10.0),
            core_result("chain", sampler="numba", us=60.0, r_us=10.0),
            core_result("chain", sampler="NumPy", us=140.0, r_us=10.0),
            core_result("top_p", us=60.0, r_us=10.0),
            core_result("top_p", sampler="NumPy", us=3000.0, r_us=10.0),
            core_result("top_p", "peaked", us=60.0, r_us=10.0),
            core_result("top_p", "peaked", sampler="NumPy", us=3000.0, r_us=10.0),
            core_result("top_p", "recorded", us=20.0, r_us=10.0),
            core_result("top_p", "recorded", sampler="NumPy", us=10.0, r_us=10.0),
            core_result("chain", dtype="float16", us=9.0, r_us=10.0, basis_us=10.0),
            core_result("min_p", "constant", us=12.0, r_us=10.0, basis_us=10.0),
            core_result("adaptive", us=16.0, r_us=10.0, basis_us=12.0),
            core_result("penalties", us=18.0, r_us=10.0, basis_us=12.0),
            core_result("dry", "flat", us=26.0, r_us=10.0, basis_us=12.0),
            core_result("typical", us=130.0, r_us=10.0),
            core_result("typical", sampler="core avx2", us=999.0, r_us=10.0),
            core_result("typical", sampler="numba", us=1000.0, r_us=10.0),
        ],
        "calls": [
            {
                "sampler": "core avx512",
                "work": "chain",
                "us": {"x.max()": 1.0, "noop(x)": 0.1, "Sampler": 0.85, "sample()": 99.0},
            }
        ],
        "step": [{"sampler": "core avx512", "us": {"step": 13.0, "64 calls": 50.0}}],
        "growth": [
            {"vocab": v, "sampler": "core avx512", "work": "chain", "us": us, "r_us": v / 1e4}
            for v, us in ((8_000, 2.0), (128_000, 8.0), (1_000_000, 160.0))
        ],
        "batches": [
            {
                "sampler": "core avx512",
                "work": "chain",
                "rows": 64,
                "vocab": bench.VOCAB,
                "check": "ok",
                "parallel": 1.95,
                "us": {"1": 900.0, "2": 500.0, "default": 450.0},
            }
        ],
        "numba_first_s": [14.0, 2.0],
    }


@pytest.fixture
def stored(tmp_path):
    """A report with times, as JSON gives it back."""
    cases = bench.grid(["normal", "recorded", "ascending"], ["greedy", "chain"], ["float32"])
    rivals = [rival for rival in bench.RIVALS if rival.name in ("NumPy", "ctranslate2")]
    samplers = [*first_sampler(), *rivals]
    report = bench.run(cases, samplers, 1e-4, vocab=SHORT)
    report["growth"] = bench.run_growth(samplers[:1], ["greedy", "chain"], 1e-4, [800, 1600])
    report["batches"] = bench.run_batches(samplers[:1], ["chain"], 1e-4, SHORT)
    path = tmp_path / "stored.json"
    path.write_text(json.dumps(report))
    return path


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
    able = [r for r in report["results"] if r["check"] == "ok"]
    assert f"{len(able)} results checked" in out
    assert "normal float32: greedy chain" in err


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
    for result in bench.run_case(CASE, [rival], 0.0, SHORT):
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


@pytest.mark.parametrize("row", bench.COMPARED)
def test_every_work_has_a_target_or_says_so(row):
    report = made_up()
    times = {"us": 10.0, "r_us": 10.0, "basis_us": 10.0}
    report["results"] = [core_result(work, row, **times) for work in bench.WORKS]
    (group,) = (g for title, g in bench.outcomes(report).items() if "AVX-512" in title)
    bounded = {o.work for o in group if o.target is not None}
    judged = {name for name, work in bench.WORKS.items() if work.normal is not None}
    assert bounded == (set() if row in ("flat", "peaked") else judged)


def test_a_work_without_a_bound_of_its_own_is_bound_beside_another():
    for name, work in bench.WORKS.items():
        assert (work.normal is None) == (work.over is not None), name
        if work.over:
            assert work.over.base in bench.MAIN
            assert bench.basis(bench.Case(name, "normal")) == bench.Case(work.over.base, "normal")


def test_targets_met_and_missed():
    found = {
        (title, o.line, o.work): (round(o.value, 3), o.target, o.missed)
        for title, group in bench.outcomes(made_up()).items()
        for o in group
    }
    avx512, avx2 = "Core on AVX-512: time / R", "Core on AVX2: time / R"
    faster = "Times as fast as the fastest exact rival"
    assert found[avx512, "normal", "chain"] == (1.4, 1.5, False)
    assert found[avx512, "recorded", "top_p"] == (2.0, 4.5, False)
    assert found[avx512, "peaked", "top_p"] == (6.0, None, False)
    assert found[avx2, "normal", "chain"] == (3.1, 3.0, True)
    assert found["The same, if it can be had", "normal", "top_p"] == (6.0, 5.0, True)
    assert found[faster, "normal", "chain"] == (10.0, 5.0, False)
    assert found[faster, "normal", "top_p"] == (50.0, 80.0, True)
    assert found[faster, "peaked", "top_p"] == (50.0, 30.0, False)
    assert found[faster, "recorded", "top_p"] == (0.5, None, False)
    assert found["16-bit rows: time / float32's", "normal float16", "chain"] == (0.9, 0.8, True)
    adversarial = "Adversarial rows: time / normal row's"
    assert found[adversarial, "constant", "min_p"] == (1.2, 1.5, False)
    in_l2, beyond = "Growth in L2: (time/V) / the smallest", "Growth beyond L2: time / R"
    assert found[in_l2, "V = 8,000", "chain"] == (4.0, 1.5, True)
    assert found[in_l2, "V = 128,000", "chain"] == (1.0, 1.5, False)
    assert found[beyond, "V = 1,000,000", "chain"] == (1.6, 1.5, True)
    assert found[avx512, "normal", "typical"] == (13.0, 14.0, False)
    assert found[avx2, "normal", "typical"] == (99.9, None, False)
    assert found[avx512, "normal", "penalties"] == (1.8, None, False)
    more = "Beyond min_p alone: (time - its) / R"
    assert found[more, "normal", "adaptive"] == (0.4, 0.3, True)
    assert found["Beside the chain alone: time / its", "normal", "penalties"] == (1.5, 1.25, True)
    beyond_chain = "Beyond the chain alone: microseconds"
    assert found[beyond_chain, "flat", "dry"] == (14.0, None, False)
    assert found["64 samplers, V = 16: microseconds", "step", "step"] == (13.0, 12.0, True)
    assert found["numba: time / core's", "normal", "typical"] == (7.692, 8.0, False)
    calls = "Calls, V = 16: microseconds"
    assert found[calls, "Sampler, above noop(x)", "chain"] == (0.75, 0.8, False)
    assert found[calls, "sample()", "chain"] == (99.0, 4.0, True)
    batches = "64 rows: times as fast as on one thread"
    assert found[batches, "2 threads", "chain"] == (1.8, 1.8, False)
    assert found["numba: time / core's", "normal", "chain"] == (4.286, 4.0, True)
    assert set(bench.outcomes(made_up())) == set(bench.GROUPS)


def test_summary_shows_misses_and_losses():
    text = bench.summary(made_up())
    assert "11 of 22 targets met" in text
    assert "sample(), chain: 99.0! (at most 4)" in text
    assert re.search(r"recorded +top_p .* NumPy +10\.0 +0\.500 LOSS", text)
    assert "core avx512: slower than the fastest exact rival in 1 of 4 cases: top_p 1" in text
    assert "14.0 s with an empty cache" in bench.details(made_up())


def test_two_threads_are_not_judged_where_two_cores_are_not_free():
    report = made_up()
    report["batches"][0]["parallel"] = 1.2
    batches = bench.outcomes(report)["64 rows: times as fast as on one thread"]
    assert [o.target for o in batches] == [None, None]
    assert any("two cores were not free in 1 of 1 cases" in note for note in bench.notes(report))


def test_growth_is_not_judged_where_the_cache_is_unknown():
    report = made_up()
    report["machine"]["l2_bytes"] = None
    assert not any("Growth" in title for title in bench.outcomes(report))
    assert "Growth, core avx512: ns a logit" in bench.details(report)


def test_every_outcome_is_in_a_table():
    report = made_up()
    for title, group in bench.outcomes(report).items():
        works = {o.work for o in group}
        shown = [t for t in bench.detail_tables(report) if t[0][0] == title]
        assert works == {work for header, _ in shown for work in header[1:]}, title


def test_a_run_without_the_rows_of_the_summary_is_shown():
    own = first_sampler()
    report = bench.run([bench.Case("greedy", "constant")], own, 1e-4, vocab=SHORT)
    assert "constant" in f"{bench.summary(report)}{bench.details(report)}"


def test_printed_tables_fit_a_terminal(stored):
    for report in (made_up(), json.loads(stored.read_text())):
        text = f"{bench.summary(report)}\n{bench.details(report)}"
        assert max(map(len, text.splitlines())) <= 105


def test_calls_are_timed_beside_an_empty_one(monkeypatch):
    (result,) = bench.run_calls(first_sampler(), works=["greedy"])
    assert {"x.max()", "Sampler", "sample()"} <= set(result["us"])
    assert all(us > 0 for us in result["us"].values())


def test_growth_and_batches(stored):
    report = json.loads(stored.read_text())
    assert [(g["vocab"], g["work"]) for g in report["growth"]] == [
        (800, "greedy"),
        (800, "chain"),
        (1600, "greedy"),
        (1600, "chain"),
    ]
    (batch,) = report["batches"]
    assert batch["check"] == "ok"
    assert set(batch["us"]) == {"1", "2", "default"}


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


def test_markdown_of_a_stored_report(stored, tmp_path, capsys):
    script = load_script("report")
    script.main([str(stored)])
    text = capsys.readouterr().out
    report = json.loads(stored.read_text())
    assert bench.heading(report) in text
    assert "| normal | chain |" in text
    assert "* ctranslate2: skipped, " in text
    page = tmp_path / "page.md"
    page.write_text(f"above\n{script.BEGIN}\nold\n{script.END}\nbelow\n")
    for _ in range(2):  # a second time changes nothing
        script.main([str(stored), "--into", str(page)])
        assert page.read_text() == f"above\n{script.BEGIN}\n{text}{script.END}\nbelow\n"
    script.main([str(stored), "--short-into", str(page)])
    assert "| normal | chain |" in page.read_text()
    assert len(page.read_text()) < len(text)


def test_pictures_are_linked_from_where_the_page_is(stored, tmp_path):
    pytest.importorskip("matplotlib")
    script = load_script("report")
    (tmp_path / "images").mkdir()
    page = tmp_path / "page.md"
    page.write_text(f"{script.BEGIN}\n{script.END}\n")
    picture = tmp_path / "images" / "bench.svg"
    script.main([str(stored), "--into", str(page), "--plot", str(picture)])
    links = re.findall(r"!\[.*\]\((.*)\)", page.read_text())
    assert links == ["images/bench.svg", "images/bench-growth.svg"]
    assert all((tmp_path / link).stat().st_size > 1000 for link in links)


def test_a_report_of_another_format_is_refused(tmp_path):
    path = tmp_path / "old.json"
    path.write_text('{"format": 1}')
    with pytest.raises(SystemExit, match="has format 1, not"):
        load_script("report").main([str(path)])


def test_the_readme_and_the_page_have_places_for_tables():
    script = load_script("report")
    for page in ("README.md", "docs/performance.md"):
        text = (ROOT / page).read_text()
        assert text.count(script.BEGIN) == text.count(script.END) == 1


def published(text):
    """What stands between the marks, without pictures, for which matplotlib may be missing."""
    script = load_script("report")
    text = text.partition(script.BEGIN)[2].partition(script.END)[0]
    return [line for line in text.splitlines() if line and not line.startswith("![")]


def test_published_tables_are_those_of_the_stored_report():
    script = load_script("report")
    report = json.loads((ROOT / "docs" / "bench.json").read_text())
    if report["format"] != bench.FORMAT:
        pytest.skip("docs/bench.json is of an older bench: run `fastsample bench` again")
    for page, write in (("README.md", script.short), ("docs/performance.md", script.full)):
        made = f"{script.BEGIN}\n{write(report, [])}{script.END}"
        assert published((ROOT / page).read_text()) == published(made), page


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


def test_the_readme_shows_no_targets():
    text = (ROOT / "README.md").read_text()
    assert "targets met" not in text
    assert "at most |" not in text
    assert not re.search(r"\d!", text)
    page = (ROOT / "docs" / "performance.md").read_text()
    assert "targets met" in page
    assert "at most |" in page


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


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_plot_of_a_stored_report(stored, tmp_path, suffix):
    pytest.importorskip("matplotlib")
    path = tmp_path / f"bench.{suffix}"
    bench.plot(json.loads(stored.read_text()), str(path))
    assert path.stat().st_size > 1000


def test_a_plot_without_matplotlib_is_refused_at_once(monkeypatch, capsys):
    first_sampler()
    monkeypatch.setattr(cli.bench, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as exit_:
        cli.main(["bench", "--plot", "x.png"])
    assert exit_.value.code == 2
    assert "pip install matplotlib" in capsys.readouterr().err


def test_a_sampler_is_as_fast_whichever_backend_had_its_parameters_first():
    params = {"temperature": 0.8125, "top_k": 49}
    with use_backend("reference"):
        survivors(np.zeros(8, np.float32), **params)
    for rival in first_sampler():
        with rival.active():
            own = Sampler(**params, seed=1)
            fresh = Sampler(**params, top_p=0.9375, seed=1)
        assert (own._draw is None) == (fresh._draw is None)
