"""Rows that the tests of stores draw from, stores of them, and runs that were stopped."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from threading import Thread
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import fastsample as fs
from fastsample.rows import RowSampler, Stored, draw_file, open_logits
from fastsample.rows.journal import TokensFile

N, V = 403, 600
LOGITS = np.random.default_rng(1).normal(0, 2.5, (N, V)).astype(np.float32)
HALF = LOGITS.astype(np.float16)
BRAIN = LOGITS.astype(ml_dtypes.bfloat16)
CHAIN: dict[str, Any] = {"temperature": 0.8, "top_k": 50, "top_p": 0.95}
WHOLE = fs.sample(HALF, seed=7, offset=3, **CHAIN)
DRAW = RowSampler(7, offset=3, **CHAIN)
OPTIONS = ["--temperature=0.8", "--top-k=50", "--top-p=0.95", "--seed=7", "--offset=3"]


class Slow(Stored):
    """A store that takes its time, and leaves a file for each piece and process that reads it."""

    def __init__(self, logits, folder, seconds):
        self.logits, self.folder, self.seconds = logits, folder, seconds
        self.path, self.shape, self.dtype = logits.path, logits.shape, logits.dtype

    def read(self, first, stop):
        self.folder.joinpath(f"{first} {os.getpid()}").touch()
        time.sleep(self.seconds * (1 if first else 5))  # the first piece is not the first to come
        return self.logits.read(first, stop)

    def _files(self):
        return self.logits._files()

    def readers(self):
        """Who read each piece: process ids by first row."""
        found = {}
        for file in sorted(self.folder.iterdir()):
            first, process = map(int, file.name.split())
            found.setdefault(first, []).append(process)
        return found


class Killer(Thread):
    """Kills the first process that reads a piece, while it does."""

    def __init__(self, slow):
        super().__init__(daemon=True)
        self.slow = slow
        self.killed = None

    def run(self):
        while not (readers := self.slow.readers()):
            time.sleep(0.01)
        self.killed = next(iter(readers.values()))[0]
        os.kill(self.killed, signal.SIGKILL)


def stored():
    return open_logits("logits.npy")


def save_safetensors(path, **tensors):
    """The format by hand: the size of the header, the header, the tensors."""
    names = {"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64"}
    header, content = {"__metadata__": {"made": "here"}}, b""
    for name, tensor in tensors.items():
        ends = [len(content), len(content) + tensor.nbytes]
        dtype = names.get(tensor.dtype.name, "I64")
        header[name] = {"dtype": dtype, "shape": tensor.shape, "data_offsets": ends}
        content += tensor.tobytes()
    text = json.dumps(header).encode()
    Path(path).write_bytes(len(text).to_bytes(8, "little") + text + content)


def save_shards(path, array, ends=(150, 150, 151)):
    Path(path).mkdir()
    for number, rows in enumerate(np.split(array, ends), 9):  # shard-10 comes after shard-9
        np.save(f"{path}/shard-{number}.npy", rows)


def stopped(count=5, draw=DRAW, **options):
    """Leave the files of a run that was stopped after so many pieces of 10 rows."""
    write = TokensFile.write

    def interrupted(self, first, tokens):
        if len(self.done) == count:
            raise KeyboardInterrupt
        write(self, first, tokens)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(TokensFile, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            draw_file(stored(), "tokens.npy", draw, memory=10 * V * 2, threads=1, **options)
