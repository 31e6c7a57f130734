"""Eight threads draw at once what one draws alone; where Python has no GIL, none comes back.

Meant for a free-threaded CPython with fastsample installed, and right on any other:
``python tests/free_threaded.py``. Depends on fastsample and NumPy alone.
"""

from __future__ import annotations

import sys
import sysconfig
from threading import Barrier, Thread

import numpy as np

import fastsample

THREADS = 8
DRAWS = 200
PARAMETERS = {"temperature": 0.8, "top_k": 50, "top_p": 0.95}


def rows() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 2.5, (THREADS, 8_000)).astype(np.float32)


def draw(logits: np.ndarray, thread: int, tokens: list[list[int]], begin: Barrier) -> None:
    """What a thread draws from all rows: by a sampler of its own, and as a batch."""
    begin.wait()
    sampler = fastsample.Sampler(**PARAMETERS, seed=thread)
    for i in range(DRAWS):
        tokens[thread].append(int(sampler(logits[i % THREADS])))
        batch = fastsample.sample(logits, **PARAMETERS, seed=thread, offset=i, threads=2)
        tokens[thread].extend(batch.tolist())


def draw_all(at_once: int) -> list[list[int]]:
    logits, tokens = rows(), [[] for _ in range(THREADS)]
    for first in range(0, THREADS, at_once):
        begin = Barrier(at_once)
        threads = [
            Thread(target=draw, args=(logits, thread, tokens, begin))
            for thread in range(first, first + at_once)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return tokens


def main() -> None:
    assert fastsample.build_info()["backend"] == "core", fastsample.build_info()
    alone, together = draw_all(1), draw_all(THREADS)
    assert all(len(tokens) == DRAWS * (THREADS + 1) for tokens in alone)
    assert together == alone
    free = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    assert not (free and sys._is_gil_enabled()), "the GIL came back"
    print(f"{THREADS} threads drew what one draws, {'without' if free else 'with'} a GIL")


if __name__ == "__main__":
    main()
