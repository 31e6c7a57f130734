"""Run a script in a new process, in which `drawn(draw)` is what forked children and it draw."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

PRELUDE = """
import json, os

def drawn(draw):
    told = []
    for _ in range(2):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(write, json.dumps(draw()).encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            told.append(json.load(pipe))
        assert os.waitpid(pid, 0)[1] == 0
    return [*told, draw()]

"""


def different(script: str) -> Any:
    """Return how many different things `drawn(draw)` has for each draw of `draws`, a dict."""
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    tell = "\nprint(json.dumps({n: len(set(map(str, drawn(d)))) for n, d in draws.items()}))"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + script + tell], cwd=os.path.dirname(__file__),
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
