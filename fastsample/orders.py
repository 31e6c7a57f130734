"""In which order stages run: presets of real runtimes, or a tuple of names. Depends on nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeAlias, cast

from .records import KINDS

Preset: TypeAlias = Literal[
    "hf",
    "vllm",
    "llama.cpp",
    "mlx-lm",
    "openvino",
    "onnxruntime-genai",
    "text-generation-webui",
    "koboldcpp",
    "sglang",
]
StageName: TypeAlias = Literal[
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "epsilon_cutoff",
    "eta_cutoff",
    "top_a",
    "p_less",
    "top_n_sigma",
    "top_h",
    "xtc",
    "mirostat",
    "adaptive",
    "p_less_norm",
]
Order: TypeAlias = Preset | Sequence[StageName | Sequence[StageName]]
#: A stage, or those that cut the same distribution, of which a token has to pass all.
Stages: TypeAlias = tuple[StageName | tuple[StageName, ...], ...]

#: The order of each preset.
ORDERS: dict[str, Stages] = {
    "hf": ("temperature", "top_h", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff",
           "eta_cutoff"),
    "vllm": ("temperature", "min_p", "top_k", "top_p"),
    "llama.cpp": ("top_n_sigma", "top_k", "typical_p", "top_p", "min_p", "xtc", "temperature",
                  "mirostat", "adaptive"),
    "mlx-lm": ("top_p", "min_p", "xtc", "top_k", "temperature"),
    "openvino": ("top_k", "temperature", "min_p", "top_p"),
    "onnxruntime-genai": ("top_k", "temperature", "top_p"),
    "text-generation-webui": ("top_n_sigma", "temperature", "top_k", "top_p", "typical_p",
                              "epsilon_cutoff", "eta_cutoff", "top_a", "min_p", "mirostat", "xtc"),
    "koboldcpp": ("top_k", "top_a", "typical_p", "top_p", "min_p", "temperature", "top_n_sigma",
                  "xtc", "adaptive"),
    "sglang": ("temperature", ("top_k", "top_p", "min_p")),
}  # fmt: skip

#: Stages that keep the first of the total order: what a nested tuple is made of.
FLOORS = frozenset(KINDS) - {"temperature", "typical_p", "xtc", "mirostat", "adaptive"}


def flat(order: Sequence[Any]) -> Iterator[tuple[str, bool]]:
    """Yield each stage, and whether it cuts what the one before it cut."""
    for stage in order:
        if isinstance(stage, str):
            yield stage, False
        else:
            yield from ((name, i > 0) for i, name in enumerate(stage))


def stages_of(order: Sequence[Any]) -> tuple[str, ...]:
    """Return the names of the stages of an order, nested ones too."""
    return tuple(name for name, _ in flat(order))


def parse_order(order: Any) -> Stages:
    """Return the stages that a preset's name or a sequence of stage names stands for."""
    if isinstance(order, str):
        if order not in ORDERS:
            raise ValueError(
                f"order must be one of {', '.join(map(repr, ORDERS))} or a tuple of stage names, "
                f"got {order!r}"
            )
        return ORDERS[order]
    if not isinstance(order, (tuple, list)):
        raise TypeError(
            f"order must be a string or a tuple of stage names, got {order!r} "
            f"({type(order).__name__})"
        )
    parsed = tuple(tuple(s) if isinstance(s, (tuple, list)) else s for s in order)
    names: list[str] = []
    for stage in (n for s in parsed for n in (s if isinstance(s, tuple) else (s,))):
        if not isinstance(stage, str) or stage not in KINDS:
            raise ValueError(f"order must be made of {', '.join(KINDS)}, got {stage!r}")
        if stage in names:
            raise ValueError(f"order must not name a stage twice, got {stage}")
        names.append(stage)
    for group in parsed:
        if isinstance(group, tuple) and not FLOORS.issuperset(group):
            wrong = next(name for name in group if name not in FLOORS)
            raise ValueError(
                f"order must have only stages that keep the largest logits in a nested tuple, "
                f"got {wrong}"
            )
    return cast(Stages, parsed)
