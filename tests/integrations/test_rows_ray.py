"""Ray Data maps the draw over pieces or batches, and gives the tokens of one call."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from stored import CHAIN, DRAW, HALF, WHOLE, Killer, N, Slow, V, stored

from fastsample.rows import RowSampler, draw_pieces, pieces

os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # a cluster of this machine, for this test
ray = pytest.importorskip("ray")
pytest.importorskip("ray.data")
pytestmark = pytest.mark.filterwarnings("ignore")  # of Ray's own parts

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory):
    """Two workers, which find the module of the tests' stores."""
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    with pytest.MonkeyPatch.context() as patched, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Workers begin where this does; in a checkout they would find the unbuilt package.
        patched.chdir(tmp_path_factory.mktemp("cluster"))
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=2**30,
            runtime_env={"env_vars": {"PYTHONPATH": path}},
        )
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield
        ray.shutdown()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("logits.npy", HALF)
    return tmp_path


def drawn(logits, draw, size):
    """The numbers and tokens of all rows, as they come out of the pipeline."""
    parts = [{"first": piece.start, "stop": piece.stop} for piece in pieces(len(logits), size)]
    table = ray.data.from_items(parts, override_num_blocks=len(parts))
    tokens = table.map_batches(
        draw_pieces, batch_size=1, fn_kwargs={"logits": logits, "draw": draw}
    )
    found = list(tokens.iter_batches(batch_size=None))
    rows, ids = (np.concatenate([batch[name] for batch in found]) for name in ("row", "token"))
    assert sorted(rows) == list(range(N))
    return ids[np.argsort(rows)]


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_any_number_of_pieces(count):
    assert np.array_equal(drawn(stored(), DRAW, -(-N // count)), WHOLE)


def test_any_order_of_completion(tmp_path):
    (tmp_path / "read").mkdir()
    slow = Slow(stored(), tmp_path / "read", 0.2)
    assert np.array_equal(drawn(slow, DRAW, 60), WHOLE)
    assert len({process for readers in slow.readers().values() for process in readers}) == 2


def test_a_worker_that_is_killed_in_the_middle(tmp_path):
    (tmp_path / "read").mkdir()
    slow = Slow(stored(), tmp_path / "read", 0.3)
    killer = Killer(slow)
    killer.start()
    assert np.array_equal(drawn(slow, DRAW, 60), WHOLE)
    killer.join()
    again = [readers for readers in slow.readers().values() if killer.killed in readers]
    assert any(len(readers) > 1 for readers in again)  # what it had begun, another one drew


def test_batches_of_any_size_and_order():
    order = np.random.default_rng(0).permutation(N)
    table = ray.data.from_numpy([HALF[order]]).rename_columns({"data": "logits"})
    table = table.zip(ray.data.from_numpy([order]).rename_columns({"data": "row"}))
    tokens = table.map_batches(DRAW.batch, batch_size=37).to_pandas()
    assert np.array_equal(tokens.sort_values("row")["token"], WHOLE)


def test_the_number_of_a_bad_row_is_the_global_one():
    spoilt = HALF.copy()
    spoilt[290, 5] = np.nan
    np.save("logits.npy", spoilt)
    with pytest.raises(Exception, match=r"logits row 290 must not contain NaN, got one at token 5"):
        drawn(stored(), DRAW, 60)
    marked = drawn(stored(), RowSampler(7, offset=3, errors="mark", **CHAIN), 60)
    assert np.flatnonzero(marked == -1).tolist() == [290]


def test_a_file_that_is_cut_is_an_error():
    logits = stored()
    os.truncate("logits.npy", 128 + 205 * V * 2)
    with pytest.raises(Exception, match=r"logits must have .* is cut off in row 205"):
        drawn(logits, DRAW, 60)
