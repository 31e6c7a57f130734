"""The rejection sampler inside vLLM: drafts of batches that vLLM's own code describes to it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats
from vllm_batches import (
    CHAINS,
    EDITS,
    MODES,
    ROWS,
    VOCAB,
    WORDS,
    RejectionSampler,
    Sampler,
    SamplingParams,
    alone,
    apply_grammar_bitmask,
    edited,
    expand_batch_to_tokens,
    make_batch,
    make_drafts,
    rejecting,
    torch,
    with_edits,
    without_ties,
)

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's and vLLM's own
COUNTS = (3, 0, 1, 5, 2)
STARTS = np.cumsum([0, *(n + 1 for n in COUNTS[:-1])]).tolist()
OUTPUTS = [[28, 260], [], [12] * 7, [28], [260, 30]]
LOGITS = ROWS[np.arange(sum(COUNTS) + len(COUNTS)) % len(ROWS)]


def verified(batch, drafts, logits, mode="raw_logprobs", probs=None, grammar=None):
    """What our rejection sampler emits: its output, and the sampler."""
    rejection = rejecting(batch, mode)
    rejection.sampler.grammar = grammar
    names = zip(batch.req_ids, drafts, strict=True)
    rejection.sampler.drafted = {name: mine for name, mine in names if mine}
    out = rejection(make_drafts(batch, drafts), probs, logits, batch.sampling_metadata)
    assert out.sampled_token_ids.dtype == torch.int32
    assert not rejection.sampler.left
    return out, rejection


def texts_of(out):
    return [[token for token in row if token >= 0] for row in out.sampled_token_ids.tolist()]


def one_by_one(params, chains, edits, logits, guess):
    """Drafts, of which `guess` says how many are right, and the text that follows without them."""
    drafts, texts = [], []
    for r, (count, start) in enumerate(zip(COUNTS, STARTS, strict=True)):
        own = []
        for i in range(count + 1):
            row = logits[start + i : start + i + 1].float()
            written = OUTPUTS[r] + own
            x = edited(row, [with_edits(params[r], edits)], [written])[0]
            own.append(alone(x, 40 + r, len(written), **chains[r]))
        right = min(guess[r], count)
        wrong = [(token + 1) % VOCAB for token in own[right:count]]
        drafts.append(own[:right] + wrong)
        texts.append(own[: right + 1])
    return drafts, texts


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("edit", [None, "presence", "repetition", "bad words", "allowed ids"])
@pytest.mark.parametrize("number", [None, 4])
def test_a_seed_gives_the_text_without_drafts(dtype, edit, number):
    logits, edits = LOGITS.to(dtype), EDITS.get(edit, {})
    kinds = [CHAINS[name] for name in ("both", "plain", "top_p", "temperature")]
    chains = [*kinds, {"temperature": 0.0}]
    params = [SamplingParams(**c, seed=40 + r, logprobs=number) for r, c in enumerate(chains)]
    drafts, texts = one_by_one(params, chains, edits, logits, (3, 0, 0, 2, 1))
    batch = make_batch([with_edits(p, edits) for p in params], OUTPUTS)
    out, rejection = verified(batch, drafts, logits.clone())
    assert texts_of(out) == texts
    assert (out.logprobs_tensors is None) is (number is None)
    kept = {("exact", "drafted"): sum(COUNTS), ("exact", "accepted"): 3 + 0 + 0 + 2 + 1}
    assert rejection.verified == kept
    one = make_batch([with_edits(params[3], edits)], OUTPUTS[3:4])
    rows = logits[STARTS[3] : STARTS[4]].clone()
    assert texts_of(verified(one, drafts[3:4], rows)[0]) == texts[3:4]  # alone


def test_variants_emit_the_same(fast_variant):
    chains = [CHAINS["both"]] * 5
    params = [SamplingParams(**c, seed=40 + r) for r, c in enumerate(chains)]
    edits = {"frequency_penalty": 0.5}
    drafts, texts = one_by_one(params, chains, edits, LOGITS, (3, 0, 1, 2, 0))
    batch = make_batch([with_edits(p, edits) for p in params], OUTPUTS)
    assert texts_of(verified(batch, drafts, LOGITS.clone())[0]) == texts


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("edit", [None, "presence", "repetition"])
def test_greedy_drafts_are_verified_as_by_vllms_own(mode, edit):
    logits = without_ties(LOGITS)
    params = [with_edits(SamplingParams(temperature=0.0, logprobs=4), EDITS.get(edit, {}))] * 5
    best = logits.argmax(-1).tolist()
    drafts = [[best[s + i] for i in range(n)] for n, s in zip(COUNTS, STARTS, strict=True)]
    drafts[3][2] = 17
    batch = make_batch(params, OUTPUTS)
    out, _ = verified(batch, drafts, logits.clone(), mode)
    batch = make_batch(params, OUTPUTS)
    theirs = RejectionSampler(Sampler(mode))(
        make_drafts(batch, drafts), None, logits.clone(), batch.sampling_metadata
    )
    assert torch.equal(out.sampled_token_ids, theirs.sampled_token_ids)
    found, known = (
        RejectionSampler.parse_output(o.sampled_token_ids, VOCAB, (), o.logprobs_tensors)[1]
        for o in (out, theirs)
    )
    assert np.array_equal(found.logprob_token_ids, known.logprob_token_ids)
    np.testing.assert_allclose(found.logprobs, known.logprobs, rtol=0, atol=2e-5)
    assert np.array_equal(found.sampled_token_ranks, known.sampled_token_ranks)
    assert found.cu_num_generated_tokens == known.cu_num_generated_tokens


@pytest.mark.parametrize("mode", MODES)
def test_log_probabilities_of_what_is_drawn(mode):
    """Those of each place are what a step without drafts tells of its row."""
    logits = without_ties(LOGITS)  # of which vLLM keeps all
    chains = [CHAINS[name] for name in ("both", "plain", "top_p", "temperature", "top_k")]
    params = [SamplingParams(**c, seed=40 + r, logprobs=3) for r, c in enumerate(chains)]
    drafts, texts = one_by_one(params, chains, {}, logits, (3, 0, 1, 3, 0))
    out, _ = verified(make_batch(params, OUTPUTS), drafts, logits.clone(), mode)
    told, width = out.logprobs_tensors, out.sampled_token_ids.shape[1]
    for r, text in enumerate(texts):
        for i, token in enumerate(text):
            place, row = r * width + i, logits[STARTS[r] + i][None]
            batch = make_batch(params[r : r + 1], [OUTPUTS[r] + text[:i]])
            x = row.clone()
            if mode.startswith("processed"):
                x = Sampler("processed_logits").sample(x, batch.sampling_metadata)[1]
            if mode.endswith("logprobs"):
                x = x.log_softmax(-1)
            assert told.logprob_token_ids[place, 0] == token
            assert told.selected_token_ranks[place] == (x[0] >= x[0, token]).sum()
            values = x[0, told.logprob_token_ids[place].long()]
            torch.testing.assert_close(told.logprobs[place], values, rtol=0, atol=2e-5)


def test_masks_of_grammars_come_for_each_draft():
    chains = [CHAINS["both"]] * 5
    params = [SamplingParams(**c, seed=40 + r) for r, c in enumerate(chains)]
    rng, masked = np.random.default_rng(3), LOGITS.clone()
    names = ["3", "gone", "0"]
    masks = rng.integers(-(2**31), 2**31, (6 + 1 + 4, WORDS)).astype(np.int32)
    grammar = SimpleNamespace(structured_output_request_ids=names, grammar_bitmask=masks)
    batch = make_batch(params, OUTPUTS)
    scheduled = {"0": [0] * 3, "2": [0], "3": [0] * 5, "4": [0] * 2}
    steps = SimpleNamespace(scheduled_spec_decode_tokens=scheduled)
    apply_grammar_bitmask(steps, grammar, batch, masked)
    assert not torch.equal(masked, LOGITS)
    drafts, texts = one_by_one(params, chains, {}, masked, (3, 0, 1, 4, 0))
    logits = LOGITS.clone()
    out, _ = verified(batch, drafts, logits, grammar=grammar)
    assert texts_of(out) == texts
    assert torch.equal(logits, LOGITS)  # nobody has written to them
    # vLLM's raw log-probabilities are those of masked logits.
    told = [p.clone() for p in params]
    for p in told:
        p.logprobs = 2
    out, _ = verified(make_batch(told, OUTPUTS), drafts, logits, "raw_logits", grammar=grammar)
    assert texts_of(out) == texts
    token = texts[3][0]
    place = 3 * out.sampled_token_ids.shape[1]
    assert out.logprobs_tensors.logprobs[place, 0] == masked[STARTS[3], token]
    assert out.logprobs_tensors.logprobs[place, 1] == masked[STARTS[3]].max()


def test_a_minimum_of_tokens_counts_drafts():
    params = SamplingParams(temperature=0.0, min_tokens=4, stop_token_ids=[7])
    logits = LOGITS[:5].clone()
    logits[:, 7], logits[:, 9] = 50.0, 40.0
    out, _ = verified(make_batch([params], [[28]]), [[9, 9, 9, 9]], logits)
    assert texts_of(out) == [[9, 9, 9, 7]]


def test_what_is_no_token_ends_the_drafts():
    """VLLM pads drafts that a grammar has refused with -1."""
    params = [SamplingParams(temperature=0.9, seed=40 + r) for r in range(5)]
    drafts, texts = one_by_one(params, [{"temperature": 0.9}] * 5, {}, LOGITS, (3, 0, 1, 5, 2))
    drafts[0][1:] = [-1, -1]
    drafts[3][3:] = [VOCAB, 5]
    out, _ = verified(make_batch(params, OUTPUTS), drafts, LOGITS.clone())
    texts[0], texts[3] = texts[0][:2], texts[3][:4]
    assert texts_of(out) == texts


@pytest.mark.parametrize("number", [None, 2])
def test_a_bad_row_fails_its_request_where_it_is_reached(number):
    chain = {"temperature": 0.9}
    params = [SamplingParams(**chain, seed=40 + r, logprobs=number) for r in range(5)]
    drafts, texts = one_by_one(params, [chain] * 5, {}, LOGITS, (3, 0, 1, 1, 2))
    logits = LOGITS.clone()
    logits[STARTS[0] + 2, 9] = torch.nan
    logits[STARTS[3] + 2] = torch.inf  # behind the first refusal
    logits[STARTS[4]] = -torch.inf
    out, rejection = verified(make_batch(params, OUTPUTS), drafts, logits)
    bad = rejection.sampler.bad
    assert list(bad) == [0, 4]
    assert "NaN" in bad[0]
    assert "finite" in bad[4]
    found = texts_of(out)
    assert [found[r] for r in (1, 2, 3)] == [texts[r] for r in (1, 2, 3)]
    assert found[0] == found[4] == [0]


# ---- drafts whose probabilities are known ------------------------------------------------------


def test_drafts_of_known_probabilities_stay_more_often_and_the_text_is_the_targets():
    count, size, depth = 3000, 6, 2
    rng = np.random.default_rng(7)
    target = torch.from_numpy(rng.normal(size=(depth + 1, size)).astype(np.float32))
    q = torch.from_numpy(rng.dirichlet(np.ones(size), depth).astype(np.float32))
    p = torch.softmax(target.double() / 0.9, -1).numpy()
    params = [SamplingParams(temperature=0.9) for _ in range(count)]
    drafts = torch.multinomial(q, count, True, generator=torch.Generator().manual_seed(1)).T
    torch.manual_seed(5)
    batch = make_batch(params, vocab=size)
    rows = target.repeat(count, 1)
    out, rejection = verified(batch, drafts.tolist(), rows, probs=q.repeat(count, 1))
    texts = texts_of(out)
    first = np.bincount([text[0] for text in texts], minlength=size)
    assert stats.chisquare(first, p[0] * count).pvalue > 1e-4
    second = np.bincount([text[1] for text in texts if len(text) > 1], minlength=size)
    assert stats.chisquare(second, p[1] * second.sum()).pvalue > 1e-4
    rates = np.minimum(p[:depth], q.double().numpy()).sum(-1)
    accepted = np.array([len(text) - 1 for text in texts])
    assert abs((accepted > 0).mean() - rates[0]) < 5 / np.sqrt(count)
    assert rejection.verified["token", "drafted"] == depth * count
    assert rejection.verified["token", "accepted"] == accepted.sum()


def test_a_seed_comes_before_known_probabilities():
    chain = {"temperature": 0.9}
    params = [SamplingParams(**chain, seed=40 + r) for r in range(5)]
    drafts, texts = one_by_one(params, [chain] * 5, {}, LOGITS, (3, 0, 0, 5, 1))
    probs = torch.full((sum(COUNTS), VOCAB), 1 / VOCAB)
    out, rejection = verified(make_batch(params, OUTPUTS), drafts, LOGITS.clone(), probs=probs)
    assert texts_of(out) == texts
    assert rejection.verified["exact", "drafted"] == sum(COUNTS)


def test_bad_probabilities_are_none():
    """Then drafts are tokens alone; vLLM refuses them in silence."""
    params = [SamplingParams(temperature=0.9)]
    probs = torch.full((1, VOCAB), torch.nan)
    out, rejection = verified(make_batch(params), [[5]], LOGITS[:2].clone(), probs=probs)
    assert texts_of(out)[0]
    assert not rejection.sampler.bad
    assert rejection.verified["exact", "drafted"] == 1


def test_vllms_own_has_no_temperature_of_drafts():
    """Its kernel writes into a copy that is thrown away; where that changes, so must the page."""
    ends = torch.tensor([2, 5], dtype=torch.int32)
    expected = torch.tensor([0.5, 0.5, 0.7, 0.7, 0.7])
    for _ in range(3):  # memory of a size that was used just now
        junk = torch.full((5,), 123.0)
        del junk
        found = expand_batch_to_tokens(torch.tensor([0.5, 0.7]), ends, 5, 0, 1)
        assert not torch.equal(found, expected)


def test_made_up_rates_of_acceptance_are_vllms():
    """Which has none of them on CPUs."""
    batch = make_batch([SamplingParams(temperature=0.0)])
    rejection = rejecting(batch)
    rejection.synthetic_mode = True
    rejection.synthetic_conditional_rates = torch.tensor([0.5])
    with pytest.raises(AssertionError, match="not supported with CPU sampling"):
        rejection(make_drafts(batch, [[5]]), None, LOGITS[:2].clone(), batch.sampling_metadata)
    assert rejection.sampler.left["drafts at made-up rates"] == 1
