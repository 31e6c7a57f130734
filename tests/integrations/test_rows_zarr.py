"""Logits in arrays and groups of Zarr, versions 2 and 3."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from stored import CHAIN, DRAW, HALF, LOGITS, N, V

import fastsample as fs
from fastsample.rows import draw_file, open_logits

zarr = pytest.importorskip("zarr")

KINDS = {
    "2": {"zarr_format": 2, "chunks": (48, 300)},
    "3": {"chunks": (48, 300)},
    "3, sharded": {"chunks": (48, V), "shards": (96, V)},
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_an_array(kind, dtype):
    array = LOGITS.astype(dtype)
    zarr.create_array("x", data=array, **KINDS[kind])
    logits = pickle.loads(pickle.dumps(open_logits("x")))
    assert (logits.shape, logits.dtype, logits.chunk) == ((N, V), dtype, 96 if "s" in kind else 48)
    for first, stop in ((0, N), (0, 0), (47, 97), (402, N)):
        assert np.array_equal(logits.read(first, stop), array[first:stop])
    read = []
    draw_file(logits, "tokens.npy", DRAW, memory=2**20, threads=2, progress=read.append)
    assert all(rows % logits.chunk == 0 for rows in sorted(read)[1:])  # no chunk is read twice
    assert np.array_equal(np.load("tokens.npy"), fs.sample(array, seed=7, offset=3, **CHAIN))


def test_bits_of_bfloat16():
    import ml_dtypes

    brain = LOGITS.astype(ml_dtypes.bfloat16)
    zarr.create_array("x", data=brain.view(np.uint16))
    logits = open_logits("x")
    assert logits.dtype_name == "bfloat16"
    draw_file(logits, "tokens.npy", DRAW)
    assert np.array_equal(np.load("tokens.npy"), fs.sample(brain, seed=7, offset=3, **CHAIN))


def test_an_array_of_a_group_is_named_where_there_are_several():
    group = zarr.create_group("group")
    group.create_array("a", data=HALF[:5])
    assert open_logits("group").read(0, 5).tobytes() == HALF[:5].tobytes()
    group.create_array("b", data=HALF[5:9])
    assert open_logits("group", "b").read(0, 4).tobytes() == HALF[5:9].tobytes()
    with pytest.raises(ValueError, match=r"tensor must be one of a, b of .*, got None"):
        open_logits("group")


def test_an_array_that_lacks_a_chunk_is_refused(folder):
    zarr.create_array("x", data=HALF, chunks=(100, V))
    assert len(open_logits("x")) == N
    (folder / "x" / "c" / "2" / "0").unlink()
    with pytest.raises(ValueError, match=r"logits must have all of their 5 chunks, got 4"):
        open_logits("x")


def test_a_chunk_must_fit_into_memory():
    zarr.create_array("x", data=HALF, chunks=(100, V))
    with pytest.raises(ValueError, match=r"memory must be >= 120000, what is read at once, got 9"):
        draw_file(open_logits("x"), "tokens.npy", DRAW, memory=9)
