"""Stages and penalties as one writes them in NumPy by hand, each a line or two."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from .prepared import FOUR, Prepared, refuse_others
from .works import SEED, Params

Array: TypeAlias = "np.ndarray[Any, Any]"
LEAST, TINY = -1e4, 1e-37  # in place of the logarithm of 0, and of 0 where one is taken


def _entropy(logq: Array, q: Array) -> float:
    return -float(q @ np.maximum(logq, LEAST))


def _n_sigma(logq: Array, q: Array, s: float) -> Array:
    lowest = logq.min()
    finite = logq if lowest > -np.inf else logq[logq > -np.inf]
    kept: Array = logq >= logq.max() - s * finite.std()
    return kept


def _eta(logq: Array, q: Array, e: float) -> Array:
    kept: Array = q >= min(e, math.sqrt(e) * math.exp(-_entropy(logq, q)))
    return kept


def _typical(logq: Array, q: Array, p: float) -> Array:
    nearest = np.argsort(np.abs(-logq - _entropy(logq, q)))
    return nearest[: 1 + np.searchsorted(np.cumsum(q[nearest], dtype=np.float64), p)]


def _top_h(logq: Array, q: Array, h: float) -> Array:
    first = np.argpartition(q, -min(100, q.size))[-100:]
    first = first[np.argsort(-q[first])]
    r = q[first] / q[first].sum()
    sums = np.cumsum(-r * np.log(np.maximum(r, TINY)), dtype=np.float64)
    return first[: max(1, np.searchsorted(sums, h * sums[-1], side="right"))]


def _xtc(logq: Array, q: Array, threshold: float) -> Array:
    likely = q[q >= threshold]
    kept: Array = q <= likely.min() if likely.size > 1 else q >= 0.0
    return kept


#: What stays, as a mask or as places, of tokens of these log-probabilities and probabilities.
FORMS: dict[str, Callable[[Array, Array, Any], Array]] = {
    "top_n_sigma": _n_sigma,
    "epsilon_cutoff": lambda logq, q, e: q >= e,
    "eta_cutoff": _eta,
    "top_a": lambda logq, q, a: q >= a * q.max() ** 2,
    "p_less": lambda logq, q, _: q >= q @ q,
    "p_less_norm": lambda logq, q, _: q >= (q.size * (q @ q) - 1) / (q.size - 1),
    "top_h": _top_h,
    "typical_p": _typical,
    "xtc_probability": lambda logq, q, _: _xtc(logq, q, 0.1),  # the default threshold
    "xtc_threshold": _xtc,
}
_PENALTIES = ("repetition_penalty", "frequency_penalty", "presence_penalty")
KNOWN = frozenset({*FOUR, *FORMS, *_PENALTIES, "logit_bias", "penalty_last_n", "allowed"})


def _by_form(row: Array, params: Params, form: str) -> Callable[[float], int]:
    """Return a draw, by a uniform, from what min-p and then a form keep."""
    keep, value = FORMS[form], params[form]
    t, m = params.get("temperature", 1.0), params.get("min_p", 0.0)

    def draw(u: float) -> int:
        first = np.flatnonzero(row >= row.max() + t * math.log(m)) if m else None
        x = row if first is None else row[first]
        x = x / t if t != 1.0 else x
        logq = x - x.max()
        q = np.exp(logq)
        total = q.sum()
        logq -= math.log(total)
        q /= total
        kept = keep(logq, q, value)
        places = np.flatnonzero(kept) if kept.dtype == bool else kept
        if places.size == 0:  # none is enough: the first stays
            places = np.array([q.argmax()])
        mass = np.cumsum(q[places], dtype=np.float64)
        place = places[np.searchsorted(mass, u * mass[-1], side="right")]
        return int(place if first is None else first[place])

    return draw


def _penalised(row: Array, params: Params) -> Array:
    """Return a copy of a row with its biases and penalties."""
    edited = row.copy()
    biased = list(params["logit_bias"])
    edited[biased] += list(params["logit_bias"].values())
    r, f, s = (params[name] for name in _PENALTIES)
    ids, counts = np.unique(params["history"][-params["penalty_last_n"] :], return_counts=True)
    x = edited[ids]
    edited[ids] = np.where(x > 0, x / r, x * r) - f * counts - s
    return edited


def prepare_numpy(row: Array, params: Params) -> Prepared:
    """Run partition, sort, cumsum and searchsorted, or what a stage is by its definition."""
    from ..cli.demo import numpy_draw

    refuse_others(params, KNOWN)
    rng = np.random.default_rng(SEED)
    forms = [name for name in FORMS if name in params]
    if forms:
        draw = _by_form(row, params, forms[-1])
        return Prepared(lambda: draw(rng.random()))
    four = {name: params[name] for name in FOUR if name in params}
    full = FOUR | four | {"order": tuple(FOUR)}
    if "allowed" in params:
        bits = np.unpackbits(params["allowed"].view(np.uint8), bitorder="little")
        allowed = bits[: row.size].astype(bool)
        return Prepared(lambda: numpy_draw(np.where(allowed, row, -np.inf), rng.random(), full))
    if "logit_bias" in params:
        return Prepared(lambda: numpy_draw(_penalised(row, params), rng.random(), full))
    return Prepared(lambda: numpy_draw(row, rng.random(), full))
