"""The sampler inside vLLM, on batches of requests that vLLM's own code describes to it."""

from __future__ import annotations

import os
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

import fastsample
from fastsample import recorded
from fastsample.inputs import together
from fastsample.records import EDIT
from fastsample.reference.inputs import as_drawn_from

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    vllm = pytest.importorskip("vllm", reason="vLLM is not installed: see docs/vllm.md")

    import torch
    from vllm import SamplingParams
    from vllm.platforms import current_platform
    from vllm.sampling_params import StructuredOutputsParams
    from vllm.v1.sample.logits_processor import LogitsProcessors
    from vllm.v1.sample.logits_processor.builtin import (
        LogitBiasLogitsProcessor,
        MinPLogitsProcessor,
        MinTokensLogitsProcessor,
    )
    from vllm.v1.sample.logits_processor.interface import LogitsProcessor
    from vllm.v1.sample.sampler import Sampler
    from vllm.v1.structured_output.utils import apply_grammar_bitmask
    from vllm.v1.worker.gpu_input_batch import CachedRequestState, InputBatch

    from fastsample.integrations._vllm_pasts import Past
    from fastsample.integrations._vllm_sampler import FastSampler

if not current_platform.is_cpu():
    pytest.skip("this vLLM is not for CPUs", allow_module_level=True)
current_platform.import_kernels()

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's and vLLM's own

CPU = torch.device("cpu")
ROWS = torch.from_numpy(recorded.load().logits.astype(np.float32))
COUNT, VOCAB = ROWS.shape
WORDS = -(-VOCAB // 32)
NO_EDITS = np.empty(0, EDIT)
MODES = ("raw_logprobs", "raw_logits", "processed_logprobs", "processed_logits")
CHAINS = {
    "plain": {"temperature": 1.0},
    "temperature": {"temperature": 0.6},
    "top_k": {"temperature": 0.8, "top_k": 50},
    "top_p": {"temperature": 0.8, "top_p": 0.95},
    "hot top_p": {"temperature": 2.0, "top_p": 0.99},
    "both": {"temperature": 0.8, "top_k": 50, "top_p": 0.95},
    "min_p": {"temperature": 1.3, "min_p": 0.05},
    "all": {"temperature": 0.7, "top_k": 300, "top_p": 0.9, "min_p": 0.01},
}


def make_batch(params, outputs=None, vocab=VOCAB, prompt=3, custom=()):
    """vLLM's own description of requests that stand at these outputs."""
    outputs = outputs or [[] for _ in params]
    config = SimpleNamespace(scheduler_config=SimpleNamespace(max_num_seqs=len(params)))
    kinds = (MinTokensLogitsProcessor, LogitBiasLogitsProcessor, MinPLogitsProcessor, *custom)
    batch = InputBatch(
        max_num_reqs=len(params),
        max_model_len=64,
        max_num_batched_tokens=64,
        device=CPU,
        vocab_size=vocab,
        block_sizes=[16],
        max_num_blocks_per_req=[4],
        logitsprocs=LogitsProcessors([kind(config, CPU, False) for kind in kinds]),
        logitsprocs_need_output_token_ids=True,
    )
    for i, (p, output) in enumerate(zip(params, outputs, strict=True)):
        batch.add_request(make_request(str(i), p, output, prompt))
    batch.refresh_metadata()
    return batch


def make_request(name, params, output=(), prompt=3):
    seeded = params.seed is not None and params.temperature > 0
    return CachedRequestState(
        req_id=name,
        prompt_token_ids=[5, 6, 7][:prompt],
        mm_features=[],
        sampling_params=params,
        generator=torch.Generator().manual_seed(params.seed) if seeded else None,
        block_ids=([0],),
        num_computed_tokens=prompt,
        output_token_ids=list(output),
    )


def make(batch, mode="raw_logprobs"):
    requests = dict.fromkeys(batch.req_ids)
    return FastSampler(SimpleNamespace(sampler=Sampler(mode), input_batch=batch, requests=requests))


def draw(rows, params, outputs=None, mode="raw_logprobs", **options):
    batch = make_batch(params, outputs, vocab=rows.shape[1], **options)
    sampler = make(batch, mode)
    out = sampler(logits=rows.clone(), sampling_metadata=batch.sampling_metadata)
    assert out.sampled_token_ids.dtype == torch.int32
    assert out.sampled_token_ids.shape == (len(rows), 1)
    assert not sampler.bad
    return out.sampled_token_ids[:, 0].tolist()


def theirs(rows, params, outputs=None, mode="raw_logprobs", **options):
    batch = make_batch(params, outputs, vocab=rows.shape[1], **options)
    return Sampler(mode)(logits=rows.clone(), sampling_metadata=batch.sampling_metadata)


def alone(row, seed, offset, **chain):
    """The token that fastsample draws from one row; vLLM keeps parameters as float32."""
    chain = {n: float(np.float32(v)) if n != "top_k" else v for n, v in chain.items()}
    return fastsample.sample(row, **chain, order="vllm", seed=[seed], offset=offset)


# ---- what is kept, and with which probability ------------------------------------------------


def processed(rows, chain, kind):
    batch = make_batch([SamplingParams(**chain, logprobs=1)] * len(rows))
    sampler = kind(batch)
    return sampler.sample(rows.clone(), batch.sampling_metadata)[1]


def without_ties(rows):
    """Real logits, recorded in 16 bits, a few last bits apart where they were equal."""
    x = rows.numpy().copy()
    for row in x:
        order = np.argsort(-row, kind="stable")
        equal = np.diff(row[order], prepend=np.inf) == 0
        place = np.arange(row.size)
        behind = place - np.maximum.accumulate(np.where(equal, 0, place))  # the first of its kind
        row[order] -= behind.astype(np.float32) * np.spacing(np.abs(row[order]))
        assert np.unique(row).size == row.size
    return torch.from_numpy(x)


@pytest.mark.parametrize("chain", CHAINS)
def test_kept_sets_are_those_of_vllms_masks_on_real_logits(chain):
    rows = without_ties(ROWS)
    ours = processed(rows, CHAINS[chain], lambda batch: make(batch, "processed_logits"))
    own = processed(rows, CHAINS[chain], lambda batch: Sampler("processed_logits"))
    kept, kept_there = torch.isfinite(ours), torch.isfinite(own)
    both = kept & kept_there
    assert torch.equal(ours[both], own[both])
    if "top_p" not in CHAINS[chain]:
        assert torch.equal(kept, kept_there)
    else:  # vLLM adds up in float32
        p = torch.softmax(rows / CHAINS[chain]["temperature"], -1)
        assert (p * (kept != kept_there)).sum(-1).max() < 1e-5


def test_of_what_ties_at_the_cut_of_top_k_the_first_are_kept():
    row = torch.tensor([[1.0, 3.0, 2.0, 2.0, 2.0, 0.0]])
    batch = make_batch([SamplingParams(top_k=2, logprobs=1)], vocab=6)
    for sampler, kept in ((make(batch, "processed_logits"), 2), (Sampler("processed_logits"), 4)):
        x = sampler.sample(row.clone(), batch.sampling_metadata)[1]
        assert torch.isfinite(x).sum() == kept
    assert {draw(row, [SamplingParams(top_k=2, seed=i)])[0] for i in range(60)} == {1, 2}


@pytest.mark.parametrize("chain", CHAINS)
def test_distribution_is_vllms(chain):
    count = 4000
    row = max(ROWS, key=lambda x: torch.distributions.Categorical(logits=x).entropy())
    own = processed(row[None], CHAINS[chain], lambda batch: Sampler("processed_logprobs"))[0]
    p = torch.exp(own).double().numpy()
    batch = make_batch([SamplingParams(**CHAINS[chain])] * 50)
    sampler, rows = make(batch), row.expand(50, -1)
    torch.manual_seed(11)
    tokens = [sampler.sample(rows, batch.sampling_metadata)[0] for _ in range(count // 50)]
    drawn = np.bincount(torch.cat(tokens).numpy(), minlength=VOCAB)
    frequent = np.flatnonzero(p * count >= 5)
    observed = [*drawn[frequent], count - drawn[frequent].sum()]
    expected = [*(p[frequent] * count), count - (p[frequent] * count).sum()]
    if expected[-1] < 1:
        assert observed.pop() <= 5
        expected.pop()
        expected = [e * sum(observed) / sum(expected) for e in expected]
    assert stats.chisquare(observed, expected).pvalue > 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_greedy_is_vllms_token_for_token(dtype):
    rows = ROWS.to(dtype)
    params = [SamplingParams(temperature=0.0)] * COUNT
    own = theirs(rows, params).sampled_token_ids[:, 0].tolist()
    assert draw(rows, params) == own == rows.float().argmax(-1).tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_of_all_kinds_are_drawn_in_one_batch(dtype):
    rows = ROWS.to(dtype)
    chains = [*CHAINS.values(), {"temperature": 0.0}, {"temperature": 1.0, "top_k": -1}]
    params = [SamplingParams(**chain, seed=40 + i) for i, chain in enumerate(chains)]
    outputs = [[9] * i for i in range(len(params))]
    expected = [alone(rows[i], 40 + i, i, **chain) for i, chain in enumerate(chains)]
    assert draw(rows[: len(params)], params, outputs) == expected


# ---- seeds -----------------------------------------------------------------------------------


def test_a_seed_and_the_number_of_tokens_are_all_that_counts():
    chains = list(CHAINS.values())
    seeds = [3, 2**63 - 1, 0, -5, 77, 8, 9, 10]
    params = [SamplingParams(**c, seed=s) for c, s in zip(chains, seeds, strict=True)]
    outputs = [[7] * n for n in (0, 1, 2, 5, 3, 9, 4, 6)]
    rows = ROWS[: len(params)]
    whole = draw(rows, params, outputs)
    order = [5, 2, 7, 0]
    for chosen in ([0], [3], order, order[::-1]):
        some = draw(rows[chosen], [params[i] for i in chosen], [outputs[i] for i in chosen])
        assert some == [whole[i] for i in chosen]
    noise = [SamplingParams(), SamplingParams(temperature=0.0)]
    mixed = draw(ROWS[[9, 3, 10]], [noise[0], params[3], noise[1]], [[1], outputs[3], []])
    assert mixed[1] == whole[3]


def test_drawing_again_draws_the_same_and_vllms_does_not():
    """As after a preemption, or where what was drawn is thrown away: a prompt read in parts."""
    rows = ROWS[:1].repeat(12, 1)
    params = [SamplingParams(temperature=1.5, seed=i) for i in range(12)]
    batch = make_batch(params)
    for sampler, same in ((make(batch), True), (Sampler(), False)):
        drawn = [
            sampler(logits=rows.clone(), sampling_metadata=batch.sampling_metadata)
            for _ in range(2)
        ]
        tokens = [out.sampled_token_ids[:, 0].tolist() for out in drawn]
        assert (tokens[0] == tokens[1]) is same


def test_without_a_seed_torchs_stream_decides():
    """The one that the engine's seed begins, in each worker."""
    params = [SamplingParams(temperature=2.0)] * COUNT

    def run(seed):
        torch.manual_seed(seed)
        return [draw(ROWS, params) for _ in range(2)]

    first, again, other = run(1), run(1), run(2)
    assert first == again != other
    assert first[0] != first[1]


def test_variants_draw_the_same(fast_variant):
    params = [SamplingParams(**chain, seed=5) for chain in CHAINS.values()]
    expected = [alone(ROWS[i], 5, 0, **chain) for i, chain in enumerate(CHAINS.values())]
    assert draw(ROWS[: len(params)], params) == expected


def test_a_bonus_token_stands_behind_its_drafts():
    params = [SamplingParams(temperature=1.0, seed=4)] * 2
    batch = make_batch(params, [[1, 2], [3]])
    batch.spec_token_ids[0].extend([8, 9, 10])
    out = make(batch)(ROWS[:2].clone(), batch.sampling_metadata, predict_bonus_token=True)
    expected = [alone(ROWS[0], 4, 2 + 3, temperature=1.0), alone(ROWS[1], 4, 1, temperature=1.0)]
    assert out.sampled_token_ids[:, 0].tolist() == expected


# ---- edits -----------------------------------------------------------------------------------


class Shift(LogitsProcessor):
    """A processor of a user's own, which changes what comes out on top."""

    invariant = False

    def __init__(self, *_):
        pass

    def is_argmax_invariant(self):
        return self.invariant

    def update_state(self, batch_update):
        pass

    def apply(self, logits):
        return logits.add_(torch.arange(logits.shape[1]) % 7 * 0.5)


class Cut(Shift):
    """One that belongs between temperature and top_k: keeps what is near the maximum."""

    invariant = True

    def apply(self, logits):
        return logits.masked_fill_(logits < logits.amax(-1, keepdim=True) - 3.0, -torch.inf)


EDITS = {
    "presence": {"presence_penalty": 1.5},
    "frequency": {"frequency_penalty": 0.7},
    "repetition": {"repetition_penalty": 1.4},
    "logit_bias": {"logit_bias": {11: 30.0, 12: 29.0}},
    "min_tokens": {"min_tokens": 9, "stop_token_ids": [0, 28, 260, 253]},
    "allowed ids": {"allowed_token_ids": [3, 260, 1000, 20_000]},
    "bad words": {"_bad_words_token_ids": [[260], [28, 30], [7, 11], [260, 28, 17], [5]]},
    "all": {
        "presence_penalty": 0.5,
        "frequency_penalty": 0.2,
        "repetition_penalty": 1.1,
        "logit_bias": {11: 8.0},
        "min_tokens": 9,
        "stop_token_ids": [28, 253],
        "allowed_token_ids": list(range(0, 3000, 3)),
        "_bad_words_token_ids": [[12], [28, 30]],
    },
}


def with_edits(params, edits):
    params = params.clone()
    for name, value in edits.items():
        setattr(params, name, value)
    params.__post_init__()
    params._all_stop_token_ids = set(edits.get("stop_token_ids", ()))
    return params


def edited(rows, params, outputs, **options):
    batch = make_batch(params, outputs, **options)
    return Sampler().apply_logits_processors(rows.clone(), batch.sampling_metadata, False)


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
    inputs = sampler._pasts.inputs(meta, *rows.shape)
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
    assert sampler._pasts.of_requests == {}


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


KNOWN = {}  # what another variant has drawn


def test_bad_words_are_not_drawn():
    best = ROWS[0].argmax().item()
    params = SamplingParams(temperature=0.0)
    params._bad_words_token_ids = [[4, best]]
    assert draw(ROWS[:1], [params], [[4]]) != [best]
    assert draw(ROWS[:1], [params], [[3]]) == [best]


def test_custom_processors_come_where_vllm_has_them():
    chain = {"temperature": 0.8, "top_k": 20, "min_p": 0.02}
    chains = [chain, {"temperature": 0.0}, {"temperature": 1.2, "top_p": 0.8}]
    params = [SamplingParams(**c, seed=i) for i, c in enumerate(chains)]
    rows = ROWS[:3]
    shifted = rows + torch.arange(VOCAB) % 7 * 0.5
    batch = make_batch(params, custom=(Shift,))
    sampler = make(batch)
    sampler(logits=rows.clone(), sampling_metadata=batch.sampling_metadata)
    assert sampler.left == {"custom logits processors": 1}
    drawn = draw(rows, params, custom=(Shift,))
    assert drawn == [alone(shifted[i], i, 0, **c) for i, c in enumerate(chains)]
    drawn = draw(rows, params, custom=(Cut,))
    assert drawn[1] == rows[1].argmax().item()
    for i in (0, 2):
        x = rows[i] / chains[i]["temperature"]
        kept, _ = fastsample.survivors(x, min_p=float(np.float32(chains[i].get("min_p", 0.0))))
        x = torch.full_like(x, -torch.inf).index_copy_(0, torch.from_numpy(kept), x[kept])
        x = x.masked_fill(x < x.max() - 3.0, -torch.inf)
        rest = {n: v for n, v in chains[i].items() if n in ("top_k", "top_p")}
        assert drawn[i] == alone(x, i, 0, **rest)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("number", [0, 5, -1])
def test_log_probabilities_of_every_mode(mode, number):
    number = VOCAB if number == -1 else number
    chains = [CHAINS["both"], {"temperature": 0.0}, CHAINS["min_p"], CHAINS["plain"]]
    params = [
        SamplingParams(**c, seed=i, logprobs=number, presence_penalty=0.5 * i)
        for i, c in enumerate(chains)
    ]
    rows, outputs = ROWS[[5, 6, 7, 8]], [[3], [4], [5], [6]]
    batch = make_batch(params, outputs)
    sampler = make(batch, mode)
    ours = sampler(logits=rows.clone(), sampling_metadata=batch.sampling_metadata)
    own = theirs(rows, params, outputs, mode)
    drawn, full = ours.sampled_token_ids[:, 0], None
    assert torch.equal(ours.logprobs_tensors.logprob_token_ids[:, 0], drawn)
    got, expected = ours.logprobs_tensors.logprobs, own.logprobs_tensors.logprobs
    torch.testing.assert_close(got[:, 1:], expected[:, 1:], rtol=0, atol=2e-5)  # vLLM's own error
    if mode.startswith("raw"):
        full = rows if mode == "raw_logits" else rows.double().log_softmax(-1).float()
    else:
        batch = make_batch(params, outputs)
        x = Sampler().apply_logits_processors(rows.clone(), batch.sampling_metadata, False)
        full = Sampler(mode).sample(x, batch.sampling_metadata)[1]
    own_token = full.gather(1, drawn.long()[:, None])
    torch.testing.assert_close(got[:, :1], own_token, rtol=0, atol=2e-6)
    ranks = (full >= own_token).sum(-1)  # vLLM counts what is equal
    assert torch.equal(ours.logprobs_tensors.selected_token_ranks.long(), ranks)
    untold = {f"log-probabilities of mode {mode}": 1}
    assert sampler.left == (untold if mode.startswith("processed") else {})


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("number", [None, 3])
def test_log_probabilities_of_named_tokens(mode, number):
    """They come before those of the most probable ones; lists may be of any length."""
    chain = {"temperature": 0.7, "seed": 1, "logprobs": number}
    params = [SamplingParams(**chain, logprob_token_ids=ids) for ids in ([9, 11], [28, 5, 260])]
    params.append(SamplingParams(**chain))
    batch = make_batch(params)
    told = make(batch, mode)(logits=ROWS[:3].clone(), sampling_metadata=batch.sampling_metadata)
    own = theirs(ROWS[:3], params, mode=mode).logprobs_tensors
    told, drawn = told.logprobs_tensors, told.sampled_token_ids
    assert torch.equal(told.logprob_token_ids[:, 1:], own.logprob_token_ids[:, 1:])
    assert torch.equal(told.logprob_token_ids[:, :1], drawn)
    torch.testing.assert_close(told.logprobs[:, 1:], own.logprobs[:, 1:], rtol=0, atol=2e-5)
    full = {"raw": ROWS[:3], "processed": ROWS[:3] / np.float32(0.7)}[mode.split("_")[0]]
    full = full.log_softmax(-1) if mode.endswith("probs") else full
    values = full.gather(1, drawn.long())
    torch.testing.assert_close(told.logprobs[:, :1], values, rtol=0, atol=2e-5)
    assert torch.equal(told.selected_token_ranks, (full >= values).sum(-1))


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


def test_a_minimum_of_tokens_under_a_grammar_is_vllms():
    """Which lets a text end early where its grammar wants nothing else."""
    wanted = SamplingParams(
        **{"temperature": 0.0, "min_tokens": 5, "stop_token_ids": [7]},
        structured_outputs=StructuredOutputsParams(choice=["a"]),
    )
    batch = make_batch([wanted, wanted])
    sampler = make(batch)
    masks = np.zeros((2, WORDS), np.int32)
    masks[0, 0], masks[1, 0] = 1 << 7, 1 << 7 | 1 << 9
    sampler.grammar = SimpleNamespace(
        structured_output_request_ids=["0", "1"], grammar_bitmask=masks
    )
    out = sampler(logits=ROWS[:2].clone(), sampling_metadata=batch.sampling_metadata)
    assert out.sampled_token_ids[:, 0].tolist() == [7, 9]
    assert sampler.left == {"min_tokens under a grammar": 1}


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


# ---- how the logits come ---------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_with_a_stride_are_read_where_they_are(dtype, monkeypatch):
    padded = torch.full((4, VOCAB + 64), torch.inf, dtype=dtype)  # of a padded vocabulary
    padded[:, :VOCAB] = ROWS[:4].to(dtype)
    rows = padded[:, :VOCAB]
    assert not rows.is_contiguous()
    seen = []
    core = fastsample.backend.active()
    monkeypatch.setattr(
        "fastsample.sampling.as_rows",
        lambda x: seen.append(fastsample.arrays.as_rows(x)) or seen[-1],
    )
    params = [SamplingParams(temperature=0.8, top_k=40, seed=i) for i in range(4)]
    batch = make_batch(params)
    out = make(batch)(logits=rows, sampling_metadata=batch.sampling_metadata)
    expected = [alone(rows[i], i, 0, temperature=0.8, top_k=40) for i in range(4)]
    assert out.sampled_token_ids[:, 0].tolist() == expected
    assert core is fastsample.backend.active()
    assert seen[0][0].__array_interface__["data"][0] == padded.data_ptr()
    assert torch.equal(padded[:, :VOCAB], ROWS[:4].to(dtype))  # and left as they were


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_of_nan_is_noted_and_the_others_are_drawn(temperature):
    rows = ROWS[:4].clone()
    rows[1, 7], rows[2] = torch.nan, -torch.inf
    params = [SamplingParams(temperature=temperature, seed=i) for i in range(4)]
    batch = make_batch(params)
    sampler = make(batch)
    out = sampler(logits=rows, sampling_metadata=batch.sampling_metadata)
    tokens = out.sampled_token_ids[:, 0].tolist()
    assert [tokens[0], tokens[3]] == [alone(ROWS[i], i, 0, temperature=temperature) for i in (0, 3)]
    assert tokens[1:3] == [0, 0]
    assert list(sampler.bad) == [1, 2]
    assert "NaN" in sampler.bad[1]
    assert "finite" in sampler.bad[2]
