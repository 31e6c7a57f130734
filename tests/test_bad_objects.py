"""Objects that are not what they say, or raise when asked for numbers; and any bytes at all."""

from __future__ import annotations

from array import array
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refused import BATCH, ROW, check

import fastsample as fs
from fastsample.chains import make_records
from fastsample.records import KINDS

# ---- objects that are not what they say ------------------------------------------------------


class Lying(np.ndarray):
    """Says that it is int64."""

    @property
    def dtype(self) -> Any:
        return np.dtype(np.int64)


def test_an_out_that_lies_about_its_dtype(variant: str) -> None:
    out = np.zeros(3, np.int8).view(Lying)
    check(
        lambda: fs.sample(BATCH, u=0.5, out=out), TypeError, "out must be an int64 array, got int8"
    )
    assert np.asarray(out).tolist() == [0, 0, 0]
    true = np.zeros(3, np.int64).view(Lying)
    assert fs.sample(BATCH, temperature=0.0, u=0.5, out=true) is true
    assert true.tolist() == [0, 3, 0]


def test_an_unaligned_out(variant: str) -> None:
    out = np.zeros(3 * 8 + 1, np.int8)[1:].view(np.int64)
    check(lambda: fs.sample(BATCH, u=0.5, out=out), ValueError, "out must be aligned to 8 bytes")


def test_a_masked_out(variant: str) -> None:
    out = np.ma.masked_array(np.zeros(3, np.int64), [True, False, False])
    check(lambda: fs.sample(BATCH, u=0.5, out=out), TypeError, "out must not be a masked array")


GIVEN_SHAPE = "rng must give float64 numbers of shape (3,), got "
BAD_GENERATORS: list[tuple[Any, type[Exception], str]] = [
    ([0.0, 0.5, 1.0], ValueError, "rng must be in [0, 1), got 1.0 (row 2)"),
    ([0.0, np.nan, 0.5], ValueError, "rng must be in [0, 1), got nan (row 1)"),
    ([0.0, 0.5], TypeError, GIVEN_SHAPE + "float64 of shape (2,)"),
    (0.5, TypeError, GIVEN_SHAPE + "float64 of shape ()"),
    ([0, 0, 0], TypeError, GIVEN_SHAPE + "int64 of shape (3,)"),
    (None, TypeError, GIVEN_SHAPE + "object of shape ()"),
]


@pytest.mark.parametrize(("given", "error", "message"), BAD_GENERATORS, ids=str)
def test_a_generator_that_gives_something_else(
    variant: str, given: Any, error: type[Exception], message: str
) -> None:
    class Rigged(np.random.Generator):
        def random(self, *args: Any, **named: Any) -> Any:
            return np.array(given) if isinstance(given, list) else given

    rng = Rigged(np.random.PCG64(1))
    check(lambda: fs.sample(BATCH, rng=rng), error, message)


def test_numba_refuses_a_token_beyond_the_row() -> None:
    compiled = pytest.importorskip("fastsample._numba.draw", reason="numba is not installed")
    memory_for, scan, carray = compiled.memory_for, compiled.scan, compiled.carray
    pointer, cut, draw, chain = compiled.pointer, compiled.cut, compiled.draw, compiled.Chain
    exp2 = compiled.Exp2
    float32 = import_module("fastsample._numba.row").FLOAT32

    @compiled.njit
    def token_of_changed(address: int, size: int, params: int, memory: Any) -> int:
        row, _ = scan(address, float32, size, memory)
        carray(pointer(address), size, np.float32)[:] = 0.0  # the maximum is not there any more
        cutting, mass, _ = cut(row, chain(params, 1), None)
        token: int = draw(cutting, mass, exp2(row.max, np.float32(1.0)), 0.5)[0]
        return token

    @compiled.inline  # with a wrapper that Python can call
    def token_of(address: int, size: int, params: int) -> int:
        memory = memory_for(size)
        token: int = token_of_changed(address, size, params, memory)
        return token

    data = np.linspace(0, 1, 5000, dtype=np.float32)
    params = make_records(1, temperature=0.0)
    token = token_of(data.ctypes.data, data.size, params.ctypes.data)
    assert token == compiled.CHANGED


def test_top_k_of_a_row_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = fs.backend.active()
    for ids in (np.arange(3), np.arange(1)):
        monkeypatch.setattr(backend, "survivors", lambda *_, ids=ids: (ids, np.ones(ids.size)))
        message = "logits row 0 must not change while it is read"
        check(lambda: fs.top_k(ROW, 2), ValueError, message)


# ---- what another library, or an object, says when it is asked for numbers -------------------


class Raising:
    """An array that cannot be had."""

    shape, error = (4,), RuntimeError("no such array")

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise self.error

    def tolist(self) -> Any:
        raise self.error


class Index:
    def __index__(self) -> Any:
        return "x"


class RaisingIndex:
    def __index__(self) -> Any:
        raise OSError("no such number")


def test_numbers_are_no_flags(variant: str) -> None:
    for numbers in ([1, 0, 1], (1, 0, 1), np.array([1, 0, 1])):
        for name in ("p_less", "p_less_norm"):
            message = f"{name} must be True or False, got 1 (int) (row 0)"
            chain = {name: numbers, "order": (name,), "u": 0.5}
            check(lambda chain=chain: fs.sample(BATCH, **chain), TypeError, message)  # type: ignore[misc]


def test_a_duration_is_no_number(variant: str) -> None:
    second = np.timedelta64(1, "s")
    message = f"temperature must be a number, got {second!r} (timedelta64)"
    check(lambda: fs.softmax(ROW, second), TypeError, message)  # type: ignore[arg-type]
    check(lambda: fs.log_softmax(ROW, second), TypeError, message)  # type: ignore[arg-type]


def test_a_memoryview_that_may_be_written_to(variant: str) -> None:
    """Is no key of a table, as an array is none, but has numbers."""
    hot = memoryview(array("d", [0.0, 2.0, 0.0]))
    drawn = fs.sample(BATCH, seed=1, temperature=hot)
    assert drawn.tolist() == fs.sample(BATCH, seed=1, temperature=hot.tolist()).tolist()
    many = memoryview(array("i", [1, 2, 3]))
    assert fs.Sampler(top_k=many, seed=1)(BATCH).tolist() == [
        fs.Sampler(top_k=k, seed=1)(BATCH)[row] for row, k in enumerate(many)
    ]
    must = "order must be a string or a tuple of stage names, got <memory at "
    with pytest.raises(TypeError, match=f"^{must}"):
        fs.sample(BATCH, top_k=2, order=many)


AN_INTEGER = " must be an integer, got "
ODD_ARGUMENTS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"seed": np.array(5.5)}, TypeError, f"seed{AN_INTEGER}5.5 (float)"),
    ({"seed": np.array(True)}, TypeError, f"seed{AN_INTEGER}True (bool)"),
    ({"seed": 1, "offset": np.array(5.5)}, TypeError, f"offset{AN_INTEGER}5.5 (float)"),
    ({"seed": 1, "offset": np.array(True)}, TypeError, f"offset{AN_INTEGER}True (bool)"),
    ({"seed": [[1], [2, 3]]}, ValueError, "seed must be a scalar or of shape (3,), got (2,)"),
    ({"seed": [[1], [2, 3], 4]}, TypeError, f"seed{AN_INTEGER}[1] (list) (row 0)"),
    ({"seed": np.ones((3, 1), int)}, ValueError,
     "seed must be a scalar or of shape (3,), got (3, 1)"),
    ({"seed": Raising()}, TypeError, "seed must be readable: no such array"),
    ({"seed": np.ma.masked_array([1, 2, 3])}, TypeError, "seed must not be a masked array"),
    ({"temperature": Raising()}, TypeError, "temperature must be readable: no such array"),
    ({"u": Raising()}, TypeError, "u must be a number: no such array"),
    ({"u": np.ma.masked_array([0.1, 0.2, 0.3])}, TypeError, "u must not be a masked array"),
    ({"errors": np.array([1, 2])}, ValueError,
     "errors must be 'raise' or 'mark', got array([1, 2])"),
    ({"order": (np.array([1, 2]),)}, ValueError,
     f"order must be made of {', '.join(KINDS)}, got array([1, 2])"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "error", "message"), ODD_ARGUMENTS, ids=str)
def test_odd_arguments(
    variant: str, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    check(lambda: fs.sample(BATCH, **arguments), error, message)


def test_an_index_that_is_none(variant: str) -> None:
    for name in ("seed", "top_k", "threads"):
        for value in (Index(), RaisingIndex()):
            with pytest.raises(TypeError, match=f"^{name} must be an integer, got <.*Index"):
                fs.sample(ROW, **{name: value})


def test_ragged_uniforms(variant: str) -> None:
    with pytest.raises(TypeError, match=r"^u must be a number: "):
        fs.sample(BATCH, u=[[1], [2, 3]])


@pytest.mark.parametrize("error", [RuntimeError, ValueError, KeyError, OSError])
def test_logits_that_raise(variant: str, error: type[Exception]) -> None:
    logits = Raising()
    logits.error = error("no such array")  # type: ignore[assignment]
    with pytest.raises(TypeError, match=r"^logits must be an array of numbers: .*no such array"):
        fs.sample(logits)
    logits.error = MemoryError("none left")  # type: ignore[assignment]
    with pytest.raises(MemoryError, match="none left"):
        fs.sample(logits)


def test_torch_tensors_that_numpy_cannot_read(variant: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    for name in ("seed", "temperature", "u"):
        with pytest.raises(TypeError, match=f"^{name} must be "):
            fs.sample(ROW, **{name: torch.zeros((), device="meta")})
    for value in (5.5, True):
        with pytest.raises(TypeError, match=rf"^seed must be an integer, got {value} "):
            fs.sample(ROW, seed=torch.tensor(value))
    for u in (torch.tensor(0.5, requires_grad=True), torch.tensor(0.5).bfloat16()):
        with pytest.raises(TypeError, match=r"^u must be a number: "):
            fs.sample(ROW, u=u)
    row = torch.tensor(ROW)
    odd = [row.to_sparse(), row.to(torch.float8_e5m2), torch.complex(row, row).conj().imag]
    for logits in odd:
        with pytest.raises(TypeError, match=r"^logits must be an array of numbers: "):
            fs.sample(logits)


def test_a_parameter_that_changes_in_place_is_read_anew(variant: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    k = torch.tensor(1)
    assert fs.sample(ROW, top_k=k, u=0.99) == 0
    k.fill_(4)
    assert fs.sample(ROW, top_k=k, u=0.99) == 3


def test_a_backend_that_is_no_name() -> None:
    message = "backend must be one of core, numba, reference, got ['core']"
    check(lambda: fs.use_backend(["core"]).__enter__(), ValueError, message)  # type: ignore[arg-type]


NONE_OF_THEM = "seed must be a scalar or of shape (B,), B >= 1, got "


def test_what_a_sampler_refuses(variant: str) -> None:
    sampler = fs.Sampler(seed=5, offset=2)
    check(lambda: sampler.reset([]), ValueError, NONE_OF_THEM + "(0,)")
    check(lambda: sampler.reset(np.ones((2, 2), int)), ValueError, NONE_OF_THEM + "(2, 2)")
    message = "seed must be an integer, got [1] (list) (row 0)"
    check(lambda: sampler.reset([[1], [2, 3]]), TypeError, message)
    with pytest.raises(TypeError, match=r"^offset must be an integer, got array\(\[1, 2, 3\]\)"):
        fs.Sampler(seed=5, offset=np.array([1, 2, 3]))  # type: ignore[arg-type]
    assert (sampler.seed, sampler.offset) == (5, 2)


def test_what_cannot_be_sorted_or_copied(variant: str) -> None:
    with pytest.raises(TypeError, match=r"^history must be a list of ids: "):
        fs.sample(ROW, history={1, "a"}, u=0.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^state must be float64, got <U1"):
        fs.Sampler(mirostat=2, order="llama.cpp", state="a")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^state must be numbers: "):
        fs.Sampler(mirostat=2, order="llama.cpp", state=[[1.0], [1.0, 2.0]])  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"^suppress_tokens must be a list of ids: "):
        fs.Sampler(suppress_tokens=(i for i in [1]))  # type: ignore[arg-type]


def test_what_is_assigned_to_a_sampler(variant: str) -> None:
    sampler = fs.Sampler(seed=5)
    for offset in (np.uint64(2**64 - 1), np.int8(127)):
        sampler.offset = offset  # type: ignore[assignment]
        assert sampler(ROW) == fs.sample(ROW, seed=5, offset=int(offset))
        assert sampler.offset == int(offset) + 1
    offsets = np.array([1, 2, 3])
    sampler.offset = offsets  # type: ignore[assignment]
    with pytest.raises(TypeError, match=r"^offset must be an integer, got array"):
        sampler(BATCH)
    assert offsets.tolist() == [1, 2, 3]
    sampler.offset, sampler.seed = 0, None
    check(lambda: sampler(ROW), TypeError, "seed must be an integer, got None (NoneType)")
    assert sampler.offset == 0


# ---- anything at all -------------------------------------------------------------------------

DTYPES = [np.dtype(t) for t in (np.float32, np.float64, np.float16)]
PARAMETERS = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.floats() | st.floats(0, 2) | st.just(0.0),
        "top_k": st.integers(-3, 700) | st.none(),
        "top_p": st.floats() | st.floats(0, 1),
        "min_p": st.floats() | st.floats(0, 1),
        "min_tokens_to_keep": st.integers(-1, 700),
        "order": st.sampled_from(sorted(fs.ORDERS)),
        "u": st.floats() | st.floats(0, 1, exclude_max=True),
        "errors": st.sampled_from(["raise", "mark"]),
    },
)


def result(logits: Any, parameters: dict[str, Any]) -> Any:
    try:
        return fs.sample(logits, **parameters)
    except (ValueError, TypeError) as error:
        return type(error), str(error)


def test_arbitrary_bytes(fast_variants: tuple[str, ...], activate: Any) -> None:
    reached = {"token": 0, "error": 0}

    @given(
        st.binary(min_size=8, max_size=1200),
        st.integers(0, 2**32),
        st.sampled_from(DTYPES),
        st.sampled_from(["as they are", "no +inf", "masked", "tame"]),
        PARAMETERS,
    )
    def check_bytes(raw: bytes, seed: int, dtype: Any, form: str, parameters: Any) -> None:
        vocab = 1 + seed % 600
        data = raw + np.random.default_rng(seed).bytes(vocab * dtype.itemsize)
        row = np.frombuffer(data, dtype, vocab).copy()
        if form != "as they are":
            row[np.isnan(row)] = 0.0
            row[row == np.inf] = np.finfo(dtype).max
        if form == "masked":
            row[::3] = -np.inf
        if form == "tame":
            row = np.log2(np.abs(row.astype(np.float64)) + 1e-300).astype(dtype)
        parameters = {"u": 0.5} | parameters
        with activate(fast_variants[0]):
            expected = result(row, parameters)
        assert not isinstance(expected, int) or -1 <= expected < vocab
        for name in fast_variants[1:]:
            with activate(name):
                assert result(row, parameters) == expected, name
        with activate("reference"):
            theirs = result(row, parameters)
        # Tokens have their own bounds, in test_equivalence.py; what is refused, and how, has none.
        assert type(theirs) is type(expected)
        if isinstance(theirs, tuple) or theirs == -1 or expected == -1:
            assert theirs == expected
        reached["error" if isinstance(theirs, tuple) else "token"] += 1

    check_bytes()
    assert min(reached.values()) >= 3, reached
