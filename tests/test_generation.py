"""The loop around a model: names, defaults and meaning of Hugging Face's generate."""

from __future__ import annotations

import importlib.util
import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from forked import different
from toy_models import Counting, Ids, V, noisy, successor

import fastsample as fs

# ---- lengths ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "length"),
    [
        ({}, 20),  # theirs: max_length = 20, prompt included
        ({"max_length": 7}, 7),
        ({"max_new_tokens": 4}, 7),
        ({"max_length": 5, "max_new_tokens": 9}, 12),  # max_new_tokens wins
        ({"max_length": 2, "max_new_tokens": 1}, 4),
    ],
    ids=str,
)
def test_lengths(arguments: dict[str, Any], length: int) -> None:
    prompt = [4, 5, 6]
    model = Counting(successor)
    got = fs.generate(model, prompt, **arguments)
    assert got.dtype == np.int64
    assert got.tolist() == list(range(4, 4 + length))
    # Asked once per token, each time with all that was there.
    assert [ids.tolist() for ids in model.asked] == [got[:n].tolist() for n in range(3, length)]
    batch = fs.generate(successor, [prompt, [9, 9, 1]], **arguments)
    assert batch.shape == (2, length)
    assert batch[0].tolist() == got.tolist()
    assert prompt == [4, 5, 6]


# ---- greedy and sampled ----------------------------------------------------------------------


def test_greedy_ignores_sampling_parameters(variant: str) -> None:
    expected = fs.generate(noisy, [1, 2], max_new_tokens=8)
    assert expected[2:].tolist() == [
        int(np.argmax(noisy(expected[:n]))) for n in range(2, len(expected))
    ]
    for extra in ({"temperature": 9.0}, {"top_k": 3}, {"top_p": 0.1}, {"min_p": 0.5}, {"seed": 4}):
        again = fs.generate(noisy, [1, 2], max_new_tokens=8, do_sample=False, **extra)
        assert again.tolist() == expected.tolist()


def test_sampling_draws_with_seed_and_step(variant: str) -> None:
    chain: dict[str, Any] = {"temperature": 1.3, "top_k": 30, "top_p": 0.9, "min_p": 0.01}
    got = fs.generate(noisy, [1, 2], max_new_tokens=10, do_sample=True, seed=77, **chain)
    ids = np.array([1, 2])
    for step in range(10):
        ids = np.append(ids, fs.sample(noisy(ids), seed=77, offset=step, **chain))
    assert got.tolist() == ids.tolist()


def test_top_k_is_fifty_by_default(variant: str) -> None:
    flat = np.zeros(60, np.float32)
    drawn = fs.generate(lambda ids: flat, [0], max_new_tokens=500, do_sample=True, seed=1)
    # A token of fifty escapes 500 draws once in 24,000; the ten others are cut.
    assert np.unique(drawn).size >= 45
    assert drawn.max() <= 49
    all_of_them = fs.generate(
        lambda ids: flat, [0], max_new_tokens=500, do_sample=True, seed=1, top_k=None
    )
    assert all_of_them.max() > 49


def test_seeds_reproduce(variant: str) -> None:
    def draw(seed: int | None) -> list[int]:
        ids: list[int] = fs.generate(
            noisy, [1], max_new_tokens=30, do_sample=True, seed=seed, temperature=3.0
        ).tolist()
        return ids

    assert draw(5) == draw(5)
    assert draw(5) != draw(6)
    assert draw(None) != draw(None)  # equal by chance about once in 10^30


def test_order(variant: str) -> None:
    chain: dict[str, Any] = {"temperature": 2.0, "top_k": 0, "top_p": 0.6, "seed": 3}
    for order in ("hf", "llama.cpp", ("top_p", "temperature")):
        got = fs.generate(noisy, [1], max_new_tokens=20, do_sample=True, order=order, **chain)
        ids = np.array([1])
        for step in range(20):
            ids = np.append(ids, fs.sample(noisy(ids), offset=step, order=order, **chain))
        assert got.tolist() == ids.tolist()


# ---- the end of a row ------------------------------------------------------------------------


@pytest.mark.parametrize("eos", [7, [7], (7, 30), [30, 7], np.array([7, 2])], ids=repr)
def test_eos_ends_a_row(eos: Any) -> None:
    assert fs.generate(successor, [4], eos_token_id=eos).tolist() == [4, 5, 6, 7]
    # One in the prompt does not.
    assert fs.generate(successor, [7, 8], max_new_tokens=2, eos_token_id=7).tolist() == [
        7,
        8,
        9,
        10,
    ]


def test_token_zero_can_be_eos() -> None:
    assert fs.generate(successor, [V - 2], eos_token_id=0).tolist() == [V - 2, V - 1, 0]


@pytest.mark.parametrize("eos", [[[7], [9, 30], None], [7, [9], None], ([7], {30, 9}, [])], ids=str)
def test_each_row_may_have_ends_of_its_own(eos: Any) -> None:
    got = fs.generate(successor, [[5], [6], [8]], max_new_tokens=4, eos_token_id=eos)
    assert got.tolist() == [[5, 6, 7, 7, 7], [6, 7, 8, 9, 9], [8, 9, 10, 11, 12]]
    late = {"min_new_tokens": [4, 0, 0], "max_new_tokens": 4}
    if {30, 9} not in eos:
        got = fs.generate(successor, [[5], [6], [8]], eos_token_id=eos, **late)
        assert got[0, 2] != 7
        assert got[1:].tolist() == [[6, 7, 8, 9, 9], [8, 9, 10, 11, 12]]
    with pytest.raises(ValueError, match=r"^eos_token_id must be one list or 2, one for each row"):
        fs.generate(successor, [[5], [6]], eos_token_id=eos)
    with pytest.raises(ValueError, match=r"^pad_token_id or eos_token_id must be given where"):
        fs.generate(successor, [[5], [6], [8]], eos_token_id=eos, stop_sequences=[[1]])


def test_rows_finish_at_different_steps() -> None:
    model = Counting(successor)
    got = fs.generate(model, [[5], [8], [0]], max_new_tokens=6, eos_token_id=[9, 2])
    # Padded with the first eos id, whichever ended the row; it stops when the last row has.
    assert got.tolist() == [[5, 6, 7, 8, 9], [8, 9, 9, 9, 9], [0, 1, 2, 9, 9]]
    assert len(model.asked) == 4


def test_a_row_draws_the_same_whoever_finished_beside_it(variant: str) -> None:
    chain: dict[str, Any] = {"do_sample": True, "seed": 8, "temperature": 2.0, "max_new_tokens": 12}
    prompts = [[3], [1], [4], [15]]
    free = fs.generate(noisy, prompts, **chain)
    assert free.shape == (4, 13)
    eos = int(free[1, 4])  # ends row 1, and perhaps others, early
    got = fs.generate(noisy, prompts, eos_token_id=eos, **chain)
    for row, expected in zip(got, free, strict=True):
        ends = np.flatnonzero(expected[1:] == eos)
        end = 1 + int(ends[0]) if ends.size else len(expected)
        assert row[: end + 1].tolist() == expected[: min(end + 1, got.shape[1])].tolist()
        assert np.all(row[end + 1 :] == eos)
    # Row 0 is what it is alone.
    assert fs.generate(noisy, prompts[0], **chain).tolist() == free[0].tolist()


def test_a_finished_row_is_not_looked_at() -> None:
    def broken_after_the_end(ids: Ids) -> npt.NDArray[np.float32]:
        logits = successor(ids)
        logits[(ids == 9).any(axis=1)] = np.nan
        return logits

    got = fs.generate(broken_after_the_end, [[5], [8]], max_new_tokens=4, eos_token_id=9)
    assert got.tolist() == [[5, 6, 7, 8, 9], [8, 9, 9, 9, 9]]


def test_parameters_per_row(variant: str) -> None:
    chain: dict[str, Any] = {"temperature": [0.5, 2.0, 0.0], "top_k": [None, 3, 5], "seed": 2}
    got = fs.generate(noisy, [[1], [2], [3]], max_new_tokens=6, do_sample=True, **chain)
    uniform = fs.backend.active().uniform
    ids = np.array([[1], [2], [3]])
    for step in range(6):
        u = [uniform(2, row, step) for row in range(3)]
        drawn = fs.sample(noisy(ids), u=u, temperature=[0.5, 2.0, 0.0], top_k=[None, 3, 5])
        ids = np.concatenate([ids, drawn[:, None]], axis=1)
    assert got.tolist() == ids.tolist()


def per_row_forms(values: npt.NDArray[np.float32]) -> dict[str, Any]:
    forms: dict[str, Any] = {"array": values, "list": values.tolist(), "tuple": (*values.tolist(),)}
    for library, make in (("torch", "from_numpy"), ("mlx.core", "array"), ("jax.numpy", "asarray")):
        if importlib.util.find_spec(library.partition(".")[0]):
            forms[library] = getattr(importlib.import_module(library), make)(values.copy())
    return forms


@pytest.mark.parametrize("name", ["temperature", "top_p", "min_p", "top_k"])
def test_parameters_per_row_of_any_kind(name: str) -> None:
    values = np.float32([0.5, 0.25, 1.0])
    if name == "top_k":
        values = np.array([2, 5, 1], np.int32)  # type: ignore[assignment]
    prompts = [[1], [2], [3]]
    # Rows end at different steps, so that some are left out.
    chain: dict[str, Any] = {"max_new_tokens": 12, "do_sample": True, "seed": 4}
    free = fs.generate(noisy, prompts, **{name: values}, **chain)
    chain["eos_token_id"] = [int(free[0, 3]), int(free[2, 5])]
    expected = fs.generate(noisy, prompts, **{name: values}, **chain)
    for form, value in per_row_forms(values).items():
        assert np.array_equal(fs.generate(noisy, prompts, **{name: value}, **chain), expected), form


# ---- seeds and offsets -----------------------------------------------------------------------


def test_a_text_that_is_resumed_goes_on(variant: str) -> None:
    chain: dict[str, Any] = {"do_sample": True, "seed": 21, "temperature": 2.0}
    for prompt in ([1, 2], [[1, 2], [3, 4], [5, 6]]):
        whole = fs.generate(noisy, prompt, max_new_tokens=12, **chain)
        half = fs.generate(noisy, prompt, max_new_tokens=5, **chain)
        rest = fs.generate(noisy, half, max_new_tokens=7, offset=5, **chain)
        assert np.array_equal(rest, whole)
        assert not np.array_equal(fs.generate(noisy, half, max_new_tokens=7, **chain), whole)


def test_a_seed_per_row(variant: str) -> None:
    chain: dict[str, Any] = {"do_sample": True, "max_new_tokens": 8, "temperature": 2.0}
    prompts = [[1], [2], [3]]
    batch = fs.generate(noisy, prompts, seed=[7, 8, 9], **chain)
    for row, (prompt, seed) in enumerate(zip(prompts, (7, 8, 9), strict=True)):
        # Stream 0 in every place: the row is what it is alone.
        assert np.array_equal(fs.generate(noisy, prompt, seed=seed, **chain), batch[row])
    forms = per_row_forms(np.array([7, 8, 9], np.int32))  # type: ignore[arg-type]
    for form, seeds in forms.items():
        assert np.array_equal(fs.generate(noisy, prompts, seed=seeds, **chain), batch), form
    alone = fs.generate(noisy, [2], seed=[8], **chain)
    assert np.array_equal(alone, batch[1])


def test_rows_of_different_age(variant: str) -> None:
    chain: dict[str, Any] = {"do_sample": True, "temperature": 2.0}
    longer = fs.generate(noisy, [1], max_new_tokens=10, seed=3, **chain)
    shorter = fs.generate(noisy, [1, 2, 3, 4], max_new_tokens=7, seed=5, **chain)
    prompts = np.stack([longer[:6], shorter[:6]])
    offset = np.array([5, 2], np.int8)
    both = fs.generate(noisy, prompts, max_new_tokens=5, seed=[3, 5], offset=offset, **chain)
    assert np.array_equal(both[0], longer[:11])
    assert np.array_equal(both[1], shorter[:11])


def test_offsets_end_at_64_bits() -> None:
    chain: dict[str, Any] = {"do_sample": True, "seed": 3, "max_new_tokens": 2}
    for offset in (2**64 - 1, [2**64 - 1], np.array([2**64 - 1], np.uint64)):
        tokens = fs.stream(noisy, [1], offset=offset, **chain)
        assert next(tokens) == fs.sample(noisy(np.array([1])), top_k=50, seed=3, offset=2**64 - 1)
        with pytest.raises(ValueError, match=r"^offset must be in \[0, 2\*\*64\), got 18446"):
            next(tokens)


def test_a_stream_without_seed_that_is_alive_across_a_fork_draws_otherwise() -> None:
    script = """
import itertools, numpy as np, fastsample
def stream(**seed):
    tokens = fastsample.stream(lambda ids: np.zeros(ids.shape[:-1] + (50,)), [1], do_sample=True,
                               max_new_tokens=40, **seed)
    next(tokens)
    return lambda: list(itertools.islice(tokens, 20))
draws = {"unseeded": stream(), "seeded": stream(seed=4)}
"""
    assert different(script) == {"unseeded": 3, "seeded": 1}


# ---- streaming -------------------------------------------------------------------------------


def test_stream_yields_what_generate_returns(variant: str) -> None:
    chain: dict[str, Any] = {"max_new_tokens": 6, "do_sample": True, "seed": 4}
    single = list(fs.stream(noisy, [1, 2], **chain))
    assert all(type(token) is int for token in single)
    assert single == fs.generate(noisy, [1, 2], **chain)[2:].tolist()
    batch = list(fs.stream(noisy, [[1, 2], [3, 4]], **chain))
    assert np.array_equal(np.array(batch).T, fs.generate(noisy, [[1, 2], [3, 4]], **chain)[:, 2:])


def test_stream_is_lazy() -> None:
    model = Counting(successor)
    tokens = fs.stream(model, [3], max_new_tokens=100)
    assert model.asked == []
    assert list(itertools.islice(tokens, 2)) == [4, 5]
    assert len(model.asked) == 2


def test_on_token_sees_each_step() -> None:
    seen: list[Any] = []
    got = fs.generate(successor, [3], max_new_tokens=4, on_token=seen.append)
    assert seen == got[1:].tolist()
    columns: list[Any] = []
    batch = fs.generate(successor, [[3], [6]], max_new_tokens=4, on_token=columns.append)
    assert np.array_equal(np.array(columns).T, batch[:, 1:])

    # What is handed out is the caller's to change.
    def spoil(tokens: Any) -> None:
        tokens[:] = 0

    got = fs.generate(successor, [[3]], max_new_tokens=3, on_token=spoil)
    assert got.tolist() == [[3, 4, 5, 6]]


# ---- stop sequences and padding --------------------------------------------------------------


def test_stop_sequences_end_a_row() -> None:
    chain: dict[str, Any] = {"max_new_tokens": 9}
    for stops in ([[7, 8]], ([7, 8],), np.array([[7, 8]]), [[30], [7, 8], [6, 8]], [(6, 7, 8)],
                  [np.array([7, 8])]):  # fmt: skip
        got = fs.generate(successor, [4], stop_sequences=stops, **chain)
        assert got.tolist() == [4, 5, 6, 7, 8]
        assert list(fs.stream(successor, [4], stop_sequences=stops, **chain)) == [5, 6, 7, 8]
    for never in ([], None, [[8, 7]], [[5, 7]], [[4, 5]], [list(range(4, 14))]):  # 4 is the prompt
        assert fs.generate(successor, [4], stop_sequences=never, **chain).size == 10
    # One id, and the whole of what may be drawn.
    assert fs.generate(successor, [4], stop_sequences=[[5]], **chain).tolist() == [4, 5]
    whole = [list(range(5, 14))]
    assert fs.generate(successor, [4], stop_sequences=whole, **chain).size == 10


def test_stop_sequences_and_eos_in_a_batch() -> None:
    prompts = [[5], [8], [0], [20]]
    ends: dict[str, Any] = {"eos_token_id": 9, "stop_sequences": [[1, 2, 3], [22, 23]]}
    got = fs.generate(successor, prompts, max_new_tokens=6, pad_token_id=49, **ends)
    assert got.tolist() == [
        [5, 6, 7, 8, 9],
        [8, 9, 49, 49, 49],
        [0, 1, 2, 3, 49],
        [20, 21, 22, 23, 49],
    ]
    # By default the first id that ends a row fills it; of padding no row is ended or woken.
    got = fs.generate(successor, prompts, max_new_tokens=6, **ends)
    assert got[1].tolist() == [8, 9, 9, 9, 9]
    got = fs.generate(successor, [[5], [8]], max_new_tokens=6, eos_token_id=9, pad_token_id=-100)
    assert got.tolist() == [[5, 6, 7, 8, 9], [8, 9, -100, -100, -100]]
    got = fs.generate(successor, [[5], [8]], max_new_tokens=4, pad_token_id=9)
    assert got.tolist() == [[5, 6, 7, 8, 9], [8, 9, 10, 11, 12]]  # which itself ends nothing


def test_ends_of_other_libraries() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    for eos in (torch.tensor(7), torch.tensor([30, 7]), [torch.tensor(7)]):
        assert fs.generate(successor, [4], eos_token_id=eos).tolist() == [4, 5, 6, 7]
    got = fs.generate(successor, [4], stop_sequences=torch.tensor([[6, 7]]))
    assert got.tolist() == [4, 5, 6, 7]
