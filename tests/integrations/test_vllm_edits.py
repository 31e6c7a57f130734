"""What edits and masks rows inside vLLM: as vLLM's own code does, from histories that grow."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from vllm_batches import (
    CHAINS,
    COUNT,
    EDITS,
    MODES,
    ROWS,
    VOCAB,
    WORDS,
    Past,
    Sampler,
    SamplingParams,
    StructuredOutputsParams,
    alone,
    apply_grammar_bitmask,
    draw,
    edited,
    make,
    make_batch,
    make_request,
    theirs,
    torch,
    with_edits,
    without_ties,
)

from fastsample.inputs import together
from fastsample.records import EDIT
from fastsample.reference.inputs import as_drawn_from

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's and vLLM's own
NO_EDITS = np.empty(0, EDIT)
KNOWN: dict[str, list[int]] = {}  # what another variant has drawn


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_edits_come_before_the_draw(edit, dtype):
    rows = ROWS[:4].to(dtype)
    chain = {"temperature": 0.8, "top_k": 20, "top_p": 0.95}
    top = rows.float().topk(3).indices.tolist()
    outputs = [top[0], [260, 260, 28], top[2], [5]]
    plain = [SamplingParams(**chain, seed=i) for i in range(3)] + [SamplingParams(temperature=0.0)]
    params = list(plain)
    for i in (0, 2, 3):  # the others of the batch stay as they are
        params[i] = with_edits(params[i], EDITS[edit])
    x = edited(rows.float(), params, outputs)
    assert torch.equal(x[1], rows[1].float())
    assert not torch.equal(x[0], rows[0].float())
    expected = [alone(x[i], i, len(outputs[i]), **chain) for i in range(3)]
    expected.append(x[3].argmax().item())
    assert draw(rows, params, outputs) == expected


def ours(sampler, rows):
    """Rows as our kernels draw from them."""
    meta = sampler.runner.input_batch.sampling_metadata
    inputs = sampler.pasts.inputs(meta, *rows.shape)
    edits = [h.edits(rows.shape[1]) if h else NO_EDITS for h in inputs.pop("pasts", [])]
    inputs |= together(edits) if edits else {}
    return np.stack([as_drawn_from(row, inputs, i) for i, row in enumerate(rows.numpy())])


def assert_edited_as_vllm_does(sampler, rows):
    meta = sampler.runner.input_batch.sampling_metadata
    x = Sampler().apply_logits_processors(rows.clone(), meta, False).numpy()
    found = ours(sampler, rows)
    assert np.array_equal(np.isfinite(found), np.isfinite(x))
    np.testing.assert_allclose(found, x, rtol=3e-7, atol=2e-6)  # vLLM rounds after each edit
    return x


@pytest.mark.parametrize("edit", EDITS)
def test_rows_are_edited_as_vllm_does_on_real_logits(edit):
    top = ROWS.topk(40).indices.tolist()
    params = [with_edits(SamplingParams(), EDITS[edit]) for _ in ROWS]
    outputs = [top[i][: 3 * i] + top[i][:i] for i in range(COUNT)]
    x = assert_edited_as_vllm_does(make(make_batch(params, outputs)), ROWS)
    assert not np.array_equal(x, ROWS.numpy())


@pytest.mark.parametrize("chain", CHAINS)
def test_kept_sets_of_edited_rows_are_vllms(chain):
    rows = without_ties(ROWS)
    top = rows.topk(9).indices.tolist()
    params = [
        with_edits(SamplingParams(**CHAINS[chain], seed=i, logprobs=-1), EDITS["all"])
        for i in range(COUNT)
    ]
    batch = make_batch(params, top)
    sampler = make(batch, "processed_logprobs")
    told = sampler(logits=rows.clone(), sampling_metadata=batch.sampling_metadata).logprobs_tensors
    assert not sampler.left
    own = theirs(rows, params, top, "processed_logprobs").logprobs_tensors
    kept, kept_there = (torch.isfinite(t.logprobs[:, 1:]) for t in (told, own))
    if "top_p" not in CHAINS[chain]:
        assert torch.equal(kept, kept_there)
    else:  # vLLM adds up in float32
        lost = torch.where(kept != kept_there, told.logprobs[:, 1:].exp(), 0.0).sum(-1)
        assert lost.nan_to_num().max() < 1e-5
    for i in range(COUNT):
        sets = (t.logprob_token_ids[i, 1:][k[i]] for t, k in ((told, kept), (own, kept_there)))
        a, b = (set(ids.tolist()) for ids in sets)
        assert a == b or "top_p" in CHAINS[chain]
        assert a <= set(EDITS["all"]["allowed_token_ids"]) - {12, 28, 253}
        assert len(set(told.logprob_token_ids[i, 1:].tolist())) == VOCAB  # each id once


def test_a_history_follows_its_request_and_is_made_once(monkeypatch, fast_variant):
    starts = []
    monkeypatch.setattr(
        Past, "start", lambda *args, own=Past.start: (starts.append(args), own(*args))[1]
    )
    rng = np.random.default_rng(3)
    kinds = [EDITS[name] for name in ("presence", "repetition", "bad words", "min_tokens", "all")]
    states = [make_request(str(i), with_edits(SamplingParams(), k)) for i, k in enumerate(kinds)]
    batch = make_batch([SamplingParams()] * 6)
    sampler = make(batch)
    plain, requests = list(batch.req_ids), sampler.runner.requests
    for name in plain:
        batch.remove_request(name)
    requests.clear()

    def step(*, add=(), remove=(), swap=()):
        for name in remove:
            batch.remove_request(name)
        for state in add:
            batch.add_request(state)
            requests[state.req_id] = state
        batch.condense()
        if swap:
            batch.swap_states(*swap)
        batch.refresh_metadata()
        rows = ROWS[: batch.num_reqs]
        assert_edited_as_vllm_does(sampler, rows)
        for name in batch.req_ids:  # as the runner does
            requests[name].output_token_ids.append(int(rng.choice([28, 30, 260, 17, 5, 253])))

    step(add=states)
    for _ in range(6):
        step()
    step(swap=(0, 4))
    step(remove=["1"])  # preempted: condense moves another one to its row
    step()
    step(remove=["3", "0"])
    step(add=[states[3], states[1]])
    step(swap=(1, 2), add=[states[0]])
    for _ in range(3):
        step()
    for state in states:  # tokens that are thrown away
        del state.output_token_ids[-3:]
    step()
    assert len(starts) == 5
    del requests["2"]
    step(remove=["2"], add=[make_request("2", with_edits(SamplingParams(), kinds[0]))])
    assert len(starts) == 6
    for name in list(batch.req_ids):
        batch.remove_request(name)
    requests.clear()
    step(add=[make_request("9", SamplingParams())])
    assert sampler.pasts.of_requests == {}


def test_tokens_that_became_others_begin_a_history_anew():
    batch = make_batch([SamplingParams(presence_penalty=1.0)], [[28, 30, 260]])
    sampler = make(batch)
    assert_edited_as_vllm_does(sampler, ROWS[:1])
    outputs = batch.req_output_token_ids[0]
    outputs[:] = [17, 30, 17]
    assert_edited_as_vllm_does(sampler, ROWS[:1])
    outputs += [-1, -1]  # not known yet
    assert_edited_as_vllm_does(sampler, ROWS[:1])
    outputs[3:] = [28, 5, 6]
    assert_edited_as_vllm_does(sampler, ROWS[:1])


def test_with_edits_masks_and_log_probabilities_a_seed_draws_the_same_anywhere(fast_variant):
    """Alone, in any batch, again, on every instruction set; with what is asked for beside it."""
    chain = {"temperature": 1.2, "top_k": 50, "top_p": 0.95}
    outputs = [[28, 30, 260] * i for i in range(len(EDITS))]

    def drawn(chosen, **more):
        params = [with_edits(SamplingParams(**chain, seed=i, **more), EDITS[n]) for i, n in chosen]
        batch = make_batch(params, [outputs[i] for i, _ in chosen])
        sampler = make(batch)
        sampler.grammar = SimpleNamespace(
            structured_output_request_ids=[str(k) for k, (i, _) in enumerate(chosen) if i % 2],
            grammar_bitmask=np.full((sum(i % 2 for i, _ in chosen), WORDS), 0x7EEE7777, np.int32),
        )
        grammar, meta = sampler.grammar, batch.sampling_metadata
        texts = []
        for _ in range(2):
            sampler.grammar = grammar
            texts.append(sampler(logits=ROWS[[i for i, _ in chosen]], sampling_metadata=meta))
        assert torch.equal(texts[0].sampled_token_ids, texts[1].sampled_token_ids)
        return texts[0].sampled_token_ids[:, 0].tolist()

    everyone = list(enumerate(EDITS))
    whole = drawn(everyone)
    assert drawn(everyone[::-1]) == whole[::-1]
    assert drawn(everyone, logprobs=5) == whole
    assert [drawn([one])[0] for one in everyone] == whole
    assert KNOWN.setdefault("tokens", whole) == whole


def test_bad_words_are_not_drawn():
    best = ROWS[0].argmax().item()
    params = SamplingParams(temperature=0.0)
    params._bad_words_token_ids = [[4, best]]
    assert draw(ROWS[:1], [params], [[4]]) != [best]
    assert draw(ROWS[:1], [params], [[3]]) == [best]


# ---- structured output -----------------------------------------------------------------------


def grammar_of(batch, rows, seed=5, width=WORDS):
    """Masks of some requests, in an order of their own; one of them has left the batch."""
    names = [*(batch.req_ids[i] for i in rows[::-1]), "gone"]
    masks = np.random.default_rng(seed).integers(-(2**31), 2**31, (len(names), width))
    return SimpleNamespace(
        structured_output_request_ids=names, grammar_bitmask=masks.astype(np.int32)
    )


def masked(grammar, batch, rows):
    """Logits as vLLM masks them."""
    x = rows.clone()
    nothing = SimpleNamespace(scheduled_spec_decode_tokens={})
    apply_grammar_bitmask(nothing, grammar, batch, x)
    return x


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("edit", [None, "repetition", "allowed ids", "all"])
def test_masks_of_grammars_are_for_the_draw(dtype, edit):
    chain = {"temperature": 0.9, "top_k": 40}
    rows = ROWS[:5].to(dtype)
    edits = EDITS.get(edit, {})
    params = [with_edits(SamplingParams(**chain, seed=i), edits) for i in range(4)]
    params.append(SamplingParams(temperature=0.0))
    outputs = [[28, 260] * i for i in range(5)]
    batch = make_batch(params, outputs)
    sampler = make(batch)
    sampler.grammar = grammar = grammar_of(batch, [0, 2, 4])
    kept = rows.clone()
    out = sampler(logits=rows, sampling_metadata=batch.sampling_metadata)
    assert torch.equal(rows, kept)  # nobody has written to them
    assert sampler.grammar is None
    x = edited(masked(grammar, batch, rows).float(), params, outputs)
    expected = [alone(x[i], i, len(outputs[i]), **chain) for i in range(4)]
    expected.append(x[4].argmax().item())
    assert out.sampled_token_ids[:, 0].tolist() == expected


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("greedy", [True, False])
def test_log_probabilities_under_a_grammar(mode, greedy):
    """vLLM masks first: raw ones are of the masked logits."""
    chain = {"temperature": 0.0} if greedy else {"temperature": 0.9, "top_k": 40, "seed": 3}
    params = [SamplingParams(**chain, presence_penalty=0.5, logprobs=6)] * 3
    outputs = [[28], [260], [17]]
    batch = make_batch(params, outputs)
    sampler = make(batch, mode)
    sampler.grammar = grammar = grammar_of(batch, [0, 1])
    out = sampler(logits=ROWS[:3].clone(), sampling_metadata=batch.sampling_metadata)
    x = masked(grammar, batch, ROWS[:3])
    own = theirs(x, params, outputs, mode).logprobs_tensors
    told = out.logprobs_tensors
    torch.testing.assert_close(told.logprobs[:, 1:], own.logprobs[:, 1:], rtol=0, atol=2e-5)
    if greedy:
        assert torch.equal(told.logprob_token_ids[:, 0], own.logprob_token_ids[:, 0])
        assert torch.equal(told.selected_token_ranks, own.selected_token_ranks)


def test_a_mask_that_is_short_says_nothing_of_what_is_beyond():
    batch = make_batch([SamplingParams(temperature=0.0)] * 2)
    rows = ROWS[:2].clone()
    rows[:, VOCAB - 1] = 100.0
    sampler = make(batch)
    sampler.grammar = grammar = grammar_of(batch, [0], width=10)
    out = sampler(logits=rows, sampling_metadata=batch.sampling_metadata)
    assert out.sampled_token_ids[:, 0].tolist() == [VOCAB - 1] * 2
    assert masked(grammar, batch, rows).argmax(-1).tolist() == [VOCAB - 1] * 2


def test_a_minimum_of_tokens_under_a_grammar():
    """As in vLLM, a text ends early where its grammar wants nothing else, or that is banned."""
    wanted = SamplingParams(
        **{"temperature": 0.0, "min_tokens": 5, "stop_token_ids": [7, 40]},
        structured_outputs=StructuredOutputsParams(choice=["a"]),
    )
    params = [wanted, wanted.clone(), wanted.clone(), wanted, wanted]
    params[2]._bad_words_token_ids = [[28, 9]]
    outputs = [[], [], [28], [1] * 5, []]
    rows = ROWS[:5].clone()
    rows[:, 7], rows[:, 9] = 50.0, 40.0
    rows[1, 9] = -torch.inf
    batch = make_batch(params, outputs)
    sampler = make(batch)
    masks = np.zeros((4, WORDS), np.int32)
    masks[:, 0] = 1 << 7 | 1 << 9
    masks[0, 0] = 1 << 7
    sampler.grammar = SimpleNamespace(
        structured_output_request_ids=["0", "1", "2", "3"], grammar_bitmask=masks
    )
    x = edited(masked(sampler.grammar, batch, rows), params, outputs)
    out = sampler(logits=rows, sampling_metadata=batch.sampling_metadata)
    tokens = out.sampled_token_ids[:, 0].tolist()
    assert tokens == x.argmax(-1).tolist()
    assert tokens == [7, 7, 7, 7, 9]  # the last has no grammar yet: it must not stop
    assert not sampler.left


def test_a_request_that_is_allowed_nothing_fails_alone():
    params = [SamplingParams(temperature=1.0, seed=i, presence_penalty=1.0) for i in range(3)]
    batch = make_batch(params)
    sampler = make(batch)
    sampler.grammar = SimpleNamespace(
        structured_output_request_ids=["1"], grammar_bitmask=np.zeros((1, WORDS), np.int32)
    )
    out = sampler(logits=ROWS[:3], sampling_metadata=batch.sampling_metadata)
    assert list(sampler.bad) == [1]
    assert "allowed" in sampler.bad[1]
    expected = [alone(ROWS[i], i, 0, temperature=1.0) for i in (0, 2)]
    assert out.sampled_token_ids[[0, 2], 0].tolist() == expected
