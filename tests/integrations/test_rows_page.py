"""docs/offline.md as a reader follows it: its Python and its commands, one after the other."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import socket

import pytest
from test_docs import BLOCKS, CHECKOUT, commands_of

from fastsample import cli

pytest.importorskip("distributed")
ray = pytest.importorskip("ray")
pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of the engines' own parts
    pytest.mark.skipif(not CHECKOUT, reason="these tests run outside of a checkout"),
]

PAGE = "docs/offline.md"
ADDRESS = "tcp://127.0.0.1:8786"


def run_python(text, line, shared):
    """Run a block; what it says that it prints, it prints."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile("\n" * line + text, PAGE, "exec"), shared)
    printed = out.getvalue().splitlines()
    for said in re.findall(r"^print\(.*\)  # (.+)$", text, flags=re.MULTILINE):
        assert said in printed


def test_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with socket.socket() as free:  # the page's port may be another's
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"__name__": "page"}
    ran = {"python": 0, "sh": 0}
    try:
        for block in BLOCKS:
            if block.page != PAGE:
                continue
            text = block.text.replace("8786", port)
            ran[block.language] += 1
            if block.language == "python":
                run_python(text, block.line, shared)
                continue
            for command in commands_of(block._replace(text=text)):
                if command.startswith("pip install "):
                    assert re.fullmatch(r"pip install '\.\[(rows|dask|ray)\]'", command)
                    continue
                program, *arguments = shlex.split(command)
                assert program == "fastsample"
                assert cli.main(arguments) == 0, command
                assert "tokens" in capsys.readouterr().out
    finally:
        ray.shutdown()
        if "cluster" in shared:
            shared["cluster"].close()
    assert min(ran.values()) > 5
    assert ADDRESS in "".join(block.text for block in BLOCKS if block.page == PAGE)
