"""Draws from stored rows: however they are stored and cut up, the tokens of the whole."""

from __future__ import annotations

import doctest
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from stored import (
    BRAIN,
    CHAIN,
    DRAW,
    HALF,
    LOGITS,
    WHOLE,
    N,
    V,
    save_safetensors,
    save_shards,
    stored,
)

import fastsample as fs
from fastsample import rows as package
from fastsample.rows import RowSampler, draw_file, draw_pieces, open_logits, pieces, read_columns


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("logits.npy", HALF)
    return tmp_path


# ---- a row's token is a function of its number ------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 100, 403, 1000])
def test_pieces_of_any_size_and_order_are_the_whole(variant, size):
    whole = fs.sample(HALF[:150], seed=7, offset=3, **CHAIN)
    found = np.full(150, -9)
    cut = pieces(150, size)
    for i in np.random.default_rng(size).permutation(len(cut)):
        first, stop = cut[i].start, cut[i].stop
        found[first:stop] = DRAW(HALF[first:stop], first)
    assert np.array_equal(found, whole)


def test_rows_may_be_named_one_by_one():
    order = np.random.default_rng(0).permutation(N)
    assert np.array_equal(DRAW(HALF[order], order), WHOLE[order])
    batch = DRAW.batch({"row": order, "logits": HALF[order]})
    assert np.array_equal(batch["token"], WHOLE[batch["row"]])
    drawn = draw_pieces({"first": [9, 0], "stop": [20, 2]}, stored(), DRAW)
    assert drawn["row"].tolist() == [*range(9, 20), 0, 1]
    assert np.array_equal(drawn["token"], WHOLE[drawn["row"]])


def test_columns_are_those_of_the_row():
    rng = np.random.default_rng(0)
    columns = {
        "top_p": rng.random(N),
        "seed": rng.integers(0, 99, N),
        "top_k": rng.integers(0, 9, N),
    }
    whole = fs.sample(HALF, temperature=0.8, offset=3, **columns)
    draw = RowSampler(temperature=0.8, offset=3, columns=columns)
    assert draw.seed is None
    assert draw.rows == N
    for part in (draw, pickle.loads(pickle.dumps(draw.part(100, 203)))):
        assert np.array_equal(part(HALF[120:200], 120), whole[120:200])
    with pytest.raises(ValueError, match=r"rows must be >= 100, got 99"):
        draw.part(100, 203)(HALF[99:101], 99)
    with pytest.raises(ValueError, match=r"columns must have a value for row 203, got 203"):
        draw.part(100, 203)(HALF[200:204], 200)


@pytest.mark.parametrize("ragged", [False, True])
def test_histories_and_masks_are_columns_too(ragged):
    rng = np.random.default_rng(0)
    history = rng.integers(0, V, (N, 9))
    columns = {"history": history, "allowed": rng.random((N, V)) < 0.5}
    if ragged:
        columns["history"] = [row[: i % 9].tolist() for i, row in enumerate(history)]
    given = {"repetition_penalty": 1.3, "suppress_tokens": [1, 2]}
    whole = fs.sample(HALF, seed=1, **given, **columns)
    draw = RowSampler(1, columns=columns, **given)
    assert np.array_equal(draw(HALF[120:200], 120), whole[120:200])
    assert np.array_equal(draw.part(100, 203)(HALF[120:200], 120), whole[120:200])
    assert draw.fingerprint()["history"] != history[0, 0]


def test_a_coin_is_that_of_the_row():
    chain = {"xtc_probability": 0.5, "xtc_threshold": 0.01, "order": ("temperature", "xtc")}
    whole = fs.sample(HALF, seed=1, **chain)
    assert np.array_equal(RowSampler(1, **chain)(HALF[120:200], 120), whole[120:200])


def test_without_a_seed_there_is_one_to_be_seen():
    draw = RowSampler()
    assert np.array_equal(draw(HALF), fs.sample(HALF, seed=draw.seed))
    assert RowSampler().seed != draw.seed


def test_the_number_of_what_is_wrong_is_that_of_the_row():
    spoilt = HALF.copy()
    spoilt[[300, 301], 5] = np.nan, np.inf
    with pytest.raises(
        ValueError, match=r"^logits row 300 must not contain NaN, got one at token 5"
    ):
        DRAW(spoilt[290:], 290)
    with pytest.raises(ValueError, match=r"^logits row 301 must not contain \+inf"):
        DRAW(spoilt[[7, 301]], [7, 301])
    marked = RowSampler(7, offset=3, errors="mark", **CHAIN)(spoilt[290:], 290)
    assert np.flatnonzero(marked == -1).tolist() == [10, 11]
    top_p = np.ones(N)
    top_p[350] = 2
    with pytest.raises(ValueError, match=r"^top_p must be in \[0, 1\], got 2.0 \(row 350\)"):
        RowSampler(1, columns={"top_p": top_p})(HALF[340:360], 340)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"top_p": 2}, ValueError, r"top_p must be in [0, 1], got 2"),
        ({"seed": -1}, ValueError, r"seed must be in [0, 2**64), got -1"),
        ({"topp": 0.5}, TypeError, "RowSampler() got an unexpected keyword argument 'topp'"),
        ({"errors": "no"}, ValueError, "errors must be 'raise' or 'mark', got 'no'"),
        ({"columns": {"u": [0.5]}}, TypeError, "columns of RowSampler() got an unexpected keyword"),
        ({"columns": {"order": ["hf"]}}, ValueError, "order must be one value, not a column"),
        ({"columns": {"top_p": 0.5}}, ValueError, "top_p must have a value for each row"),
        ({"columns": {"top_p": [1], "min_p": [0, 0]}}, ValueError,
         "min_p must have the 1 values of top_p, got 2"),
        ({"columns": {"top_p": [1]}, "top_p": 0.5}, ValueError,
         "top_p must be a column or one value, got 0.5 too"),
        ({"columns": 5}, TypeError, "columns must be a mapping of names to arrays, got 5 (int)"),
        ({"columns": {1: [1]}}, TypeError, "columns must have names of parameters, got 1"),
        ({"repetition_penalty": 2}, ValueError,
         "history must be given where repetition_penalty is on"),
        ({"columns": {"seed": [1]}, "seed": 0}, ValueError,
         "seed must be a column or one value, got 0 too"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_draw_is_refused_by_name(given, error, message):
    with pytest.raises(error) as caught:
        RowSampler(**given)
    assert str(caught.value).startswith(message)


def test_logits_and_numbers_that_do_not_go_together():
    for logits, rows, message in (
        (HALF[0], 0, "logits must be 2-D, got shape (600,)"),
        (HALF[:3], [1, 2], "rows must be one or of shape (3,), got (2,)"),
        (HALF[:1], [-1], "rows must be >= 0, got -1"),
        (HALF[:1], -1, "rows must be in [0, 2**64), got -1"),
        (HALF[:1], 2**64, "rows must be in [0, 2**64), got 18446744073709551616"),
        (
            HALF[:2],
            2**64 - 1,
            "rows must be <= 18446744073709551614 for 2 rows, got 18446744073709551615",
        ),
    ):
        with pytest.raises(ValueError, match="must be") as caught:
            DRAW(logits, rows)
        assert str(caught.value) == message
    with pytest.raises(TypeError, match="rows must be integers, got float64"):
        DRAW(HALF[:1], 0.5)
    with pytest.raises(ValueError, match="size must be >= 1, got 0"):
        pieces(5, 0)


def test_rows_of_the_upper_half_are_streams_too():
    numbers = [2**63 - 1, 2**63, 2**63 + 1]
    whole = fs.sample(HALF[:3], seed=7, offset=3, stream=numbers, **CHAIN)
    assert np.array_equal(DRAW(HALF[:3], numbers[0]), whole)
    assert np.array_equal(DRAW(HALF[1:3], np.array(numbers[1:], np.uint64)), whole[1:])


# ---- stores -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("store", ["npy", "shards", "safetensors"])
def test_every_store_of_every_dtype(store, dtype):
    array = LOGITS.astype(dtype)
    path = {"npy": "x.npy", "safetensors": "x.safetensors"}.get(store, "x")
    if store == "npy":
        np.save(path, array)
    elif store == "shards":
        save_shards(path, array)
    else:
        save_safetensors(path, x=array)
    logits = pickle.loads(pickle.dumps(open_logits(path)))
    assert (logits.shape, len(logits)) == ((N, V), N)
    assert repr(logits) == f"{Path(path).resolve()}: {N} rows of {V} {array.dtype.name}"
    for first, stop in ((0, N), (0, 0), (149, 152), (N, N), (402, N)):
        rows = logits.read(first, stop)
        assert rows.shape == (stop - first, V)
        assert rows.tobytes() == array[first:stop].tobytes()
    for first, stop, message in (
        (-1, 5, "first must be in [0, 403], got -1"),
        (404, 404, "first must be in [0, 403], got 404"),
        (9, 8, "stop must be in [9, 403], got 8"),
        (0, 404, "stop must be in [0, 403], got 404"),
    ):
        with pytest.raises(ValueError, match="must be in") as caught:
            logits.read(first, stop)
        assert str(caught.value) == message
    with pytest.raises(TypeError, match=r"^first must be an integer, got 0.5 \(float\)"):
        logits.read(0.5, 1)
    draw_file(logits, "tokens.npy", DRAW, memory=2**20, threads=2)
    assert np.array_equal(np.load("tokens.npy"), fs.sample(array, seed=7, offset=3, **CHAIN))


def test_bits_of_bfloat16_are_bfloat16():
    np.save("bits.npy", BRAIN.view(np.uint16))
    assert np.array_equal(DRAW(open_logits("bits.npy").read(0, N)), DRAW(BRAIN))


def test_a_tensor_is_named_where_there_are_several():
    save_safetensors("x.safetensors", a=HALF[:5], b=HALF[5:9])
    assert open_logits("x.safetensors", "b").read(0, 4).tobytes() == HALF[5:9].tobytes()
    for name in (None, "c"):
        with pytest.raises(ValueError, match=rf"tensor must be one of a, b of .*, got {name}"):
            open_logits("x.safetensors", name)


def test_what_is_no_store_of_logits_is_refused():
    Path("empty").mkdir()
    Path("text").write_text("logits")
    Path("bad.npy").write_bytes(b"\x93NUMPY\x01\x00\x05\x00hello")
    Path("open.npy").write_bytes(b"\x93NUMPY\x01\x00\x12\x00{'descr': '<f2', (\n")
    np.save("ints.npy", np.zeros((2, 2), int))
    np.save("one.npy", np.zeros(2))
    np.save("nothing.npy", np.zeros((5, 0)))
    np.save("columns.npy", np.asfortranarray(LOGITS))
    save_safetensors("ints.safetensors", x=np.zeros((2, 2), int))
    save_shards("unlike", LOGITS)
    np.save("unlike/shard-20.npy", LOGITS[:, 1:])
    for path, message in {
        "empty": "must be a Zarr array or .npy files",
        "text": "must be a .npy or .safetensors file",
        "nothing.npy": "must have 1 to 4194304 tokens, got (5, 0)",
        "bad.npy": "must have a header of .npy",
        "open.npy": "must have a header of .npy",
        "ints.npy": "must be float16, bfloat16, float32 or float64, got int64",
        "ints.safetensors": "must be F16, BF16, F32, F64, got I64",
        "one.npy": "must be of shape (N, V), got (2,)",
        "columns.npy": "must be stored row by row, got Fortran order",
        "unlike": "must be alike in all shards",
    }.items():
        with pytest.raises(ValueError, match=r"^logits must") as caught:
            open_logits(path)
        assert message in str(caught.value)
    with pytest.raises(FileNotFoundError):
        open_logits("missing.npy")


def _of_tensor(**change):
    about = {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]}
    return json.dumps({"x": {**about, **change}})


_KINDS = "'x' must have a dtype, and integers >= 0 for shape and two data_offsets, got "


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("\xff", "its header must be an object of JSON"),
        ("[]", "its header must be an object of JSON"),
        ('{"x":' + "[" * 100_000, "its header must be an object of JSON"),
        ('{"x": 5}', f"{_KINDS}5"),
        ('{"x": {}}', f"{_KINDS}{{}}"),
        (_of_tensor(dtype=[]), _KINDS),
        (_of_tensor(shape="23"), _KINDS),
        (_of_tensor(shape=[-2, -3]), _KINDS),
        (_of_tensor(shape=[2, 3.0]), _KINDS),
        (_of_tensor(shape=[True, 6]), _KINDS),
        (_of_tensor(data_offsets=["0", "12"]), _KINDS),
        (_of_tensor(data_offsets=[-12, 0]), _KINDS),
        (_of_tensor(data_offsets=[0]), _KINDS),
        (_of_tensor(data_offsets=[12, 0]), "'x' must have 12 bytes by its shape, got -12 by its"),
        (_of_tensor(data_offsets=[0, 11]), "'x' must have 12 bytes by its shape, got 11 by its"),
    ],
)
def test_what_is_no_safetensors_file_is_refused(header, message):
    text = header.encode("latin-1")
    path = Path("bad.safetensors").resolve()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(12))
    with pytest.raises(ValueError, match="safetensors") as caught:
        open_logits(path)
    assert str(caught.value).startswith(f"{path} is no safetensors file: {message}")


def test_a_safetensors_file_is_as_long_as_it_says():
    save_safetensors("x.safetensors", x=HALF)
    os.truncate("x.safetensors", os.stat("x.safetensors").st_size - 1)
    with pytest.raises(ValueError, match=r"logits must have .*x.safetensors is cut off in row 402"):
        open_logits("x.safetensors")
    Path("x.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(ValueError, match="its header must be an object of JSON"):
        open_logits("x.safetensors")


def test_a_cut_off_file_is_refused_and_so_is_one_that_is_cut_meanwhile():
    logits = stored()
    os.truncate("logits.npy", 128 + 100 * V * 2 + 5)
    message = (
        r"logits must have \d+ bytes, as the header says, got \d+: .*npy is cut off in row 100"
    )
    for call in (stored, lambda: logits.read(0, 1)):
        with pytest.raises(ValueError, match=message):
            call()


def test_no_rows_at_all():
    np.save("none.npy", HALF[:0])
    assert draw_file(open_logits("none.npy"), "tokens.npy", DRAW) == (0, 0, 0)
    assert np.load("tokens.npy").shape == (0,)


# ---- columns ------------------------------------------------------------------------------------


def test_columns_of_both_kinds_of_file():
    Path("c.csv").write_text("seed, top_p,top_k,p_less\n1,.5,-1,true\n18446744073709551615,1,3,0\n")
    columns = read_columns("c.csv")
    assert {name: values.tolist() for name, values in columns.items()} == {
        "seed": [1, 2**64 - 1], "top_p": [0.5, 1.0], "top_k": [-1, 3], "p_less": [True, False],
    }  # fmt: skip
    np.savez("c.npz", **columns)
    again = read_columns("c.npz")
    order = ("p_less", "top_k", "top_p")
    whole = fs.sample(HALF[:2], order=order, **columns)
    for found in (columns, again):
        assert np.array_equal(RowSampler(columns=found, order=order)(HALF[:2]), whole)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "columns must have names, each once, got []"),
        ("seed,seed\n", "columns must have names, each once, got ['seed', 'seed']"),
        ("seed,u\n1,.5\n", "columns must be of parameters' numbers, got 'u'"),
        ("seed,top_p\n1\n", "columns must have 2 values, got 1 (row 0)"),
        ("seed\n1\nx\n", "seed must be an integer, got 'x' (row 1)"),
        ("top_p\n1\n\n", "columns must have 1 values, got 0 (row 1)"),
        ("top_p\nhalf\n", "top_p must be a number, got 'half' (row 0)"),
        ("p_less\n2\n", "p_less must be true or false, got '2' (row 0)"),
    ],
)
def test_a_bad_csv_is_refused_by_row(text, message):
    Path("c.csv").write_text(text)
    with pytest.raises(ValueError, match="must") as caught:
        read_columns("c.csv")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "must"),
    [
        ("latin.csv", b"seed\n\xff\n", "a .csv file in UTF-8"),
        ("long.csv", b'seed\n"' + b"1" * 200_000, "a .csv file in UTF-8"),
        ("text.npz", b"seed\n1\n", "a .npz file of arrays of numbers"),
        ("none.npz", b"", "a .npz file of arrays of numbers"),
        ("seek.npz", None, "a .npz file of arrays of numbers"),
        ("zip.npz", b"PK\x03\x04 and no more", "a .npz file of arrays of numbers"),
        ("one.npz", None, "a .npz file of arrays of numbers"),
        ("objects.npz", None, "a .npz file of arrays of numbers"),
    ],
)
def test_a_file_of_columns_that_cannot_be_read_is_refused_by_name(name, content, must):
    if content is not None:
        Path(name).write_bytes(content)
    elif name == "one.npz":
        np.save("one.npy", np.ones(3))
        os.rename("one.npy", name)
    else:
        np.savez(name, seed=np.array([1, None], object))
    if name == "seek.npz":  # whose directory begins before the file does
        whole = Path(name).read_bytes()
        Path(name).write_bytes(whole[:-3] + b"\x01" + whole[-2:])
    with pytest.raises(ValueError, match="columns must") as caught:
        read_columns(name)
    assert str(caught.value).startswith(f"columns must be {must}, got {name!r}: ")


def test_a_column_has_a_value_for_every_row():
    with pytest.raises(ValueError, match="columns must have 403 values, got 5"):
        draw_file(stored(), "tokens.npy", RowSampler(1, columns={"top_p": np.ones(5)}))
    assert not list(Path().glob("tokens*"))


@pytest.mark.parametrize("name", package.__all__)
def test_examples(name):
    (test, *none) = doctest.DocTestFinder(recurse=False).find(
        getattr(package, name), name, globs={}
    )
    assert not none
    report: list[str] = []
    assert doctest.DocTestRunner(verbose=False).run(test, out=report.append).failed == 0, report
    with_examples = {"RowSampler", "draw_file", "open_logits", "pieces", "read_columns"}
    assert bool(test.examples) == (name in with_examples)


def test_rows_import_no_engine():
    code = "import sys, fastsample.rows, fastsample.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, check=True)
    engines = {"dask", "distributed", "ray", "tqdm", "zarr", "pandas", "pyarrow"}
    assert not engines & set(done.stdout.decode().split())
