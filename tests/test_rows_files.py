"""A file of tokens: written in pieces of any order, stopped at any moment, resumed, whole."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stored import CHAIN, DRAW, HALF, OPTIONS, WHOLE, N, V, save_shards, stopped, stored

import fastsample as fs
from fastsample.rows import RowSampler, draw_file, open_logits
from fastsample.rows import run as run_module
from fastsample.rows.engines import Threads
from fastsample.rows.journal import TokensFile


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("logits.npy", HALF)
    return tmp_path


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_a_file_in_any_number_of_pieces(count, threads):
    np.save("tokens.npy", np.arange(3))  # which is replaced
    seen: list[int] = []
    memory = -(-N // count) * V * 2 * threads
    done = draw_file(
        stored(), "tokens.npy", DRAW, memory=memory, threads=threads, progress=seen.append
    )
    assert done == (N, 0, 0)
    assert sum(seen) == N
    assert np.load("tokens.npy").dtype == np.int64
    assert np.array_equal(np.load("tokens.npy"), WHOLE)
    assert sorted(os.listdir()) == ["logits.npy", "tokens.npy"]


class Backwards(Threads):
    """An engine that gives back the last piece first."""

    def wait(self, futures):
        last = list(futures)[-1]
        last.exception()
        return {last}


@pytest.mark.parametrize("output", ["itself", "link", "hard link", "shard", "part", "journal"])
def test_logits_are_not_written_over(output):
    logits, path = "logits.npy", "logits.npy"
    if output == "link":
        path = "link.npy"
        Path(path).symlink_to(logits)
    elif output == "hard link":
        path = "link.npy"
        os.link(logits, path)
    elif output == "shard":
        logits, path = "shards", "shards/shard-10.npy"
        save_shards(logits, HALF)
    elif output in ("part", "journal"):
        logits, path = f"x.npy.{output}", "x.npy"
        os.rename("logits.npy", logits)
    before = {file: file.read_bytes() for file in Path().rglob("*") if file.is_file()}
    for resume in (False, True):
        with pytest.raises(ValueError, match=rf"^output must not lead to logits, got '{path}' \("):
            draw_file(open_logits(logits), path, DRAW, resume=resume)
    assert {file: file.read_bytes() for file in Path().rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(
    ("logits", "draw", "message"),
    [
        ("logits.npy", DRAW, "logits must be what open_logits returns, got 'logits.npy' (str)"),
        (None, None, "draw must be a RowSampler, got None (NoneType)"),
    ],
)
def test_what_is_drawn_from_and_by_has_its_type(logits, draw, message):
    with pytest.raises(TypeError) as caught:
        draw_file(logits or stored(), "tokens.npy", draw)
    assert str(caught.value) == message
    assert os.listdir() == ["logits.npy"]


@pytest.mark.parametrize(
    ("name", "bad", "message"),
    [
        ("top_p", 2.0, r"top_p must be in \[0, 1\], got 2.0 \(row 350\)"),
        ("seed", -1, r"seed must be in \[0, 2\*\*64\), got -1 \(row 350\)"),
        ("offset", -1, r"offset must be in \[0, 2\*\*64\), got -1 \(row 350\)"),
    ],
)
def test_a_bad_number_of_a_column_is_refused_before_anything_is_drawn(name, bad, message):
    column = np.ones(N, type(bad))
    column[350] = bad
    given = {} if name == "seed" else {"seed": 1}
    with pytest.raises(ValueError, match=rf"^{message}$"):
        draw_file(stored(), "tokens.npy", RowSampler(columns={name: column}, **given))
    assert os.listdir() == ["logits.npy"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"suppress_tokens": [5, V]}, "suppress_tokens must have ids in [0, 600), got 600"),
        ({"columns": {"allowed": np.ones((N, V + 1), bool)}}, "allowed must be"),
        ({"vocab_size": 0}, "vocab_size must be"),
    ],
)
def test_what_does_not_go_with_the_tokens_is_refused_before_anything_is_drawn(given, message):
    with pytest.raises(ValueError, match="must") as caught:
        draw_file(stored(), "tokens.npy", RowSampler(1, **given))
    assert str(caught.value).startswith(message)
    assert os.listdir() == ["logits.npy"]


def test_any_order_of_completion():
    class Out:
        done: list[range] = []  # noqa: RUF012
        gaps = [range(N)]  # noqa: RUF012
        tokens = np.full(N, -9)
        order: list[int] = []  # noqa: RUF012

        def write(self, first, tokens):
            self.order.append(first)
            self.tokens[first : first + len(tokens)] = tokens

        def finish(self):
            pass

    out: Any = Out()
    run_module.fill(out, stored(), DRAW, Backwards(2), 10, lambda rows: None)
    assert out.order != sorted(out.order)
    assert np.array_equal(out.tokens, WHOLE)


def test_the_first_bad_row_is_named_and_the_finished_pieces_are_kept():
    spoilt = HALF.copy()
    spoilt[[205, 222, 290]] = np.nan
    np.save("logits.npy", spoilt)
    memory = 10 * V * 2 * 3
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^logits row 205 must not contain NaN"):
            draw_file(stored(), "tokens.npy", DRAW, memory=memory, threads=3, resume=True)
    assert not Path("tokens.npy").exists()
    with TokensFile("tokens.npy", N, run_module.fingerprint(stored(), DRAW), True) as file:
        finished = {row for piece in file.done for row in piece}
    assert finished >= set(range(200))
    assert not finished & {205, 222, 290}
    marking = RowSampler(7, offset=3, errors="mark", **CHAIN)
    done = draw_file(stored(), "tokens.npy", marking, resume=True)
    assert done == (N, len(finished), 3)
    expected = WHOLE.copy()
    expected[[205, 222, 290]] = -1
    assert np.array_equal(np.load("tokens.npy"), expected)


def test_a_stopped_run_draws_only_what_is_missing(monkeypatch):
    stopped()
    drawn = []
    draw_piece = run_module.draw_piece
    monkeypatch.setattr(
        run_module, "draw_piece", lambda *args: (drawn.append(args[2:]), draw_piece(*args))[1]
    )
    # In pieces of another size, too.
    done = draw_file(stored(), "tokens.npy", DRAW, memory=100 * V * 2, threads=1, resume=True)
    assert done == (N, 50, 0)
    assert sorted(drawn) == [(50, 100), (100, 200), (200, 300), (300, 400), (400, 403)]
    assert np.array_equal(np.load("tokens.npy"), WHOLE)


def test_a_run_that_was_stopped_is_not_lost_by_accident():
    stopped()
    with pytest.raises(ValueError, match=r"resume must be True, or .*journal be removed"):
        draw_file(stored(), "tokens.npy", DRAW)
    assert draw_file(stored(), "tokens.npy", DRAW, resume=True).resumed == 50


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"top_p": 0.9}, "top_p must be 0.95 as in the run to be resumed, got 0.9"),
        ({"seed": 8}, "seed must be 7 as in the run to be resumed, got 8"),
        ({"offset": 4}, "offset must be 3 as in the run to be resumed, got 4"),
        ({"min_p": 0.1}, "min_p must be 0.0 as in the run to be resumed, got 0.1"),
        ({"order": "llama.cpp"}, "order must be 'hf' as in the run to be resumed, got 'llama.cpp'"),
        ({"top_k": None, "columns": {"top_k": np.full(N, 50)}},
         "top_k must be 50 as in the run to be resumed, got 'int64 [403] "),
    ],
)  # fmt: skip
def test_a_run_is_resumed_with_what_it_began_with(change, message):
    stopped()
    given: dict[str, Any] = {"seed": 7, "offset": 3, **CHAIN, **change}
    given = {name: value for name, value in given.items() if value is not None}
    with pytest.raises(ValueError, match="as in the run to be resumed") as caught:
        draw_file(stored(), "tokens.npy", RowSampler(**given), resume=True)
    assert str(caught.value).startswith(message)
    assert draw_file(stored(), "tokens.npy", DRAW, resume=True).resumed == 50


def test_a_run_is_resumed_on_the_logits_that_it_began_on():
    stopped()
    np.save("logits.npy", HALF[::-1])
    with pytest.raises(ValueError, match=r"^logits must be '403 x 600 float16, \w+' as in the run"):
        draw_file(stored(), "tokens.npy", DRAW, resume=True)


def test_marks_are_not_resumed_by_a_run_that_raises():
    spoilt = HALF.copy()
    spoilt[13] = np.nan
    np.save("logits.npy", spoilt)
    marking = RowSampler(7, offset=3, errors="mark", **CHAIN)
    stopped(draw=marking)
    with pytest.raises(ValueError, match=r"errors must be 'mark' .*, which marked row 13"):
        draw_file(stored(), "tokens.npy", DRAW, resume=True)
    assert draw_file(stored(), "tokens.npy", marking, resume=True) == (N, 50, 1)


@pytest.mark.parametrize("damage", ["torn", "binary", "lost tokens", "lost part", "none", "twice"])
def test_a_journal_is_believed_only_where_the_tokens_are_there(damage):
    stopped()
    journal, part = Path("tokens.npy.journal"), Path("tokens.npy.part")
    lines = journal.read_text().splitlines(keepends=True)
    resumed = 50
    if damage == "torn":
        journal.write_text("".join(lines)[:-9])
        resumed = 40
    elif damage == "binary":
        journal.write_bytes(journal.read_bytes() + b"\x00\xff\x00")
    elif damage == "lost tokens":
        with part.open("r+b") as file:
            file.seek(128 + 8 * 25)
            file.write(bytes(8))
        resumed = 40
    elif damage == "lost part":
        part.unlink()
        resumed = 0
    elif damage == "twice":
        journal.write_text("".join([*lines, lines[2], lines[1]]))
    done = draw_file(stored(), "tokens.npy", DRAW, resume=True)
    assert done == (N, resumed, 0)
    assert np.array_equal(np.load("tokens.npy"), WHOLE)


def test_two_runs_do_not_write_the_same_file():
    fingerprint = run_module.fingerprint(stored(), DRAW)
    with (
        TokensFile("tokens.npy", N, fingerprint, False),
        pytest.raises(ValueError, match="output must not be written by another run"),
    ):
        draw_file(stored(), "tokens.npy", DRAW)


@pytest.mark.parametrize("full", [0, 1, 3, 8])
def test_a_full_disk_leaves_the_finished_pieces(monkeypatch, full):
    left = [2 + 2 * full + 1]  # the file's header, the journal's, and both parts of each piece

    def pwrite(file, content, at, real=os.pwrite):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if left[0] == 0:  # a disk takes what fits
            content = content[: len(content) // 2]
        return real(file, content, at)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", pwrite)
        with pytest.raises(OSError, match="No space left on device"):
            draw_file(stored(), "tokens.npy", DRAW, memory=10 * V * 2, threads=1)
    assert not Path("tokens.npy").exists()
    done = draw_file(stored(), "tokens.npy", DRAW, resume=True)
    assert done == (N, 10 * full, 0)
    assert np.array_equal(np.load("tokens.npy"), WHOLE)


def test_a_disk_that_cannot_hold_the_tokens_is_an_error_before_anything_is_drawn(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left on device"):
        draw_file(stored(), "tokens.npy", DRAW)
    assert os.listdir() == ["logits.npy"]


def test_a_file_that_is_cut_while_it_is_drawn_leaves_the_finished_pieces():
    logits = stored()
    about = os.stat("logits.npy")

    def cut(rows: int) -> None:
        os.truncate("logits.npy", 128 + 205 * V * 2)

    memory = 100 * V * 2
    with pytest.raises(ValueError, match=r"logits must have .* is cut off in row 205"):
        draw_file(logits, "tokens.npy", DRAW, memory=memory, threads=1, progress=cut)
    np.save("logits.npy", HALF)
    os.utime("logits.npy", ns=(about.st_atime_ns, about.st_mtime_ns))
    done = draw_file(stored(), "tokens.npy", DRAW, resume=True)
    assert done.resumed >= 100
    assert np.array_equal(np.load("tokens.npy"), WHOLE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": 0}, "threads must be None or >= 1, got 0"),
        ({"memory": 1199}, "memory must be >= 1200, what is read at once, got 1199"),
    ],
)
def test_numbers_that_are_refused(options, message):
    with pytest.raises(ValueError, match="must be") as caught:
        draw_file(stored(), "tokens.npy", DRAW, **options)
    assert str(caught.value) == message
    assert os.listdir() == ["logits.npy"]


def test_a_run_that_is_killed_at_any_moment_is_resumed():
    """Again and again, at random moments, until one comes to its end."""
    rows = np.tile(HALF, (40, 1))
    np.save("logits.npy", rows)
    whole = fs.sample(rows, seed=7, offset=3, **CHAIN)
    slow = (
        "import sys, time; from fastsample.rows import run; from fastsample.cli import main\n"
        "real = run.draw_piece\n"
        "run.draw_piece = lambda *args: (time.sleep(0.01), real(*args))[1]\n"
        "run._PIECE = 200 * 1200\n"
        "sys.exit(main())"
    )
    command = [sys.executable, "-c", slow, "draw", "logits.npy", "-o", "tokens.npy", *OPTIONS]
    rng = np.random.default_rng(0)
    kills, finished = 0, [0]
    journal = Path("tokens.npy.journal")
    while True:
        run = subprocess.Popen([*command, "--resume"], stdout=subprocess.DEVNULL)
        # From when it has begun, so that every run gets somewhere however slow the machine is.
        before = journal.stat().st_size if journal.exists() else 0
        while run.poll() is None and kills < 6:
            if journal.exists() and journal.stat().st_size > before + 40:
                time.sleep(rng.random() * 0.1)
                run.kill()
                kills += run.wait() == -signal.SIGKILL
                break
            time.sleep(0.002)
        if run.wait() == 0:
            break
        assert run.returncode == -signal.SIGKILL
        finished.append(len(journal.read_text().splitlines()))
    assert kills > 1
    assert finished == sorted(finished)  # nothing was lost
    assert np.array_equal(np.load("tokens.npy"), whole)
    assert sorted(os.listdir()) == ["logits.npy", "tokens.npy"]


def test_memory_does_not_grow_with_the_file(folder):
    """200 MB of rows in an address space that has room for a fraction of them."""
    with open("large.npy", "wb") as file:
        shape = (100_000, 1000)
        about = {"descr": "<f2", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, about)
        file.truncate(file.tell() + 2 * shape[0] * shape[1])  # zeros, of which the disk has none
    code = (
        "import resource, sys\n"
        "from fastsample.cli import main\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "code = main(sys.argv[1:])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
        "sys.exit(code)"
    )
    arguments = ["draw", "large.npy", "-o", "tokens.npy", "--seed=1", "--memory=16", "--threads=2"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, check=True)
    grown = int(done.stdout.split()[-1]) * (1 if sys.platform == "darwin" else 1024)
    assert grown < 60 * 2**20
    assert np.load("tokens.npy").shape == (100_000,)
