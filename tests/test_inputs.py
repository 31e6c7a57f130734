"""Logits of any library come in with their values, and without a copy where the layout allows."""

from __future__ import annotations

import array
import ctypes
import tracemalloc
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import rows

import fastsample as fs
from fastsample.arrays import as_rows

pytestmark = pytest.mark.quick

ROW = rows.make_row("random", 500)
HALF = ROW.astype(np.float16)
BRAIN = ROW.astype(ml_dtypes.bfloat16)
BATCH = np.stack([rows.make_row("random", 500, seed) for seed in range(4)])
CHAIN: dict[str, Any] = {"temperature": 0.9, "top_k": 90, "top_p": 0.95}


class OnlyArray:
    """What has __array__ alone."""

    def __init__(self, x: npt.NDArray[Any]) -> None:
        self._x = x

    def __array__(self, dtype: Any = None, copy: Any = None) -> npt.NDArray[Any]:
        return self._x if dtype is None else self._x.astype(dtype)


class Subclass(np.ndarray[Any, Any]):
    """An ndarray that means nothing else by its data."""


FORMS = {
    "__dlpack__": (rows.OnlyDlpack(ROW), ROW),
    "__dlpack__ of a batch": (rows.OnlyDlpack(BATCH), BATCH),
    "__dlpack__ of float16": (rows.OnlyDlpack(HALF), HALF),
    "__array__": (OnlyArray(ROW), ROW),
    "__array__ of float64": (OnlyArray(BATCH.astype(np.float64)), BATCH),
    "memoryview": (memoryview(ROW), ROW),
    "memoryview of a batch": (memoryview(BATCH), BATCH),
    "array.array": (array.array("f", ROW.tolist()), ROW),
    "ctypes": (np.ctypeslib.as_array((ctypes.c_float * ROW.size)(*ROW.tolist())), ROW),
    "bfloat16 as NumPy stores it": (
        BATCH.astype(ml_dtypes.bfloat16).view("V2"),
        BATCH.astype(ml_dtypes.bfloat16),
    ),
    "list": (ROW.tolist(), ROW),
    "tuple": (tuple(ROW.tolist()), ROW),
    "list of lists": (BATCH.tolist(), BATCH),
    "list of arrays": (list(BATCH), BATCH),
    "list of int": ([3, 1, 2], np.float32([3, 1, 2])),
    "subclass": (ROW.view(Subclass), ROW),
    "bfloat16": (BRAIN, BRAIN.astype(np.float32)),
    "bfloat16 from __array__": (OnlyArray(BRAIN), BRAIN.astype(np.float32)),
    "float16": (HALF, HALF.astype(np.float32)),
    "float64": (ROW.astype(np.float64), ROW),
}


def same(logits: Any, plain: npt.NDArray[Any]) -> None:
    """Logits in some form give what the plain float32 array gives."""
    u = 0.4 if plain.ndim == 1 else [0.1, 0.4, 0.6, 0.9]
    assert np.array_equal(fs.sample(logits, u=u, **CHAIN), fs.sample(plain, u=u, **CHAIN))
    assert np.array_equal(fs.argmax(logits), fs.argmax(plain))
    assert fs.probs(logits, **CHAIN).tobytes() == fs.probs(plain, **CHAIN).tobytes()
    assert fs.log_softmax(logits).tobytes() == fs.log_softmax(plain).tobytes()
    for ours, theirs in zip(fs.top_k(logits, 3), fs.top_k(plain, 3), strict=True):
        assert np.array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype
    drawn = [np.asarray(fs.Sampler(seed=3, **CHAIN)(x)).tolist() for x in (logits, plain)]
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("form", FORMS)
def test_forms(variant: str, form: str) -> None:
    same(*FORMS[form])


def test_float64_is_rounded_to_float32(variant: str) -> None:
    # Neighbours in float64 that are one float32, and a tie after rounding half to even.
    row = np.array([1.0, 1.0 + 2.0**-40, 1.0 - 2.0**-40, 1.0 + 2.0**-24])
    assert fs.probs(row).tolist() == [0.25] * 4
    assert fs.argmax(row) == 0
    assert fs.survivors(row, top_k=2)[0].tolist() == [0, 1]


def test_one_token_and_one_row(variant: str) -> None:
    assert fs.sample(np.float32([-3.0]), u=0.9) == 0
    column = np.arange(12, dtype=np.float32).reshape(3, 4)[:, :1]  # strides that no V = 1 needs
    assert fs.sample(column, u=0.9).tolist() == [0, 0, 0]
    assert fs.probs(column[:, :1]).tolist() == [[1.0]] * 3


# ---- copies ----------------------------------------------------------------------------------

WITHOUT_COPY = {
    "contiguous": BATCH,
    "one row": ROW,
    "float16": BATCH.astype(np.float16),
    "float64": BATCH.astype(np.float64),
    "bfloat16": BATCH.astype(ml_dtypes.bfloat16),
    "part of longer rows": BATCH[:, 10:400],
    "every other row": BATCH[::2],
    "rows reversed": BATCH[::-1],
    "one row repeated": np.broadcast_to(ROW, (1000, ROW.size)),
    "a column": BATCH[:, 7:8],
    "transposed column": np.asfortranarray(BATCH)[:, 7:8],
    "subclass": BATCH.view(Subclass),
}
WITH_COPY = {
    "every other token": BATCH[:, ::2],
    "Fortran": np.asfortranarray(BATCH),
    "tokens reversed": ROW[::-1],
    "other byte order": BATCH.astype(">f4"),
}


def read_only(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    x = x.view()
    x.flags.writeable = False
    return x


@pytest.mark.parametrize("layout", WITHOUT_COPY)
def test_no_copy(layout: str) -> None:
    logits = read_only(WITHOUT_COPY[layout])
    view, single = as_rows(logits)
    assert np.shares_memory(view, logits)
    assert single == (logits.ndim == 1)
    assert view.ndim == 2


@pytest.mark.parametrize("layout", WITH_COPY)
def test_one_copy(layout: str) -> None:
    logits = read_only(WITH_COPY[layout])
    view, _ = as_rows(logits)
    assert not np.shares_memory(view, logits)
    assert view.flags.c_contiguous
    assert view.flags.aligned
    assert view.dtype.isnative
    assert np.array_equal(view, np.atleast_2d(logits))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, ml_dtypes.bfloat16])
def test_a_call_of_the_core_needs_no_memory_of_the_size_of_the_row(dtype: Any) -> None:
    if "core" not in fs.backends():
        pytest.skip("no core here")
    batch = np.zeros((8, 2_000_000), dtype)
    batch[:, -1] = 30
    with fs.use_backend("core"):
        tracemalloc.start()
        try:
            assert fs.sample(batch, u=0.5).tolist() == [1_999_999] * 8
            assert fs.sample(read_only(batch)[::2], u=0.5, top_k=5).tolist() == [1_999_999] * 4
            # Tokens and uniforms; one copied row would be at least 4,000,000.
            assert tracemalloc.get_traced_memory()[1] < 500_000
        finally:
            tracemalloc.stop()


# ---- other libraries -------------------------------------------------------------------------


def test_torch(variant: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    tensor = torch.from_numpy(BATCH.copy())
    forms = {
        "batch": (tensor, BATCH),
        "row": (tensor[1], BATCH[1]),
        "not contiguous": (tensor[:, ::3], BATCH[:, ::3]),
        "transposed": (tensor.t().contiguous().t(), BATCH),
        "requires_grad": (tensor.clone().requires_grad_(), BATCH),
        "of a graph": (tensor.clone().requires_grad_() * 1.0, BATCH),
        "parameter": (torch.nn.Parameter(tensor.clone()), BATCH),
        "float64": (tensor.double(), BATCH),
        "float16": (tensor.half(), BATCH.astype(np.float16)),
        "bfloat16": (tensor.bfloat16(), BATCH.astype(ml_dtypes.bfloat16)),
        "bfloat16, not contiguous": (
            tensor.bfloat16()[:, ::2], BATCH[:, ::2].astype(ml_dtypes.bfloat16)),
        "bfloat16 requires_grad": (
            tensor.bfloat16().requires_grad_(), BATCH.astype(ml_dtypes.bfloat16)),
        "conjugate view": (tensor.clone().conj(), BATCH),
    }  # fmt: skip
    for form, plain in forms.values():
        same(form, plain.astype(np.float32))
    assert fs.sample(tensor[:0]).shape == (0,)
    # Parameters may be tensors too.
    temperature = torch.linspace(0.1, 1.0, 4)
    expected = fs.sample(BATCH, u=0.5, temperature=temperature.numpy())
    assert np.array_equal(fs.sample(tensor, u=0.5, temperature=temperature), expected)


class MethodShape(rows.OnlyDlpack):
    """As an OrtValue, whose shape is a method."""

    def shape(self) -> list[int]:
        raise AssertionError("shape is not asked for")


class OnlyInterface:
    """As a StorageView of CTranslate2."""

    def __init__(self, x: npt.NDArray[Any]) -> None:
        self._x = x

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self._x.__array_interface__


@pytest.mark.parametrize("kind", [MethodShape, OnlyInterface, OnlyArray, rows.OnlyDlpack, list])
def test_parameters_of_any_library(variant: str, kind: Any) -> None:
    given: dict[str, Any] = {
        "temperature": np.float32([0.5, 1.0, 1.5, 2.0]),
        "top_k": np.int64([3, 50, 5, 500]),
        "top_p": np.float64([0.5, 0.75, 0.9, 1.0]),
        "frequency_penalty": np.float32([0.0, 0.5, 1.0, 2.0]),
        "seed": np.int64([7, 8, 9, 7]),
        "offset": np.int32([0, 3, 1, 2]),
    }
    history = [row.argsort()[-4:].tolist() for row in BATCH]
    expected = fs.sample(BATCH, history=history, **given)
    for name, values in given.items():
        each = list(map(np.array, values)) if kind is list else kind(values)  # 0-d in a list
        found = fs.sample(BATCH, history=history, **{**given, name: each})
        assert np.array_equal(found, expected), name
        alone: dict[str, Any] = {"seed": 3, "history": history, name: values}
        each_alone = fs.sample(BATCH, **alone | {name: each})
        assert np.array_equal(each_alone, fs.sample(BATCH, **alone)), name
        if kind is not list:
            shaped = kind(np.stack([values, values]))
            with pytest.raises((ValueError, TypeError), match=f"^{name} must be "):
                fs.sample(BATCH, history=history, **{**given, name: shaped})
            one: dict[str, Any] = {
                "seed": 5,
                "history": history[1],
                name: kind(values[1:2].reshape(())),
            }
            scalar = fs.sample(BATCH[1], **one)
            assert scalar == fs.sample(BATCH[1], **one | {name: values[1].item()})


def test_a_number_of_another_library_may_change(variant: str) -> None:
    for kind in (MethodShape, OnlyInterface, OnlyArray, rows.OnlyDlpack, np.asarray):
        number = np.zeros(())
        temperature = kind(number)
        assert fs.sample(BATCH[1], temperature=temperature, u=0.0) == BATCH[1].argmax()
        number[...] = 2.0
        assert fs.sample(BATCH[1], temperature=temperature, u=0.0) == 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_parameters_as_a_list_of_tensors(variant: str, dtype: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    values = [0.5, 1.0, 1.5, 2.0]
    tensors = [torch.tensor(value, dtype=getattr(torch, dtype)) for value in values]
    chain: dict[str, Any] = {"order": ("p_less", "temperature"), "seed": 3}
    found = fs.sample(BATCH, temperature=tensors, p_less=[torch.tensor(True)] * 4, **chain)
    assert np.array_equal(found, fs.sample(BATCH, temperature=values, p_less=True, **chain))


def test_torch_without_copy() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        tensor = torch.zeros((3, 100), dtype=dtype, requires_grad=True)
        view, _ = as_rows(tensor[:, 20:])
        assert view.__array_interface__["data"][0] == tensor[:, 20:].data_ptr()


def test_torch_of_another_kind(variant: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    for dtype in (torch.int64, torch.int16, torch.uint8, torch.bool, torch.complex64):
        with pytest.raises(TypeError, match=r"^logits must be float32, float64, float16 or bfloat"):
            fs.sample(torch.zeros(5, dtype=dtype))
    if hasattr(torch, "uint16"):  # the bits of bfloat16, but not bfloat16
        with pytest.raises(TypeError, match=r"^logits must be float32, float64, float16 or bfloat"):
            fs.sample(torch.zeros(5, dtype=torch.uint16))
    with pytest.raises(TypeError, match=r"^logits must be on the CPU, got a tensor on meta"):
        fs.sample(torch.zeros(5, device="meta"))


def test_jax(variant: str) -> None:
    jax_numpy = pytest.importorskip("jax.numpy", reason="jax is not installed")
    same(jax_numpy.asarray(BATCH), BATCH)
    same(jax_numpy.asarray(ROW), ROW)
    same(jax_numpy.asarray(BATCH, jax_numpy.bfloat16),
         BATCH.astype(ml_dtypes.bfloat16).astype(np.float32))  # fmt: skip
    same(jax_numpy.asarray(BATCH, jax_numpy.float16), BATCH.astype(np.float16).astype(np.float32))


def test_mlx(variant: str) -> None:
    mlx = pytest.importorskip("mlx.core", reason="mlx is not installed")
    array = mlx.array(BATCH)
    brain = BATCH.astype(ml_dtypes.bfloat16).astype(np.float32)
    same(array, BATCH)
    same(array[1], BATCH[1])
    same(array[:, ::3], BATCH[:, ::3])
    same(array.astype(mlx.float16), BATCH.astype(np.float16).astype(np.float32))
    same(array.astype(mlx.bfloat16), brain)
    same(array.astype(mlx.bfloat16)[2], brain[2])
    same(array.astype(mlx.bfloat16)[:, ::3], brain[:, ::3])
    same(array.astype(mlx.bfloat16).T[:4], brain.T[:4])
    same(list(array.astype(mlx.bfloat16)), brain)
    temperature = mlx.array(np.linspace(0.1, 1.0, 4))
    expected = fs.sample(BATCH, u=0.5, temperature=np.float32(np.linspace(0.1, 1.0, 4)))
    assert np.array_equal(fs.sample(array, u=0.5, temperature=temperature), expected)
    for dtype in (mlx.int32, mlx.uint16, mlx.bool_):  # the bits of bfloat16 are not bfloat16
        with pytest.raises(TypeError, match=r"^logits must be float32, float64, float16 or bfloat"):
            fs.sample(mlx.zeros(5, dtype))


def test_bfloat16_that_is_not_to_be_read_comes_with_a_hint() -> None:
    class Foreign:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            raise ValueError("no NumPy type for BFLOAT16")

    with pytest.raises(TypeError, match=r": no NumPy type .*: convert it to float32 first$"):
        fs.sample(Foreign())


def test_lists_of_tensors(variant: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    tensor = torch.from_numpy(BATCH.copy())
    brain = BATCH.astype(ml_dtypes.bfloat16)
    forms = {
        "float32": (list(tensor), BATCH),
        "requires_grad": (list(tensor.clone().requires_grad_()), BATCH),
        "bfloat16": (list(tensor.bfloat16()), brain),
        "bfloat16 that requires_grad": (tuple(tensor.bfloat16().requires_grad_()), brain),
        "bfloat16 numbers": (list(tensor[0].bfloat16()), brain[0]),
        "bfloat16 of ml_dtypes": (list(brain), brain),
        "mixed": ([tensor[0], *brain[1:3], BATCH[3].tolist()],
                  np.stack([BATCH[0], *brain[1:3].astype(np.float32), BATCH[3]])),
    }  # fmt: skip
    for form, plain in forms.values():
        same(form, plain.astype(np.float32))
    with pytest.raises(TypeError, match=r"^logits must be an array of numbers: .*inhomogeneous"):
        fs.sample([tensor[0].bfloat16(), tensor[0, 1:].bfloat16()])
    with pytest.raises(TypeError, match=r"^logits must be on the CPU, got a tensor on meta"):
        fs.sample([torch.zeros(5, device="meta")])
    with pytest.raises(TypeError, match=r"^logits must be float32, .*, got bool \(Tensor\)"):
        fs.sample([torch.zeros(5, dtype=torch.bool)])


def test_package_data_is_readable_with_numpy_alone() -> None:
    logits = rows.recorded_rows()
    assert logits.dtype == np.float16
    assert logits.ndim == 2
    assert logits.shape[1] == 49152
    assert 8 <= len(logits) <= 16
    assert np.isfinite(logits).all()
