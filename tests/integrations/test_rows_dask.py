"""The workers of a cluster of dask draw the tokens of one call, whatever becomes of them."""

from __future__ import annotations

import gc
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from stored import CHAIN, DRAW, HALF, OPTIONS, WHOLE, Killer, N, Slow, V, stored

import fastsample as fs
from fastsample import cli
from fastsample.rows import RowSampler, draw_file
from fastsample.rows.journal import TokensFile

distributed = pytest.importorskip("distributed")

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def cluster():
    """Two processes with a thread each, which find the module of the tests' stores."""
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    with pytest.MonkeyPatch.context() as patched, warnings.catch_warnings():
        patched.setenv("PYTHONPATH", path)
        warnings.simplefilter("ignore")  # of the cluster's own start
        with distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as cluster:
            yield cluster


@pytest.fixture
def dask(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("logits.npy", HALF)
    return cluster.scheduler_address


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_any_number_of_pieces(dask, count):
    memory = -(-N // count) * V * 2 * 2  # two workers
    seen = []
    done = draw_file(stored(), "tokens.npy", DRAW, memory=memory, dask=dask, progress=seen.append)
    assert done == (N, 0, 0)
    assert len(seen) == -(-N // -(-N // count))
    assert np.array_equal(np.load("tokens.npy"), WHOLE)


def test_columns(dask):
    rng = np.random.default_rng(0)
    columns = {"top_p": rng.random(N), "seed": rng.integers(0, 99, N)}
    draw_file(stored(), "tokens.npy", RowSampler(columns=columns), memory=10_000, dask=dask)
    assert np.array_equal(np.load("tokens.npy"), fs.sample(HALF, **columns))


def test_any_order_of_completion(dask, monkeypatch, tmp_path):
    order, write = [], TokensFile.write
    monkeypatch.setattr(TokensFile, "write", lambda *a: (order.append(a[1]), write(*a))[1])
    (tmp_path / "read").mkdir()
    slow = Slow(stored(), tmp_path / "read", 0.2)
    draw_file(slow, "tokens.npy", DRAW, memory=2 * 100 * V * 2, dask=dask)
    assert sorted(order) == [0, 100, 200, 300, 400]
    assert order != sorted(order)
    assert np.array_equal(np.load("tokens.npy"), WHOLE)


def test_a_worker_that_is_killed_in_the_middle(dask, tmp_path):
    (tmp_path / "read").mkdir()
    slow = Slow(stored(), tmp_path / "read", 0.3)
    killer = Killer(slow)
    killer.start()
    done = draw_file(slow, "tokens.npy", DRAW, memory=2 * 60 * V * 2, dask=dask)
    killer.join()
    assert done == (N, 0, 0)
    assert np.array_equal(np.load("tokens.npy"), WHOLE)
    again = [readers for readers in slow.readers().values() if killer.killed in readers]
    assert any(len(readers) > 1 for readers in again)  # what it had begun, another one drew


def test_the_number_of_a_bad_row_is_the_global_one(dask):
    spoilt = HALF.copy()
    spoilt[[222, 290]] = np.nan
    np.save("logits.npy", spoilt)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^logits row 222 must not contain NaN"):
            draw_file(stored(), "tokens.npy", DRAW, memory=20 * V, dask=dask, resume=True)
    marking = RowSampler(7, offset=3, errors="mark", **CHAIN)
    done = draw_file(stored(), "tokens.npy", marking, dask=dask, resume=True)
    assert (done.rows, done.bad) == (N, 2)
    assert done.resumed >= 200
    assert np.flatnonzero(np.load("tokens.npy") == -1).tolist() == [222, 290]


def test_a_file_that_is_cut_meanwhile_leaves_the_finished_pieces(dask):
    logits, about = stored(), os.stat("logits.npy")

    def cut(rows):
        os.truncate("logits.npy", 128 + 205 * V * 2)

    with pytest.raises(ValueError, match=r"logits must have .* is cut off in row 205"):
        draw_file(logits, "tokens.npy", DRAW, memory=20 * V * 2, dask=dask, progress=cut)
    np.save("logits.npy", HALF)
    os.utime("logits.npy", ns=(about.st_atime_ns, about.st_mtime_ns))
    assert draw_file(stored(), "tokens.npy", DRAW, dask=dask, resume=True).resumed >= 10
    assert np.array_equal(np.load("tokens.npy"), WHOLE)


def test_the_command(dask, capsys):
    command = ["draw", "logits.npy", "-o", "tokens.npy", *OPTIONS, "--dask", dask]
    assert cli.main(command) == 0
    assert "403 tokens, 0 bad rows" in capsys.readouterr().out
    assert np.array_equal(np.load("tokens.npy"), WHOLE)


@pytest.mark.parametrize("address", ["localhost", "foo://localhost:1", "localhost:x", "tcp://"])
def test_what_is_no_address_is_refused_at_once(address, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("logits.npy", HALF)
    with pytest.raises(SystemExit, match="2"):
        cli.main(["draw", "logits.npy", "-o", "tokens.npy", "--dask", address])
    gc.collect()
    error, hint = capfd.readouterr().err.splitlines()  # and no traceback of a client
    must = "fastsample draw: error: argument --dask: must be the address of a scheduler, got "
    assert error.startswith(must)
    assert hint == "see fastsample draw --help"
