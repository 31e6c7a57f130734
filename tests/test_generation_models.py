"""The loop around a model: what a model may return, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from rows import OnlyDlpack
from toy_models import Counting, Ids, V, successor

import fastsample as fs

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
