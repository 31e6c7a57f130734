"""What the bench says of its results: targets, tables, pictures. No test here looks at a time."""

from __future__ import annotations

import json
import re

import pytest
from test_bench import ROOT, SHORT, first_sampler, load_script

from fastsample import bench, cli


def core_result(work, row="normal", dtype="float32", sampler="core avx512", **times):
    """A result as a run gives it; `us` and the like among `times`."""
    vocab = 49_152 if row.startswith("recorded") else bench.VOCAB
    case = {"work": work, "row": row, "dtype": dtype, "vocab": vocab}
    ratio = times["us"] / times["r_us"]
    return case | {"sampler": sampler, "check": "ok", "ratio": ratio} | times


def made_up():
    """A report with a time of every kind: of each target at least one is met or missed."""
    samplers = {"core avx512": True, "core avx2": True, "numba": True, "NumPy": False}
    samplers["llama.cpp"] = False
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
            core_result("typical", sampler="NumPy", us=1300.0, r_us=10.0),
            core_result("typical", sampler="llama.cpp", us=3900.0, r_us=10.0),
            core_result("top_p", sampler="llama.cpp", us=6000.0, r_us=10.0),
        ],
        "calls": [
            {
                "sampler": "core avx512",
                "work": "chain",
                "us": {"x.max()": 1.0, "noop(x)": 0.1, "Sampler": 0.85, "sample()": 99.0},
            }
        ],
        "told": [
            {"sampler": "core avx512", "work": work, "check": "ok", "us": us, "r_us": 10.0}
            | {"basis_us": 20.0}
            for work, us in (("raw, 20", 61.0), ("support", 22.0))
        ],
        "step": [{"sampler": "core avx512", "us": {"step": 13.0, "64 calls": 50.0}}],
        "history": [
            {"sampler": "core avx512", "text": "text", "work": work}
            | {"us": {"4096": 2.0, "1000000": 4.0}}
            for work in ("push", "dry all")
        ],
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
    report["history"] = bench.run_histories(samplers[:1], 1e-4, (8, 64))
    report["growth"] = bench.run_growth(samplers[:1], ["greedy", "chain"], 1e-4, [800, 1600])
    report["batches"] = bench.run_batches(samplers[:1], ["chain"], 1e-4, SHORT)
    path = tmp_path / "stored.json"
    path.write_text(json.dumps(report))
    return path


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
    published = "Times as fast as the fastest published sampler"
    faster = "The same, with what one writes by hand"
    assert found[avx512, "normal", "chain"] == (1.4, 1.5, False)
    assert found[avx512, "recorded", "top_p"] == (2.0, 4.5, False)
    assert found[avx512, "peaked", "top_p"] == (6.0, None, False)
    assert found[avx2, "normal", "chain"] == (3.1, 3.0, True)
    assert found["The same, if it can be had", "normal", "top_p"] == (6.0, 5.0, True)
    assert found[faster, "normal", "chain"] == (10.0, 5.0, False)
    assert found[faster, "normal", "top_p"] == (50.0, 80.0, True)
    assert found[faster, "peaked", "top_p"] == (50.0, 30.0, False)
    assert found[faster, "recorded", "top_p"] == (0.5, None, False)
    assert found[faster, "normal", "typical"] == (10.0, None, False)
    assert found[published, "normal", "typical"] == (30.0, 20.0, False)
    assert found[published, "normal", "top_p"] == (100.0, None, False)
    assert (published, "normal", "chain") not in found
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
    assert found["Told of a draw: time / R", "core avx512", "raw, 20"] == (6.1, 6.0, True)
    alone = "Told of a draw: time / the draw alone"
    assert found[alone, "core avx512", "support"] == (1.1, 1.15, False)
    assert found["numba: time / core's", "normal", "typical"] == (7.692, 8.0, False)
    after = "After so many tokens, V = 16: microseconds"
    assert found[after, "text, 1,000,000", "push"] == (4.0, None, False)
    growth = "After the most tokens: time / after the fewest"
    assert found[growth, "text", "push"] == (2.0, 1.5, True)
    assert found[growth, "text", "dry all"] == (2.0, None, False)
    calls = "Calls, V = 16: microseconds"
    assert found[calls, "Sampler, above noop(x)", "chain"] == (0.75, 0.8, False)
    assert found[calls, "sample()", "chain"] == (99.0, 4.0, True)
    batches = "64 rows: times as fast as on one thread"
    assert found[batches, "2 threads", "chain"] == (1.8, 1.8, False)
    assert found["numba: time / core's", "normal", "chain"] == (4.286, 4.0, True)
    assert set(bench.outcomes(made_up())) == set(bench.GROUPS)


def test_what_is_written_by_hand_is_no_published_sampler():
    assert set(bench.BY_HAND) < {rival.name for rival in bench.RIVALS}


def test_summary_shows_misses_and_losses():
    text = bench.summary(made_up())
    assert "13 of 26 targets met" in text
    assert "sample(), chain: 99.0! (at most 4)" in text
    assert re.search(r"recorded +top_p .* 10\.0 +0\.500 LOSS", text)
    assert re.search(r"normal +typical .* llama\.cpp +3,900 +30\.0 +1,300 +10\.0", text)
    assert "core avx512: slower than the fastest exact rival in 1 of 5 cases: top_p 1" in text
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


def test_steps_after_long_histories(stored):
    report = json.loads(stored.read_text())
    timed = {(h["text"], h["work"]): h["us"] for h in report["history"]}
    assert {text for text, _ in timed} == {"text", "one token"}
    assert all(set(us) == {"8", "64"} and min(us.values()) > 0 for us in timed.values())
    lines = {o.line for o in bench.outcomes(report)["After so many tokens, V = 16: microseconds"]}
    assert lines == {"text, 8", "text, 64", "one token, 8", "one token, 64"}


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


def test_the_readme_shows_no_targets():
    text = (ROOT / "README.md").read_text()
    assert "targets met" not in text
    assert "at most |" not in text
    assert not re.search(r"\d!", text)
    page = (ROOT / "docs" / "performance.md").read_text()
    assert "targets met" in page
    assert "at most |" in page


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
