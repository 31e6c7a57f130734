"""Tokens per second inside vLLM, with its own sampler and with ours, side by side.

Each side is a process of its own; they take turns at every cell, so that what else the machine does
falls on both. Greedy texts must be equal. Needs vLLM, which the processes import.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from .runner import Report, log, machine
from .vllm_models import make_random, make_smollm2

BOTH = {"temperature": 0.8, "top_k": 50, "top_p": 0.95}
JSON = {"type": "array", "items": {"type": "string"}, "minItems": 1000}  # which no cell reaches
WORKS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "T=0.8": {"temperature": 0.8},
    "top_k=50": {"temperature": 0.8, "top_k": 50},
    "top_p=0.95": {"temperature": 0.8, "top_p": 0.95},
    "both": BOTH,
    "both, seeds": BOTH,
    "both, presence": {**BOTH, "presence_penalty": 0.5},
    "both, 20 logprobs": {**BOTH, "logprobs": 20},
    "both, JSON": {**BOTH, "json": JSON},
    # The sampler alone, where every request has written so many tokens already.
    "both, penalties, 2k": {
        **BOTH,
        **{"presence_penalty": 0.5, "frequency_penalty": 0.2, "repetition_penalty": 1.1},
        "output": 2000,
    },
    # The same with drafts to verify, of which two stay.
    "both, 5 drafts": {**BOTH, "output": 100, "drafts": 5},
}
BATCHES = (1, 8, 32)
SIDES = {"vLLM": "0", "fastsample": "1"}  # names, and the values of the switch


class Process:
    """An engine in a process of its own."""

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        read, write = os.pipe()
        home = str(Path(__file__).parents[2])  # the fastsample of this process
        env = os.environ | {
            "FASTSAMPLE_VLLM": SIDES[name],
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH")))),
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "ERROR"),
            "VLLM_NO_USAGE_STATS": "1",
        }
        env.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fastsample.bench.vllm_side", str(write)],
            env=env,
            cwd=tempfile.gettempdir(),  # not where a folder may be called fastsample
            stdin=subprocess.PIPE,
            stdout=sys.stderr,
            pass_fds=(write,),
            text=True,
        )
        os.close(write)
        self.answers = os.fdopen(read)
        self.about = self.ask(**options)
        if self.about["ours"] != (name == "fastsample"):
            raise RuntimeError(f"the side {name} does not draw with {name}: see vLLM's log")

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.answers.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def ask(self, **question: Any) -> dict[str, Any]:
        """Put a question and wait for its answer."""
        assert self.process.stdin is not None
        print(json.dumps(question), file=self.process.stdin, flush=True)
        line = self.answers.readline()
        if not line:
            raise RuntimeError(f"vLLM's process ended with status {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def make_model(model: str, folder: Path) -> dict[str, Any]:
    """Return how vLLM is to load it: a folder's, ``smollm2``, or random weights of V tokens."""
    if model == "smollm2":
        log("making SmolLM2 from its GGUF")
        return {"folder": make_smollm2(folder), "dtype": "bfloat16", "weights": "auto"}
    if model.isdigit():
        # As deep and wide as SmolLM2's: about as much beside the sampler.
        made = make_random(folder, int(model), hidden=576, layers=30, words=int(model) > 300)
        return {"folder": made, "dtype": "bfloat16", "weights": "dummy"}
    return {"folder": str(Path(model).resolve()), "dtype": "auto", "weights": "auto"}


def run(model: str, rounds: int, tokens: int, batches: tuple[int, ...] = BATCHES) -> Report:
    """Run every cell on both sides in turns, and return the report."""
    about = machine()
    with tempfile.TemporaryDirectory() as made, ExitStack() as stack:
        options = make_model(model, Path(made)) | {"rows": max(batches), "length": 16 + tokens}
        sides = {}
        for name in SIDES:
            log(f"loading {model} for {name}")
            sides[name] = stack.enter_context(Process(name, options))
        own = sides["vLLM"].about
        works = {n: p for n, p in WORKS.items() if own["grammars"] or "json" not in p}
        cells = []
        for batch in batches:
            for work, params in works.items():
                log(f"B = {batch}, {work}")
                cells.append(_cell(sides, batch, work, params, rounds, tokens))
    about["packages"] = {name: own[name] for name in ("vllm", "torch")}
    options = {"model": model, "vocab": own["vocab"], "dtype": options["dtype"], "tokens": tokens}
    return {"machine": about, **options, "cells": cells}


def _cell(
    sides: dict[str, Process],
    batch: int,
    work: str,
    params: dict[str, Any],
    rounds: int,
    tokens: int,
) -> Report:
    question = {"params": params, "batch": batch, "seeds": work.endswith("seeds")}
    firsts = {name: side.ask(**question, tokens=min(4, tokens)) for name, side in sides.items()}
    if work == "greedy" and firsts["vLLM"]["texts"] != firsts["fastsample"]["texts"]:
        raise RuntimeError("greedy texts differ")
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            found[name].append(side.ask(**question, tokens=tokens))
    cell: Report = {"batch": batch, "work": work}
    for name, answers in found.items():
        cell[name] = {
            key: float(np.median([a[key] for a in answers]))
            for key in MEASURES
            if key in answers[0]
        }
    return cell


MEASURES = {  # what is shown, how many digits, and whether more is better
    "tokens_per_s": ("tokens per second", 0, True),
    "sampler_ms": ("ms of the sampler a step", 2, False),
}


def table(report: Report, measures: Sequence[str] = tuple(MEASURES)) -> str:
    """Return the report as tables of Markdown."""
    parts = [heading(report)]
    for measure in measures:
        what, digits, more = MEASURES[measure]
        measured = [cell for cell in report["cells"] if measure in cell["vLLM"]]
        works = list(dict.fromkeys(cell["work"] for cell in measured))
        lines = [f"| {what} | B | {' | '.join(works)} |", "| --- |" + " --: |" * (1 + len(works))]
        for batch in dict.fromkeys(cell["batch"] for cell in report["cells"]):
            cells = [cell for cell in measured if cell["batch"] == batch]
            rows = {name: [cell[name][measure] for cell in cells] for name in SIDES}
            for name, values in rows.items():
                shown = " | ".join(f"{value:,.{digits}f}" for value in values)
                lines.append(f"| {name} | {batch} | {shown} |")
            pairs = zip(rows["fastsample"], rows["vLLM"], strict=True)
            factors = [ours / theirs if more else theirs / ours for ours, theirs in pairs]
            lines.append(f"| factor | {batch} | {' | '.join(f'{f:.2f}' for f in factors)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def heading(report: Report) -> str:
    """Say what was measured, and where."""
    about = report["machine"]
    packages = ", ".join(f"{name} {v}" for name, v in about["packages"].items())
    model = report["model"]
    commit = f"commit {about['commit']}, " if about["commit"] else ""
    name = "Random weights" if model.isdigit() else "SmolLM2" if model == "smollm2" else model
    return (
        f"{name}, V = {report['vocab']:,}, {report['dtype']}, {report['tokens']} tokens a "
        f"sequence, on {about['cpu']}, {about['cpus']} CPUs, load {about['load']:.1f}, "
        f"isa {about['isa']}, {commit}{about['date']}, "
        f"fastsample {about['version']}, {packages}, python {about['python']}."
    )
