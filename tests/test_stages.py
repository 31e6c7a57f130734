"""Every stage of the table: in each backend against the specification, and bit by bit.

A new stage is tested by being in the table below.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import rows
from rows import Float32s

import fastsample as fs
from fastsample.records import EDIT, KINDS, STAGE, Records, record_type
from fastsample.reference import edits
from fastsample.reference.chain import Step, draw, state_after, walk
from fastsample.reference.edits.edit import Edit

Activate = Callable[[str], AbstractContextManager[None]]

#: Numbers of each stage, and states that one may be in.
NUMBERS: dict[str, list[tuple[float, ...]]] = {
    "temperature": [(0.7, 0, 1), (1.0, 0.5, 1.0), (1.5, 1.0, 2.0), (2.0, 2.0, -1.0)],
    "top_k": [(1,), (40,), (700,)],
    "top_p": [(0.3,), (0.95,)],
    "min_p": [(0.05,), (1.0,)],
    "typical_p": [(0.1,), (0.5,), (0.95,)],
    "epsilon_cutoff": [(3e-4,), (0.02,), (0.9,)],
    "eta_cutoff": [(3e-4,), (0.1,)],
    "top_a": [(0.1,), (1.0,)],
    "p_less": [(1.0,)],
    "top_n_sigma": [(0.5,), (1.0,), (3.0,)],
    "top_h": [(0.2,), (0.9,), (1.0,)],
    "xtc": [(1.0, 0.0), (1.0, 0.001), (0.5, 0.1)],
    "mirostat": [(1, 3.0, 0.1), (2, 1.0, 0.1), (2, 5.0, 0.3)],
    "adaptive": [(0.1, 0.9), (0.7, 0.5)],
    "p_less_norm": [(1.0,)],
}
STATES: dict[str, list[tuple[float, float]]] = {
    "mirostat": [(2.0, 0.0), (7.5, 0.0)],
    "adaptive": [(0.8, 2.0), (0.1, 4.0)],
}
FLOORS = [name for name in KINDS if name not in ("temperature", "typical_p", "xtc", "adaptive")]


def make_record(chain: list[Step], at_least: int = 1) -> Records:
    record = np.zeros(1, record_type(len(chain)))
    record["min_tokens_to_keep"] = at_least
    for stage, step in zip(record["stages"][0], chain, strict=True):
        stage["struct_size"] = STAGE.itemsize
        stage["kind"] = KINDS.index(step.stage) + 1
        stage["joint"] = step.joint
        stage["value"][: len(step.value)] = step.value
    return record


class Case(NamedTuple):
    """A chain, and what it is run with beside the row."""

    chain: list[Step]
    at_least: int = 1
    coin: float = 0.25
    state: tuple[float, float] | None = None

    def inputs(self, count: int) -> dict[str, Any]:
        given: dict[str, Any] = {"coin": np.full(count, self.coin)}
        if self.state:
            given["state"] = np.tile(np.array(self.state), (count, 1))
        return given


class Outcome(NamedTuple):
    ids: npt.NDArray[np.int64]
    probs: Float32s
    dense: Float32s
    tokens: npt.NDArray[np.int64]
    states: npt.NDArray[np.float64]

    def same_bits(self, other: Outcome) -> bool:
        return all(a.tobytes() == b.tobytes() for a, b in zip(self, other, strict=True))


def run(row: npt.NDArray[Any], case: Case, u: npt.NDArray[np.float64]) -> Outcome:
    """What the active variant says of a row: what is kept, and draws with their states."""
    backend = fs.backend.active()
    record = make_record(case.chain, case.at_least)
    ids, probs = backend.survivors(row[None], record, **case.inputs(1))
    dense = backend.probs(row[None], record, **case.inputs(1))[0]
    batch, tokens = np.repeat(row[None], u.size, axis=0), np.empty(u.size, np.int64)
    inputs = case.inputs(u.size)
    backend.sample(batch, record, u, False, tokens, **inputs)
    return Outcome(ids, probs, dense, tokens, inputs.get("state", np.empty(0)))


def cases_of(stage: str) -> Iterator[Case]:
    """The stage alone and after others, at temperatures, with more to keep, and in states."""
    for value, at_least, t in itertools.product(NUMBERS[stage], (1, 5), (1.0, 0.6)):
        hot = [Step("temperature", (t, 0, 1))] if stage != "temperature" else []
        for state in (None, *STATES.get(stage, ())):
            yield Case([*hot, Step(stage, value)], at_least, state=state)
    for value, first in itertools.product(NUMBERS[stage], ("top_k", "min_p", "top_p", "xtc")):
        if stage != first:
            yield Case([Step(first, NUMBERS[first][1]), Step(stage, value)])
            if stage != "adaptive":
                yield Case([Step(stage, value), Step(first, NUMBERS[first][1])], 2)


def small() -> Iterator[Float32s]:
    """Every kind of row, in one of the sizes."""
    for i, kind in enumerate(rows.ROW_KINDS):
        for vocab in (2 if i % 4 else 1, (17, 200, 256, 300)[i % 4], 700 + i):
            yield rows.make_row(kind, vocab)


def test_every_stage_has_numbers() -> None:
    assert tuple(NUMBERS) == KINDS


@pytest.mark.parametrize("stage", KINDS)
def test_against_the_specification(fast_variant: str, stage: str) -> None:
    """The same tokens, but for some at a cut, and the same probabilities."""
    u = np.array([0.3])
    compared = excused = 0
    for row, case in itertools.product(small(), cases_of(stage)):
        ours = run(row, case, u)
        state = case.state[: 1 + (stage == "adaptive")] if case.state else ()
        d = walk(row, case.chain, case.at_least, coin=case.coin, state=state)
        compared += 1
        if set(ours.ids.tolist()) != set(d.ids.tolist()):
            excused += 1
            continue
        np.testing.assert_allclose(ours.dense[d.ids], d.probs, rtol=0, atol=2e-6)
        place = draw(d, 0.3)
        if ours.states.size and ours.tokens[0] == d.ids[place]:
            after = state_after(case.chain, d, place)
            np.testing.assert_allclose(ours.states[0, : len(after)], after, rtol=2e-5)
    assert compared > 500
    assert excused <= 0.005 * compared, f"{excused} of {compared}"


# ---- edits and masks -------------------------------------------------------------------------

EDITS = np.array(
    [(3, 0, 1.3, 0.5, 0.0), (40, 1, 1.0, 0.0, 0.0), (0, 0, 1.0, -2.0, 1.5), (255, 0, 0.7, 0, 9.0)],
    EDIT,
)


def pack(allowed: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint32]:
    bits = np.zeros(-(-allowed.size // 32) * 32, np.bool_)
    bits[: allowed.size] = allowed
    return np.packbits(bits, bitorder="little").view("<u4").astype(np.uint32)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("vocab", [1, 41, 256, 300, 3000])
def test_an_edited_row_is_drawn_from_as_if_it_stood_there(
    fast_variant: str, vocab: int, dtype: Any
) -> None:
    backend = fs.backend.active()
    mine = EDITS[EDITS["id"] < vocab]
    u = np.linspace(0, rows.LAST_U, 7)
    for kind, share in itertools.product(("random", "few values", "masked"), (0.0, 0.5, 0.99)):
        row = rows.make_row(kind, vocab).astype(dtype)
        before = row.copy()
        allowed = np.random.default_rng(vocab).random(vocab) >= share
        allowed[-1] = True
        row[-1] = 0.5
        before[-1] = 0.5
        expected = edits.apply(
            row.astype(np.float32),
            [
                Edit(int(e["id"]), e["factor"], e["subtract"], e["bias"], bool(e["banned"]))
                for e in mine
            ],
        )
        expected = np.where(allowed, expected, np.float32(-np.inf))
        for step in (Step("top_k", (9,)), Step("top_p", (0.9,)), Step("typical_p", (0.8,))):
            record = make_record([step])
            inputs = {
                "edits": np.tile(mine, u.size),
                "edit_offsets": np.arange(u.size + 1) * mine.size,
                "allowed": np.repeat(pack(allowed)[None], u.size, axis=0),
            }
            one = {
                "edits": mine,
                "edit_offsets": np.array([0, mine.size]),
                "allowed": pack(allowed)[None],
            }
            assert (
                backend.probs(row[None], record, **one).tobytes()
                == backend.probs(expected[None], record).tobytes()
            )
            for ours, theirs in zip(
                backend.survivors(row[None], record, **one),
                backend.survivors(expected[None], record),
                strict=True,
            ):
                assert ours.tobytes() == theirs.tobytes()
            tokens, others = np.empty(u.size, np.int64), np.empty(u.size, np.int64)
            backend.sample(np.repeat(row[None], u.size, 0), record, u, False, tokens, **inputs)
            backend.sample(np.repeat(expected[None], u.size, 0), record, u, False, others)
            assert np.array_equal(tokens, others)
        assert row.tobytes() == before.tobytes()


def test_a_row_of_which_nothing_is_left_is_bad(variant: str) -> None:
    backend = fs.backend.active()
    row, record = np.zeros((1, 3), np.float32), make_record([])
    with pytest.raises(ValueError, match="logits row 0 must have"):
        backend.probs(row, record, allowed=np.zeros((1, 1), np.uint32))
    # Words that do not reach so far allow nothing; a NaN that is not allowed is no defect.
    row[0, 1] = np.nan
    probs = backend.probs(row, record, allowed=np.array([[0b101]], np.uint32))
    assert probs.tolist() == [[0.5, 0, 0.5]]


# ---- bit by bit ------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", KINDS)
def test_equal_bits(fast_variants: tuple[str, ...], activate: Activate, stage: str) -> None:
    if len(fast_variants) == 1:
        pytest.skip(f"only {fast_variants[0]} and the reference can run here")
    u = np.array([0.0, 0.21, 0.6, rows.LAST_U])
    large = (rows.make_row(kind, 9000) for kind in ("random", "few values", "wide", "masked"))
    for row, case in itertools.product((*small(), *large), cases_of(stage)):
        first, *others = fast_variants
        with activate(first):
            expected = run(row, case, u)
        for name in others:
            with activate(name):
                assert run(row, case, u).same_bits(expected), (name, row.size, case)


@pytest.mark.parametrize("shared", [(), ("temperature",), ("xtc",)])
def test_equal_bits_of_joint_stages(
    fast_variants: tuple[str, ...], activate: Activate, shared: tuple[str, ...]
) -> None:
    if len(fast_variants) == 1:
        pytest.skip(f"only {fast_variants[0]} and the reference can run here")
    u = np.array([0.1, 0.9])
    for seed, vocab in itertools.product(range(40), (30, 700)):
        rng = np.random.default_rng(seed)
        before = [Step(name, NUMBERS[name][0]) for name in shared]
        names = rng.choice(FLOORS, 3, replace=False).tolist()
        joint = [
            Step(name, NUMBERS[name][rng.integers(len(NUMBERS[name]))], i > 0)
            for i, name in enumerate(names)
        ]
        row = rows.make_row(("random", "few values")[seed % 2], vocab, seed)
        case = Case([*before, *joint, Step("typical_p", (0.9,))])
        outcomes = {}
        for name in fast_variants:
            with activate(name):
                outcomes[name] = run(row, case, u)
        first = outcomes[fast_variants[0]]
        assert all(outcome.same_bits(first) for outcome in outcomes.values()), names
        d = walk(row, case.chain, coin=case.coin)
        assert set(d.ids.tolist()) == set(first.ids.tolist())
