"""What `draw` tells beside the token: right, the same on every backend, and of the same draw."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import rows
from rows import Float32s

import fastsample as fs
from fastsample.chains import make_records
from fastsample.details import Logprobs, make_arrays
from fastsample.records import EDIT, Records
from fastsample.reference.inputs import as_drawn_from
from fastsample.uniforms import uniforms

Activate = Callable[[str], AbstractContextManager[None]]

CHAINS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.0},
    {"temperature": 0.7},
    {"temperature": 3.0, "top_p": 0.8},
    {"temperature": 0.8, "top_k": 50, "top_p": 0.95},
    {"min_p": 0.2, "temperature": 0.5},
    {"top_k": 1},
    {"typical_p": 0.4, "temperature": 1.3},
    {"top_p": 0.6, "min_tokens_to_keep": 7, "order": "llama.cpp"},
]


def exact_logprobs(x: npt.NDArray[Any], temperature: float = 1.0) -> npt.NDArray[Any]:
    """Log-probabilities to more digits than any backend has."""
    wide = x.astype(np.longdouble)
    y = (wide - wide.max()) / np.longdouble(temperature)
    largest = int(np.argmax(y))
    rest = np.exp(np.delete(y, largest)).sum()
    return y - np.log1p(rest)


def rows_of(vocab: int) -> list[Float32s]:
    made = [rows.make_row(kind, vocab) for kind in rows.ROW_KINDS]
    rng = np.random.default_rng(vocab)
    far = rng.normal(0, 2, vocab) - 5000  # maxima so large that differences are taken first
    near_one = np.append(rng.normal(-14, 1, vocab - 1), 9.0)
    return [*made, *(x.astype(np.float32) for x in (far, -far, near_one, far / 2))]


def tell(batch: npt.NDArray[Any], chain: dict[str, Any], kind: Logprobs) -> fs.Draw:
    return fs.draw(
        batch, logprobs=kind, top_logprobs=min(5, batch.shape[1]), support=True, log_mass=True,
        seed=3, **chain,
    )  # fmt: skip


@pytest.mark.parametrize("vocab", [1, 2, 40, 256, 300, 3000])
def test_against_the_definitions(variant: str, vocab: int) -> None:
    """Every number from the logits, the kept tokens and the token, in higher precision."""
    batch = np.stack(rows_of(max(vocab, 2)))[:, :vocab]
    batch = batch[np.isfinite(batch.max(axis=1))]
    for chain, kind in itertools.product(CHAINS, ("raw", "processed")):
        told = tell(batch, chain, kind)  # type: ignore[arg-type]
        assert np.array_equal(told.token, fs.sample(batch, seed=3, **chain))
        assert told.support is not None
        assert told.offsets is not None
        temperature = chain.get("temperature", 1.0)
        for i, row in enumerate(batch):
            kept = told.support[told.offsets[i] : told.offsets[i + 1]]
            ids, _ = fs.survivors(row, **chain)
            assert np.array_equal(kept, np.sort(ids))
            seen = np.arange(vocab) if kind == "raw" else kept
            seen = seen[np.isfinite(row[seen])]
            if kind == "processed" and temperature == 0.0:
                expected = np.zeros(1)
            else:
                expected = exact_logprobs(row[seen], 1.0 if kind == "raw" else temperature)
            close = {"rtol": 1e-6, "atol": 2.0**-73}  # of a token that is all but certain
            with np.errstate(over="ignore"):
                expected = expected.astype(np.float32)
            place = np.flatnonzero(seen == told.token[i])[0]
            np.testing.assert_allclose(told.logprob[i], expected[place], **close)
            assert told.rank[i] == 1 + np.sum(row[seen] > row[told.token[i]])
            order = np.lexsort((seen, -row[seen]))[:5]
            assert told.top_ids is not None
            assert told.top_logprobs is not None
            assert np.array_equal(told.top_ids[i, : order.size], seen[order])
            np.testing.assert_allclose(told.top_logprobs[i, : order.size], expected[order], **close)
            assert (told.top_ids[i, order.size :] == -1).all()
            assert (told.top_logprobs[i, order.size :] == -np.inf).all()
            if temperature == 0.0:
                assert told.log_mass[i] == 0.0
                continue
            weights = rows.exact_weights(row, temperature)
            share = weights[kept].sum() / weights.sum()
            np.testing.assert_allclose(np.exp(told.log_mass[i]), share, rtol=3e-6)
            assert told.log_mass[i] <= 0.0


@pytest.mark.parametrize("vocab", [300, 9000])
def test_equal_bits(fast_variants: tuple[str, ...], activate: Activate, vocab: int) -> None:
    if len(fast_variants) == 1:
        pytest.skip(f"only {fast_variants[0]} and the reference can run here")
    batch = np.stack(rows_of(vocab))
    for chain, kind in itertools.product(CHAINS, ("raw", "processed")):
        told = {}
        for name in fast_variants:
            with activate(name):
                told[name] = tell(batch, chain, kind)  # type: ignore[arg-type]
        first, *others = told.values()
        for other in others:
            for name, a, b in zip(fs.Draw._fields, first, other, strict=True):
                assert a.tobytes() == b.tobytes(), (name, chain, kind)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
def test_of_every_dtype(variant: str, dtype: Any) -> None:
    row = rows.make_row("random", 700).astype(dtype)
    wide = row.astype(np.float32)
    chain: dict[str, Any] = {"temperature": 0.9, "top_p": 0.9, "u": 0.4, "log_mass": True}
    for kind in ("raw", "processed"):
        a = fs.draw(row, logprobs=kind, top_logprobs=3, support=True, **chain)  # type: ignore[call-overload]
        b = fs.draw(wide, logprobs=kind, top_logprobs=3, support=True, **chain)  # type: ignore[call-overload]
        assert repr(a) == repr(b)
        assert isinstance(a.token, int)
        assert isinstance(a.logprob, float)


def test_log_softmax_is_the_raw_one(fast_variant: str) -> None:
    batch = np.stack(rows_of(1000))
    told = fs.draw(batch, seed=1)
    logarithms = fs.log_softmax(batch)
    assert told.logprob.tobytes() == logarithms[np.arange(len(batch)), told.token].tobytes()


# ---- edits, masks and states -----------------------------------------------------------------


def pack(allowed: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint32]:
    bits = np.zeros(-(-allowed.size // 32) * 32, np.bool_)
    bits[: allowed.size] = allowed
    return np.packbits(bits, bitorder="little").view("<u4").astype(np.uint32)


def run(
    batch: npt.NDArray[Any], records: Records, kind: int, mark: bool = False, **inputs: Any
) -> dict[str, npt.NDArray[Any]]:
    arrays = make_arrays(batch.shape, kind, min(4, batch.shape[1]), True, True)
    arrays["support"].fill(-1)
    arrays["at_least"] = np.empty(len(batch), np.int64)
    tokens = np.empty(len(batch), np.int64)
    u, _ = uniforms(len(batch), 5)
    fs.backend.active().sample_details(batch, records, u, mark, tokens, 1, kind, arrays, **inputs)
    return arrays | {"token": tokens} | ({"state": inputs["state"]} if "state" in inputs else {})


@pytest.mark.parametrize("vocab", [41, 300, 3000])
@pytest.mark.parametrize("chain", [{"top_k": 9, "temperature": 0.7}, {"top_p": 0.7}, {}])
def test_of_a_row_that_is_edited_and_masked(
    fast_variant: str, vocab: int, chain: dict[str, Any]
) -> None:
    """Processed: as of a row that stands so; raw: as of the row that came."""
    edits = np.array([(3, 0, 1.3, 0.5, 0.0), (20, 1, 1.0, 0.0, 0.0), (7, 0, 1.0, 0, 6.0)], EDIT)
    records = make_records(1, "draw", **chain)
    for kind, share in itertools.product(("random", "few values", "wide"), (0.1, 0.9)):
        row = rows.make_row(kind, vocab)[None]
        allowed = np.random.default_rng(vocab).random(vocab) >= share
        allowed[7] = True
        inputs = {
            "edits": edits,
            "edit_offsets": np.array([0, edits.size]),
            "allowed": pack(allowed)[None],
        }
        changed = as_drawn_from(row[0], inputs, 0)[None]
        raw, processed = run(row, records, 1, **inputs), run(row, records, 2, **inputs)
        as_stands, as_came = run(changed, records, 2), run(row, records, 1)
        for name, array in processed.items():
            assert array.tobytes() == as_stands[name].tobytes(), name
        for name in ("token", "support_count", "log_mass"):
            assert raw[name].tobytes() == processed[name].tobytes(), name
        for name in ("top_ids", "top_logprobs"):
            assert raw[name].tobytes() == as_came[name].tobytes(), name
        logarithms = exact_logprobs(row[0])
        np.testing.assert_allclose(raw["logprob"], logarithms[raw["token"]], rtol=1e-6)
        assert raw["rank"][0] == 1 + np.sum(row[0] > row[0][raw["token"][0]])


def test_a_row_that_came_bad_has_no_raw_logprobs(variant: str) -> None:
    row, records = np.zeros((2, 40), np.float32), make_records(1, "draw")
    row[0, 3] = np.nan
    inputs = {"allowed": np.array([[0b101, 0], [0b11, 0]], np.uint32), "state": np.ones((2, 2))}
    told = run(row, records, 2, **inputs)
    assert told["support"][0, :2].tolist() == [0, 2]
    with pytest.raises(ValueError, match="logits row 0 must not contain NaN, got one at token 3"):
        run(row, records, 1, **inputs)
    told = run(row, records, 1, mark=True, **inputs)
    assert told["token"][0] == -1
    assert told["token"][1] >= 0
    assert np.isnan(told["logprob"][0])
    assert np.isnan(told["log_mass"][0])
    assert told["rank"].tolist() == [0, 1]
    assert told["at_least"][0] == 0
    assert told["support_count"].tolist() == [0, 2]


@pytest.mark.parametrize("vocab", [41, 3000])
@pytest.mark.parametrize("kept", [1, 7, 200, 2900])
def test_a_rank_for_which_ties_count(variant: str, vocab: int, kept: int) -> None:
    """Of those that are kept, where a cut goes through equal values too."""
    batch = np.random.default_rng(kept).integers(0, 3, (8, vocab)).astype(np.float32)
    records = make_records(1, "draw", top_k=kept)
    for kind in (1, 2):
        told = run(batch, records, kind)
        for i, row in enumerate(batch):
            among = row if kind == 1 else row[told["support"][i, : told["support_count"][i]]]
            own = row[told["token"][i]]
            assert told["at_least"][i] == np.sum(among >= own)
            assert told["rank"][i] == 1 + np.sum(among > own)


@pytest.mark.parametrize("stage", ["xtc", "mirostat", "adaptive", "typical_p"])
def test_of_stages_that_drop_the_largest_or_have_a_state(
    fast_variants: tuple[str, ...], activate: Activate, stage: str
) -> None:
    given: dict[str, dict[str, Any]] = {
        "xtc": {"xtc_probability": 1.0, "xtc_threshold": 0.01, "order": ("temperature", "xtc")},
        "mirostat": {"mirostat": 2, "mirostat_tau": 3.0, "order": ("temperature", "mirostat")},
        "adaptive": {"adaptive_target": 0.2, "order": ("temperature", "top_k", "adaptive")},
        "typical_p": {"typical_p": 0.3},
    }
    chain = {"temperature": 1.2, **given[stage]} | ({"top_k": 30} if stage == "adaptive" else {})
    batch = np.stack([rows.make_row(kind, 2000) for kind in ("random", "wide", "few values")])
    records = make_records(1, "draw", **chain)
    for kind in (1, 2):
        told = {}
        for name in (*fast_variants, "reference"):
            with activate(name):
                inputs: dict[str, Any] = {"coin": np.full(3, 0.5)}
                if stage in ("mirostat", "adaptive"):
                    inputs["state"] = np.tile(np.array([4.0, 10.0]), (3, 1))
                told[name] = run(batch, records, kind, **inputs)
        reference = told.pop("reference")
        first, *others = told.values()
        for other in others:
            for name, array in first.items():
                assert array.tobytes() == other[name].tobytes(), (name, kind)
        assert np.array_equal(first["token"], reference["token"])
        for name in ("logprob", "log_mass", "top_logprobs"):
            np.testing.assert_allclose(first[name], reference[name], rtol=2e-6, atol=2e-6)
        for name in ("rank", "at_least", "top_ids", "support_count"):
            assert np.array_equal(first[name], reference[name])


def test_history_state_and_sampler(variant: str) -> None:
    """As of the functions that draw: the same tokens, states that move, steps that advance."""
    row = rows.make_row("random", 60)
    chain: dict[str, Any] = {"temperature": 1.5, "frequency_penalty": 1.0, "mirostat": 2}
    chain["order"] = ("temperature", "mirostat")
    sampler = fs.Sampler(**chain, seed=4)
    state, history = np.array([10.0]), [3, 3, 5]
    sampler.start(history, prompt_length=1)
    for step in range(4):
        before = {"history": history, "prompt_length": 1, "seed": 4, "offset": step}
        plain = state.copy()
        token = fs.sample(row, state=plain, **before, **chain)
        told = fs.draw(row, state=state, **before, **chain)
        assert told == sampler.draw(row)
        assert told.token == token
        assert np.array_equal(state, plain)
        assert np.array_equal(sampler.state, state)
        history = [*history, token]
        assert sampler.history.tolist() == history


# ---- what it is for --------------------------------------------------------------------------


def test_a_trainers_importance_ratio_is_unbiased(variant: str) -> None:
    """The policy that truncated sampling draws from is known by its support and mass.

    A trainer weighs samples by new / old, the probabilities of two policies. Where the old one is
    that of all tokens, the mean ratio is the mass that was kept; where it is that of the kept ones,
    and the new one is cut to the same support, it is 1.
    """
    rng = np.random.default_rng(2)
    old = rng.normal(0, 1.5, 60).astype(np.float32)
    new = (old + rng.normal(0, 0.3, 60)).astype(np.float32)
    draws = rows.affordable(20_000, variant)
    told = fs.draw(
        np.tile(old, (draws, 1)), top_p=0.7, u=rng.random(draws), support=True, log_mass=True
    )
    assert told.support is not None
    assert told.offsets is not None
    kept = told.support[: told.offsets[1]]
    of_new = fs.log_softmax(new)
    naive = np.exp(of_new[told.token] - told.logprob)
    mass_of_new = np.exp(of_new[kept].astype(np.float64)).sum()
    exact = naive * np.exp(told.log_mass) / mass_of_new
    error = exact.std() / np.sqrt(draws)
    assert abs(exact.mean() - 1.0) < 4 * error
    # Without: off by the masses, and by more than chance.
    assert abs(naive.mean() - mass_of_new / np.exp(told.log_mass[0])) < 5 * error
    same = np.exp(fs.log_softmax(old)[told.token] - told.logprob + told.log_mass)
    assert np.allclose(same, np.exp(told.log_mass[0]))
    assert np.exp(told.log_mass[0]) < 0.8


# ---- refusals --------------------------------------------------------------------------------


def test_refusals(variant: str) -> None:
    row = np.zeros(4, np.float32)
    for given, text in (
        ({"logprobs": "all"}, "logprobs must be 'raw', 'processed' or None, got 'all'"),
        ({"top_logprobs": 5}, r"top_logprobs must be in \[0, 4\], got 5"),
        ({"top_logprobs": -1}, r"top_logprobs must be in \[0, 4\], got -1"),
        ({"top_logprobs": 1, "logprobs": None}, "top_logprobs must be 0 where logprobs is None"),
        ({"top_p": 2}, r"top_p must be in \[0, 1\], got 2"),
    ):
        with pytest.raises(ValueError, match=text):
            fs.draw(row, **given)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="support must be True or False, got 1"):
        fs.draw(row, support=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="logits row 0 must not contain NaN"):
        fs.draw([[np.nan, 1.0]])
    assert fs.draw(row, logprobs=None, u=0.0) == fs.Draw(0)


def test_no_rows(variant: str) -> None:
    told = fs.draw(np.zeros((0, 4), np.float32), top_logprobs=2, support=True, log_mass=True)
    assert [a.shape for a in told] == [(0,), (0,), (0,), (0, 2), (0, 2), (0,), (1,), (0,)]
