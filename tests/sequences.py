"""Sequences of every kind, and rows for them."""

from __future__ import annotations

from typing import Any

import rows
from rows import Float32s

import fastsample as fs

VOCAB = 40
PENALTIES: dict[str, Any] = {
    "temperature": 0.9,
    "top_k": 20,
    "repetition_penalty": 1.3,
    "frequency_penalty": 0.3,
    "presence_penalty": 0.2,
    "penalty_last_n": 12,
    "dry_multiplier": 0.8,
    "dry_allowed_length": 1,
    "dry_sequence_breakers": [3],
    "no_repeat_ngram_size": 4,
    "bad_words_ids": [[1, 2], [5]],
    "sequence_bias": {(7, 8): 1.5, (9,): -0.5},
    "logit_bias": {11: 0.7},
    "suppress_tokens": [0],
    "min_new_tokens": 5,
    "eos_token_id": 39,
}
MIROSTAT: dict[str, Any] = {"mirostat": 2, "mirostat_tau": 2.0, "order": "llama.cpp"}
ADAPTIVE: dict[str, Any] = {"adaptive_target": 0.2, "order": "llama.cpp"}
XTC: dict[str, Any] = {"xtc_probability": 0.5, "xtc_threshold": 0.05, "order": ("xtc", "top_k")}


def logits_of(step: int, vocab: int = VOCAB) -> Float32s:
    return rows.make_row("random", vocab, seed=step)


def samplers_of(count: int) -> list[fs.Sampler]:
    """Of every kind, each with a history of its own."""
    kinds: list[dict[str, Any]] = [
        PENALTIES, MIROSTAT, ADAPTIVE, XTC, {"temperature": 0.7, "top_p": 0.9},
        {"temperature": 0.0}, {"allowed_token_ids": range(3, 20)},
        MIROSTAT | {"repetition_penalty": 1.3},
    ]  # fmt: skip
    made = [fs.Sampler(seed=i, offset=2 * i, **kinds[i % len(kinds)]) for i in range(count)]
    for i, sampler in enumerate(made):
        if i % 3:
            sampler.start([i, 4, 7])
    return made


def looks(samplers: list[fs.Sampler]) -> list[str]:
    return [f"{s!r} {s.history} {s.state}" for s in samplers]
