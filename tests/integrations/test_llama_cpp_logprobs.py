"""Log-probabilities of FastLlama: the shape of llama-cpp-python's, of the draws' own reads."""

from __future__ import annotations

import json

import numpy as np
import pytest
from llama_models import PROMPTS, Original, adapter, complete, draws, llama_cpp, load

import fastsample

PARTS = ("tokens", "text_offset", "token_logprobs", "top_logprobs")


@pytest.fixture(scope="module")
def remembering():
    """llama-cpp-python's own, which needs the logits of all tokens."""
    llm = load(Original, logits_all=True, n_ctx=128)
    yield llm
    llm.close()


def logprobs_of(llm, prompt=PROMPTS[0], **parameters):
    llm.reset()
    asked = {"max_tokens": 12, "seed": 1, "logprobs": 3} | parameters
    out = llm.create_completion(prompt, **asked)
    if not parameters.get("stream"):
        return out["choices"][0]["text"], out["choices"][0]["logprobs"]
    text, told = "", {part: [] for part in PARTS}
    for chunk in out:
        choice = chunk["choices"][0]
        text += choice["text"]
        assert (choice["logprobs"] is None) == (choice["finish_reason"] is not None)
        for part in PARTS if choice["logprobs"] else ():
            told[part] += choice["logprobs"][part]
    return text, told


def assert_same(ours, theirs):
    assert set(ours) == set(theirs) == set(PARTS)
    assert ours["tokens"] == theirs["tokens"]
    assert ours["text_offset"] == theirs["text_offset"]
    assert ours["token_logprobs"] == pytest.approx(theirs["token_logprobs"], rel=1e-4, abs=1e-5)
    for mine, other in zip(ours["top_logprobs"], theirs["top_logprobs"], strict=True):
        assert list(mine) == list(other)
        assert mine == pytest.approx(other, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_completion_is_told_of_as_by_the_original(fast, remembering, prompt):
    asked = {"temperature": 0.0, "logprobs": 5}
    text, ours = logprobs_of(fast, prompt, **asked)
    expected, theirs = logprobs_of(remembering, prompt, **asked)
    assert text == expected
    assert_same(ours, theirs)
    json.dumps(ours)  # numbers are Python's


@pytest.mark.parametrize("stop", [[], [" a"]], ids=str)
def test_a_stream_is_told_of_as_by_the_original(fast, remembering, stop):
    asked = {"temperature": 0.0, "stream": True, "stop": stop}
    text, ours = logprobs_of(fast, PROMPTS[1], **asked)
    expected, theirs = logprobs_of(remembering, PROMPTS[1], **asked)
    assert text == expected
    assert_same(ours, theirs)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_stream_has_what_the_whole_has(fast, prompt):
    """Characters of several tokens too, which `Llama` loses."""
    asked = {"temperature": 1.0, "max_tokens": 40}
    text, told = logprobs_of(fast, prompt, **asked)
    streamed, parts = logprobs_of(fast, prompt, **asked, stream=True)
    assert streamed == text
    assert parts == told
    assert len(told["tokens"]) >= 40  # `Llama` waits for the end of a character


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"temp": 1.4, "top_k": 3},
        {"repeat_penalty": 1.4},
        {"mirostat_mode": 2},
        {"temp": -1.0},
        {"temp": 0.0},
        {"grammar": llama_cpp.LlamaGrammar.from_string('root ::= "x" [a-z ]*', verbose=False)},
    ],
    ids=str,
)
def test_values_are_log_softmax_of_the_models_rows(fast, given):
    """Whatever biases, penalties, processors and grammars make of them."""
    rows, given = [], dict(given)

    def process(ids, row):
        rows.append(row.copy())
        return row[::-1].copy() if len(rows) % 3 == 0 and "grammar" not in given else row

    given |= {"logits_processor": [process], "logit_bias": {5: 3.0}}
    given["temperature"] = given.pop("temp", 0.8)
    _, told = logprobs_of(fast, PROMPTS[1], logprobs=4, **given)
    drawn = [draw.token for draw in fast._sampler._call.told][: len(told["tokens"])]
    for row, token, value, tops in zip(
        rows, drawn, told["token_logprobs"], told["top_logprobs"], strict=False
    ):
        expected = fastsample.log_softmax(row)
        assert value == pytest.approx(expected[token], rel=1e-6, abs=1e-7)
        largest = np.sort(expected)[::-1][:4].tolist()
        found = sorted(tops.values(), reverse=True)
        assert found[:4] == pytest.approx(largest[: len(found)], rel=1e-6, abs=1e-7)
        assert tops[fast.detokenize([token]).decode(errors="ignore")] == value


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_token_that_the_model_never_gives(fast, stream):
    """Whose logit is -inf until a processor lifts it; of three tokens that are left, five tops."""
    never, left = 260, [10, 300, 4000]

    def process(ids, row):
        address = llama_cpp.llama_get_logits_ith(fast.ctx, -1)  # the model's own
        own = np.ctypeslib.as_array(address, shape=row.shape)
        own[:] = -np.inf
        own[left] = 0.0
        lifted = np.full_like(row, -np.inf)
        lifted[never] = 1.0
        return lifted

    asked = {"logprobs": 5, "logits_processor": [process], "max_tokens": 3, "stream": stream}
    text, told = logprobs_of(fast, **asked)
    word = fast.detokenize([never]).decode(errors="ignore")
    assert text == 3 * word
    expected = llama_cpp.Llama.logits_to_logprobs(np.array([0, 0, 0, -np.inf]))
    assert expected[3] == -np.inf
    assert told["token_logprobs"] == [-np.inf] * 3
    for tops in told["top_logprobs"]:
        assert tops.pop(word) == -np.inf
        assert tops == pytest.approx(
            {fast.detokenize([i]).decode(errors="ignore"): expected[0] for i in left}
        )


def test_they_change_no_token(fast):
    """Nor does logits_all change them."""
    text = complete(fast)
    told = [logprobs_of(fast, logprobs=n) for n in (0, 1, 20)]
    assert {t for t, _ in told} == {text}
    assert [len(tops) for tops in told[0][1]["top_logprobs"]] == [1] * 12  # the token alone
    assert told[1][1]["token_logprobs"] == told[2][1]["token_logprobs"]
    llm = load(adapter.FastLlama, logits_all=True, n_ctx=64)
    assert logprobs_of(llm, logprobs=20) == told[2]
    llm.close()


def test_chat(fast, remembering):
    messages = [{"role": "user", "content": "Who are you?"}]
    asked = {"max_tokens": 8, "temperature": 0.0, "logprobs": True, "top_logprobs": 2}
    contents = []
    for llm in (fast, remembering):
        llm.reset()
        out = llm.create_chat_completion(messages, **asked)
        contents.append(out["choices"][0]["logprobs"]["content"])
    ours, theirs = contents
    assert len(ours) == 8
    for mine, other in zip(ours, theirs, strict=True):
        assert set(mine) == set(other)
        assert mine["token"] == other["token"]
        assert mine["logprob"] == pytest.approx(other["logprob"], rel=1e-4, abs=1e-5)
        assert [t["token"] for t in mine["top_logprobs"]] == [
            t["token"] for t in other["top_logprobs"]
        ]
    fast.reset()
    stream = fast.create_chat_completion(messages, **asked, stream=True)
    told = [chunk["choices"][0]["logprobs"] for chunk in stream]
    assert [entry for chunk in told if chunk for entry in chunk["content"]] == ours


@pytest.mark.parametrize("asked", [{"stop": [" a"]}, {"max_tokens": 64}], ids=str)
def test_where_a_text_ends(fast, remembering, asked):
    asked = {"temperature": 0.0, **asked}
    text, ours = logprobs_of(fast, "Answer: yes or no? Yes.<|im_end|>\n", **asked)
    expected, theirs = logprobs_of(remembering, "Answer: yes or no? Yes.<|im_end|>\n", **asked)
    assert text == expected
    assert_same(ours, theirs)


def test_without_a_prompt(fast):
    """`Llama` begins such a text with a token of its own, where the model has one for it."""
    told = [fastsample.Draw(token, -1.0) for token in (5, 6)]
    response = {"usage": {"completion_tokens": 3}, "choices": [{}]}
    logprobs = adapter.Teller(fast, "", told).whole(response)["choices"][0]["logprobs"]
    assert logprobs["token_logprobs"] == [-1.0, -1.0]
    assert len(logprobs["tokens"]) == 2


def test_a_prompt_of_ids_and_stopping_criteria(fast, remembering):
    stop = llama_cpp.StoppingCriteriaList([lambda ids, _: ids.size >= 10])
    asked = {"temperature": 0.0, "stopping_criteria": stop}
    prompt = fast.tokenize(PROMPTS[0].encode())
    assert_same(logprobs_of(fast, prompt, **asked)[1], logprobs_of(remembering, prompt, **asked)[1])


def test_of_the_prompt_only_the_original_knows(fast, remembering):
    with pytest.raises(ValueError, match="logits_all=False"):
        logprobs_of(fast, echo=True)
    llm = load(adapter.FastLlama, logits_all=True, n_ctx=128)
    asked = {"temperature": 0.0, "echo": True}
    (text, ours), (expected, theirs) = logprobs_of(llm, **asked), logprobs_of(remembering, **asked)
    llm.close()
    assert text == expected
    assert ours["tokens"] == theirs["tokens"]
    assert ours["token_logprobs"][0] is None


def test_generate_tells_nothing(fast):
    logprobs_of(fast)
    draws(fast, PROMPTS[0], 3)
    assert fast._sampler._call is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (-1, r"^logprobs must be in \[0, 49152\], got -1"),
        (49153, r"^logprobs must be in \[0, 49152\], got 49153"),
        (1.5, r"^logprobs must be an integer, got 1.5 \(float\)"),
        ("3", r"^logprobs must be an integer, got '3' \(str\)"),
    ],
    ids=str,
)
@pytest.mark.parametrize("stream", [False, True])
def test_bad_counts(fast, wrong, message, stream):
    with pytest.raises((TypeError, ValueError), match=message):
        logprobs_of(fast, logprobs=wrong, stream=stream)
    assert complete(fast)
