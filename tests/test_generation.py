"""The loop around a model: names, defaults and meaning of Hugging Face's generate."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from forked import different
from rows import make_row

import fastsample as fs

V = 50
Ids = npt.NDArray[np.int64]


def successor(ids: Ids) -> npt.NDArray[np.float32]:
    """A model that prefers the last id plus one, modulo V."""
    logits = np.zeros((*ids.shape[:-1], V), np.float32)
    np.put_along_axis(logits, (ids[..., -1:] + 1) % V, 5.0, axis=-1)
    return logits


def noisy(ids: Ids) -> npt.NDArray[np.float32]:
    """A model that depends on the whole of a row, and on that row alone."""
    rows = [make_row("random", V, int(row.sum() * 31 + len(row))) for row in np.atleast_2d(ids)]
    return np.stack(rows) if ids.ndim == 2 else rows[0]


class Counting:
    """Wraps a model and keeps what it was asked."""

    def __init__(self, model: Callable[[Ids], Any]) -> None:
        self.model, self.asked = model, []  # type: tuple[Callable[[Ids], Any], list[Ids]]

    def __call__(self, ids: Ids) -> Any:
        self.asked.append(ids.copy())
        return self.model(ids)


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


# ---- what a model may return -----------------------------------------------------------------

MODELS: dict[str, Callable[[Ids], Any]] = {
    "time axis": lambda ids: np.stack([successor(ids[..., : n + 1]) for n in range(ids.shape[-1])],
                                      axis=-2),
    "one step of a time axis": lambda ids: successor(ids)[..., None, :],
    ".logits": lambda ids: SimpleNamespace(logits=successor(ids)),
    ".logits with a time axis": lambda ids: SimpleNamespace(logits=successor(ids)[..., None, :]),
    "a dict": lambda ids: {"past": None, "logits": successor(ids)[..., None, :]},
    "__array__ alone": lambda ids: OnlyArray(successor(ids)[..., None, :]),
    "__dlpack__ alone": lambda ids: OnlyDlpack(successor(ids)),
    "a shape that is a method": lambda ids: ShapeIsAMethod(successor(ids)),
    "Fortran": lambda ids: np.asfortranarray(successor(ids)),
    "read-only": lambda ids: np.broadcast_to(successor(ids)[..., None, :],
                                             (*ids.shape, V)),
    "other byte order": lambda ids: successor(ids).astype(">f4"),
    "bfloat16 of ml_dtypes": lambda ids: successor(ids).astype(ml_dtypes.bfloat16),
    "lists of arrays": lambda ids: list(successor(ids)),
    "lists": lambda ids: successor(ids).tolist(),
    "float16": lambda ids: successor(ids).astype(np.float16),
    "float64": lambda ids: successor(ids).astype(np.float64),
}  # fmt: skip


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("prompt", [[4, 5], [[4, 5]], [[4, 5], [9, 20]]], ids=str)
def test_model_outputs(kind: str, prompt: Any) -> None:
    chain: dict[str, Any] = {"max_new_tokens": 5, "eos_token_id": 8}
    expected = fs.generate(successor, prompt, **chain)
    assert np.array_equal(fs.generate(MODELS[kind], prompt, **chain), expected)


class OnlyArray:
    def __init__(self, x: npt.NDArray[Any]) -> None:
        self._x = x

    def __array__(self, dtype: Any = None, copy: Any = None) -> npt.NDArray[Any]:
        return self._x if dtype is None else self._x.astype(dtype)


class ShapeIsAMethod(OnlyArray):
    """As ONNX Runtime's OrtValue."""

    def shape(self) -> list[int]:
        return list(self._x.shape)


class OnlyDlpack:
    def __init__(self, x: npt.NDArray[Any]) -> None:
        self._x = x

    def __dlpack__(self, **options: Any) -> Any:
        return self._x.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._x.__dlpack_device__()


def in_library(library: str, successor: Callable[[Ids], Any]) -> dict[str, Callable[[Ids], Any]]:
    """Return models that give logits as a library does."""
    module = pytest.importorskip(library, reason=f"{library} is not installed")
    if library == "onnxruntime":
        value = module.OrtValue.ortvalue_from_numpy
        return {"OrtValue": lambda ids: value(successor(ids))}
    make = {"torch": "from_numpy", "mlx.core": "array", "jax.numpy": "asarray"}[library]

    def model(ids: Ids, dtype: str) -> Any:
        logits = getattr(module, make)(successor(ids))
        return getattr(logits, "astype", getattr(logits, "to", None))(getattr(module, dtype))

    return {dtype: partial(model, dtype=dtype) for dtype in ("float32", "float16", "bfloat16")}


@pytest.mark.parametrize("library", ["torch", "mlx.core", "jax.numpy", "onnxruntime"])
def test_models_of_libraries(library: str) -> None:
    for kind, model in in_library(library, successor).items():

        def with_time(ids: Ids, model: Any = model) -> Any:
            return SimpleNamespace(logits=model(np.stack([ids, ids], -2)))

        for prompt in ([4, 5], [[4, 5], [9, 20], [7, 6]]):
            chain: dict[str, Any] = {"max_new_tokens": 5, "eos_token_id": [8, 23]}
            expected = fs.generate(successor, prompt, **chain)
            assert np.array_equal(fs.generate(model, prompt, **chain), expected), kind
            assert np.array_equal(fs.generate(with_time, prompt, **chain), expected), kind
            chain |= {"do_sample": True, "seed": 3}
            expected = fs.generate(successor, prompt, **chain)
            assert np.array_equal(fs.generate(model, prompt, **chain), expected), kind


def test_what_the_model_returns_is_not_written_to() -> None:
    logits = successor(np.array([[5], [8]]))
    kept = logits.copy()
    fs.generate(lambda ids: logits, [[5], [8]], max_new_tokens=4, eos_token_id=9)
    assert np.array_equal(logits, kept)


def test_torch_model() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")

    def model(ids: Ids) -> Any:
        logits = torch.from_numpy(successor(ids)).bfloat16().requires_grad_()
        return SimpleNamespace(logits=logits[..., None, :])

    for prompt in ([4, 5], [[4, 5], [9, 20]]):
        chain: dict[str, Any] = {"max_new_tokens": 5, "eos_token_id": 8}
        expected = fs.generate(successor, prompt, **chain)
        assert np.array_equal(fs.generate(model, prompt, **chain), expected)


# ---- errors ----------------------------------------------------------------------------------

BAD_CALLS: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    ([1.5], {}, TypeError, "input_ids must be integers, got float64"),
    ("text", {}, TypeError, "input_ids must be integers, got <U4"),
    ([True], {}, TypeError, "input_ids must be integers, got bool"),
    (3, {}, ValueError, "input_ids must be of shape (n,) or (B, n), n >= 1, got ()"),
    (np.zeros((2, 0), int), {}, ValueError,
     "input_ids must be of shape (n,) or (B, n), n >= 1, got (2, 0)"),
    (np.zeros((1, 1, 1), int), {}, ValueError,
     "input_ids must be of shape (n,) or (B, n), n >= 1, got (1, 1, 1)"),
    ([1, 2, 3], {"max_length": 3}, ValueError,
     "max_length must be greater than the 3 tokens of the prompt, got 3"),
    ([1] * 20, {}, ValueError,
     "max_length must be greater than the 20 tokens of the prompt, got 20"),
    ([1], {"max_new_tokens": 0}, ValueError, "max_new_tokens must be >= 1, got 0"),
    ([1], {"do_sample": True, "top_p": 2.0}, ValueError, "top_p must be in [0, 1], got 2.0"),
    ([1], {"do_sample": True, "temperature": -1}, ValueError,
     "temperature must be finite and >= 0, got -1"),
    ([1], {"order": "?"}, ValueError,
     f"order must be one of {', '.join(map(repr, fs.ORDERS))} or a tuple of stage names, "
     "got '?'"),
    ([1], {"do_sample": True, "seed": -1}, ValueError, "seed must be in [0, 2**64), got -1"),
    ([[1]], {"do_sample": True, "seed": -1}, ValueError, "seed must be in [0, 2**64), got -1"),
    ([[1]], {"do_sample": True, "seed": "x"}, TypeError,
     "seed must be an integer, got 'x' (str)"),
    ([2**63], {}, ValueError, f"input_ids must be below 2**63, got {2**63}"),
    (np.array([2**64 - 1], np.uint64), {}, ValueError,
     f"input_ids must be below 2**63, got {2**64 - 1}"),
    (np.ma.masked_array([1, 2]), {}, TypeError, "input_ids must not be a masked array"),
    ([1], {"do_sample": "no"}, TypeError, "do_sample must be True or False, got 'no' (str)"),
    ([1], {"do_sample": np.array([1, 2])}, TypeError,
     "do_sample must be True or False, got array([1, 2]) (ndarray)"),
    ([1], {"seed": [1, 2]}, ValueError, "seed must be a scalar or of shape (1,), got (2,)"),
    ([[1], [2]], {"seed": [1, -1]}, ValueError, "seed must be in [0, 2**64), got -1 (row 1)"),
    ([1], {"offset": 3}, ValueError, "offset must come with a seed, got offset=3 without one"),
    ([1], {"offset": -1, "seed": 1}, ValueError, "offset must be in [0, 2**64), got -1"),
    ([1], {"offset": "x", "seed": 1}, TypeError, "offset must be an integer, got 'x' (str)"),
    ([[1], [2]], {"offset": [1, 2, 3], "seed": 1}, ValueError,
     "offset must be a scalar or of shape (2,), got (3,)"),
    ([1], {"do_sample": True, "min_tokens_to_keep": 0}, ValueError,
     "min_tokens_to_keep must be >= 1, got 0"),
    ([[1], [2]], {"do_sample": True, "top_p": [0.5, 1.5]}, ValueError,
     "top_p must be in [0, 1], got 1.5 (row 1)"),
    ([[1], [2]], {"do_sample": True, "temperature": np.ones(3)}, ValueError,
     "temperature must be a scalar or of shape (2,), got (3,)"),
    ([1], {"eos_token_id": 1.5}, TypeError, "eos_token_id must be an integer, got 1.5 (float)"),
    ([1], {"eos_token_id": [1, "2"]}, TypeError, "eos_token_id must be an integer, got '2' (str)"),
    ([1], {"eos_token_id": True}, TypeError, "eos_token_id must be an integer, got True (bool)"),
    ([1], {"pad_token_id": "x"}, TypeError, "pad_token_id must be an integer, got 'x' (str)"),
    ([1], {"pad_token_id": 2**63}, ValueError,
     f"pad_token_id must be in [-2**63, 2**63), got {2**63}"),
    ([1], {"stop_sequences": [3, 4]}, TypeError,
     "stop_sequences must be sequences of ids, as in [[13, 13], [2]], got 3 (int) in them"),
    ([1], {"stop_sequences": 3}, TypeError,
     "stop_sequences must be sequences of ids, as in [[13, 13], [2]], got 3 (int)"),
    ([1], {"stop_sequences": ["end"]}, TypeError,
     "stop_sequences must be sequences of ids, as in [[13, 13], [2]], got 'end' (str) in them"),
    ([1], {"stop_sequences": [[1], []]}, ValueError,
     "stop_sequences must not have an empty sequence"),
    ([1], {"stop_sequences": [[1, 2.5]]}, TypeError,
     "an id of stop_sequences must be an integer, got 2.5 (float)"),
    ([[1], [2]], {"stop_sequences": [[1]]}, ValueError,
     "pad_token_id or eos_token_id must be given where stop_sequences end rows of a batch: what "
     "fills them"),
]  # fmt: skip


@pytest.mark.parametrize(("prompt", "arguments", "error", "message"), BAD_CALLS, ids=str)
def test_bad_calls(
    variant: str, prompt: Any, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    model = Counting(successor)
    for call in (fs.generate, lambda *args, **named: next(fs.stream(*args, **named))):
        with pytest.raises(error) as caught:
            call(model, prompt, **arguments)
        assert str(caught.value) == message
    assert model.asked == []  # it is said before the model works


BAD_MODELS: list[tuple[Any, Any, str]] = [
    ([1], lambda ids: np.zeros((1, 1, V)),
     "model must return logits of 1 or 2 dimensions for input_ids of shape (1,), got shape "
     f"(1, 1, {V})"),
    ([[1], [2]], lambda ids: np.zeros(V),
     "model must return logits of 2 or 3 dimensions for input_ids of shape (2, 1), got shape "
     f"({V},)"),
    ([[1], [2]], lambda ids: np.zeros((3, V)),
     f"model must return 2 rows of logits, got shape (3, {V})"),
    ([1], lambda ids: np.zeros((0, 4)),
     "model must return logits of at least one step, got shape (0, 4)"),
    ([1], lambda ids: np.full(V, np.nan), "logits row 0 must not contain NaN, got one at token 0"),
]  # fmt: skip


@pytest.mark.parametrize(("prompt", "model", "message"), BAD_MODELS)
def test_bad_models(prompt: Any, model: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared
        fs.generate(model, prompt)
    assert str(caught.value) == message


NO_LOGITS: list[tuple[Any, str]] = [
    (None, "model must return logits, got None"),
    (SimpleNamespace(logits=None),
     "model must return logits, got a SimpleNamespace whose logits are None"),
    ({"logits": None}, "model must return logits, got a dict whose logits are None"),
    ({"scores": 1, "past": 2},
     "model must return logits, or what has them as logits, got a dict with 'scores', 'past'"),
    ({}, "model must return logits, or what has them as logits, got a dict with nothing in it"),
    ("text", "model must return logits that sample takes: logits must be float32, float64, float16 "
     "or bfloat16, got <U4 (str)"),
    (np.zeros(V, int), "model must return logits that sample takes: logits must be float32, "
     "float64, float16 or bfloat16, got int64 (ndarray)"),
    (object, "model must return logits that sample takes: logits must be float32, float64, float16 "
     "or bfloat16, got object (type)"),
]  # fmt: skip


@pytest.mark.parametrize(("output", "message"), NO_LOGITS, ids=str)
def test_what_is_not_logits(output: Any, message: str) -> None:
    for prompt in ([1], [[1], [2]]):
        with pytest.raises(TypeError) as caught:
            fs.generate(lambda ids: output, prompt)
        assert str(caught.value) == message


@pytest.mark.parametrize("do_sample", [False, True])
def test_a_bad_row_is_named_not_one_that_has_finished(variant: str, do_sample: bool) -> None:
    def model(ids: Ids) -> Any:
        logits = successor(ids)
        if ids.shape[1] == 2:
            logits[[0, 2]] = np.nan
        return logits

    with pytest.raises(ValueError, match=r"^logits row 2 must not contain NaN, got one at"):
        fs.generate(model, [[8], [3], [5]], eos_token_id=9, do_sample=do_sample, top_k=1)


def test_what_cannot_be_called_is_refused_first() -> None:
    asked: list[Ids] = []
    with pytest.raises(TypeError, match=r"^on_token must be callable, got 5 \(int\)$"):
        fs.generate(asked.append, [1], on_token=5)  # type: ignore[arg-type]
    assert asked == []
    for call in (fs.generate, lambda *args: next(fs.stream(*args))):
        with pytest.raises(TypeError, match=r"^model must be callable, got None \(NoneType\)$"):
            call(None, [1.5])  # type: ignore[arg-type]


@pytest.mark.parametrize("ragged", ["input_ids", "model"])
def test_ragged_lists(ragged: str) -> None:
    rows = [[1], [2, 3]]
    model, prompt = (successor, rows) if ragged == "input_ids" else (lambda ids: rows, [1])
    with pytest.raises(TypeError, match=f"^{ragged} must .*: setting an array element"):
        fs.generate(model, prompt)


def test_an_error_of_the_model_comes_through() -> None:
    def model(ids: Ids) -> Any:
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match=r"^out of luck$"):
        fs.generate(model, [1])
