"""The compiled core's stages, edits and masks where its searches have to work: on large rows, one
after another, with much to keep, on every instruction set and type of logits.

What is kept may differ from the reference's only next to a cut, within what the rounding of
weights, entropies and thresholds allows; how often that excuses a row is counted, and bounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from fastsample.records import KINDS, Records, record_type
from fastsample.reference import edits as reference_edits
from fastsample.reference import mask as reference_mask
from fastsample.reference.chain import Step, walk
from fastsample.reference.distribution import Distribution
from fastsample.reference.edits.edit import Edit

core = pytest.importorskip("fastsample._core")

Row = npt.NDArray[np.float32]
State = tuple[float, ...]

ISAS = core.isas().split(",")

# Weights are within 3 ULP of float32, and -log2 w within the rounding of an argument of up to 40;
# what is lost below 2^-40 is less. So ln Z is right to 2^-20, and H and what is compared with it to
# 2^-17; thresholds are rounded to float32.
LOGARITHM_ERROR = 2.0**-17
REACH_ERROR = 2.0**-19  # of a mass that has to reach a share of another
COIN = 0.25

T = Step("temperature", (0.8, 0.0, 1.0))
K = Step("top_k", (50.0,))
LOOSE = Step("min_p", (1e-6,))

STEPS: dict[str, list[tuple[float, ...]]] = {
    "typical_p": [(p,) for p in (0.05, 0.2, 0.5, 0.95, 0.999)],
    "epsilon_cutoff": [(e,) for e in (1e-6, 3e-4, 0.02, 0.5, 0.999)],
    "eta_cutoff": [(e,) for e in (1e-6, 3e-4, 0.02, 0.5)],
    "top_a": [(a,) for a in (1e-4, 0.1, 1.0)],
    "p_less": [(1.0,)],
    "p_less_norm": [(1.0,)],
    "top_n_sigma": [(s,) for s in (0.3, 1.0, 2.5)],
    "top_h": [(h,) for h in (0.01, 0.4, 0.9, 1.0)],
    "xtc": [(1.0, 0.1), (0.5, 0.01), (0.2, 0.1), (1.0, 1e-5), (1.0, 0.0)],
    "mirostat": [(v, tau, 0.1) for v in (1.0, 2.0) for tau in (0.5, 3.0, 8.0)],
    "adaptive": [(0.3, 0.9), (0.05, 0.0), (1.0, 0.99)],
    "temperature": [(1.0, 0.5, 1.0), (0.7, 0.7, 1.0), (0.7, 0.3, 0.5), (1.2, 1.0, -0.7)],
}


def rows_of(size: int) -> Iterator[Row]:
    rng = np.random.default_rng(size)
    yield rng.normal(0, 2.5, size).astype(np.float32)
    yield rng.normal(0, 2.5, size).round().astype(np.float32)
    yield np.full(size, 1.5, np.float32)
    yield rng.choice(np.array([0.0, 3.0], np.float32), size)
    yield np.linspace(-9, 4, size).astype(np.float32)
    yield np.linspace(4, -9, size).astype(np.float32)
    peaked = rng.normal(0, 1, size)
    peaked[rng.integers(size, size=3)] += 12
    yield peaked.astype(np.float32)
    masked = rng.normal(0, 2, size)
    masked[rng.random(size) < 0.7] = -np.inf
    masked[rng.integers(size)] = 0.5
    yield masked.astype(np.float32)
    yield rng.normal(0, 1e4, size).astype(np.float32)


def chains_of(stage: str) -> Iterator[list[Step]]:
    for value in STEPS[stage]:
        step = Step(stage, value)
        yield [step]
        yield [K, step]
        yield [LOOSE, step]
        if stage != "temperature":
            yield [T, step]
        if stage not in ("temperature", "adaptive"):  # one of them, and this one last
            yield [step, T]


def record_of(chain: Sequence[Step], at_least: int) -> Records:
    record = np.zeros(1, record_type(len(chain)))
    record["min_tokens_to_keep"] = at_least
    for i, step in enumerate(chain):
        stage = record["stages"][:, i]
        stage["struct_size"] = stage.dtype.itemsize
        stage["kind"] = 1 + KINDS.index(step.stage)
        stage["joint"] = step.joint
        stage["value"][:, : len(step.value)] = step.value
    return record


def inputs_of(coin: float, state: State = ()) -> dict[str, Any]:
    inputs: dict[str, Any] = {"coin": np.array([coin])}
    if state:
        inputs["state"] = np.resize(np.array(state, np.float64), (1, 2))
    return inputs


def excused(row: Row, d: Distribution, kept: npt.NDArray[np.int64], before: Distribution) -> bool:
    """Whether what is kept differs only by tokens that are next to a cut, within the errors."""
    differing = np.setxor1d(d.ids, kept)
    x = row[differing].astype(np.float64)
    weight = float(before.weights[np.isin(before.ids, differing)].sum()) / before.total
    edges = [float(d.x.min()), float(d.x.max())]
    dropped = row[np.setdiff1d(before.ids, d.ids)].astype(np.float64)
    below, above = dropped[dropped <= edges[0]], dropped[dropped >= edges[1]]
    edges += [float(below.max())] if below.size else []
    edges += [float(above.min())] if above.size else []
    slack = 4 * before.temperature * LOGARITHM_ERROR + np.spacing(np.abs(row[d.ids]).max())
    return min(float(np.abs(x - e).max()) for e in edges) <= slack or weight <= REACH_ERROR


def agrees(row: Row, chain: Sequence[Step], at_least: int, state: State = ()) -> bool:
    """Whether the same is kept with the same probabilities; fails unless that is excused."""
    d = walk(row, chain, at_least, coin=COIN, state=state)
    ids, probs = core.survivors(row[None], record_of(chain, at_least), **inputs_of(COIN, state))
    context = f"{row.size} {chain} {at_least} {state}: {ids[:9]} {d.ids[:9]}"
    if not np.array_equal(ids, d.ids):
        at = next(i for i, step in enumerate(chain) if step not in (T, K, LOOSE))
        temperature = [step for step in chain[:at] if step.stage == "temperature"]
        before = walk(row, chain[:at] or temperature, at_least)
        assert excused(row, d, ids, before), context
        return False
    # Probabilities are right to 1e-6 of the largest; adaptive's change by up to 33 times as much.
    rtol = 1e-4 if chain[-1].stage == "adaptive" else 2e-5
    np.testing.assert_allclose(probs, d.probs, rtol=rtol, atol=2e-7, err_msg=context)
    return True


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    core.force_isa(request.param)
    yield request.param
    core.force_isa(ISAS[0])


@pytest.mark.parametrize("stage", STEPS)
def test_on_large_rows(stage: str) -> None:
    seen = excuses = 0
    for size in (8_000, 50_000):
        for row in rows_of(size):
            for chain in list(chains_of(stage))[:: 3 if size > 8_000 else 1]:
                seen += 1
                excuses += not agrees(row, chain, 1)
    assert excuses <= 0.01 * seen


@pytest.mark.parametrize("stage", [s for s in STEPS if s not in ("adaptive", "temperature")])
@pytest.mark.parametrize("at_least", [2, 40, 700])
def test_no_stage_leaves_fewer_than_it_must(stage: str, at_least: int) -> None:
    seen = excuses = 0
    for size in (1, 3, 39, 41, 600, 8_000):
        for row in rows_of(size):
            for value in STEPS[stage]:
                seen += 1
                excuses += not agrees(row, [T, Step(stage, value)], at_least)
    assert excuses <= 0.01 * seen


@pytest.mark.parametrize("p", [0.01, 0.05, 0.3])
def test_typical_p_leaves_enough_where_very_many_are_equally_far(p: float) -> None:
    row = np.random.default_rng(1).choice([0.0, 1.5], 20_000).astype(np.float32)
    for at_least in (1, 300, 900, 5_000):
        assert agrees(row, [Step("typical_p", (p,))], at_least)


def test_stages_follow_each_other() -> None:
    # What one leaves, by a place in the order, a ceiling or a list, is what the next one cuts.
    rng = np.random.default_rng(3)
    names = [name for name in STEPS if name not in ("adaptive", "mirostat", "temperature")]
    excuses = 0
    for _ in range(600):
        chain = [Step(n, STEPS[n][rng.integers(len(STEPS[n]))]) for n in rng.permutation(names)[:3]]
        chain.insert(int(rng.integers(4)), T)
        row = list(rows_of(int(rng.choice([5, 300, 700, 8_000]))))[rng.integers(9)]
        d = walk(row, chain, coin=COIN)
        ids, probs = core.survivors(row[None], record_of(chain, 1), **inputs_of(COIN))
        if np.array_equal(ids, d.ids):
            np.testing.assert_allclose(probs, d.probs, rtol=2e-5, atol=2e-7, err_msg=str(chain))
        else:
            excuses += 1
    assert excuses <= 12


def test_greedy_and_a_failing_call_leave_states() -> None:
    row = np.zeros((2, 9), np.float32)
    record = record_of([Step("temperature", (0.0, 0.0, 1.0)), Step("mirostat", (2.0, 3.0, 0.1))], 1)
    tokens, state = np.zeros(2, np.int64), np.array([[4.0, 0.0], [5.0, 0.0]])
    core.sample(row, record, np.array([0.2, 0.3]), False, tokens, 1, state=state)
    assert state.tolist() == [[4.0, 0.0], [5.0, 0.0]]
    row[1] = np.nan
    record = record_of([Step("mirostat", (2.0, 3.0, 0.1))], 1)
    with pytest.raises(ValueError, match="NaN"):
        core.sample(row, record, np.array([0.2, 0.3]), False, tokens, 1, state=state)
    assert state.tolist() == [[4.0, 0.0], [5.0, 0.0]]


# ---- edits and masks -----------------------------------------------------------------------------

EDIT = np.dtype(
    [("id", "i4"), ("banned", "i4"), ("factor", "f8"), ("subtract", "f8"), ("bias", "f8")]
)
KINDS_OF_CHAIN = [
    [],
    [T, K, Step("top_p", (0.9,))],
    [Step("top_p", (0.95,))],
    [Step("min_p", (0.01,)), Step("xtc", (1.0, 0.05))],
    [Step("typical_p", (0.9,))],
    [Step("top_n_sigma", (1.0,))],
    [T, Step("eta_cutoff", (3e-4,))],
    [Step("p_less", (1.0,))],
    [Step("xtc", (1.0, 0.01)), Step("top_k", (400.0,))],
]


def random_edits(size: int, rng: np.random.Generator) -> dict[int, Edit]:
    count = int(rng.choice([0, 1, 5, size // 3, size]))
    return {
        int(i): Edit(
            int(i),
            factor=float(rng.choice([1.0, 1.3, 0.6])),
            subtract=float(rng.choice([0.0, 0.7, -0.2])),
            bias=float(rng.choice([0.0, 3.0, -1.5, -np.inf])),
            ban=bool(rng.random() < 0.1),
        )
        for i in rng.permutation(size)[:count]
    }


def random_mask(size: int, rng: np.random.Generator) -> npt.NDArray[np.uint32] | None:
    words = max(1, (size + 31) // 32 - int(rng.integers(2)))
    kind = rng.integers(6)
    if kind == 0:
        return None
    bits = rng.integers(0, 2**32, words, np.uint32)
    if kind == 1:  # one token, or two
        bits[:] = 0
        bits[rng.integers(words, size=2)] = 1
    if kind == 2:  # whole blocks of both kinds
        bits = np.repeat(rng.choice(np.array([0, 2**32 - 1], np.uint32), words // 8 + 1), 8)[
            :words
        ].copy()
        bits[0] |= 1
    if kind in (3, 4):
        bits[:] = 2**32 - 1
    if kind == 4:  # all but some
        bits[rng.permutation(words)[: words // 4]] = 2**32 - 1 - 2 ** int(rng.integers(32))
    return bits


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.float64])
def test_an_edited_and_masked_row_is_the_row_that_it_means(dtype: Any, isa: str) -> None:
    rng = np.random.default_rng(7)
    for size in (1, 31, 256, 300, 600, 2_050, 8_000):
        for row in rows_of(size):
            row = np.clip(row, -6e4, 6e4).astype(dtype) if np.isfinite(row).all() else row
            given = row.astype(dtype)
            edits, bits = random_edits(size, rng), random_mask(size, rng)
            meant = reference_edits.apply(given.astype(np.float32), edits.values())
            if bits is not None:
                meant = reference_mask.apply(meant, reference_mask.allowed_of(size, bits))
            inputs: dict[str, Any] = inputs_of(0.0)
            records = np.array(
                [(e.id, e.ban, e.factor, e.subtract, e.bias) for e in edits.values()], EDIT
            )
            with_edits = dict(inputs, edits=records, edit_offsets=np.array([0, records.size]))
            if bits is not None:
                with_edits["allowed"] = bits[None]
            memory = given.copy()
            given = given.view(np.uint16) if given.dtype == ml_dtypes.bfloat16 else given
            if meant.max() == -np.inf:
                with pytest.raises(ValueError, match=r"must have (a finite|an allowed)"):
                    core.probs(given[None], record_of([], 1), **with_edits)
                continue
            for chain in KINDS_OF_CHAIN:
                record = record_of(chain, 1)
                mine = core.probs(given[None], record, **with_edits)
                assert np.array_equal(mine, core.probs(meant[None], record, **inputs)), chain
                tokens = np.zeros((2, 1), np.int64)
                u = rng.random(1)
                core.sample(given[None], record, u, False, tokens[0], 1, **with_edits)
                core.sample(meant[None], record, u, False, tokens[1], 1, **inputs)
                assert tokens[0] == tokens[1]
            assert memory.tobytes() == given.tobytes()


def test_what_is_banned_or_masked_may_be_anything() -> None:
    row = np.array([[1.0, np.nan, np.inf, 0.5]], np.float32)
    banned = np.array([(1, 1, 1.0, 0.0, 0.0)], EDIT)
    probs = core.probs(
        row,
        record_of([], 1),
        edits=banned,
        edit_offsets=np.array([0, 1]),
        allowed=np.array([[0b1011]], np.uint32),
    )
    assert probs[0, 1:3].tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="one at token 2"):
        core.probs(row, record_of([], 1), edits=banned, edit_offsets=np.array([0, 1]))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ((4, 0, 1.0, 0.0, 0.0), "edit.id must be in"),
        ((-1, 0, 1.0, 0.0, 0.0), "edit.id must be in"),
        ((0, 2, 1.0, 0.0, 0.0), "edit.banned must be 0 or 1"),
        ((0, 0, 0.0, 0.0, 0.0), "edit.factor must be finite and > 0"),
        ((0, 0, np.nan, 0.0, 0.0), "edit.factor must be finite and > 0"),
        ((0, 0, 1.0, np.inf, 0.0), "edit.subtract must be finite"),
        ((0, 0, 1.0, 0.0, np.inf), "edit.bias must be finite or -inf"),
    ],
)
def test_edits_are_checked(edit: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        core.probs(
            np.zeros((1, 4), np.float32),
            record_of([], 1),
            edits=np.array([edit], EDIT),
            edit_offsets=np.array([0, 1]),
        )


def test_what_has_a_state_is_one_and_what_reweighs_is_last() -> None:
    row = np.zeros((1, 4), np.float32)
    adaptive, mirostat = Step("adaptive", (0.3, 0.9)), Step("mirostat", (2.0, 5.0, 0.1))
    with pytest.raises(ValueError, match="adaptive must be the last"):
        core.probs(row, record_of([adaptive, T], 1))
    with pytest.raises(ValueError, match="two stages with a state, got mirostat and adaptive"):
        core.probs(row, record_of([mirostat, adaptive], 1))
    core.probs(row, record_of([adaptive, Step("top_k", (0.0,))], 1))  # which is off
