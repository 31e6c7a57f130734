"""JSON by a schema: the mask of xgrammar or llguidance goes into the draw as it is.

    pip install 'xgrammar>=0.2.8' 'llguidance>=1.9'
    python json_by_schema.py xgrammar --seed 1
    python json_by_schema.py llguidance --seed 1

Both fill 32-bit words, a bit for each token, which `fastsample` reads where they are.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import llama_cpp
import numpy as np
import numpy.typing as npt

import fastsample
from fastsample.integrations.llama_cpp import FastLlama, smollm2_path

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 24},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "pets": {"type": "array", "items": {"enum": ["cat", "dog", "parrot"]}, "maxItems": 3},
        "married": {"type": "boolean"},
    },
    "required": ["name", "age", "pets", "married"],
    "additionalProperties": False,
}
PROMPT = "A person of a short story, as JSON:\n"


class Grammar(NamedTuple):
    """Where a text stands in a schema."""

    mask: npt.NDArray[np.int32]  # the words, filled anew for each token
    fill: Callable[[], object]
    accept: Callable[[int], bool]  # whether the text may go on with a token, and now has


def with_xgrammar(llm: FastLlama, schema: dict[str, Any]) -> Grammar:
    """Return a schema as xgrammar has it."""
    import xgrammar

    pieces = [llm.detokenize([token]) for token in range(llm.n_vocab())]  # bytes
    vocabulary = xgrammar.TokenizerInfo(pieces, stop_token_ids=[llm.token_eos()])
    compiled = xgrammar.GrammarCompiler(vocabulary).compile_json_schema(json.dumps(schema))
    matcher = xgrammar.GrammarMatcher(compiled)
    mask = np.zeros(xgrammar.get_bitmask_shape(1, llm.n_vocab()), np.int32)
    return Grammar(mask[0], lambda: matcher.fill_next_token_bitmask(mask), matcher.accept_token)


def with_llguidance(llm: FastLlama, schema: dict[str, Any]) -> Grammar:
    """Return a schema as llguidance has it."""
    import llguidance
    from llguidance.llamacpp import lltokenizer_from_vocab

    vocabulary = lltokenizer_from_vocab(llama_cpp.llama_model_get_vocab(llm.model))
    rules = llguidance.LLMatcher.grammar_from_json_schema(schema)
    matcher = llguidance.LLMatcher(vocabulary, rules)
    mask = np.zeros(-(-llm.n_vocab() // 32), np.int32)
    where = mask.ctypes.data, mask.nbytes
    return Grammar(mask, lambda: matcher.unsafe_compute_mask_ptr(*where), matcher.consume_token)


GRAMMARS = {"xgrammar": with_xgrammar, "llguidance": with_llguidance}


def write(
    llm: FastLlama, grammar: Grammar, sampler: fastsample.Sampler, max_tokens: int = 200
) -> str:
    """Return a text of the grammar."""
    llm.reset()
    llm.eval(llm.tokenize(PROMPT.encode()))
    text: list[int] = []
    while len(text) < max_tokens:
        logits = llama_cpp.llama_get_logits_ith(llm.ctx, -1)
        row = np.ctypeslib.as_array(logits, (llm.n_vocab(),))  # llama.cpp's own memory
        grammar.fill()
        token = sampler(row, allowed=grammar.mask)
        if token == llm.token_eos():  # which is allowed where the text is whole
            break
        if not grammar.accept(token):
            raise RuntimeError(f"token {token} is allowed, but not accepted")
        text.append(token)
        llm.eval([token])
    return str(llm.detokenize(text).decode())


def main() -> None:
    """Write a text and check it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("grammar", choices=GRAMMARS)
    parser.add_argument("--seed", type=int)
    given = parser.parse_args()
    llm = FastLlama(smollm2_path(), n_ctx=512, verbose=False)
    sampler = fastsample.Sampler(temperature=0.8, top_p=0.95, seed=given.seed)
    print(json.loads(write(llm, GRAMMARS[given.grammar](llm, SCHEMA), sampler)))
    llm.close()


if __name__ == "__main__":
    main()
