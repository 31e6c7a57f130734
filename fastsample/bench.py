"""Time every sampler that is installed on the same rows, each checked against the reference first.

One grid of cases, one list of samplers, one runner, one report, which is a dict as JSON holds it.
Depends on NumPy; a sampler or a plot that needs more says so where it is missing.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from . import Sampler, backends, build_info, recorded, sample, survivors, use_backend
from .arrays import as_rows
from .backend import load
from .params import make_records
from .reference import survivors_of, to_float32, uniform

Row: TypeAlias = "npt.NDArray[Any]"
Params: TypeAlias = "dict[str, Any]"
Report: TypeAlias = "dict[str, Any]"
Active: TypeAlias = "Callable[[], AbstractContextManager[Any]]"  # makes a backend the one in use
Table: TypeAlias = "tuple[list[str], list[list[str]]]"  # header, rows

VOCAB = 128_256
SEED = 1
CHECKED = 16  # draws compared one by one
# The bound on a cumulative probability: a weight is rounded to 2^-27 of its block's largest, and
# its exponential is within 2 ULP of 2^-23.
MASS_ERROR = 1e-6


# ---- the grid -------------------------------------------------------------------------------


class Work(NamedTuple):
    """Parameters, and the times aimed at: ratios to R on an AVX-512 machine.

    `limit` is for the normal row; `goals` are for the normal and for the recorded rows.
    """

    params: Params
    limit: float | None
    goals: tuple[float, float]


WORKS = {
    "greedy": Work({"temperature": 0.0}, 2.0, (1.2, 1.4)),
    "chain": Work({"temperature": 0.8, "top_k": 50, "top_p": 0.95}, 2.5, (1.5, 1.8)),
    "top_k": Work({"top_k": 1000}, None, (4.0, 4.0)),
    "min_p": Work({"temperature": 0.8, "min_p": 0.05}, 2.5, (1.5, 1.8)),
    "temperature": Work({"temperature": 0.8}, 6.0, (3.8, 3.8)),
    "top_p": Work({"temperature": 0.8, "top_p": 0.95}, 14.0, (7.0, 4.5)),
    "cold": Work({"temperature": 0.5}, None, (2.5, 2.5)),
}
OFF: Params = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
EXPONENTIAL = ("temperature", "top_p", "cold")  # works that weigh the whole vocabulary


def _half_masked(rng: np.random.Generator, v: int) -> Row:
    return np.where(rng.permutation(v) % 2, rng.normal(0, 2.5, v), -np.inf)


def _recorded(place: float) -> Row:
    """Return the recorded row at a place, 0 to 1, in the order of entropy."""
    rows = recorded.load().logits.astype(np.float64)
    probs = np.exp(rows - rows.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    by_entropy = np.argsort((probs * np.log(np.maximum(probs, 1e-300))).sum(axis=1))[::-1]
    row: Row = rows[by_entropy[round(place * (len(rows) - 1))]]
    return row


ROWS: dict[str, Callable[[np.random.Generator, int], Row]] = {
    "normal": lambda rng, v: rng.normal(0, 2.5, v),
    "recorded": lambda rng, v: _recorded(0.5),
    "recorded-flat": lambda rng, v: _recorded(1.0),
    "ascending": lambda rng, v: np.linspace(-9, 9, v),
    "descending": lambda rng, v: np.linspace(9, -9, v),
    "constant": lambda rng, v: np.full(v, 1.25),
    "two-values": lambda rng, v: rng.choice([0.0, 1.5], v),
    "one-hot": lambda rng, v: np.where(np.arange(v) == v // 3, 12.0, 0.0),
    "one-finite": lambda rng, v: np.where(np.arange(v) == v // 3, -7.0, -np.inf),
    "half-masked": _half_masked,
}
COMPARED = ("normal", "recorded", "recorded-flat")  # rows that every sampler gets
HALF_ROWS = ("normal", "recorded")
DTYPES = ("float32", "bfloat16", "float16")


class Case(NamedTuple):
    """One cell of the grid."""

    work: str
    row: str
    dtype: str = "float32"


def grid(rows: Sequence[str], works: Sequence[str], dtypes: Sequence[str]) -> list[Case]:
    """Return the cases, the work changing fastest; half precision on two kinds of rows."""
    return [
        Case(work, row, dtype)
        for row in rows
        for dtype in dtypes
        if dtype == "float32" or row in HALF_ROWS
        for work in works
    ]


@cache
def make_row(kind: str, dtype: str = "float32", vocab: int = VOCAB) -> Row:
    """Return one row of logits; bfloat16 needs ml_dtypes. The recorded ones keep their size."""
    row = ROWS[kind](np.random.default_rng(SEED), vocab)
    if dtype == "bfloat16":
        return row.astype(import_module("ml_dtypes").bfloat16)
    return row.astype(dtype)


class Target(NamedTuple):
    """What a time should be at most, as a ratio to the time of `basis`."""

    basis: str  # "R", "normal" (the same work on the normal row) or "float32" (on that dtype)
    limit: float | None
    goal: float


def target(case: Case, isa: str | None) -> Target | None:
    """Return what the core should reach in a case, or None."""
    work = WORKS[case.work]
    if case.dtype != "float32":
        return Target("float32", None, 1.1 if case.work in EXPONENTIAL else 0.8)
    if case.row not in COMPARED:
        cliff = case.row in ("ascending", "descending", "constant", "two-values")
        return Target("normal", 2.0 if cliff else None, 1.5)
    goal = work.goals[case.row != "normal"]
    if isa == "avx512":
        return Target("R", work.limit if case.row == "normal" else None, goal)
    return Target("R", None, 2 * goal) if isa == "avx2" else None


OVERHEAD_US = {"Sampler": 1.5, "sample()": 4.0}  # limits at V = 16


def verdict(ratio: float, aim: Target) -> str:
    """Return "goal", "ok" (within the limit) or "miss"."""
    if ratio <= aim.goal:
        return "goal"
    return "ok" if aim.limit is not None and ratio <= aim.limit else "miss"


# ---- the samplers ---------------------------------------------------------------------------


class Prepared(NamedTuple):
    """A sampler made ready for one row and its parameters; `draw` takes its own uniform."""

    draw: Callable[[], Any]
    before: Callable[[], object] | None = None  # before each draw, not timed: no part of sampling
    build: Callable[[], object] | None = None  # a part of `draw` that is also shown apart


@dataclass(frozen=True, eq=False)
class Rival:
    """A way to draw a token. An exact one repeats the reference's draws of SEED."""

    name: str
    needs: dict[str, str]  # modules, and what PyPI calls them
    prepare: Callable[[Row, Params], Prepared]
    exact: bool = False
    active: Active = nullcontext
    why_not: str | None = None  # it cannot be timed at all

    def missing(self) -> str | None:
        """Return why it cannot run here, or None."""
        absent = [package for module, package in self.needs.items() if find_spec(module) is None]
        return f"not installed: pip install {' '.join(absent)}" if absent else self.why_not


def prepare_own(row: Row, params: Params) -> Prepared:
    """Call `Sampler`, on whatever backend is active."""
    return Prepared(partial(Sampler(**params, seed=SEED), row))


def prepare_numpy(row: Row, params: Params) -> Prepared:
    """Run partition, sort, cumsum and searchsorted."""
    from .cli import numpy_draw

    full = OFF | params | {"order": ("temperature", "top_k", "top_p", "min_p")}
    rng = np.random.default_rng(SEED)
    return Prepared(lambda: numpy_draw(row, rng.random(), full))


def _torch(row: Row) -> tuple[Any, Any]:
    torch = import_module("torch")
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    return torch, torch.from_numpy(row)


def prepare_torch(row: Row, params: Params) -> Prepared:
    """Run topk or sort, cumsum, multinomial: what decoding loops write by hand."""
    torch, logits = _torch(row)
    t, k, p, m = (OFF | params).values()

    def draw() -> int:
        if t == 0.0:
            return int(logits.argmax())
        x, ids = logits, None
        if k:
            x, ids = torch.topk(x, k)
        elif p < 1.0:
            x, ids = torch.sort(x, descending=True)
        probs = torch.softmax(x / t, -1)
        if p < 1.0:
            probs[probs.cumsum(-1) - probs >= p] = 0.0
        if m > 0.0:
            probs[probs < m * probs.max()] = 0.0
        place = torch.multinomial(probs, 1)
        return int(place if ids is None else ids[place])

    return Prepared(draw)


def prepare_transformers(row: Row, params: Params) -> Prepared:
    """Run the warpers of `generate`, then multinomial."""
    torch, logits = _torch(row)
    hf = import_module("transformers.generation.logits_process")
    scores, (t, k, p, m) = logits[None], (OFF | params).values()
    if t == 0.0:
        return Prepared(lambda: int(scores.argmax(-1)))
    warpers = [hf.TemperatureLogitsWarper(t)] if t != 1.0 else []
    warpers += [hf.TopKLogitsWarper(k)] if k else []
    warpers += [hf.TopPLogitsWarper(p)] if p < 1.0 else []
    warpers += [hf.MinPLogitsWarper(m)] if m > 0.0 else []

    def draw() -> int:
        x = scores
        for warper in warpers:
            x = warper(None, x)
        return int(torch.multinomial(torch.softmax(x, -1), 1))

    return Prepared(draw)


def prepare_llama_cpp(row: Row, params: Params) -> Prepared:
    """Run llama.cpp's chain; each draw needs its array of candidates built anew."""
    import ctypes

    lib = import_module("llama_cpp")
    t, k, p, m = (OFF | params).values()
    chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
    # Temperature after top-k keeps the same tokens, and scales 50 logits, not the vocabulary.
    stages = [lib.llama_sampler_init_top_k(k)] if k else []
    stages += [lib.llama_sampler_init_temp(t)] if t not in (0.0, 1.0) else []
    stages += [lib.llama_sampler_init_top_p(p, 1)] if p < 1.0 else []
    stages += [lib.llama_sampler_init_min_p(m, 1)] if m > 0.0 else []
    last = lib.llama_sampler_init_dist(SEED) if t else lib.llama_sampler_init_greedy()
    for stage in [*stages, last]:
        lib.llama_sampler_chain_add(chain, stage)
    data = np.empty(row.size, [("id", np.int32), ("logit", np.float32), ("p", np.float32)])
    pointer = data.ctypes.data_as(lib.llama_token_data_p)
    candidates = lib.llama_token_data_array(data=pointer)
    ids, reference = np.arange(row.size, dtype=np.int32), ctypes.byref(candidates)

    def build() -> None:
        data["id"], data["logit"] = ids, row
        candidates.size, candidates.selected, candidates.sorted = row.size, -1, False

    def draw() -> int:
        build()
        lib.llama_sampler_apply(chain, reference)
        return int(data["id"][candidates.selected])

    return Prepared(draw, build=build)


# A model that answers every prompt with the row. GenAI asks for a cache: it gets its input ids.
ONNX_MODEL = """<ir_version: 8, opset_import: ["": 17]>
constant (int64[b, s] input_ids, float[b, 1, t, 1] past_0_k, float[b, 1, t, 1] past_0_v)
  => (float[b, s, v] logits, float[b, 1, n, 1] next_0_k, float[b, 1, n, 1] next_0_v) {
  ids = Cast <to = 1> (input_ids)
  zero = Constant <value_float = 0.0> ()
  column_shape = Constant <value_ints = [0, -1, 1]> ()
  column = Reshape (ids, column_shape)
  zeros = Mul (column, zero)
  logits = Add (zeros, row)
  cache_shape = Constant <value_ints = [0, 1, -1, 1]> ()
  new = Reshape (ids, cache_shape)
  next_0_k = Concat <axis = 2> (past_0_k, new)
  next_0_v = Concat <axis = 2> (past_0_v, new)
}"""
ONNX_DECODER = {
    **{"filename": "model.onnx", "head_size": 1, "num_key_value_heads": 1, "num_hidden_layers": 1},
    "inputs": {"past_key_names": "past_%d_k", "past_value_names": "past_%d_v"},
    "outputs": {"present_key_names": "next_%d_k", "present_value_names": "next_%d_v"},
}


def prepare_onnxruntime_genai(row: Row, params: Params) -> Prepared:
    """Let ONNX Runtime GenAI draw from a model's logits; running the model is not timed."""
    t, k, p, m = (OFF | params).values()
    if m > 0.0:
        raise NotImplementedError("it has no min_p")
    onnx, genai = import_module("onnx"), import_module("onnxruntime_genai")
    model = import_module("onnx.parser").parse_model(ONNX_MODEL)
    model.graph.initializer.append(onnx.numpy_helper.from_array(row, "row"))
    config = {"type": "llama", "vocab_size": row.size, "context_length": 64}
    config |= {"bos_token_id": 0, "eos_token_id": int(row.argmin()), "pad_token_id": 0}
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(model, f"{folder}/model.onnx")
        text = json.dumps({"model": {**config, "decoder": ONNX_DECODER}, "search": {}})
        Path(folder, "genai_config.json").write_text(text)
        loaded = genai.Model(folder)
    options = genai.GeneratorParams(loaded)
    options.set_search_options(do_sample=t > 0.0, temperature=t or 1.0, top_k=k, top_p=p)
    generator, prompt = genai.Generator(loaded, options), np.zeros((1, 1), np.int32)

    def before() -> None:
        generator.rewind_to(0)
        generator.append_tokens(prompt)

    def draw() -> int:
        generator.generate_next_token()
        return int(generator.get_next_tokens()[0])

    return Prepared(draw, before=before)


@contextmanager
def _forced(isa: str) -> Iterator[None]:
    core = load("core")
    with use_backend("core"):
        chosen = core.isa()
        core.force_isa(isa)
        try:
            yield
        finally:
            core.force_isa(chosen)


def cores() -> list[Rival]:
    """Return the core on each instruction set that this machine has, the chosen one first."""
    info = build_info()
    isas = sorted(info["isas"] or (), key=lambda isa: isa != info["isa"])
    return [
        Rival(f"core {isa}", {}, prepare_own, exact=True, active=partial(_forced, isa))
        for isa in isas
    ]


_TORCH = {"torch": "torch"}
_GENAI = {"onnxruntime_genai": "onnxruntime-genai", "onnx": "onnx"}
RIVALS = (
    Rival("numba", {"numba": "numba"}, prepare_own, True, partial(use_backend, "numba")),
    Rival("NumPy", {}, prepare_numpy),
    Rival("torch", _TORCH, prepare_torch),
    Rival("transformers", {**_TORCH, "transformers": "transformers"}, prepare_transformers),
    Rival("llama.cpp", {"llama_cpp": "llama-cpp-python"}, prepare_llama_cpp),
    Rival("onnxruntime-genai", _GENAI, prepare_onnxruntime_genai),
    Rival("ctranslate2", {}, prepare_own, why_not="it draws only inside its own decoding loop"),
)


# ---- checks ---------------------------------------------------------------------------------


class Expected:
    """What the reference says of one case."""

    def __init__(self, row: Row, params: Params) -> None:
        rows, _ = as_rows(row)
        self.row = to_float32(rows)[0]
        self.ids, probs = self._survivors(params)
        self.cdf = np.zeros(self.row.size + 1)
        self.cdf[1 + self.ids] = probs
        np.cumsum(self.cdf, out=self.cdf)
        # Rounding may move the cut of top-p by less than this much mass.
        self.inner = self.outer = self.ids
        if "top_p" in params:
            self.inner, self.outer = (
                self._survivors(params | {"top_p": params["top_p"] + bound})[0]
                for bound in (-MASS_ERROR, MASS_ERROR)
            )

    def _survivors(self, params: Params) -> Any:
        every = OFF | {"min_tokens_to_keep": 1, "order": "hf"} | params
        return survivors_of(self.row, make_records(1, **every)[0])

    def wrong(self, row: Row, params: Params, draw: Callable[[], Any]) -> str | None:
        """Say what an exact sampler got wrong, or None; `draw` must be at offset 0 of SEED."""
        for offset in range(CHECKED):
            token, u = draw(), uniform(SEED, 0, offset)
            low, high = self.cdf[token] - MASS_ERROR, self.cdf[token + 1] + MASS_ERROR
            if not low <= u * self.cdf[-1] < high or token not in self.outer:
                return f"drew {token} at u = {u}"
        kept, _ = survivors(row, **params)
        if np.isin(self.inner, kept).all() and np.isin(kept, self.outer).all():
            return None
        return f"kept {kept.size} tokens, the reference {self.ids.size}"

    def outside(self, tokens: Sequence[int]) -> int:
        """Count tokens less probable than any survivor: which of two equal ones is kept is free."""
        return int(np.sum(self.row[list(tokens)] < self.row[self.outer[-1]]))


@lru_cache(maxsize=1)  # the samplers of one case follow each other
def expected(case: Case, vocab: int = VOCAB) -> Expected:
    """Return what the reference says of a case of the grid."""
    return Expected(make_row(case.row, case.dtype, vocab), WORKS[case.work].params)


def zipf_row(vocab: int) -> Row:
    """Return logits whose probabilities fall as 1/rank, in random order."""
    ranks = np.random.default_rng(SEED).permutation(vocab) + 1
    return -np.log(ranks).astype(np.float32)


def draws(ready: Prepared, least: int, seconds: float = 0.0) -> list[int]:
    """Draw at least that often, and up to 1,000 times while `seconds` have not gone by."""
    tokens: list[int] = []
    start = time.perf_counter()
    while len(tokens) < least or (len(tokens) < 1000 and time.perf_counter() - start < seconds):
        if ready.before:
            ready.before()
        tokens.append(ready.draw())
    return tokens


@cache
def outside_short(rival: Rival, work: str, count: int = 500) -> int:
    """Count draws outside the survivors of a short row, where many can be had of any sampler."""
    row, params = zipf_row(2048), WORKS[work].params
    return Expected(row, params).outside(draws(rival.prepare(row, params), count))


def check(rival: Rival, ready: Prepared, case: Case, seconds: float, vocab: int = VOCAB) -> str:
    """Return "ok", or what is wrong with a sampler's draws; it must be active."""
    if rival.exact:
        row = make_row(case.row, case.dtype, vocab)
        wrong = expected(case, vocab).wrong(row, WORKS[case.work].params, ready.draw)
        return f"wrong: {wrong}" if wrong else "ok"
    tokens = draws(ready, CHECKED, seconds)
    outside = expected(case, vocab).outside(tokens), outside_short(rival, case.work)
    if any(outside):
        return f"inexact ({outside[0]} of {len(tokens)} outside, {outside[1]} of 500 on a Zipf row)"
    return "ok"


# ---- the runner -----------------------------------------------------------------------------


def measure(calls: dict[str, tuple[Prepared, Active]], seconds: float) -> dict[str, list[float]]:
    """Return sorted times in microseconds, of turns that interleave over about `seconds` each."""
    clock = time.perf_counter_ns
    times: dict[str, list[float]] = {name: [] for name in calls}

    def turn(name: str, count: int) -> None:
        (draw, before, _), active = calls[name]
        with active():
            for _ in range(1 + count):
                if before:
                    before()
                start = clock()
                draw()
                times[name].append((clock() - start) / 1e3)
        del times[name][-1 - count]  # the first call after another sampler finds a cold cache

    for name in calls:
        turn(name, 2)
    counts = {name: min(500, max(5, int(seconds * 1e6 / min(t)))) for name, t in times.items()}
    sizes = {name: min(counts[name], max(1, int(1000 / min(t)))) for name, t in times.items()}
    turns = {name: -(-counts[name] // sizes[name]) for name in calls}
    most = max(turns.values())
    for i in range(most):
        for name, n in turns.items():
            if (i + 1) * n // most > i * n // most:
                turn(name, sizes[name])
    return {name: sorted(t[2:]) for name, t in times.items()}


def run_case(
    case: Case, samplers: Sequence[Rival], seconds: float, vocab: int = VOCAB
) -> list[Report]:
    """Check each sampler in one case, then time those that draw the right tokens, or say so.

    With `seconds` 0 nothing is timed.
    """
    row, params = make_row(case.row, case.dtype, vocab), WORKS[case.work].params
    results, calls = [], {}
    for rival in samplers:
        result = {**case._asdict(), "vocab": row.size, "sampler": rival.name}
        try:
            with rival.active():
                ready = rival.prepare(row, params)
                result["check"] = check(rival, ready, case, min(0.2, 2 * seconds), vocab)
        except NotImplementedError as error:
            results.append(result | {"check": f"cannot: {error}"})
            continue
        results.append(result)
        if not rival.exact or result["check"] == "ok":
            calls[rival.name] = ready, rival.active
            if ready.build:
                calls[f"{rival.name} build"] = Prepared(ready.build), nullcontext
    if not seconds:
        return results
    calls["R"] = Prepared(make_row(case.row, "float32", vocab).max), nullcontext
    times = {name: np.percentile(t, (25, 50, 75)) for name, t in measure(calls, seconds).items()}
    for result in results:
        name = result["sampler"]
        if name in times:
            result["us_quartiles"] = times[name].tolist()
            result["us"], result["r_us"] = float(times[name][1]), float(times["R"][1])
            result["ratio"] = result["us"] / result["r_us"]
            if f"{name} build" in times:
                result["build_us"] = float(times[f"{name} build"][1])
    return results


def first_draw_s(rival: Rival) -> float:
    """Return how long a sampler takes to be imported, compiled if need be, and to draw once."""
    start = time.perf_counter()
    with rival.active():
        ready = rival.prepare(make_row("normal", vocab=512), WORKS["chain"].params)
        draws(ready, 1)
    return time.perf_counter() - start


def per_call_us(call: Callable[[], object]) -> float:
    """Return the time of a call that is too short to be timed by itself."""
    number = 2000
    return float(np.median(timeit.repeat(call, number=number, repeat=25))) / number * 1e6


def measure_overhead() -> Report:
    """Time draws from 16 logits, and the cheapest call into the extension, which takes nothing."""
    row = make_row("normal", vocab=16)
    calls: dict[str, Callable[[], object]] = {}
    for work in ("greedy", "min_p", "chain"):
        params = WORKS[work].params
        calls[f"Sampler, V = 16, {work}"] = partial(Sampler(**params, seed=SEED), row)
        calls[f"sample(), V = 16, {work}"] = partial(sample, row, **params, seed=SEED)
    calls["x.max(), V = 16"] = row.max
    if "core" in backends():
        calls["_core.isa(), which takes nothing"] = load("core").isa
    return {name: per_call_us(call) for name, call in calls.items()}


def machine() -> Report:
    """Return what the times were taken on."""
    cpu = platform.processor()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), cpu)
    commit = None
    if Path("csrc/fastsample.h").exists():  # run from a checkout
        command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
        with suppress(OSError, subprocess.CalledProcessError):
            commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    info = {name: v for name, v in build_info().items() if name not in ("backends", "backend")}
    return {
        "cpu": cpu,
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "commit": commit and commit.strip(),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        **info,
    }


def log(text: str, end: str = "\n") -> None:
    """Show progress."""
    print(text, end=end, file=sys.stderr, flush=True)


def run(
    cases: Sequence[Case],
    samplers: Sequence[Rival],
    seconds: float,
    everywhere: bool = False,
    vocab: int = VOCAB,
) -> Report:
    """Run the cases and return the report.

    The first sampler, the one that targets are for, gets every case; the others get float32 on the
    rows of COMPARED, and with `everywhere` on all.
    """
    report: Report = {"format": 1, "machine": machine(), "samplers": {}, "results": []}
    usable = []
    for rival in samplers:
        missing = rival.missing()
        versions = {p: version(p) for p in rival.needs.values()} if not missing else {}
        report["samplers"][rival.name] = {
            "own": rival.exact,
            "skipped": missing,
            "versions": versions,
        }
        if missing:
            log(f"skipped {rival.name}: {missing}")
        else:
            usable.append(rival)
    collecting = gc.isenabled()
    gc.disable()
    try:
        for rival in usable:
            report["samplers"][rival.name]["first_s"] = first_draw_s(rival)
        done = 0
        for (row, dtype), group in groupby(cases, key=lambda case: case[1:]):
            log(f"{done:>4} of {len(cases)}  {row} {dtype}:", end="")
            for case in group:
                log(f" {case.work}", end="")
                shared = dtype == "float32" and (everywhere or row in COMPARED)
                chosen = usable if shared else usable[:1]
                report["results"] += run_case(case, chosen, seconds, vocab)
                done += 1
                gc.collect()
            log("")
    finally:
        if collecting:
            gc.enable()
    return report


def run_growth(rival: Rival, works: Sequence[str], seconds: float) -> list[Report]:
    """Time a sampler on normal rows of 8,000 to 1,000,000 logits."""
    results = []
    for vocab in (8_000, 16_000, 32_000, 64_000, VOCAB, 262_144, 524_288, 1_000_000):
        row = make_row("normal", vocab=vocab)
        with rival.active():
            calls = {w: (rival.prepare(row, WORKS[w].params), rival.active) for w in works}
        calls["R"] = Prepared(row.max), nullcontext
        us = {name: float(np.median(t)) for name, t in measure(calls, seconds).items()}
        results.append({"vocab": vocab, "sampler": rival.name, "us": us})
        log(f"growth: V = {vocab}")
    return results


# ---- the report -----------------------------------------------------------------------------


def find(report: Report, **keys: Any) -> list[Report]:
    """Return the timed results that have these values."""
    timed = (r for r in report["results"] if "us" in r)
    return [r for r in timed if all(r[key] == value for key, value in keys.items())]


def outcome(report: Report, result: Report) -> tuple[float, Target] | None:
    """Return a result of the core as the ratio that its target is about, and the target."""
    name, _, isa = result["sampler"].partition(" ")
    aim = target(Case(result["work"], result["row"], result["dtype"]), isa)
    if name != "core" or aim is None:
        return None
    if aim.basis == "R":
        return result["ratio"], aim
    row = "normal" if aim.basis == "normal" else result["row"]
    same = {"sampler": result["sampler"], "work": result["work"]}
    found = find(report, **same, row=row, dtype="float32")
    return (result["us"] / found[0]["us"], aim) if found else None


def targets_table(report: Report) -> Table:
    """Tabulate fastsample's times, its targets, and the fastest exact rival beside."""
    header = ["row", "work", "sampler", "us", "x R", "reached", "limit", "goal", ""]
    lines = []
    for r in (r for r in find(report) if report["samplers"][r["sampler"]]["own"]):
        line = [_kind(r), r["work"], r["sampler"], f"{r['us']:.1f}", f"{r['ratio']:.2f}"]
        reached = outcome(report, r)
        if reached:
            ratio, aim = reached
            limit = f"{aim.limit:g}" if aim.limit else ""
            line += [f"{ratio:.2f} {aim.basis}", limit, f"{aim.goal:g}", verdict(ratio, aim)]
        else:
            line += [""] * 4
        others = [
            o
            for o in find(report, row=r["row"], work=r["work"], dtype=r["dtype"])
            if o["check"] == "ok" and not report["samplers"][o["sampler"]]["own"]
        ]
        if others:
            best = min(others, key=lambda o: float(o["us"]))
            ratio = best["us"] / r["us"]
            line += [best["sampler"], f"{ratio:.3g}" + " LOSS" * (ratio < 1.0)]
        lines.append(line + [""] * (len(header) + 2 - len(line)))
    return [*header, "fastest other", "its us / ours"], lines


def rivals_table(report: Report) -> Table:
    """Tabulate the times of all samplers; what is inexact or has a part is marked."""
    names = [name for name, s in report["samplers"].items() if not s["skipped"]]
    lines: dict[tuple[str, str], list[str]] = {}
    for r in find(report):
        line = lines.setdefault((_kind(r), r["work"]), [f"{r['r_us']:.1f}", *["-"] * len(names)])
        part = f" ({r['build_us']:.0f} build)" if "build_us" in r else ""
        line[1 + names.index(r["sampler"])] = f"{r['us']:.1f}{part}{'*' * (r['check'] != 'ok')}"
    table = [[*key, *line] for key, line in lines.items() if line.count("-") < len(names) - 1]
    return ["row", "work", "R", *names], table


def overhead_table(report: Report) -> Table:
    """Tabulate what a call costs."""
    lines = []
    for name, us in report.get("overhead", {}).items():
        limit = OVERHEAD_US.get(name.partition(",")[0])
        aim = [f"{limit:g}", "ok" if us <= limit else "miss"] if limit else ["", ""]
        lines.append([name, f"{us:.2f}", *aim])
    return ["call", "us", "limit", ""], lines


def growth_table(report: Report) -> Table:
    """Tabulate nanoseconds a logit by the size of the vocabulary."""
    growth = report.get("growth", [])
    lines = [
        [str(g["vocab"]), *(f"{1e3 * us / g['vocab']:.4f}" for us in g["us"].values())]
        for g in growth
    ]
    return ["V", *(f"{name} ns/V" for name in (growth[0]["us"] if growth else ()))], lines


def notes(report: Report) -> list[str]:
    """Say what was skipped, what was drawn wrongly, and how long the first draw took."""
    lines = [f"{n}: skipped, {s['skipped']}" for n, s in report["samplers"].items() if s["skipped"]]
    lines += [
        f"{r['sampler']}: {r['check']} on {_kind(r)}, {r['work']}"
        for r in report["results"]
        if r["check"] != "ok"
    ]
    numba = report["samplers"].get("numba", {}).get("first_s")
    if numba is not None:
        lines.append(f"numba: the first draw took {numba:.1f} s, compiling or loading the cache")
    return lines


def heading(report: Report) -> str:
    """Return one line that says what was timed on what."""
    m = report["machine"]
    packages = {p: v for s in report["samplers"].values() for p, v in s["versions"].items()}
    packages = {"fastsample": m["version"], "python": m["python"], "numpy": m["numpy"]} | packages
    parts = [m["cpu"], m["system"], f"isa {m['isa']}", f"commit {m['commit'] or 'unknown'}"]
    return ", ".join([*parts, m["date"], *(f"{p} {v}" for p, v in packages.items())])


def _kind(result: Report) -> str:
    dtype = "" if result["dtype"] == "float32" else f" {result['dtype']}"
    return f"{result['row']}{dtype}"


def numeric(table: Table) -> list[bool]:
    """Tell which columns of a table hold numbers."""
    return [any(cell[:1].isdigit() for cell in column) for column in zip(*table[1], strict=True)]


def aligned(table: Table) -> str:
    """Return a table as text: words to the left, numbers to the right."""
    header, lines = table
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    right = numeric(table)
    return "\n".join(
        "  ".join(
            cell.rjust(w) if to_right else cell.ljust(w)
            for cell, w, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in (header, *lines)
    )


def plot(report: Report, path: str) -> None:
    """Draw the times of all samplers on each compared row, and the growth where it was measured.

    Raises
    ------
    ImportError
        matplotlib is not installed.
    """
    figures = import_module("matplotlib.figure")
    kinds = [k for k in COMPARED if find(report, row=k)] or [r["row"] for r in find(report)][:1]
    panels = len(kinds) + bool(report.get("growth"))
    figure = figures.Figure(figsize=(10, 3.6 * panels), layout="constrained")
    axes = figure.subplots(panels, squeeze=False)[:, 0]
    names = [name for name, s in report["samplers"].items() if not s["skipped"]]
    for ax, kind in zip(axes, kinds, strict=False):
        found = find(report, row=kind, dtype="float32")
        works = list(dict.fromkeys(r["work"] for r in found))
        for i, name in enumerate(names):
            mine = [r for r in found if r["sampler"] == name]
            x = [works.index(r["work"]) + 0.8 * (i + 0.5) / len(names) - 0.4 for r in mine]
            ax.bar(x, [r["us"] for r in mine], 0.8 / len(names), label=name)
        ax.axhline(np.median([r["r_us"] for r in found]), ls=":", color="black", label="x.max()")
        ax.set_yscale("log")
        ax.set_xticks(range(len(works)), works)
        ax.set_title(f"{kind} row, V = {found[0]['vocab']}: us a draw", fontsize="medium")
    axes[0].legend(ncols=5, fontsize="x-small")
    growth = report.get("growth", [])
    if growth:
        v = np.array([g["vocab"] for g in growth])
        for name in growth[0]["us"]:
            ns = 1e3 * np.array([g["us"][name] for g in growth]) / v
            axes[-1].loglog(v, ns, ".-", label=name)
        axes[-1].set_title(f"{growth[0]['sampler']}: ns a logit, by V", fontsize="medium")
        axes[-1].legend(fontsize="x-small")
    figure.suptitle(heading(report), fontsize="xx-small", wrap=True)
    figure.savefig(path)


# ---- the command ----------------------------------------------------------------------------


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `bench`."""
    add = parser.add_argument
    add("--quick", action="store_true", help="the compared rows only, and shorter: about 15 s")
    add("--smoke", action="store_true", help="check every case on short rows, and time nothing")
    add("--growth", action="store_true", help="also time rows of 8,000 to 1,000,000 logits")
    add("--seconds", type=float, metavar="S", help="time for each sampler in each case")
    for name, known in (("rows", ROWS), ("works", WORKS), ("rivals", [r.name for r in RIVALS])):
        text = f"comma-separated, out of {', '.join(known)}"
        text += " or none" if name == "rivals" else ""
        add(f"--{name}", metavar="A,B", help=text)
    add("--isa", metavar="A,B", help="comma-separated instruction sets (default: all here)")
    add("--json", metavar="FILE", help="write the report")
    add("--plot", metavar="FILE", help="draw it, as .png or .svg; needs matplotlib")


def _choose(args: argparse.Namespace, name: str, known: Sequence[str]) -> list[str]:
    given = getattr(args, name)
    names = [n.strip() for n in given.split(",")] if given else list(known)
    for unknown in set(names) - set(known):
        args.parser.error(f"argument --{name}: must be out of {', '.join(known)}, got {unknown}")
    return [n for n in known if n in names]


def bench(args: argparse.Namespace) -> None:
    """Time every sampler that is installed, each checked against the reference first."""
    rows = _choose(args, "rows", COMPARED[:2] if args.quick and not args.rows else list(ROWS))
    works = _choose(args, "works", list(WORKS))
    others = _choose(args, "rivals", ["none", *(r.name for r in RIVALS)])
    isas = _choose(args, "isa", [r.name.split()[1] for r in cores()])
    samplers = [r for r in cores() if r.name.split()[1] in isas]
    samplers += [r for r in RIVALS if r.name in others]
    if not samplers or not samplers[0].exact or samplers[0].missing():
        args.parser.error("fastsample's core or numba must be there to be timed")
    if args.plot and find_spec("matplotlib") is None:
        args.parser.error("argument --plot: needs matplotlib: pip install matplotlib")
    dtypes = ["float32"] if args.quick else list(DTYPES)
    if "bfloat16" in dtypes and find_spec("ml_dtypes") is None:
        log("skipped bfloat16 rows: not installed: pip install ml-dtypes")
        dtypes.remove("bfloat16")
    seconds = 0.0 if args.smoke else args.seconds or (0.03 if args.quick else 0.1)
    vocab = 4096 if args.smoke else VOCAB
    cases = grid(rows, works, dtypes)
    report = run(cases, samplers, seconds, bool(args.rows), vocab)
    if seconds:
        with samplers[0].active():
            report["overhead"] = measure_overhead()
        if args.growth:
            report["growth"] = run_growth(samplers[0], works, seconds)
    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=1) + "\n")
    show(report)
    if args.plot:
        plot(report, args.plot)
    wrong = [r for r in report["results"] if r["check"].startswith("wrong")]
    if wrong:
        args.parser.exit(1, f"{len(wrong)} cases were drawn wrongly\n")


def show(report: Report) -> None:
    """Print a report."""
    checked = sum(not r["check"].startswith("cannot") for r in report["results"])
    print(f"{heading(report)}\n\n{checked} results checked against the reference")
    tables = (
        targets_table(report),
        rivals_table(report),
        overhead_table(report),
        growth_table(report),
    )
    for table in tables:
        if table[1]:
            print(f"\n{aligned(table)}")
    print("\n" + "\n".join(notes(report)))
