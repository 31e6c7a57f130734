"""The works: what is drawn by, and what a draw by the core is to reach. Depends on NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Params: TypeAlias = "dict[str, Any]"
Ids: TypeAlias = "npt.NDArray[np.int64]"
Mask: TypeAlias = "npt.NDArray[np.bool_]"
SEED = 1
BIASED = 16  # ids of a logit_bias
LONG = 4096  # tokens of a long history
CLUSTER = 64  # tokens that a mask allows side by side


class Over(NamedTuple):
    """A bound on what a work takes over that of another work of the same row."""

    base: str
    how: str  # "R more", "times" or "us more"
    bound: float


class Work(NamedTuple):
    """Parameters, and what a draw by the core is to reach on an AVX-512 machine."""

    params: Params
    normal: float | None = None  # at most so many times R, on the normal row
    recorded: float | None = None  # the same, on the recorded rows
    faster: float | None = None  # at least so many times as fast as the fastest rival, at V = VOCAB
    over: Over | None = None
    history: Callable[[np.random.Generator, int], Ids] | None = None
    allowed: Callable[[np.random.Generator, int], Mask] | None = None
    about: str = ""  # what the parameters do not say


#: The four stages: on rows of every kind and type, in calls, growth and batches.
MAIN = {
    "greedy": Work({"temperature": 0.0}, 1.2, 1.4),
    "chain": Work({"temperature": 0.8, "top_k": 50, "top_p": 0.95}, 1.5, 1.8, 5.0),
    "top_k": Work({"top_k": 1000}, 4.0, 4.0),
    "min_p": Work({"temperature": 0.8, "min_p": 0.05}, 1.5, 1.8, 8.0),
    "temperature": Work({"temperature": 0.8}, 3.8, 3.8, 8.0),
    "top_p": Work({"temperature": 0.8, "top_p": 0.95}, 7.0, 4.5, 30.0),
    "cold": Work({"temperature": 0.5}, 2.5, 2.5),
}

FASTER = 20.0  # times as fast as the fastest rival that has the stage


def _stage(order: str, normal: float, recorded: float | None = None, **params: Any) -> Work:
    """Return a work of stages that the default order lacks."""
    params["order"] = tuple(order.split())
    return Work(params, normal, normal if recorded is None else recorded, FASTER)


def _after_min_p(order: str, **params: Any) -> Work:
    params = MAIN["min_p"].params | params | {"order": tuple(order.split())}
    return Work(params, faster=FASTER, over=Over("min_p", "R more", 0.3))


def _edited(
    over: Over, history: Callable[[np.random.Generator, int], Ids], about: str, **params: Any
) -> Work:
    params = MAIN["chain"].params | params
    return Work(params, faster=FASTER, over=over, history=history, about=about)


def _times(bound: float) -> Over:
    return Over("chain", "times", bound)


def _us(bound: float) -> Over:
    return Over("chain", "us more", bound)


def _masked(bound: float, about: str, allowed: Callable[[np.random.Generator, int], Mask]) -> Work:
    params = MAIN["chain"].params
    return Work(params, over=_times(bound), allowed=allowed, about=f"with {about} allowed")


def _some(rng: np.random.Generator, vocab: int, count: int) -> Ids:
    return rng.permutation(vocab)[:count]


def _some_of(rng: np.random.Generator, vocab: int, count: int) -> Mask:
    return np.isin(np.arange(vocab), _some(rng, vocab, count))


def _clusters(rng: np.random.Generator, vocab: int) -> Mask:
    allowed = np.zeros(vocab, bool)
    for first in rng.integers(0, vocab - CLUSTER, max(1, vocab // (100 * CLUSTER))):
        allowed[first : first + CLUSTER] = True
    return allowed


def text(rng: np.random.Generator, vocab: int, size: int = LONG) -> Ids:
    """Return tokens as frequent as words are, which repeat one another here and there."""
    return np.minimum(rng.zipf(1.3, size), vocab) - 1


#: What edits a row before any stage, of the parameters of a work.
EDITS = frozenset(
    {"logit_bias", "repetition_penalty", "frequency_penalty", "presence_penalty"}
    | {"penalty_last_n", "dry_multiplier", "history", "prompt_length", "allowed"}
)
PENALTIES = {"repetition_penalty": 1.1, "frequency_penalty": 0.1, "presence_penalty": 0.1}
_DRY = {"dry_multiplier": 0.8}

#: The other stages and the edits of a row: on float32 rows.
FAMILY = {
    "n_sigma": _stage("top_n_sigma", 3.0, top_n_sigma=1.0),
    "epsilon": _stage("epsilon_cutoff", 5.5, epsilon_cutoff=0.0003),
    "eta": _stage("eta_cutoff", 6.5, eta_cutoff=0.0003),
    "top_a": _stage("top_a", 5.5, top_a=0.2),
    "p_less": _stage("p_less", 5.5, p_less=True),
    "p_less_norm": _stage("p_less_norm", 5.5, p_less_norm=True),
    "top_h": _stage("top_h", 3.0, top_h=0.4),
    "typical": _stage("typical_p", 14.0, 8.0, typical_p=0.95),
    "mirostat": _stage("mirostat", 6.5, mirostat=2),
    "mirostat 1": _stage("mirostat", 6.5, mirostat=1),
    "xtc": _stage("xtc", 6.5, xtc_probability=1.0, xtc_threshold=0.01),
    "dynatemp": _stage("temperature min_p", 6.0, dynatemp_range=0.5, min_p=0.05),
    "min_p + xtc": _after_min_p("temperature min_p xtc", xtc_probability=1.0),
    "adaptive": _after_min_p("temperature min_p adaptive", adaptive_target=0.3),
    "penalties": _edited(
        _times(1.25),
        lambda rng, vocab: _some(rng, vocab, 64),
        f"after 64 tokens, with a bias of {BIASED} ids",
        penalty_last_n=64,
        **PENALTIES,
    ),
    "pen. 4096": _edited(
        _times(2.0),
        lambda rng, vocab: _some(rng, vocab, LONG),
        f"after {LONG:,} distinct tokens, with a bias of {BIASED} ids",
        penalty_last_n=LONG,
        **PENALTIES,
    ),
    "dry": _edited(_us(5.0), text, f"after {LONG:,} tokens as frequent as words are", **_DRY),
    "dry one": _edited(
        _us(15.0),
        lambda rng, vocab: np.full(LONG, vocab // 3),
        f"after {LONG:,} times one token",
        **_DRY,
    ),
    "mask most": _masked(1.2, "all but 1 % of the tokens", lambda rng, n: rng.random(n) >= 0.01),
    "mask clusters": _masked(1.2, f"1 % of the tokens, {CLUSTER} side by side,", _clusters),
    "mask half": _masked(1.6, "half of the tokens", lambda rng, n: rng.random(n) < 0.5),
    "mask 200": _masked(0.5, "200 tokens", lambda rng, n: _some_of(rng, n, 200)),
    "mask one": _masked(0.1, "one token", lambda rng, n: _some_of(rng, n, 1)),
}
WORKS = MAIN | FAMILY


def packed(allowed: Mask) -> npt.NDArray[np.int32]:
    """Return a mask as grammars give it: a bit for each token, the first the lowest of its word."""
    bits = np.zeros(-(-allowed.size // 32) * 32, bool)
    bits[: allowed.size] = allowed
    return np.packbits(bits, bitorder="little").view(np.int32)


def params_of(name: str, vocab: int) -> Params:
    """Return all that a work draws by from rows of a size: what `survivors` takes as keywords.

    What comes of the size is drawn anew, and the same, on every call. No token of a history is the
    prompt's.
    """
    work = WORKS[name]
    rng = np.random.default_rng(SEED)
    if work.allowed:
        return work.params | {"allowed": packed(work.allowed(rng, vocab))}
    if work.history is None:
        return dict(work.params)
    given: Params = {"history": work.history(rng, vocab), "prompt_length": 0}
    if "repetition_penalty" in work.params:
        ids = _some(rng, vocab, BIASED)
        given["logit_bias"] = dict(zip(ids.tolist(), rng.normal(0, 1, ids.size), strict=True))
    return work.params | given


def described(name: str) -> str:
    """Say what a work's name stands for."""
    work = WORKS[name]
    shown = {key: value for key, value in work.params.items() if key != "order"}
    said = [f"{k}={v if isinstance(v, bool) else f'{v:g}'}" for k, v in shown.items()]
    return f"{name}: {' '.join([*said, work.about]).strip()}"
