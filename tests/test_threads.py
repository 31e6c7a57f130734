"""`threads`: tokens and errors do not depend on it, and what a call starts ends.

Of helpers of the core that come late see tests/c/late.cpp.
"""

from __future__ import annotations

import copy
import itertools
import json
import os
import pickle
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from rows import make_row

import fastsample as fs
from fastsample.uniforms import process_stream as _process_stream

COUNTS: tuple[int | None, ...] = (1, 2, 3, 7, 64, None)
ROWS = 21
BATCH = np.stack([make_row("random", 1500, seed) for seed in range(ROWS)])
U = np.random.default_rng(5).random(ROWS)
PER_ROW: dict[str, Any] = {
    "temperature": [0.0, 0.5, 1.0, 1.5, 0.8, 0.9, 2.0] * 3,
    "top_k": [None, 5, 300, None, 50, None, None] * 3,
    "top_p": [1.0, 0.9, 0.5, 0.95, 0.95, 1.0, 0.99] * 3,
    "min_p": [0.0, 0.0, 0.0, 0.0, 0.01, 0.1, 0.0] * 3,
}
CHAINS: tuple[dict[str, Any], ...] = (
    {"temperature": 0.0}, {"temperature": 0.8}, {"top_p": 0.9}, {"min_p": 0.05}, {"top_k": 40},
    PER_ROW,
)  # fmt: skip
needs_core = pytest.mark.skipif(
    "core" not in fs.backends(), reason="fastsample._core is not installed"
)
DTYPES = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)


# ---- the same tokens --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_tokens_do_not_depend_on_the_number(variant: str, dtype: npt.DTypeLike) -> None:
    batch = BATCH.astype(dtype)
    for chain in CHAINS:
        expected = np.array([
            fs.sample(row, u=u, **{n: v[i] if chain is PER_ROW else v for n, v in chain.items()})
            for i, (row, u) in enumerate(zip(batch, U, strict=True))
        ])  # fmt: skip
        for threads in COUNTS:
            assert np.array_equal(fs.sample(batch, u=U, threads=threads, **chain), expected)


def test_any_strides(variant: str) -> None:
    for view in (BATCH[::-1], BATCH[::3], BATCH[:, 7:1200], np.broadcast_to(BATCH[0], BATCH.shape)):
        expected = [fs.sample(row, seed=[i], top_p=0.9) for i, row in enumerate(view)]
        seeds = range(len(view))
        for threads in COUNTS:
            drawn = fs.sample(view, seed=list(seeds), top_p=0.9, threads=threads)
            assert drawn.tolist() == np.ravel(expected).tolist()


def test_a_batch_that_is_worth_threads_by_itself(fast_variant: str) -> None:
    """2**21 logits and more: the default is not one thread, where there are processors for it."""
    batch = np.random.default_rng(1).normal(0.0, 2.5, (18, 128_256)).astype(np.float32)
    expected = fs.sample(batch, seed=3, threads=1, temperature=0.8, top_k=50)
    for threads in (None, 2, 5):
        drawn = fs.sample(batch, seed=3, threads=threads, temperature=0.8, top_k=50)
        assert np.array_equal(drawn, expected)


def test_no_rows_and_one_row(variant: str) -> None:
    for threads in COUNTS:
        assert fs.sample(BATCH[:0], threads=threads).shape == (0,)
        assert fs.sample(BATCH[0], u=0.3, threads=threads) == fs.sample(BATCH[0], u=0.3)


# ---- the same errors --------------------------------------------------------------------------


@pytest.mark.parametrize("threads", COUNTS)
def test_the_first_bad_row_is_the_error(variant: str, threads: int | None) -> None:
    defects = {"NaN": np.nan, r"\+inf": np.inf}
    for first, second in ((0, 1), (3, 4), (7, 20)):
        for (name, value), other in zip(defects.items(), (np.inf, np.nan), strict=True):
            spoilt = BATCH.copy()
            spoilt[first, 1499], spoilt[second, 0] = value, other
            out = np.full(ROWS, -7, np.int64)
            for _ in range(3):
                with pytest.raises(ValueError, match=f"^logits row {first} must not .* {name}"):
                    fs.sample(spoilt, u=U, threads=threads, out=out)
            assert np.all(out == -7)


@pytest.mark.parametrize("threads", COUNTS)
def test_bad_rows_can_be_marked(variant: str, threads: int | None) -> None:
    spoilt, bad = BATCH.copy(), [0, 4, 5, 20]
    spoilt[bad] = np.array([np.nan, np.inf, -np.inf, np.nan])[:, None]
    expected = fs.sample(BATCH, u=U, top_p=0.9)
    expected[bad] = -1
    drawn = fs.sample(spoilt, u=U, top_p=0.9, errors="mark", threads=threads)
    assert np.array_equal(drawn, expected)


@pytest.mark.parametrize("threads", [0, -1, -(10**30)])
def test_too_few(variant: str, threads: int) -> None:
    message = f"threads must be None or >= 1, got {threads}"
    for call in (lambda: fs.sample(BATCH, threads=threads), lambda: fs.Sampler(threads=threads)):
        with pytest.raises(ValueError, match=f"^{message}$"):
            call()


@pytest.mark.parametrize("threads", [True, 2.0, "2", [2], np.float64(2.0)], ids=repr)
def test_no_integer(variant: str, threads: Any) -> None:
    for call in (lambda: fs.sample(BATCH, threads=threads), lambda: fs.Sampler(threads=threads)):
        with pytest.raises(TypeError, match=r"^threads must be an integer, got "):
            call()


@pytest.mark.parametrize("threads", [10**30, 2**31, np.int8(2)], ids=repr)
def test_any_integer_from_1(variant: str, threads: Any) -> None:
    assert np.array_equal(fs.sample(BATCH, u=U, threads=threads), fs.sample(BATCH, u=U))


# ---- Sampler ----------------------------------------------------------------------------------


TWINS: dict[str, Callable[[fs.Sampler], fs.Sampler]] = {
    "copy()": fs.Sampler.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda sampler: pickle.loads(pickle.dumps(sampler)),
    "repr": lambda sampler: eval(repr(sampler), {"Sampler": fs.Sampler}),
}


@pytest.mark.parametrize("twin_of", TWINS.values(), ids=TWINS)
def test_a_sampler_keeps_its_threads(
    variant: str, twin_of: Callable[[fs.Sampler], fs.Sampler]
) -> None:
    for threads in (1, 2, 7):
        sampler = fs.Sampler(seed=1, top_p=0.9, threads=threads)
        twin = twin_of(sampler)
        assert repr(twin) == f"Sampler(top_p=0.9, seed=1, offset=0, threads={threads})"
        for logits in (BATCH, BATCH[0]):
            assert np.array_equal(
                twin(logits), fs.sample(logits, seed=1, top_p=0.9, offset=twin.offset - 1)
            )
    assert "threads" not in repr(fs.Sampler(seed=1, threads=None))


# ---- beside other threads ---------------------------------------------------------------------


def test_several_python_threads_at_once(fast_variant: str) -> None:
    expected = [fs.sample(BATCH, seed=seed, **PER_ROW).tolist() for seed in range(12)]

    def draw(seed: int) -> Any:
        return fs.sample(BATCH, seed=seed, threads=2, **PER_ROW).tolist()

    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            assert list(pool.map(draw, range(12))) == expected


def test_draws_without_a_seed_share_no_step() -> None:
    with ThreadPoolExecutor(4) as pool:
        parts = pool.map(lambda _: [_process_stream.next() for _ in range(20_000)], range(4))
        steps = [step for part in parts for step in part]
    assert len(set(steps)) == len(steps)


def test_beside_the_threads_of_torch(fast_variant: str) -> None:
    torch = pytest.importorskip("torch")
    matrix = torch.ones((300, 300), dtype=torch.float32)
    expected = fs.sample(BATCH, u=U, top_p=0.9, threads=1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with ThreadPoolExecutor(1) as pool:
            products = [pool.submit(lambda: float((matrix @ matrix).sum())) for _ in range(20)]
            for _ in range(20):
                tensor = torch.from_numpy(BATCH)
                assert np.array_equal(fs.sample(tensor, u=U, top_p=0.9, threads=2), expected)
            assert {product.result() for product in products} == {300.0**3}
    finally:
        torch.set_num_threads(before)


@needs_core
def test_python_runs_during_a_call() -> None:
    """The GIL is released: another thread gets on between the start and the end of a call."""
    row = np.random.default_rng(1).normal(size=1_000_000).astype(np.float32)
    sampler = fs.Sampler(seed=1, top_p=0.95)
    progress, done = 0, False

    def work() -> None:
        nonlocal progress
        while not done:
            progress += 1
            time.sleep(0)  # which lets the caller have the GIL

    other = threading.Thread(target=work)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e4)  # nobody is made to give the GIL away
    try:
        other.start()
        for _ in range(1000):
            before = progress
            sampler(row)
            if progress > before:
                break
        else:
            pytest.fail("another thread never ran during a call")
    finally:
        sys.setswitchinterval(interval)
        done = True
        other.join()


# ---- helpers of numba that come late -----------------------------------------------------------


@pytest.fixture
def held_back(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """Threads that numba's calls start: not begun until they are called."""
    threads = pytest.importorskip("fastsample._numba.threads", reason="numba is not installed")
    helpers: list[Callable[[], None]] = []
    monkeypatch.setattr(
        threads._thread, "start_new_thread", lambda function, _: helpers.append(function)
    )
    return helpers


def test_a_call_does_not_wait_for_who_has_not_begun(held_back: list[Callable[[], None]]) -> None:
    with fs.use_backend("numba"):
        expected = fs.sample(BATCH, u=U, top_p=0.9, threads=1)
        out = np.full(ROWS, -5)
        copied = BATCH.copy()
        fs.sample(copied, u=U, top_p=0.9, threads=4, out=out)
    assert len(held_back) == 3
    assert np.array_equal(out, expected)
    out[:] = -5
    freed = weakref.ref(copied)
    del copied
    assert freed() is None, "a thread that has yet to begin keeps the caller's logits"
    for helper in held_back:
        helper()
    assert np.all(out == -5)


def test_the_default_starts_no_more_threads_than_processors_are_idle(
    held_back: list[Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = pytest.importorskip("fastsample._numba.threads", reason="numba is not installed")
    for first, later in itertools.product((0, 1, 7), (0, 1, 7)):
        idle = iter((first, later))
        monkeypatch.setattr(threads, "idle_processors", lambda idle=idle: next(idle, 0))
        threads.share_out(40, 4, True, lambda first, last: time.sleep(1e-4))
        assert len(held_back) == min(3, first + later)
        held_back.clear()
    monkeypatch.setattr(threads, "idle_processors", lambda: 0)
    with fs.use_backend("numba"):
        batch = np.zeros((2**12, 2**9), np.float32)  # worth two threads
        fs.sample(batch, temperature=0.0)
        assert len(held_back) == 0
        fs.sample(batch, temperature=0.0, threads=2)
        assert len(held_back) == 1


def test_idle_processors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    threads = pytest.importorskip("fastsample._numba.threads", reason="numba is not installed")
    said = tmp_path / "loadavg"
    monkeypatch.setattr(threads, "open", lambda _, **how: said.open(**how), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert threads.idle_processors() == sys.maxsize  # there is no such file
    for text, idle in (
        ("", sys.maxsize),
        ("0.1 0.2 0.3 3/20 9\n", 5),
        ("0 0 0 9/9 9", 0),
        ("0 0 0 0/0 0", sys.maxsize),
    ):
        said.write_text(text)
        assert threads.idle_processors() == idle


def test_a_call_waits_for_rows_that_are_taken() -> None:
    threads = pytest.importorskip("fastsample._numba.threads", reason="numba is not installed")
    caller, taken = threading.get_ident(), threading.Event()
    done: list[int] = []

    def work(first: int, last: int) -> None:
        if threading.get_ident() == caller:
            assert taken.wait(60)
        else:
            taken.set()
            time.sleep(0.05)
        done.extend(range(first, last))

    threads.share_out(40, 2, False, work)
    assert sorted(done) == list(range(40))


def test_what_a_helper_raises_is_the_calls_error() -> None:
    threads = pytest.importorskip("fastsample._numba.threads", reason="numba is not installed")
    caller, taken = threading.get_ident(), threading.Event()

    def work(first: int, last: int) -> None:
        if threading.get_ident() == caller:
            assert taken.wait(60)
        else:
            taken.set()
            raise MemoryError("of a helper")

    with pytest.raises(MemoryError, match="of a helper"):
        threads.share_out(40, 2, False, work)


# ---- what there is of threads, in a process of its own -----------------------------------------

CHILD = """
import json, os, re, signal, sys, threading, time
import numpy as np

def threads():
    with open("/proc/self/status") as status:
        return int(re.search(r"^Threads:\\t(\\d+)$", status.read(), re.MULTILINE)[1])

before = threads()  # those of NumPy
import fastsample as fs
seen = {"import": threads() - before}
batch = np.load(sys.argv[1])

def draw(count):
    return fs.sample(batch, seed=3, top_p=0.9, threads=count).tolist()

tokens = draw(1)
seen["one thread"] = threads() - before
same = [draw(count) == tokens for count in (2, 3, 7, None)]

def left(others=0):
    # One that begins late is not waited for by the call, and ends at once. Looks are counted, and
    # not seconds: a machine that stands still lets no thread end.
    for _ in range(30_000):
        if threads() == before + others:
            break
        time.sleep(0.001)
    return threads() - before

seen["calls"] = left()

def most_during(calls, count, enough):
    # Of the threads that help, in so many calls or until there have been enough.
    most, done = 0, False
    def watch():
        nonlocal most
        while not done:
            most = max(most, threads() - before - 1)
    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(calls):
        left(others=1)
        draw(count)
        if most == enough:
            break
    done = True
    watcher.join()
    left()
    return most

seen["during calls"] = most_during(1000, 4, 3)

# Who takes a processor from others is put aside in the middle of a row.
busy = []
for _ in range(os.cpu_count()):
    busy.append(os.fork())
    while not busy[-1]:
        pass
before = threads()  # OpenBLAS has ended its own before the fork
with open("/proc/loadavg") as file:
    said = int(file.read().split()[3].split("/")[0]) > os.cpu_count()
seen["beside busy processors"] = most_during(50, None, 1) if said else 0
for child in busy:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)

read, write = os.pipe()
pid = os.fork()
if pid == 0:
    before = 1
    answers = [draw(count) == tokens for count in (1, 2, 7, None)]
    os.write(write, json.dumps([answers, left()]).encode())
    os._exit(0)
os.close(write)
with os.fdopen(read) as pipe:
    child, in_child = json.load(pipe)
assert os.waitpid(pid, 0)[1] == 0
seen["after a fork"] = in_child
print(json.dumps([same, child, seen]))
"""


@needs_core
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to count threads by")
def test_threads_of_the_process(tmp_path: Path) -> None:
    np.save(tmp_path / "batch.npy", np.tile(BATCH, (10, 20)))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["FASTSAMPLE_BACKEND"] = "core"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHILD, "batch.npy"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    same, child, seen = json.loads(done.stdout)
    assert same == [True] * 4
    assert child == [True] * 4
    assert seen == {
        "import": 0, "one thread": 0, "calls": 0, "during calls": 3, "beside busy processors": 0,
        "after a fork": 0,
    }  # fmt: skip
