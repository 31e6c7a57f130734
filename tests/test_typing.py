"""Types as a user of ``mypy --strict`` meets them: what is right passes, every wrong line fails."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "typing"


def errors_of(name: str, tmp_path: Path) -> dict[int, str]:
    """Return the first error of each line of a file, which lies outside of the checkout."""
    if find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    shutil.copy(FOLDER / name, tmp_path)
    options = ("--strict", "--no-error-summary", "--config-file=", f"--cache-dir={tmp_path}/cache")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "--python-executable", sys.executable, name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode in (0, 1), done.stderr + done.stdout
    found: dict[int, str] = {}
    for line, text in re.findall(rf"^{name}:(\d+): error: (.*)$", done.stdout, re.MULTILINE):
        found.setdefault(int(line), text)
    return found


def test_what_is_right(tmp_path: Path) -> None:
    assert errors_of("right.py", tmp_path) == {}


def test_what_is_wrong(tmp_path: Path) -> None:
    found = errors_of("wrong.py", tmp_path)
    lines = (FOLDER / "wrong.py").read_text().splitlines()
    calls = {i for i, line in enumerate(lines, 1) if line.startswith("fs.")}
    assert len(calls) > 30
    accepted = [lines[i - 1] for i in sorted(calls - set(found))]
    assert not accepted
    assert set(found) == calls, "errors in lines that are right"
