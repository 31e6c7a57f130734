"""What a completion of llama-cpp-python may ask for beside stages, in FastLlama."""

from __future__ import annotations

import numpy as np
import pytest
from llama_models import PROMPTS, adapter, complete, draws, llama_cpp, load


@pytest.mark.parametrize("prompt", PROMPTS)
def test_streaming_is_the_same_text(fast, prompt):
    whole = complete(fast, prompt, max_tokens=24)
    fast.reset()
    chunks = list(fast.create_completion(prompt, max_tokens=24, seed=1, stream=True))
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == whole
    assert len(chunks) > 5


def test_chat(fast):
    messages = [{"role": "user", "content": "Who are you?"}]
    answers = []
    for _ in range(2):
        fast.reset()
        out = fast.create_chat_completion(messages, max_tokens=16, seed=3)
        answers.append(out["choices"][0]["message"]["content"])
    fast.reset()
    stream = fast.create_chat_completion(messages, max_tokens=16, seed=3, stream=True)
    answers.append("".join(c["choices"][0]["delta"].get("content") or "" for c in stream))
    assert answers[0]
    assert len(set(answers)) == 1


def test_stop_strings(fast):
    whole = complete(fast, max_tokens=24)
    word = whole.split()[4]
    out = fast.create_completion(PROMPTS[0], max_tokens=24, seed=1, stop=[word])
    choice = out["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert choice["text"] == whole[: whole.index(word)]


def test_logits_processor(fast, original):
    seen = []

    def shout(ids, row):
        seen.append(ids.tolist())
        return row + bonus

    prompt = PROMPTS[1]
    bonus = np.random.default_rng(0).normal(0, 3, fast.n_vocab()).astype(np.float32)
    processors = llama_cpp.LogitsProcessorList([shout])
    tokens = draws(fast, prompt, 12, temp=0.0, logits_processor=processors)
    start = fast.tokenize(prompt.encode())
    assert seen == [start + tokens[:n] for n in range(12)]
    assert tokens == draws(original, prompt, 12, temp=0.0, logits_processor=processors)


def test_logit_bias(fast):
    free = draws(fast, PROMPTS[0], 1, temp=0.0)[0]
    fast.reset()
    parameters = {"max_tokens": 1, "temperature": 0.0}
    before = fast.create_completion(PROMPTS[0], **parameters)["choices"][0]["text"]
    banned = complete(fast, **parameters, logit_bias={free: float("-inf")})
    wanted = complete(fast, **parameters, logit_bias={fast.tokenize(b" Paris")[-1]: 100.0})
    assert before != banned
    assert wanted == " Paris"
    # Nothing of it stays in the logits.
    assert before == fast.create_completion(PROMPTS[0], **parameters)["choices"][0]["text"]


@pytest.mark.parametrize("container", [list, tuple, llama_cpp.LogitsProcessorList])
def test_logit_bias_beside_a_processor(fast, container):
    """Both count, and the caller's list stays as it is. `Llama` loses both."""
    paris, seen = fast.tokenize(b" Paris")[-1], []

    def ban(ids, row):
        seen.append(len(ids))
        row[paris] = -np.inf
        return row

    processors = container([ban])
    parameters = {"temperature": 0.0, "max_tokens": 1, "logit_bias": {paris: 100.0}}
    assert complete(fast, **parameters) == " Paris"
    assert complete(fast, **parameters, logits_processor=processors) != " Paris"
    assert len(seen) == 1
    assert processors == container([ban])
    london = fast.tokenize(b" London")[-1]
    parameters["logit_bias"] = {london: 100.0, paris: 200.0}
    assert complete(fast, **parameters, logits_processor=processors) == " London"
    # As a server's JSON has ids, and by position as `Llama` takes its arguments.
    parameters["logit_bias"] = {str(paris): 100}
    assert complete(fast, **parameters) == " Paris"


@pytest.mark.parametrize(
    "kind", ["float64", "list", "float16", "torch", "torch bfloat16", "mlx bfloat16"]
)
def test_what_a_processor_may_return(fast, kind):
    import importlib

    def convert(row):
        if kind in ("float64", "float16"):
            return row.astype(kind)
        if kind == "list":
            return row.tolist()
        library, _, dtype = kind.partition(" ")
        module = importlib.import_module({"mlx": "mlx.core"}.get(library, library))
        tensor = {"torch": "from_numpy", "mlx": "array"}[library]
        tensor = getattr(module, tensor)(row.round().clip(-64, 64))  # bfloat16 has those
        return tensor if not dtype else tensor.to(module.bfloat16) if library == "torch" else (
            tensor.astype(module.bfloat16))  # fmt: skip

    module = {"torch": "torch", "mlx": "mlx.core"}.get(kind.partition(" ")[0])
    if module:
        pytest.importorskip(module)
    chosen = []

    def process(ids, row):
        row[5] = 60.0
        chosen.append(convert(row))
        return chosen[-1]

    assert draws(fast, PROMPTS[0], 2, logits_processor=[process]) == [5, 5]
    assert len(chosen) == 2


def test_stopping_criteria(fast):
    start = fast.tokenize(PROMPTS[0].encode())
    stop = llama_cpp.StoppingCriteriaList([lambda ids, _: ids.size >= 10])
    assert len(start + list(fast.generate(start, stopping_criteria=stop))) == 10


def test_a_draft_model():
    from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

    prompt = "one two three four one two three four one two"
    llm = load(adapter.FastLlama, draft_model=LlamaPromptLookupDecoding(), n_ctx=128)
    assert complete(llm, prompt, temperature=0).startswith(" three four")
    assert complete(llm, prompt, seed=4) == complete(llm, prompt, seed=4)
    assert llm.draws >= 12
    llm.close()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"top_p": 1.5}, r"top_p must be in \[0, 1\], got 1.5"),
        ({"min_p": -0.1}, r"min_p must be in \[0, 1\], got -0.1"),
        ({"top_k": -2}, "top_k must be None, -1, 0 or >= 1, got -2"),
        ({"temperature": float("nan")}, "temperature must be finite and >= 0, got nan"),
        ({"seed": -2}, r"seed must be in \[0, 2\*\*64\), got -2"),
        ({"seed": 1.5}, r"seed must be an integer, got 1.5 \(float\)"),
        ({"repeat_penalty": 0.0}, "repeat_penalty must be finite and > 0, got 0.0"),
        ({"typical_p": 0.0}, r"^typical_p must be in \(0, 1\], got 0.0"),
        ({"mirostat_mode": 3}, r"^mirostat_mode must be 0, 1 or 2, got 3"),
        ({"mirostat_tau": 0.0}, r"^mirostat_tau must be in \(0, 1e290\], got 0.0"),
        ({"mirostat_eta": 2.0}, r"^mirostat_eta must be in \[0, 1\], got 2.0"),
        ({"presence_penalty": float("inf")}, "presence_penalty must be finite, got inf"),
        ({"logits_processor": [lambda _, row: row * np.nan]}, "NaN"),
        ({"logits_processor": [lambda _, row: row + 1e39]}, r"\+inf"),
        (
            {"logits_processor": [lambda _, row: None]},
            r"^.*<lambda> of logits_processor must return logits of shape \(49152,\): got None",
        ),
        (
            {"logits_processor": [lambda _, row: row[:5]]},
            r"<lambda> of logits_processor must return logits of shape \(49152,\), got \(5,\)",
        ),
        ({"logits_processor": [lambda _, row: 1.0]}, "must return logits of shape"),
        ({"logits_processor": [lambda _, row: "x"]}, "<lambda> of logits_processor must return"),
        (
            {"logits_processor": len},
            r"logits_processor must be a list of callables, got <built-in function len> \(builtin_",
        ),
        (
            {"logits_processor": [3]},
            r"logits_processor must be a list of callables, got 3 \(int\) in it",
        ),
        ({"temperature": "0.8"}, r"^temperature must be a number, got '0.8' \(str\)"),
        ({"temperature": None}, r"^temperature must be a number, got None \(NoneType\)"),
        ({"top_p": "0.8"}, r"^top_p must be a number, got '0.8' \(str\)"),
        ({"top_k": "5"}, r"^top_k must be an integer, got '5' \(str\)"),
        ({"min_p": [0.1, 0.2]}, r"^min_p must be a scalar"),
        ({"typical_p": "0.8"}, r"^typical_p must be a number, got '0.8' \(str\)"),
        ({"mirostat_mode": "2"}, r"^mirostat_mode must be a number, got '2' \(str\)"),
        ({"mirostat_tau": "5"}, r"^mirostat_tau must be a number, got '5' \(str\)"),
        ({"mirostat_eta": "5"}, r"^mirostat_eta must be a number, got '5' \(str\)"),
        ({"repeat_penalty": "1.1"}, r"^repeat_penalty must be a number, got '1.1' \(str\)"),
        ({"frequency_penalty": "1"}, r"^frequency_penalty must be a number, got '1' \(str\)"),
        ({"presence_penalty": None}, r"^presence_penalty must be a number, got None"),
        ({"temperature": 10**400}, r"^temperature must be finite and >= 0, got "),
        ({"repeat_penalty": 10**400}, r"^repeat_penalty must be finite and > 0, got 10"),
        ({"max_tokens": "16"}, r"^max_tokens must be a number, got '16' \(str\)"),
        ({"max_tokens": float("nan")}, r"^max_tokens must be None or a number, got nan"),
        ({"seed": "x"}, r"^seed must be an integer, got 'x' \(str\)"),
        ({"seed": 2**64}, r"^seed must be in \[0, 2\*\*64\), got 18446744073709551616"),
        ({"logit_bias": {49152: 1.0}}, r"^ids of logit_bias must be in \[0, 49152\), got 49152"),
        ({"logit_bias": {-1: 1.0}}, r"^ids of logit_bias must be in \[0, 49152\), got -1"),
        ({"logit_bias": {"-1": 1.0}}, r"^an id of logit_bias must be an integer, got '-1'"),
        ({"logit_bias": {1.5: 1.0}}, r"^an id of logit_bias must be an integer, got 1.5"),
        ({"logit_bias": {"the": 1.0}}, r"^an id of logit_bias must be an integer, got 'the'"),
        ({"logit_bias": {3: "1"}}, r"^logit_bias must be a number, got '1' \(str\)"),
        ({"logit_bias": {3: float("nan")}}, r"^logit_bias must be finite or -inf, got \{3: nan\}"),
        ({"logit_bias": {3: float("inf")}}, r"^logit_bias must be finite or -inf, got \{3: inf\}"),
        ({"logit_bias": [(3, 1.0)]}, r"^logit_bias must be a dict of ids and numbers, got \[\(3"),
    ],
    ids=str,
)
def test_bad_parameters(fast, wrong, message):
    with pytest.raises((TypeError, ValueError), match=message):
        complete(fast, **wrong)
    assert complete(fast)  # and nothing is broken
