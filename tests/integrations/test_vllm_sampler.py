"""The sampler inside vLLM, on batches of requests that vLLM's own code describes to it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats
from vllm_batches import (
    CHAINS,
    COUNT,
    EDITS,
    MODES,
    ROWS,
    VOCAB,
    AdapterLogitsProcessor,
    LogitsProcessor,
    Sampler,
    SamplingParams,
    ThinkingBudgetStateHolder,
    alone,
    draw,
    make,
    make_batch,
    theirs,
    torch,
    with_edits,
    without_ties,
)

import fastsample

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's and vLLM's own

# ---- what is kept, and with which probability ------------------------------------------------


def processed(rows, chain, kind):
    batch = make_batch([SamplingParams(**chain, logprobs=1)] * len(rows))
    sampler = kind(batch)
    return sampler.sample(rows.clone(), batch.sampling_metadata)[1]


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


# ---- what is vLLM's own around the draw, and what is told of it ---------------------------------


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


class OnRequest(AdapterLogitsProcessor):
    """One that works for the requests that want it."""

    def is_argmax_invariant(self):
        return False

    def new_req_logits_processor(self, params):
        wanted = (params.extra_args or {}).get("shift")
        return (
            (lambda output, logits: logits.add_(torch.arange(VOCAB) % 7 * 0.5)) if wanted else None
        )


class OnEach(OnRequest):
    """One that does something of its own, whoever wants it."""

    def apply(self, logits):
        return super().apply(logits)


@pytest.mark.parametrize("kind", [OnRequest, OnEach])
@pytest.mark.parametrize("wanted", [False, True])
def test_processors_that_no_request_wants_leave_the_step_to_kernels(kind, wanted):
    chain = {"temperature": 0.8, "seed": 3, "presence_penalty": 1.0}
    params = [SamplingParams(**chain, extra_args={"shift": wanted}), SamplingParams(**chain)]
    batch = make_batch(params, [[28], [30]], custom=(kind,))
    sampler = make(batch)
    out = sampler(logits=ROWS[:2].clone(), sampling_metadata=batch.sampling_metadata)
    assert bool(sampler.left) is (wanted or kind is OnEach)
    x = Sampler().apply_logits_processors(ROWS[:2].clone(), batch.sampling_metadata, False)
    expected = [alone(x[i], 3, 1, temperature=0.8) for i in range(2)]
    assert out.sampled_token_ids[:, 0].tolist() == expected


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
        full = Sampler("processed_logits").sample(x, batch.sampling_metadata)[1]
        if mode == "processed_logprobs":  # vLLM's own add up float32
            full = full.double().log_softmax(-1).float()
    own_token = full.gather(1, drawn.long()[:, None])
    torch.testing.assert_close(got[:, :1], own_token, rtol=0, atol=2e-6)
    ranks = (full >= own_token).sum(-1)  # vLLM counts what is equal
    assert torch.equal(ours.logprobs_tensors.selected_token_ranks.long(), ranks)
    assert not sampler.left


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("number", [None, 3])
@pytest.mark.parametrize("edit", [None, "all"])
def test_log_probabilities_of_named_tokens(mode, number, edit):
    """They come before those of the most probable ones; lists may be of any length."""
    best = ROWS[:4].topk(2).indices.tolist()
    chains = [CHAINS["both"], CHAINS["temperature"], CHAINS["min_p"], {"temperature": 0.0}]
    named = [[9, 11], [28, 5, 260], [12, *best[2]], best[3]]
    params = [
        SamplingParams(**chain, seed=i, logprobs=number, logprob_token_ids=ids)
        for i, (chain, ids) in enumerate(zip(chains, named, strict=True))
    ]
    params = [with_edits(p, EDITS.get(edit, {})) for p in params]
    params.append(SamplingParams(temperature=0.7, seed=1, logprobs=number))
    outputs = [[28], [260, 28], [], [12], [7]]
    rows = without_ties(ROWS[:5])
    batch = make_batch(params, outputs)
    sampler = make(batch, mode)
    told = sampler(logits=rows.clone(), sampling_metadata=batch.sampling_metadata)
    assert not sampler.left
    own = theirs(rows, params, outputs, mode).logprobs_tensors
    told, drawn = told.logprobs_tensors, told.sampled_token_ids
    assert torch.equal(told.logprob_token_ids[:, 1:], own.logprob_token_ids[:, 1:])
    assert torch.equal(told.logprob_token_ids[:, :1], drawn)
    torch.testing.assert_close(told.logprobs[:, 1:], own.logprobs[:, 1:], rtol=0, atol=2e-5)
    full = rows if mode == "raw_logits" else rows.log_softmax(-1)
    if mode.startswith("processed"):
        batch = make_batch(params, outputs)
        x = Sampler().apply_logits_processors(rows.clone(), batch.sampling_metadata, False)
        full = Sampler(mode).sample(x, batch.sampling_metadata)[1]
    values = full.gather(1, drawn.long())
    torch.testing.assert_close(told.logprobs[:, :1], values, rtol=0, atol=2e-5)
    assert torch.equal(told.selected_token_ranks, (full >= values).sum(-1))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("number", [0, 1, 4])
def test_of_greedy_rows_all_that_tie_with_the_token_count(mode, number):
    rows = ROWS[:4].clone()
    for row, ties in zip(rows, (1, 2, 7, 300), strict=True):
        row[torch.arange(ties) * 31 + 5] = row.max() + 1.0
    params = [SamplingParams(temperature=0.0, logprobs=number) for _ in rows]
    params[0] = SamplingParams(temperature=0.6, logprobs=number, seed=3)  # beside them
    batch = make_batch(params)
    told = make(batch, mode)(logits=rows.clone(), sampling_metadata=batch.sampling_metadata)
    own = theirs(rows, params, mode=mode)
    ranks = told.logprobs_tensors.selected_token_ranks
    assert ranks[1:].tolist() == [2, 7, 300]
    assert torch.equal(ranks[1:], own.logprobs_tensors.selected_token_ranks[1:])
    assert told.sampled_token_ids[1:, 0].tolist() == [5, 5, 5]


# ---- budgets of thinking -----------------------------------------------------------------------


def thinking(batch, budgets, spec=0):
    """vLLM's own watch over budgets; thinking begins with the token 70 and ends with 71, 72."""
    config = SimpleNamespace(reasoning_start_token_ids=[70], reasoning_end_token_ids=[71, 72])
    count = len(batch.req_ids)
    holder = ThinkingBudgetStateHolder(config, count, spec, torch.device("cpu"), False)
    added = []
    for i, budget in enumerate(budgets):
        params = SimpleNamespace(thinking_token_budget=budget)
        added.append((i, params, [5, 6, 7], batch.req_output_token_ids[i]))
    holder.sync_batch(SimpleNamespace(removed=[], added=added, moved=[]))
    meta = batch.sampling_metadata
    meta.thinking_budget_state_holder = holder
    meta.output_token_ids = batch.req_output_token_ids
    return meta


@pytest.mark.parametrize("mode", [None, *MODES])
def test_the_end_of_thinking_is_a_mask(mode):
    """Step by step as vLLM's own code, which writes 1e9 into logits."""
    number = None if mode is None else 3
    params = [
        SamplingParams(temperature=0.8, seed=i, presence_penalty=1.0, logprobs=number)
        for i in range(2)
    ] + [SamplingParams(temperature=0.0, logprobs=number)]
    texts = []
    for ours in (True, False):
        batch = make_batch(params, [[70], [70, 9], [70]])
        meta = thinking(batch, [4, None, 2])
        sampler = make(batch, mode or "raw_logprobs") if ours else Sampler(mode or "raw_logprobs")
        told = []
        for step in range(9):
            out = sampler(logits=ROWS[step : step + 3].clone(), sampling_metadata=meta)
            for written, token in zip(
                batch.req_output_token_ids, out.sampled_token_ids[:, 0].tolist(), strict=True
            ):
                written.append(token)
            batch.num_tokens_no_spec[:3] += 1
            if mode:
                told.append(out.logprobs_tensors.logprobs[:, 0])
        texts.append([list(output) for output in batch.req_output_token_ids])
        assert not ours or not sampler.left
    for i, budget in ((0, 4), (2, 2)):
        ends = [text[i].index(71) for text in texts]
        assert ends[0] == ends[1]
        assert ends[0] >= budget
        assert all(text[i][ends[0] : ends[0] + 2] == [71, 72] for text in texts)
    assert texts[0][2] == texts[1][2]  # greedy
    assert 71 not in texts[0][1]


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
