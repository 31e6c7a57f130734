"""Verified drafts: the text is distributed as without them, or is the same text.

The distribution is enumerated: wherever an algorithm looks at a uniform, all that can happen does,
each with its probability. The compiled algorithm then has to do the same by the same uniforms.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import fastsample as fs
from fastsample.chains import make_records
from fastsample.reference.verification import BLOCK, TOKEN, Draft, Lists, Side, Verification

Activate = Callable[[str], AbstractContextManager[None]]
Floats = npt.NDArray[np.float64]

METHODS = ("token", "exact", "block")
VOCAB, K = 3, 2

# ---- enumeration -----------------------------------------------------------------------------


class Choices:
    """All ways through a program that asks which of some weighted things happens."""

    def __init__(self) -> None:
        self.path: list[int] = []
        self.sizes: list[int] = []
        self.at, self.probability = 0, 1.0

    def choose(self, probabilities: list[float]) -> int:
        if self.at == len(self.path):
            self.path.append(0)
            self.sizes.append(len(probabilities))
        choice = self.path[self.at]
        self.at += 1
        self.probability *= probabilities[choice]
        return choice

    def all_ways(self) -> Iterator[None]:
        while True:
            self.at, self.probability = 0, 1.0
            yield
            while self.path and self.path[-1] + 1 == self.sizes[-1]:
                self.path.pop()
                self.sizes.pop()
            if not self.path:
                return
            self.path[-1] += 1


class Uniform:
    """A uniform, or a multiple of one, that is only compared."""

    def __init__(self, choices: Choices, factor: float = 1.0) -> None:
        self.choices, self.factor = choices, factor

    def __mul__(self, factor: float) -> Uniform:
        return Uniform(self.choices, self.factor * factor)

    def __lt__(self, bound: float) -> bool:
        likely = min(1.0, bound / self.factor) if self.factor > 0.0 else float(bound > 0.0)
        return self.choices.choose([1.0 - likely, likely]) == 1


class Enumerated(Verification):
    """Verification in which all happens that can."""

    choices: Choices

    def u(self, i: int, use: int) -> Any:
        return Uniform(self.choices)

    def drawn(self, weights: Any, u: Any) -> int:
        return self.choices.choose((weights / weights.sum()).tolist())


class Model:
    """Logits that depend on all tokens before, and what is drawn from with them."""

    def __init__(self, seed: int, **parameters: Any) -> None:
        self.seed, self.parameters = seed, parameters

    def logits(self, prefix: tuple[int, ...]) -> npt.NDArray[np.float32]:
        rng = np.random.default_rng([self.seed, len(prefix), *prefix])
        return rng.normal(0, 1.5, VOCAB).astype(np.float32)

    def probs(self, prefix: tuple[int, ...]) -> Floats:
        with fs.use_backend("reference"):
            p = fs.probs(self.logits(prefix), **self.parameters).astype(np.float64)
        return p / p.sum()

    def side(self, drafts: tuple[int, ...], count: int) -> Side:
        batch = np.stack([self.logits(drafts[:i]) for i in range(count)])
        return Side(batch, make_records(1, "verify", **self.parameters), {})


def drafts_of(kind: str, model: Model) -> Iterator[tuple[tuple[int, ...], float, Draft]]:
    """All drafts with their probabilities, and what is said of how they were drawn."""
    for tokens in itertools.product(range(VOCAB), repeat=K):
        q = [model.probs(tokens[:i]) for i in range(K)]
        if kind == "onehot":
            likely = float(all(q[i].argmax() == tokens[i] for i in range(K)))
            yield tokens, likely, None
            continue
        likely = float(np.prod([q[i][tokens[i]] for i in range(K)]))
        if kind == "dense":
            yield tokens, likely, model.side(tokens, K)
        else:
            kept = [np.flatnonzero(p) for p in q]
            ends = np.cumsum([0, *(ids.size for ids in kept)])
            weights = np.concatenate([7.0 * p[ids] for p, ids in zip(q, kept, strict=True)])
            yield tokens, likely, Lists(np.concatenate(kept).astype(np.int32), weights, ends)


def text_of(target: Model, draft: Model, kind: str, method: int) -> dict[tuple[int, ...], float]:
    """Return the probability of each text of K + 1 tokens, the target going on after the drafts."""
    texts = dict.fromkeys(itertools.product(range(VOCAB), repeat=K + 1), 0.0)
    for tokens, likely, drawn_from in drafts_of(kind, draft):
        if likely == 0.0:
            continue
        one = Enumerated(np.array(tokens), target.side(tokens, K + 1), drawn_from, (0, 0, 0))
        one.choices = Choices()
        for _ in one.choices.all_ways():
            emitted = tuple(one.by_token() if method == TOKEN else one.by_block())
            for text in texts:
                if text[: len(emitted)] != emitted:
                    continue
                after = [target.probs(text[:i])[text[i]] for i in range(len(emitted), K + 1)]
                texts[text] += likely * one.choices.probability * float(np.prod(after))
    return texts


TRUNCATIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"top_k": 2}, {}),
    ({}, {"top_k": 2, "temperature": 1.5}),
    ({"top_p": 0.7, "temperature": 0.8}, {"top_p": 0.8}),
    ({"top_k": 1}, {"temperature": 2.0}),
    ({"temperature": 3.0}, {"temperature": 0.0}),
]


@pytest.mark.parametrize("truncation", range(len(TRUNCATIONS)))
@pytest.mark.parametrize("kind", ["dense", "lists", "onehot"])
@pytest.mark.parametrize("method", [TOKEN, BLOCK])
def test_the_text_is_distributed_as_without_drafts(method: int, kind: str, truncation: int) -> None:
    of_target, of_draft = TRUNCATIONS[truncation]
    for seed in (1, 2):
        target, draft = Model(seed, **of_target), Model(seed + 100, **of_draft)
        for text, likely in text_of(target, draft, kind, method).items():
            own = np.prod([target.probs(text[:i])[text[i]] for i in range(K + 1)])
            assert likely == pytest.approx(own, abs=1e-6), (text, seed)


def mean_accepted(target: Model, draft: Model, method: int) -> float:
    mean = 0.0
    for tokens, likely, drawn_from in drafts_of("dense", draft):
        one = Enumerated(np.array(tokens), target.side(tokens, K + 1), drawn_from, (0, 0, 0))
        one.choices = Choices()
        for _ in one.choices.all_ways():
            emitted = one.by_token() if method == TOKEN else one.by_block()
            mean += likely * one.choices.probability * (len(emitted) - 1)
    return mean


def test_blocks_are_never_shorter_on_average() -> None:
    gains = []
    for seed in range(12):
        target, draft = Model(seed), Model(seed + 50)
        gains.append(mean_accepted(target, draft, BLOCK) - mean_accepted(target, draft, TOKEN))
    assert min(gains) >= -1e-9
    assert max(gains) > 1e-3


# ---- every backend ---------------------------------------------------------------------------

CHAINS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.8, "top_k": 50, "top_p": 0.95},
    {"top_p": 0.6, "order": "llama.cpp", "temperature": 1.3},
    {"typical_p": 0.5},
    {"xtc_probability": 0.5, "xtc_threshold": 0.02, "order": ("xtc", "temperature")},
    {"temperature": 0.0},
]


def drafted(vocab: int, seed: int, count: int, noise: float) -> tuple[Any, Any, Any]:
    """Return drafts, the target's logits and the draft's, which are alike."""
    rng = np.random.default_rng([vocab, seed])
    target = rng.normal(0, 2.5, (count + 1, vocab)).astype(np.float32)
    draft = (target[:count] + rng.normal(0, noise, (count, vocab))).astype(np.float32)
    tokens = fs.sample(draft, temperature=0.9, seed=seed, offset=500) if count else []
    return tokens, target, draft


def kinds_of(draft: Any) -> list[dict[str, Any]]:
    pairs = []
    for row in draft:
        ids, weights = fs.survivors(row, top_k=9, temperature=0.9)
        pairs.append((ids[::-1], weights.astype(np.float64)[::-1] * 3.0))
    params = {"temperature": 0.9}
    return [{"draft": "onehot"}, {"draft": pairs}, {"draft": draft, "draft_params": params}]


@pytest.mark.parametrize("vocab", [5, 300, 3000])
def test_all_backends_emit_the_same(
    fast_variants: tuple[str, ...], activate: Activate, vocab: int
) -> None:
    compared = excused = 0
    lengths = set()
    for seed, noise in itertools.product(range(4), (0.0, 0.5)):
        tokens, target, draft = drafted(vocab, seed, 4, noise)
        for chain, of, method in itertools.product(CHAINS, kinds_of(draft), METHODS):
            said = {}
            for name in (*fast_variants, "reference"):
                with activate(name):
                    said[name] = fs.verify(
                        tokens, target, **of, method=method, seed=seed, offset=3, **chain
                    )
            reference = said.pop("reference")
            first, *others = said.values()
            for other in others:
                assert repr(other) == repr(first), (chain, method)
            lengths.add(first.accepted)
            compared += 1
            excused += repr(reference) != repr(first)
    assert len(lengths) > 3
    assert compared > 400
    assert excused <= 0.002 * compared


def test_exact_is_the_text_without_drafts(variant: str) -> None:
    chain: dict[str, Any] = {"temperature": 0.7, "top_p": 0.9, "presence_penalty": 1.0}
    rng = np.random.default_rng(4)
    logits = rng.normal(0, 2, (30, 40)).astype(np.float32)

    def row(step: int) -> npt.NDArray[np.float32]:
        return logits[step]

    own: list[int] = []
    for step in range(25):
        own.append(fs.sample(row(step), history=own, seed=9, offset=step, **chain))
    for drafter in range(3):
        text: list[int] = []
        while len(text) < 25:
            at = len(text)
            drafts = own[at : at + 4] if drafter == 0 else rng.integers(0, 40, 4).tolist()
            if drafter == 2:
                drafts[0] = own[at] if at < 25 else 0
            said = fs.verify(
                drafts, logits[at : at + len(drafts) + 1], method="exact", history=text, seed=9,
                offset=at, **chain,
            )  # fmt: skip
            assert drafter != 0 or said.accepted == len(drafts)
            text += said.tokens[: said.accepted + 1].tolist()
        assert text[:25] == own


def test_all_accepted_then_the_next_is_what_sample_draws(variant: str) -> None:
    tokens, target, _ = drafted(60, 1, 3, 0.0)
    for method in METHODS:
        same = {"draft": target[:3], "draft_params": {"temperature": 0.9}}
        said = fs.verify(tokens, target, **same, method="token", temperature=0.9, seed=2, offset=7)
        assert said.accepted == 3
        assert said.tokens[3] == fs.sample(target[3], temperature=0.9, seed=2, offset=10)
        nothing = fs.verify([], target[:1], draft="onehot", method=method, seed=2)  # type: ignore[arg-type]
        assert nothing.accepted == 0
        assert nothing.tokens.tolist() == [fs.sample(target[0], seed=2)]


def test_a_batch_is_its_sequences(variant: str) -> None:
    """Ragged, each with the stream of its row, its history, mask and parameters."""
    parts = [drafted(50, seed, count, 0.5) for seed, count in ((1, 3), (2, 0), (3, 5))]
    tokens, target, draft = ([part[i] for part in parts] for i in range(3))
    masks = [np.random.default_rng(i).random((len(t), 50)) < 0.8 for i, t in enumerate(target)]
    common: dict[str, Any] = {"temperature": 0.9, "seed": 6, "offset": [4, 0, 9]}
    past = [[1, 2], [], [3]]
    for method in METHODS:
        said = fs.verify(
            tokens, target, draft=draft, draft_params={"top_k": 20}, method=method, history=past,
            allowed=masks, frequency_penalty=[0.5, 0.0, 1.0], **common,
        )  # fmt: skip
        assert said.tokens.shape == (3, 6)
        for r, penalty in enumerate((0.5, 0.0, 1.0)):
            alone = fs.verify(
                tokens[r], target[r], draft=draft[r], draft_params={"top_k": 20}, method=method,  # type: ignore[arg-type]
                history=past[r], allowed=masks[r], frequency_penalty=penalty,
                **common | {"offset": common["offset"][r]}, stream=r,
            )  # fmt: skip
            assert said.accepted[r] == alone.accepted
            size = alone.tokens.size
            assert np.array_equal(said.tokens[r, :size], alone.tokens)
            assert (said.tokens[r, size:] == -1).all()
            assert (said.tokens[r, said.accepted[r] + 1 :] == -1).all()


def test_rows_that_cannot_matter_are_not_looked_at(variant: str) -> None:
    target = np.full((4, 5), -np.inf, np.float32)
    target[0, 0] = target[1, 1] = 0.0
    target[2:] = np.nan
    draft = np.zeros((3, 5), np.float32)
    draft[2] = np.nan
    for method in METHODS:
        said = fs.verify([0, 3, 0], target, draft=draft, method=method, seed=1)  # type: ignore[arg-type]
        assert said.tokens.tolist() == [0, 1, -1, -1]
        assert said.accepted == 1
        with pytest.raises(ValueError, match="target row 2 must not contain NaN"):
            fs.verify([0, 1, 0], target, draft=draft, method=method, seed=1)  # type: ignore[arg-type]
    target[2] = 0.0
    for method in ("token", "block"):
        with pytest.raises(ValueError, match="draft row 2 must not contain NaN"):
            fs.verify([0, 1, 0], target, draft=draft, method=method, seed=1)  # type: ignore[arg-type]


def test_refusals(variant: str) -> None:
    tokens, target, draft = drafted(8, 1, 2, 0.1)
    same: dict[str, Any] = {"draft": "onehot"}
    for given, text in (
        ({}, "draft must be logits, pairs of ids and weights or 'onehot', got None"),
        ({"draft": "all"}, "draft must be logits, pairs of ids and weights or 'onehot', got 'all'"),
        ({"draft": draft[:1]}, r"draft must have logits of shape \(2, 8\), got \(1, 8\)"),
        ({"draft": [([1], [1.0])]}, "draft must be 2 pairs of ids and weights, got 1"),
        ({"draft": [([1], [1.0]), ([1, 1], [1, 1])]}, r"draft must have different ids in \[0, 8\)"),
        ({"draft": [([1], [1.0]), ([8], [1])]}, r"draft must have different ids in \[0, 8\)"),
        ({"draft": [([1], [1.0]), ([2], [0])]}, "draft must have weights >= 0 with a finite sum"),
        ({"draft": [([1], [1.0]), ([2], [1, 2])]}, "draft must be 2 pairs of ids and weights"),
        (same | {"method": "fast"}, "method must be 'token', 'exact' or 'block', got 'fast'"),
        (same | {"mirostat": 2, "order": ("mirostat",)}, "mirostat must be off where drafts are"),
        (same | {"presence_penalty": 1.0}, "history must be given where presence_penalty is on"),
        (same | {"seed": 1, "offset": 2**64 - 1}, r"offset must be in \[0, 2\*\*64\)"),
    ):
        with pytest.raises(ValueError, match=text):
            fs.verify(tokens, target, **given)
    with pytest.raises(ValueError, match="target_logits must have 3 rows, one more than there are"):
        fs.verify(tokens, target[:2], **same)
    with pytest.raises(ValueError, match=r"draft_tokens must be in \[0, 8\), got 8"):
        fs.verify([1, 8], target, **same)
    with pytest.raises(ValueError, match="one entry for each of 2 sequences, got 1"):
        fs.verify([tokens], [target, target], **same)
    with pytest.raises(TypeError, match="got an unexpected keyword argument 'topk'"):
        fs.verify(tokens, target, **same, topk=1)
    assert fs.verify(tokens, target, **same).tokens.shape == (3,)


def test_errors_name_the_parameter_and_the_sequence(variant: str) -> None:
    target, wrong, nan = np.zeros((3, 4)), np.zeros((3, 4), np.int32), np.zeros((3, 4))
    nan[0, 1] = np.nan
    one: dict[str, Any] = {"draft_tokens": [1, 2], "target_logits": target, "draft": "onehot"}
    two: dict[str, Any] = {**one, "draft_tokens": [[1, 2]] * 2, "target_logits": [target] * 2}
    pairs, each = "draft must be 2 pairs of ids and weights, got ", "one entry for each of 2 "
    params = "draft_params must be a dict of parameters, got "
    many: dict[str, Any] = {"draft_tokens": [0] * 4097, "target_logits": np.zeros((4098, 2))}
    for given, error, text in (
        (one | {"target_logits": wrong}, TypeError, "target_logits must be float32, float64, "),
        (two | {"target_logits": [target, wrong]}, TypeError, "target_logits must be float32, "),
        (two | {"target_logits": [target, nan]}, ValueError, "target row 0 must not contain NaN"),
        (one | {"draft": wrong[:2]}, TypeError, "draft must be float32, float64, "),
        (one | {"draft": np.array(5.0)}, ValueError, "draft must be 1-D or 2-D, got shape ()"),
        (two | {"draft": ["onehot", wrong[:2]]}, TypeError, "draft must be float32, float64, "),
        (one | {"draft": [5]}, TypeError, pairs + "5 (int)"),
        (two | {"draft": np.array(5.0)}, TypeError, f"draft must have {each}sequences, got array"),
        (two | {"allowed": np.array(5)}, TypeError, f"allowed must have {each}sequences, got arr"),
        (two | {"allowed": [None, np.ones(3, bool)]}, ValueError, "allowed must be of shape (4,)"),
        *((one | {"draft_params": v}, TypeError, params + repr(v)) for v in (5, "ab", {1: 2}, 0)),
        (one | {"draft_params": []}, TypeError, params + "[] (list)"),
        (one | {"stream": 5}, ValueError, "stream must come with a seed, got stream=5 without"),
        (one | {"offset": 5}, ValueError, "offset must come with a seed, got offset=5 without"),
        (one | many, ValueError, "draft_tokens must be at most 4096 ids, got 4097"),
    ):  # fmt: skip
        with pytest.raises(error) as caught:
            fs.verify(**given)
        assert str(caught.value).startswith(text)
        of_the_second = any(
            isinstance(v, list) and len(v) == 2 and v[0] is not v[1]
            for v in (given["target_logits"], given["draft"], given.get("allowed"))
        )
        assert str(caught.value).endswith(" (row 1)") == of_the_second


def test_no_sequences(variant: str) -> None:
    said = fs.verify([], [], draft="onehot")
    assert said.tokens.shape == (0, 1)
    assert said.accepted.shape == (0,)


def test_uniforms_are_numpys_own() -> None:
    """The first draft is accepted by use 2, and replaced by use 3."""
    target = np.zeros((2, 4), np.float32)  # each 1/4
    for seed in range(40):
        key = np.array([seed, 0], np.uint64)
        u = [
            np.random.Generator(
                np.random.Philox(key=key, counter=np.array([5, use, 0, 0], np.uint64))
            ).random()
            for use in range(4)
        ]
        said = fs.verify([1], target, draft="onehot", seed=seed, offset=5)
        accepted = u[2] < 0.25
        assert said.accepted == accepted
        if not accepted:
            assert said.tokens[0] == [0, 2, 3][int(u[3] * 3)]
