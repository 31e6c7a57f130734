"""What is told of a draw, and drafts that are verified, beside the draws alone and other ways.

For the 20 most probable tokens others sort or search all log-probabilities: llama-server sorts a
row, vLLM takes torch's log-softmax, its ``topk`` and a count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from .. import Sampler, verify
from .grid import VOCAB, Row, make_row
from .prepared import Prepared
from .rivals import Active, Rival
from .runner import Report, log, measure
from .warpers import one_thread
from .works import MAIN, SEED

TOP, DRAFTS = 20, 5
RAW, SUPPORT, MASS, EXACT = "raw, 20", "support", "log_mass", "5 drafts"
#: What `Sampler.draw` is asked for.
ASKED: dict[str, dict[str, Any]] = {
    RAW: {"top_logprobs": TOP},
    SUPPORT: {"logprobs": "processed", "support": True},
    MASS: {"logprobs": None, "log_mass": True},
}


def _numpy_logprobs(row: Row) -> Row:
    shifted = row - row.max()
    logprobs: Row = shifted - np.log(np.exp(shifted).sum())
    return logprobs


def numpy_sort(row: Row) -> Row:
    """Return the most probable tokens out of a row that is sorted."""
    logprobs = _numpy_logprobs(row)
    ids: Row = np.argsort(-logprobs, kind="stable")[:TOP]
    logprobs[ids]
    return ids


def numpy_partition(row: Row) -> Row:
    """Return them by a search that leaves the others as they are."""
    logprobs = _numpy_logprobs(row)
    some = np.argpartition(-logprobs, TOP)[:TOP]
    ids: Row = some[np.argsort(-logprobs[some], kind="stable")]
    logprobs[ids]
    return ids


def torch_topk(torch: Any, row: Any) -> Row:
    """Return them as torch finds them, with a rank."""
    logprobs = torch.log_softmax(row, -1)
    ids: Row = torch.topk(logprobs, TOP).indices.numpy()
    (logprobs > logprobs[0]).sum()
    return ids


def _others(row: Row) -> dict[str, Callable[[], Row]]:
    found: dict[str, Callable[[], Row]] = {
        "NumPy sort": partial(numpy_sort, row),
        "NumPy partition": partial(numpy_partition, row),
    }
    if find_spec("torch"):
        found["torch topk"] = partial(torch_topk, *one_thread(row))
    return found


def _own(row: Row) -> dict[str, Callable[[], object]]:
    """Return what is timed on the active backend: the call of each work, and the draws alone."""
    params = MAIN["chain"].params
    sampler = Sampler(**params, seed=SEED)
    rows = np.stack([row] * (DRAFTS + 1))
    drawn = Sampler(**params, seed=SEED)
    drafts = [int(drawn(one)) for one in rows[:DRAFTS]]
    calls: dict[str, Callable[[], object]] = {
        work: partial(sampler.draw, row, **asked) for work, asked in ASKED.items()
    }
    calls[EXACT] = partial(verify, drafts, rows, method="exact", seed=SEED, **params)
    calls["draw"] = partial(sampler, row)
    calls["6 draws"] = partial(_each, sampler, rows)
    return calls


def _each(sampler: Sampler, rows: Row) -> None:
    for row in rows:
        sampler(row)


def wrong(rival: Rival, row: Row) -> str | None:
    """Say what is wrong with what is told, or None."""
    ids = np.argsort(-row, kind="stable")
    with rival.active():
        calls = _own(row)
        told: Any = calls[RAW]()
        if not np.array_equal(told.top_ids, ids[:TOP]):
            return f"told of {told.top_ids}, not of {ids[:TOP]}"
        verified: Any = calls[EXACT]()
    if verified.accepted != DRAFTS:
        return f"accepted {verified.accepted} of its own drafts"
    return None


def run_told(samplers: Sequence[Rival], seconds: float, vocab: int = VOCAB) -> list[Report]:
    """Check what is told of draws from the normal row, and time it; not with `seconds` 0."""
    row = make_row("normal", vocab=vocab)
    ids = np.argsort(-row, kind="stable")[:TOP]
    calls: dict[tuple[str, str], tuple[Prepared, Active]] = {}
    results: list[Report] = []
    for name, call in _others(row).items():
        check = "ok" if np.array_equal(call(), ids) else "wrong: other tokens"
        calls[name, RAW] = Prepared(call), nullcontext
        results.append({"sampler": name, "work": RAW, "vocab": vocab, "check": check})
    for rival in samplers:
        said = wrong(rival, row)
        with rival.active():
            own = _own(row)
        for work, mine in own.items():
            calls[rival.name, work] = Prepared(mine), rival.active
        check = f"wrong: {said}" if said else "ok"
        results += [
            {"sampler": rival.name, "work": work, "vocab": vocab, "check": check}
            for work in (*ASKED, EXACT)
        ]
    if seconds:
        turns = {"\n".join(key): call for key, call in calls.items()}
        times = measure(turns | {"R": (Prepared(row.max), nullcontext)}, seconds)
        us = {name: float(np.median(t)) for name, t in times.items()}
        for result in results:
            name, work = result["sampler"], result["work"]
            result |= {"us": us[f"{name}\n{work}"], "r_us": us["R"]}
            base = f"{name}\n{'6 draws' if work == EXACT else 'draw'}"
            if base in us:
                result["basis_us"] = us[base]
    log("told of a draw")
    return results
