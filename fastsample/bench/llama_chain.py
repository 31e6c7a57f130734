"""llama.cpp's own samplers, called one level below its sampling of tokens."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, TypeAlias

import numpy as np

from .prepared import FOUR, Prepared, refuse_others
from .works import SEED, Params

Make: TypeAlias = "Callable[[Any, Params, int], Any]"


def _bias(lib: Any, p: Params, vocab: int) -> Any:
    biases = [lib.llama_logit_bias(*pair) for pair in p["logit_bias"].items()]
    return lib.llama_sampler_init_logit_bias(
        vocab, len(biases), (lib.llama_logit_bias * len(biases))(*biases)
    )


def _penalties(lib: Any, p: Params, vocab: int) -> Any:
    names = ("repetition_penalty", "frequency_penalty", "presence_penalty")
    return lib.llama_sampler_init_penalties(vocab, p["penalty_last_n"], *(p[n] for n in names))


def _dry(lib: Any, p: Params, vocab: int) -> Any:
    return lib.llama_sampler_init_dry(
        None, p["dry_multiplier"], 1.75, 2, len(p["history"]), None, 0
    )


def _temperature(lib: Any, p: Params, vocab: int) -> Any:
    return lib.llama_sampler_init_temp(p["temperature"])


def _dynatemp(lib: Any, p: Params, vocab: int) -> Any:
    return lib.llama_sampler_init_temp_ext(p.get("temperature", 1.0), p["dynatemp_range"], 1.0)


def _xtc(lib: Any, p: Params, vocab: int) -> Any:
    threshold = p.get("xtc_threshold", 0.1)
    return lib.llama_sampler_init_xtc(p["xtc_probability"], threshold, 1, SEED)


#: By the parameter that turns one on, in the order of the chain. Temperature after top-k keeps the
#: same tokens, and scales 50 logits, not the vocabulary.
STAGES: dict[str, Make] = {
    "logit_bias": _bias,
    "repetition_penalty": _penalties,
    "dry_multiplier": _dry,
    "top_n_sigma": lambda lib, p, _: lib.llama_sampler_init_top_n_sigma(p["top_n_sigma"]),
    "top_k": lambda lib, p, _: lib.llama_sampler_init_top_k(p["top_k"]),
    "temperature": _temperature,
    "dynatemp_range": _dynatemp,
    "typical_p": lambda lib, p, _: lib.llama_sampler_init_typical(p["typical_p"], 1),
    "top_p": lambda lib, p, _: lib.llama_sampler_init_top_p(p["top_p"], 1),
    "min_p": lambda lib, p, _: lib.llama_sampler_init_min_p(p["min_p"], 1),
    "xtc_probability": _xtc,
}
KNOWN = frozenset(
    {*FOUR, *STAGES, "mirostat", "adaptive_target"}
    | {"frequency_penalty", "presence_penalty", "penalty_last_n", "xtc_threshold"}
)


def _last(lib: Any, p: Params, vocab: int) -> Any:
    """Return what draws."""
    if p.get("temperature") == 0.0:
        return lib.llama_sampler_init_greedy()
    if p.get("mirostat") == 1:
        return lib.llama_sampler_init_mirostat(vocab, SEED, 5.0, 0.1, 100)
    if p.get("mirostat") == 2:
        return lib.llama_sampler_init_mirostat_v2(SEED, 5.0, 0.1)
    if "adaptive_target" in p:
        return lib.llama_sampler_init_adaptive_p(p["adaptive_target"], 0.9, SEED)
    return lib.llama_sampler_init_dist(SEED)


def _links(lib: Any, p: Params, vocab: int) -> Iterator[Any]:
    greedy = p.get("temperature") == 0.0
    skipped = {"temperature"} if greedy or "dynatemp_range" in p else set()
    for name, make in STAGES.items():
        if name in p and name not in skipped:
            yield make(lib, p, vocab)
    yield _last(lib, p, vocab)


def prepare_llama_cpp(row: Any, params: Params) -> Prepared:
    """Run llama.cpp's chain; each draw needs its array of candidates built anew."""
    refuse_others(params, KNOWN)
    lib = import_module("llama_cpp")
    chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
    for link in _links(lib, params, row.size):
        lib.llama_sampler_chain_add(chain, link)
    for token in params.get("history", ()):
        lib.llama_sampler_accept(chain, int(token))
    data = np.empty(row.size, [("id", np.int32), ("logit", np.float32), ("p", np.float32)])
    pointer = data.ctypes.data_as(lib.llama_token_data_p)
    candidates = lib.llama_token_data_array()
    ids, reference = np.arange(row.size, dtype=np.int32), ctypes.byref(candidates)

    def build() -> None:
        data["id"], data["logit"] = ids, row
        candidates.data = pointer  # which a stage may have moved on
        candidates.size, candidates.selected, candidates.sorted = row.size, -1, False

    def draw() -> int:
        build()
        lib.llama_sampler_apply(chain, reference)
        return int(candidates.data[candidates.selected].id)

    stateful = "mirostat" in params or "adaptive_target" in params
    before = (lambda: lib.llama_sampler_reset(chain)) if stateful else None
    return Prepared(draw, before=before, build=build)
