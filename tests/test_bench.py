"""The bench: what it checks and what it reports. No test here looks at a time."""

from __future__ import annotations

import importlib.util
import json
import re
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from fastsample import bench, cli

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


@pytest.fixture
def stored(tmp_path):
    """A report with times, as JSON gives it back."""
    cases = bench.grid(["normal", "recorded", "ascending"], ["greedy", "chain"], ["float32"])
    rivals = [rival for rival in bench.RIVALS if rival.name in ("NumPy", "ctranslate2")]
    report = bench.run(cases, [*first_sampler(), *rivals], 1e-4, vocab=SHORT)
    report["growth"] = [{"vocab": v, "sampler": "x", "us": {"R": v / 1e4}} for v in (8000, 16000)]
    report["overhead"] = {"Sampler, V = 16, greedy": 0.5, "sample(), V = 16, greedy": 99.0}
    path = tmp_path / "stored.json"
    path.write_text(json.dumps(report))
    return path


def first_sampler():
    own = [*bench.cores(), *(rival for rival in bench.RIVALS if rival.exact)]
    found = [rival for rival in own if not rival.missing()][:1]
    if not found:
        pytest.skip("only the reference can run here")
    return found


def load_report_script():
    spec = importlib.util.spec_from_file_location("report", ROOT / "bench" / "report.py")
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
    assert {r["check"] for r in report["results"]} == {"ok"}
    assert not any("us" in r for r in report["results"])
    assert f"{len(report['results'])} results checked" in out
    assert "normal float32: greedy chain" in err


def test_report_says_on_what_it_was_taken(smoke):
    first_sampler()
    report, (out, _) = smoke("--rivals", "none", "--rows", "constant", "--works", "greedy")
    machine = report["machine"]
    assert report["format"] == 1
    assert {"cpu", "commit", "date", "isa", "isas", "numpy", "python", "version"} <= set(machine)
    assert machine["cpu"] in out
    assert {r["row"] for r in report["results"]} == {"constant"}


@pytest.mark.parametrize(
    ("option", "value"),
    [("--rows", "sideways"), ("--works", "nap"), ("--rivals", "dice"), ("--isa", "mmx")],
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
    assert "broken" not in bench.targets_table(report)[1][0]
    assert bench.rivals_table(report)[1][0][-1].endswith("*")


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


def test_targets():
    normal, cold = bench.Case("chain", "normal"), bench.Case("cold", "recorded")
    assert bench.target(normal, "avx512") == bench.Target("R", 2.5, 1.5)
    assert bench.target(normal, "avx2") == bench.Target("R", None, 3.0)
    assert bench.target(normal, "scalar") is None
    assert bench.target(cold, "avx512") == bench.Target("R", None, 2.5)
    assert bench.target(bench.Case("chain", "constant"), "avx2") == bench.Target("normal", 2.0, 1.5)
    half = bench.Case("top_p", "normal", "float16")
    assert bench.target(half, "avx512") == bench.Target("float32", None, 1.1)
    aim = bench.Target("R", 2.5, 1.5)
    assert [bench.verdict(ratio, aim) for ratio in (1.5, 2.5, 2.6)] == ["goal", "ok", "miss"]


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
    script = load_report_script()
    script.main([str(stored)])
    text = capsys.readouterr().out
    report = json.loads(stored.read_text())
    assert bench.heading(report) in text
    assert "| normal | chain |" in text
    assert "* ctranslate2: skipped, " in text
    assert "| 99.00 | 4 | miss |" in text
    page = tmp_path / "page.md"
    page.write_text(f"above\n{script.BEGIN}\nold\n{script.END}\nbelow\n")
    for _ in range(2):  # a second time changes nothing
        script.main([str(stored), "--into", str(page)])
        assert page.read_text() == f"above\n{script.BEGIN}\n{text}{script.END}\nbelow\n"


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_plot_of_a_stored_report(stored, tmp_path, suffix):
    pytest.importorskip("matplotlib")
    path = tmp_path / f"bench.{suffix}"
    bench.plot(json.loads(stored.read_text()), str(path))
    assert path.stat().st_size > 1000


def test_a_plot_without_matplotlib_is_refused_at_once(monkeypatch, capsys):
    first_sampler()
    monkeypatch.setattr(bench, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as exit_:
        cli.main(["bench", "--plot", "x.png"])
    assert exit_.value.code == 2
    assert "pip install matplotlib" in capsys.readouterr().err
