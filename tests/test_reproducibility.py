"""Same logits, parameters and uniform, same token: whatever surrounds the row, whoever runs it."""

from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import rows
from rows import make_row

import fastsample as fs

Activate = Callable[[str], AbstractContextManager[None]]

CHAIN: dict[str, Any] = {"temperature": 0.9, "top_k": 60, "top_p": 0.95, "min_p": 0.001}
BATCH = np.stack([make_row("random", 1000, seed) for seed in range(16)])
SEEDS = list(range(100, 116))


def test_across_variants(fast_variants: tuple[str, ...], activate: Activate) -> None:
    drawn = {}
    for name in (*fast_variants, "reference"):
        with activate(name):
            drawn[name] = [
                fs.sample(BATCH, seed=seed, offset=seed * 7, **chain).tolist()
                for seed in range(20)
                for chain in (CHAIN, {}, {"top_p": 0.8})
            ]
    # 960 draws, none of them in the 1e-6 or so around an edge: even the reference agrees.
    assert all(tokens == drawn["reference"] for tokens in drawn.values())


# ---- what surrounds the row ------------------------------------------------------------------


def test_alone_or_in_any_batch(variant: str) -> None:
    together = fs.sample(BATCH, seed=SEEDS, **CHAIN)
    assert together.dtype == np.int64
    assert together.tolist() == [
        fs.sample(row, seed=seed, **CHAIN) for row, seed in zip(BATCH, SEEDS, strict=True)
    ]
    for order in (np.arange(16)[::-1], np.arange(0, 16, 3), np.zeros(5, int)):
        picked = [SEEDS[i] for i in order]
        assert np.array_equal(fs.sample(BATCH[order], seed=picked, **CHAIN), together[order])


def test_a_bad_neighbour_changes_nothing(variant: str) -> None:
    spoilt = BATCH.copy()
    spoilt[5, 3], spoilt[9], spoilt[15, 0] = np.nan, -np.inf, np.inf
    expected = fs.sample(BATCH, seed=SEEDS, **CHAIN)
    expected[[5, 9, 15]] = -1
    assert np.array_equal(fs.sample(spoilt, seed=SEEDS, errors="mark", **CHAIN), expected)


def test_a_scalar_seed_uses_the_row_as_stream(variant: str) -> None:
    uniform = fs.backend.active().uniform
    for offset in (0, 3):
        u = [uniform(42, stream, offset) for stream in range(16)]
        assert np.array_equal(fs.sample(BATCH, seed=42, offset=offset), fs.sample(BATCH, u=u))
    first = fs.sample(BATCH[:1], seed=42)
    assert first.tolist() == [fs.sample(BATCH[0], seed=42)] == fs.sample(BATCH, seed=42)[:1]


def test_a_piece_of_a_batch_has_the_streams_of_its_rows(variant: str) -> None:
    whole = fs.sample(BATCH, seed=42, offset=5, **CHAIN)
    for first, stop in ((0, 1), (3, 4), (5, 16)):
        numbers = range(first, stop)
        piece = fs.sample(BATCH[first:stop], seed=42, offset=5, stream=numbers, **CHAIN)
        assert np.array_equal(piece, whole[first:stop])
    assert fs.sample(BATCH[7], seed=42, offset=5, stream=np.uint64(7), **CHAIN) == whole[7]
    order = np.random.default_rng(0).permutation(16)
    shuffled = fs.sample(BATCH[order], seed=42, offset=5, stream=order, **CHAIN)
    assert np.array_equal(shuffled, whole[order])
    u = [fs.backend.active().uniform(s, 2**64 - 1, 0) for s in SEEDS]
    assert np.array_equal(fs.sample(BATCH, seed=SEEDS, stream=2**64 - 1), fs.sample(BATCH, u=u))


def test_seeds_and_offsets_per_row(variant: str) -> None:
    offsets = list(range(16))[::-1]
    expected = [
        fs.sample(r, seed=s, offset=o) for r, s, o in zip(BATCH, SEEDS, offsets, strict=True)
    ]
    assert fs.sample(BATCH, seed=SEEDS, offset=offsets).tolist() == expected
    as_arrays = {"seed": np.array(SEEDS, np.uint32), "offset": np.array(offsets, np.int8)}
    assert fs.sample(BATCH, **as_arrays).tolist() == expected


def test_parameters_per_row(variant: str) -> None:
    columns: dict[str, Any] = {
        "temperature": np.linspace(0.0, 2.0, 16),
        "top_k": [None, 0, -1, *range(1, 14)],
        "top_p": np.linspace(1.0, 0.1, 16, dtype=np.float32),
        "min_p": tuple(np.linspace(0.0, 0.5, 16)),
        "min_tokens_to_keep": np.arange(1, 17, dtype=np.uint8),
    }
    u = np.random.default_rng(0).random(16)
    for order in ("hf", "llama.cpp"):
        expected = [
            fs.sample(BATCH[i], u=u[i], order=order, **{n: c[i] for n, c in columns.items()})
            for i in range(16)
        ]
        assert fs.sample(BATCH, u=u, order=order, **columns).tolist() == expected
        dense = fs.probs(BATCH, order=order, **columns)
        for i in range(16):
            alone = fs.probs(BATCH[i], order=order, **{n: c[i] for n, c in columns.items()})
            assert dense[i].tobytes() == alone.tobytes()


# ---- sources of uniforms ---------------------------------------------------------------------


def test_rng_gives_exactly_its_next_uniforms(variant: str) -> None:
    ours, theirs = np.random.default_rng(5), np.random.default_rng(5)
    for rows_at_once in (16, 1, 7):
        batch = BATCH[:rows_at_once]
        expected = fs.sample(batch, u=theirs.random(rows_at_once))
        assert np.array_equal(fs.sample(batch, rng=ours), expected)
    assert fs.sample(BATCH[0], rng=ours) == fs.sample(BATCH[0], u=theirs.random())
    assert ours.bit_generator.state == theirs.bit_generator.state


def test_u_as_scalar_and_array(variant: str) -> None:
    one = [fs.sample(row, u=0.3) for row in BATCH]
    for u in (0.3, np.float64(0.3), np.array(0.3), [0.3] * 16, np.full(32, 0.3)[::2],
              np.full(16, 0.3).astype(">f8")):  # fmt: skip
        assert fs.sample(BATCH, u=u).tolist() == one
    assert fs.sample(BATCH[0], u=[0.3]) == one[0]


def test_draws_without_a_seed_differ(variant: str) -> None:
    # Of 4096 equal tokens, eight draws repeat by chance once in 4096^8.
    row = np.zeros(4096)
    first, second = ([fs.sample(row) for _ in range(8)] for _ in range(2))
    assert first != second
    assert fs.Sampler().seed != fs.Sampler().seed


def test_out_is_filled_and_returned(variant: str) -> None:
    out = np.full(16, -7)
    assert fs.sample(BATCH, seed=1, out=out) is out
    assert np.array_equal(out, fs.sample(BATCH, seed=1))
    assert isinstance(fs.sample(BATCH[0], seed=1), int)


# ---- threads and processes -------------------------------------------------------------------


def test_threads(variant: str) -> None:
    # Rows of several sizes, so that what threads keep between calls would get mixed up.
    sizes = (16, 300, 1000, 257) if variant == "reference" else (16, 5000, 300, 20000, 257)
    work = [(make_row("random", v, v), seed) for v in sizes for seed in range(30)]

    def draw(item: tuple[Any, int]) -> list[Any]:
        row, seed = item
        ids, probs = fs.survivors(row, **CHAIN)
        return [
            fs.sample(row, seed=seed), fs.sample(row, seed=seed, top_p=0.9),
            ids.tolist(), probs.tolist(), fs.Sampler(seed=seed, **CHAIN)(row),
        ]  # fmt: skip

    expected = [draw(item) for item in work]
    shuffled = np.random.default_rng(0).permutation(len(work))
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(draw, [work[i] for i in shuffled]))
    assert got == [expected[i] for i in shuffled]


CHILD = """
import json, os, sys
import numpy as np
import fastsample as fs
info = fs.build_info()
rows, chain = np.load(sys.argv[1]), json.loads(sys.argv[2])
def draw():
    return [fs.sample(rows, seed=s, **chain).tolist() for s in range(5)]
print(json.dumps([info["backend"], info["isa"], draw()]), flush=True)
if hasattr(os, "fork"):
    flat = np.zeros(4096, np.float32)
    fs.sample(flat)  # the stream of the process has begun
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, json.dumps([draw(), [fs.sample(flat) for _ in range(8)]]).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        told = json.load(pipe)
    assert os.waitpid(pid, 0)[1] == 0
    assert told[0] == draw(), "a forked child draws other tokens"
    assert told[1] != [fs.sample(flat) for _ in range(8)], "a forked child repeats its parent"
"""


def clean_environment() -> dict[str, str]:
    """Neither a choice of backend nor a path to the root, whose source folder must not be found."""
    ours = ("PYTHONPATH", "FASTSAMPLE_BACKEND", "FASTSAMPLE_ISA")
    return {name: value for name, value in os.environ.items() if name not in ours}


def test_processes(variant: str, tmp_path: Path) -> None:
    backend, _, isa = variant.partition("-")
    environment = clean_environment() | {"FASTSAMPLE_BACKEND": backend}
    if isa:
        environment["FASTSAMPLE_ISA"] = isa
    np.save(tmp_path / "rows.npy", BATCH)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHILD, "rows.npy", json.dumps(CHAIN)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    their_backend, their_isa, tokens = json.loads(done.stdout)
    assert their_backend == backend
    assert their_isa == isa or not isa
    assert tokens == [fs.sample(BATCH, seed=s, **CHAIN).tolist() for s in range(5)]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("FASTSAMPLE_BACKEND", "cuda", "FASTSAMPLE_BACKEND must be one of core, numba, ref"),
        ("FASTSAMPLE_ISA", "mmx", "on this machine, got mmx"),
    ],
)
def test_an_unknown_name_in_the_environment_is_an_error(
    name: str, value: str, message: str, fast_variants: tuple[str, ...], tmp_path: Path
) -> None:
    if name == "FASTSAMPLE_ISA" and not fast_variants[0].startswith("core"):
        pytest.skip("no core here")
    environment = clean_environment() | {name: value}
    done = subprocess.run(
        [sys.executable, "-c", "import fastsample; fastsample.sample([1.0, 2.0], u=0.5)"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert message in done.stderr


# ---- Sampler ---------------------------------------------------------------------------------


def test_sampler_draws_as_sample_does(variant: str) -> None:
    sampler = fs.Sampler(seed=11, offset=3, **CHAIN)
    row = BATCH[0]
    for step in range(3, 20):
        assert sampler.offset == step
        assert sampler(row) == fs.sample(row, seed=11, offset=step, **CHAIN)
    # Contiguous rows take a short way of their own, all others the way of `sample`.
    forms = [row.astype(dtype) for dtype in (np.float64, np.float16, ml_dtypes.bfloat16)]
    forms += [form.astype(form.dtype.newbyteorder()) for form in forms[:2]]
    forms += [np.repeat(row, 2)[::2], row.tolist(), row[np.newaxis], np.stack([row] * 3)]
    forms += [np.frombuffer(b"?" + row.tobytes(), np.float32, offset=1)]
    for step, form in enumerate(forms, start=20):
        got = np.ravel(sampler(form))
        first = form[0] if np.ndim(form) == 2 else form
        assert got[0] == fs.sample(first, seed=11, offset=step, **CHAIN)
    out = np.zeros(16, np.int64)
    assert sampler(BATCH, out=out) is out
    assert np.array_equal(out, fs.sample(BATCH, seed=11, offset=20 + len(forms), **CHAIN))


def test_sampler_follows_the_backend(fast_variants: tuple[str, ...], activate: Activate) -> None:
    sampler = fs.Sampler(seed=1, top_p=0.9)
    for name in (*fast_variants, "reference"):
        with activate(name):
            assert sampler(BATCH[0]) == fs.sample(
                BATCH[0], seed=1, offset=sampler.offset - 1, top_p=0.9
            )


def test_a_sampler_made_within_the_first_choice_of_a_backend(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("_active", "_active_name"):
        monkeypatch.setattr(fs.backend, name, None)
    with fs.use_backend("reference"):
        sampler = fs.Sampler(seed=1)
    assert sampler(BATCH[0]) == fs.sample(BATCH[0], seed=1)


SAMPLERS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.5, "top_k": 3, "seed": 9},
    {"top_p": 0.9, "order": ("top_p",), "seed": 2**64 - 1, "offset": 12},
    {"temperature": [0.0, 0.5, 1.5], "top_k": [None, 5, -1], "seed": [4, 5, 6], "errors": "mark"},
    {"temperature": np.array([0.0, 0.5, 1.5], np.float32), "seed": np.array([4, 5, 6])},
    {"top_k": 40, "seed": 5, "threads": np.int64(3)},
    {"min_p": np.float64(0.1), "min_tokens_to_keep": np.int32(4), "order": "vllm", "seed": 0},
]


@pytest.mark.parametrize("arguments", SAMPLERS, ids=str)
@pytest.mark.parametrize(
    "twin_of",
    [
        fs.Sampler.copy,
        copy.copy,
        copy.deepcopy,
        lambda sampler: pickle.loads(pickle.dumps(sampler)),
        lambda sampler: eval(repr(sampler), {**vars(np), "np": np, "Sampler": fs.Sampler}),
    ],
    ids=["copy()", "copy", "deepcopy", "pickle", "repr"],
)
def test_sampler_twins(
    variant: str, twin_of: Callable[[fs.Sampler], fs.Sampler], arguments: dict[str, Any]
) -> None:
    sampler = fs.Sampler(**arguments)
    rows_of = BATCH[:3] if np.ndim(sampler.seed) else BATCH[0]
    sampler(rows_of)
    twin = twin_of(sampler)
    assert repr(twin) == repr(sampler)
    assert [np.ravel(twin(rows_of)).tolist() for _ in range(10)] == [
        np.ravel(sampler(rows_of)).tolist() for _ in range(10)
    ]
    assert twin.offset == sampler.offset == arguments.get("offset", 0) + 11
    twin(rows_of)  # they share no state
    assert twin.offset == sampler.offset + 1


def test_sampler_repr_says_all(variant: str) -> None:
    sampler = fs.Sampler(temperature=0.8, top_k=2, seed=7)
    sampler(BATCH[0])
    assert repr(sampler) == "Sampler(temperature=0.8, top_k=2, seed=7, offset=1)"
    many = fs.Sampler(temperature=np.linspace(0.5, 1.0, 3000), seed=1)
    assert "..." not in repr(many)


def test_sampler_reset_and_seeded_copy(variant: str) -> None:
    sampler = fs.Sampler(seed=3)
    first = [sampler(BATCH[0]) for _ in range(10)]
    sampler.reset()
    assert (sampler.seed, sampler.offset) == (3, 0)
    assert [sampler(BATCH[0]) for _ in range(10)] == first
    sampler.reset(offset=4)
    assert [sampler(BATCH[0]) for _ in range(6)] == first[4:]
    sampler.reset(8)
    assert (sampler.seed, sampler.offset) == (8, 0)
    other = sampler.copy(seed=3)
    assert [other(BATCH[0]) for _ in range(10)] == first


def test_a_sampler_call_that_raises_does_not_advance(variant: str) -> None:
    sampler = fs.Sampler(seed=3)
    with pytest.raises(ValueError, match="NaN"):
        sampler(np.float32([1, np.nan]))
    assert sampler.offset == 0


def test_a_sampler_stops_at_the_last_offset(variant: str) -> None:
    sampler = fs.Sampler(seed=3, offset=2**64 - 1)
    assert sampler(BATCH[0]) == fs.sample(BATCH[0], seed=3, offset=2**64 - 1)
    with pytest.raises(
        ValueError, match=r"offset must be in \[0, 2\*\*64\), got 184467440737095516"
    ):
        sampler(BATCH[0])


class Named(fs.Sampler):
    """A sampler that knows more."""

    def __init__(self, name: str) -> None:
        super().__init__(temperature=0.5, seed=3, offset=2**64 - 1)
        self.name = name


@pytest.mark.parametrize(
    "twin_of",
    [fs.Sampler.copy, copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))],
    ids=["copy()", "copy", "deepcopy", "pickle"],
)
def test_twins_of_a_subclass_after_the_last_offset(
    variant: str, twin_of: Callable[[fs.Sampler], fs.Sampler]
) -> None:
    sampler = Named("a")
    sampler(BATCH[0])
    twin = twin_of(sampler)
    assert type(twin) is Named
    assert twin.name == "a"
    assert repr(twin) == repr(sampler) == f"Named(temperature=0.5, seed=3, offset={2**64})"
    with pytest.raises(ValueError, match=rf"^offset must be in \[0, 2\*\*64\), got {2**64}$"):
        twin(BATCH[0])


def test_sampler_marks_bad_rows(variant: str) -> None:
    sampler = fs.Sampler(seed=3, errors="mark")
    assert sampler(np.float32([np.nan, 1])) == -1
    assert sampler(np.float32([[np.inf, 1], [-np.inf, 2]])).tolist() == [-1, 1]
    assert sampler.offset == 2


def test_recorded_rows_in_every_dtype(fast_variants: tuple[str, ...], activate: Activate) -> None:
    half = rows.recorded_rows()[:4]
    chain = {"temperature": 0.8, "top_p": 0.95}
    expected = None
    for name in fast_variants:
        with activate(name):
            for dtype in (np.float16, np.float32, np.float64):
                got = fs.sample(half.astype(dtype), seed=1, **chain).tolist()
                expected = expected or got
                assert got == expected, (name, dtype)


def test_compiled_code_follows_every_source(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # numba keeps compiled code by the functions that Python calls, not by those that these call.
    draw = pytest.importorskip("fastsample._numba.draw", reason="numba is not installed")
    words = import_module("fastsample._numba.words")
    for function in (draw.run, draw.uniform):
        assert words.digest_of_sources() in [
            cell.cell_contents for cell in function.py_func.__closure__
        ]
    package = tmp_path / "_numba"
    shutil.copytree(Path(words.__file__).parent, package)
    shutil.copy(Path(fs.__file__).with_name("records.py"), tmp_path)
    monkeypatch.setattr(words, "__file__", str(package / "words.py"))
    seen = {words.digest_of_sources()}
    sources = [*package.glob("*.py"), tmp_path / "records.py"]
    for source in sources:
        source.write_text(source.read_text() + "\n")
        seen.add(words.digest_of_sources())
    assert len(seen) == 1 + len(sources)
