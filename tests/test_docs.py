"""What the documentation says is true: examples run, signatures match, README's code works."""

from __future__ import annotations

import doctest
import inspect
import re
from importlib.metadata import metadata
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import fastsample as fs

ROOT = Path(__file__).resolve().parents[1]
FUNCTIONS = [name for name in fs.__all__ if callable(getattr(fs, name))]


def sections(name: str) -> dict[str, str]:
    """The sections of a numpydoc docstring by their titles."""
    doc = inspect.getdoc(getattr(fs, name)) or ""
    parts = re.split(r"^([A-Z][A-Za-z ]+)\n-{3,}\n", doc, flags=re.MULTILINE)
    return dict(zip(["Summary", *parts[1::2]], parts[::2], strict=True))


def documented_parameters(text: str) -> set[str]:
    """Names of entries like ``a, b : type`` or ``a, b``, which a backslash may continue."""
    entries = [line for line in text.replace("\\\n", "").splitlines() if line[:1].strip()]
    return {name.strip() for line in entries for name in line.partition(" : ")[0].split(",")}


def test_public_names() -> None:
    assert list(fs.__all__) == sorted(fs.__all__)
    assert all(hasattr(fs, name) for name in fs.__all__)
    assert set(FUNCTIONS) == set(fs.__all__) - {"ORDERS"}
    version = metadata("fastsample")["Version"]
    assert fs.__version__ == version == fs.build_info()["version"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_examples(variant: str, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Of the installed object, not of a path: a path could be the source folder's.
    monkeypatch.chdir(tmp_path)
    examples = doctest.DocTestFinder(recurse=False).find(getattr(fs, name), name, globs={})
    assert sum(len(test.examples) for test in examples) > 0
    report: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    failed = sum(runner.run(test, out=report.append).failed for test in examples)
    assert failed == 0, "".join(report)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstrings(name: str) -> None:
    public = getattr(fs, name)
    doc = sections(name)
    summary = doc["Summary"].split("\n\n")[0]
    assert summary.endswith(".")
    assert "Examples" in doc
    parameters = set(inspect.signature(public).parameters)
    assert documented_parameters(doc.get("Parameters", "")) == parameters
    if not inspect.isclass(public) and name != "use_backend":
        assert {"Returns", "Yields"} & set(doc)


def test_order_presets_are_documented() -> None:
    for preset in fs.ORDERS:
        assert f'"{preset}"' in (fs.sample.__doc__ or "")


def test_files_that_are_shipped() -> None:
    package = files("fastsample")
    assert (package / "py.typed").is_file()
    assert (package / "data" / "README.md").is_file()
    if "core" in fs.backends():
        assert (package / "_core.pyi").is_file()


def test_readme(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if not (ROOT / "pyproject.toml").is_file():
        pytest.skip("these tests run outside of a checkout, which has the README")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    assert blocks, "README.md shows no Python"
    monkeypatch.chdir(tmp_path)
    shared: dict[str, Any] = {"__name__": "readme"}
    for number, block in enumerate(blocks):
        if ">>>" in block:
            test = doctest.DocTestParser().get_doctest(block, shared, f"README {number}", None, 0)
            report: list[str] = []
            result = doctest.DocTestRunner(verbose=False).run(
                test, out=report.append, clear_globs=False
            )
            assert result.failed == 0, "".join(report)
            shared.update(test.globs)
        else:
            exec(compile(block, f"README.md, block {number}", "exec"), shared)
