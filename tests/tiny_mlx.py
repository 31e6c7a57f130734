"""For mlx-lm: a llama of random weights, a tokenizer of the words w0, w1 and so on, and a row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models import llama
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from fastsample.reference import edits

V = 200
ROW = np.random.default_rng(0).normal(0, 2, V).astype(np.float32)
TYPES = ("float32", "float16", "bfloat16")
CONFIG = {
    "model_type": "llama",
    "vocab_size": V,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "eos_token_id": 1,
}


def make_model() -> Any:
    """The model, in bfloat16."""
    mx.random.seed(0)
    made = llama.Model(llama.ModelArgs.from_dict(CONFIG))
    made.set_dtype(mx.bfloat16)
    made.lm_head.weight *= 8  # so that some tokens are more probable than others
    mx.eval(made.parameters())
    return made


def make_tokenizer() -> Any:
    """The tokenizer, as transformers has it; w1 ends a text."""
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(V)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0", eos_token="w1")


def save(folder: Path) -> None:
    """Write what `mlx_lm.load` reads."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    weights = dict(tree_flatten(make_model().parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    make_tokenizer().save_pretrained(folder)


def row_of(kind: str = "float32", rows: int = 1) -> Any:
    """ROW, so many times."""
    return mx.broadcast_to(mx.array(ROW), (rows, V)).astype(getattr(mx, kind))


def as_float32(array: Any) -> np.ndarray[Any, Any]:
    """A copy for NumPy."""
    return np.array(array.astype(mx.float32))


def edited(row: np.ndarray[Any, Any], text: list[int], prompt: int = 0, **given: Any) -> Any:
    """A row as the reference edits it."""
    pairs = {n: list(v.items()) if isinstance(v, dict) else v for n, v in given.items()}
    return edits.apply(row, edits.edits_of(text, prompt, row.size, pairs).values())
