"""The pictures of `fastsample explain`: whole, apart, the same each time, in any language."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from functools import partial
from importlib.util import find_spec

import numpy as np
import pytest

from fastsample import cli
from fastsample.cli import explain as command
from fastsample.cli import stories


@pytest.fixture
def run(command_line):
    return partial(command_line.run, "explain")


@pytest.fixture
def refusal(command_line):
    error = "fastsample explain: error: "
    return lambda *options: command_line.refusal("explain", *options).removeprefix(error)


def hide(monkeypatch, missing):
    spec = find_spec
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == missing else spec(name))


@pytest.fixture
def matplotlib():
    return pytest.importorskip("matplotlib", reason="matplotlib is not installed")


def test_without_matplotlib(refusal, monkeypatch, tmp_path):
    hide(monkeypatch, "matplotlib")
    message = refusal("--plot", tmp_path / "x.png")
    assert message == "argument --plot: needs matplotlib: pip install 'fastsample[plot]'"
    assert not list(tmp_path.iterdir())


STAGES = "--prompt 4 --temperature 0.8 --top-k 8 --top-p 0.85 --min-p 0.3"


EDITED = "--logits 9,8,7,6 --tokens A,B,C,D --history 0,0,1 --presence-penalty 1 --logit-bias 3:2"
LATE = "--prompt 7 --typical-p 0.5 --xtc-probability 0.5 --xtc-threshold 0.06 --order llama.cpp"


@pytest.mark.parametrize(
    "options",
    [
        STAGES,
        EDITED,
        f"{LATE} --temperature 1.3 --seed 2",
        "--prompt 2",
        "--prompt 5 --temperature 0",
        *(f"--story {s}" for s in stories.STORIES),
    ],
)
@pytest.mark.parametrize("kind", ["png", "svg"])
def test_pictures(matplotlib, run, tmp_path, options, kind):
    path = tmp_path / f"picture.{kind}"
    assert f"wrote {path}" in run(*options.split(), "--plot", path)
    content = path.read_bytes()
    if kind == "png":
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        image = matplotlib.image.imread(path)
        assert image.shape[1] == 1920  # of a slide
        assert len(np.unique(image[..., 0])) > 10  # it is not blank
        return
    texts = [element.text for element in ET.fromstring(content).iter() if element.text]
    for e in json.loads(run(*options.split(), "--json"))["explanations"]:
        for token in e["tokens"][:10]:
            assert token["text"] in texts
        assert any(f"kept {e['kept']:,}" in text for text in texts) or len(e["stages"]) == 1


LONG = ("temperature=1.5", "temperature=1.5,top_p=0.95,min_p=0.001,order=llama.cpp", "top_k=500")


@pytest.mark.parametrize(
    "options",
    [
        STAGES,
        f"{EDITED} --top-k 2 --suppress-tokens 1",
        f"{LATE} --temperature 1.3 --seed 2",
        "--prompt 9 --min-p 0.05 --adaptive-target 0.1 --order min_p,adaptive",
        f"{STAGES} --order llama.cpp --u 0.999",
        "--prompt 10 --top-p 0.6 --top 14 --seed 3",
        "--prompt 12 --seed 18446744073709551615 --offset 18446744073709551615",
        "--logits 3,2,1 --tokens tokens-with-names-too-long-to-show,$,B --top-k 2 --min-p 0.5",
        *(
            f"--prompt 9 --compare {';'.join(f'{s},u={u}' for s in LONG)}"
            for u in (0.4, 0.93, 0.97)
        ),
        *(f"--story {s}" for s in stories.STORIES),
    ],
)
def test_texts_of_a_picture_are_whole_and_apart(matplotlib, run, tmp_path, monkeypatch, options):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    drawn, found = [], []
    draw = Text.draw

    def spy(self, renderer):
        if self.get_visible() and self.get_text().strip():
            drawn.append(self)
        draw(self, renderer)

    def measure(figure, *_, **__):
        FigureCanvasAgg(figure).draw()
        found.extend((text.get_text(), text.get_window_extent()) for text in dict.fromkeys(drawn))
        found.append(figure.bbox)

    monkeypatch.setattr(Text, "draw", spy)
    monkeypatch.setattr(Figure, "savefig", measure)
    run(*options.split(), "--plot", tmp_path / "x.png")
    whole = found.pop()
    assert len(found) > 8
    for i, (text, box) in enumerate(found):
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= whole.x1, text
        assert box.y1 <= whole.y1, text
        for other, its in found[:i]:
            across = min(box.x1, its.x1) - max(box.x0, its.x0)
            down = min(box.y1, its.y1) - max(box.y0, its.y0)
            # Lines are higher than what stands in them.
            assert across <= 0 or down <= 0.35 * min(box.height, its.height), (text, other)


def test_a_picture_is_the_same_each_time(matplotlib, run, tmp_path):
    paths = [tmp_path / "a.svg", tmp_path / "b.svg"]
    for path in paths:
        run(*STAGES.split(), "--plot", path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_no_empty_boxes(matplotlib, tmp_path, monkeypatch, capsys):
    """What no font can draw is written as an escape, and said."""
    from fastsample.cli import explain_plot

    seen = []
    draw = explain_plot.draw_stages
    monkeypatch.setattr(explain_plot, "_installed", dict)

    def spy(title, label, e, write):
        seen.extend(write(token.text) for token in e.tokens)
        return draw(title, label, e, write)

    monkeypatch.setattr(explain_plot, "draw_stages", spy)
    options = ["explain", "--logits", "2,1,0", "--tokens", "的,é,$x$", "--plot"]
    assert cli.main([*options, str(tmp_path / "x.png")]) == 0
    assert "No installed font has 的" in capsys.readouterr().err
    assert seen == ["\\u7684", "é", "\\$x\\$"]
    seen.clear()
    assert cli.main([*options, str(tmp_path / "x.svg")]) == 0
    assert capsys.readouterr().err == ""
    assert seen == ["的", "é", "\\$x\\$"]
    assert "的" in (tmp_path / "x.svg").read_text(encoding="utf-8")


def test_a_font_is_found_for_each_character(matplotlib):
    from fastsample.cli import explain_plot

    families, missing = explain_plot.find_fonts("aé的")
    assert missing <= {"的"}
    if missing:
        pytest.skip("no installed font has Chinese characters")
    files = explain_plot._installed()
    assert any("的" in explain_plot._characters(files[f]) for f in families if f in files)
    assert not any(family.startswith("Last Resort") for family in families)
