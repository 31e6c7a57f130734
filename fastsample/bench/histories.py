"""How long a step takes after a long history: a draw that adds its token, `push` and `rollback`.

Rows have 16 logits, so that a step is nearly all history.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from .. import Sampler
from .grid import VOCAB, make_row
from .prepared import Prepared
from .rivals import Rival
from .runner import Report, log, measure
from .works import LONG, MAIN, PENALTIES, SEED, Ids, Params, text

LENGTHS = (LONG, 1_000_000)
TEXTS: dict[str, Callable[[int], Ids]] = {
    "text": lambda size: text(np.random.default_rng(SEED), VOCAB, size),
    "one token": lambda size: np.full(size, VOCAB // 3),
}


class Past(NamedTuple):
    """What looks at a history, and which step is timed."""

    params: Params
    step: str = "draw"
    grows: bool = False  # whether its window is the whole history, looked at anew in each step


PASTS = {
    "pen. 64": Past(PENALTIES | {"penalty_last_n": 64}),
    "pen. all": Past(PENALTIES),
    "push": Past(PENALTIES, "push"),
    "rollback": Past(PENALTIES, "rollback"),
    "dry 4096": Past({"dry_multiplier": 0.8, "dry_last_n": LONG}),
    "dry all": Past({"dry_multiplier": 0.8}, grows=True),
    "3-gram": Past({"no_repeat_ngram_size": 3}, grows=True),
}


def prepare(past: Past, history: Ids) -> Prepared:
    """Make a step ready that begins after this history each time."""
    row = make_row("normal", vocab=16)
    sampler = Sampler(**MAIN["chain"].params, **past.params, seed=SEED)
    sampler.start(history, prompt_length=0)
    last = int(history[-1])
    push, back = partial(sampler.push, last), partial(sampler.rollback, 1)
    push()
    steps: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "draw": (partial(sampler, row), back),
        "push": (push, back),
        "rollback": (back, push),
    }
    if past.step == "rollback":
        back()
    step, before = steps[past.step]
    return Prepared(step, before)


def run_histories(
    samplers: Sequence[Rival], seconds: float, lengths: Sequence[int] = LENGTHS
) -> list[Report]:
    """Time steps after histories of two lengths, side by side."""
    results = []
    for rival in samplers:
        for name, write in TEXTS.items():
            for work, past in PASTS.items():
                with rival.active():
                    calls = {str(n): (prepare(past, write(n)), rival.active) for n in lengths}
                us = {n: float(np.median(t)) for n, t in measure(calls, seconds).items()}
                results.append({"sampler": rival.name, "text": name, "work": work, "us": us})
        log(f"history: {rival.name}")
    return results
