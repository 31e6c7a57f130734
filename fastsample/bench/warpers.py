"""The warpers and processors of transformers' `generate`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from .prepared import FOUR, Prepared, refuse_others
from .works import SEED, Params

#: The class for each parameter, in the order of `generate`.
WARPERS: dict[str, str] = {
    "temperature": "TemperatureLogitsWarper",
    "top_h": "TopHLogitsWarper",
    "top_k": "TopKLogitsWarper",
    "top_p": "TopPLogitsWarper",
    "min_p": "MinPLogitsWarper",
    "typical_p": "TypicalLogitsWarper",
    "epsilon_cutoff": "EpsilonLogitsWarper",
    "eta_cutoff": "EtaLogitsWarper",
}


def one_thread(row: Any) -> tuple[Any, Any]:
    """Return torch, held to one thread, and the row as its tensor."""
    torch = import_module("torch")
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    return torch, torch.from_numpy(row)


def prepare_transformers(row: Any, params: Params) -> Prepared:
    """Run the warpers of `generate`, then multinomial."""
    refuse_others(params, {*FOUR, *WARPERS})
    torch, logits = one_thread(row)
    hf = import_module("transformers.generation.logits_process")
    scores = logits[None]
    if params.get("temperature") == 0.0:
        return Prepared(lambda: int(scores.argmax(-1)))
    warpers: list[Callable[[Any, Any], Any]] = [
        getattr(hf, warper)(params[name]) for name, warper in WARPERS.items() if name in params
    ]

    def draw() -> int:
        x = scores
        for warper in warpers:
            x = warper(None, x)
        return int(torch.multinomial(torch.softmax(x, -1), 1))

    return Prepared(draw)
