"""Bad input: one exception with one text on every variant, and nothing half done."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from refused import BATCH, ROW, check
from rows import make_row

import fastsample as fs
from fastsample.records import KINDS

NAN, INF = np.nan, np.inf


def spoilt(*changes: tuple[int, int, float], dtype: Any = np.float32) -> Any:
    batch = np.zeros((3, 600), dtype)
    for row, token, value in changes:
        batch[row, token] = value
    return batch


def all_masked(row: int) -> Any:
    batch = BATCH.copy()
    batch[row] = -INF
    return batch


# ---- rows of logits --------------------------------------------------------------------------

BAD_ROWS = [
    (np.float32([1, NAN]), "logits row 0 must not contain NaN, got one at token 1"),
    (np.float32([NAN]), "logits row 0 must not contain NaN, got one at token 0"),
    (np.float32([INF, NAN]), "logits row 0 must not contain NaN, got one at token 1"),
    (np.float32([1, 2, INF]), "logits row 0 must not contain +inf, got one at token 2"),
    (np.float32([-INF, -INF]), "logits row 0 must have a finite value, got only -inf"),
    (spoilt((1, 599, NAN)), "logits row 1 must not contain NaN, got one at token 599"),
    (spoilt((2, 256, INF)), "logits row 2 must not contain +inf, got one at token 256"),
    (spoilt((2, 0, NAN), (1, 300, NAN), (1, 299, NAN)),
     "logits row 1 must not contain NaN, got one at token 299"),
    (spoilt((1, 4, -NAN), dtype=np.float16),
     "logits row 1 must not contain NaN, got one at token 4"),
    (spoilt((0, 4, INF), dtype=np.float16),
     "logits row 0 must not contain +inf, got one at token 4"),
    # float64 is rounded to float32 first.
    (spoilt((1, 5, 1e39), dtype=np.float64),
     "logits row 1 must not go beyond float32, got 1e+39 at token 5"),
    (spoilt((1, 5, INF), (1, 6, 1e39), dtype=np.float64),
     "logits row 1 must not contain +inf, got one at token 5"),
    (spoilt((1, 5, 3.5e38), (1, 6, INF), dtype=np.float64),
     "logits row 1 must not go beyond float32, got 3.5e+38 at token 5"),
    (np.array([-1e39, -INF]), "logits row 0 must have a finite value, got only -inf"),
    (all_masked(1), "logits row 1 must have a finite value, got only -inf"),
]  # fmt: skip


@pytest.mark.parametrize(("logits", "message"), BAD_ROWS, ids=[m for _, m in BAD_ROWS])
def test_bad_rows(variant: str, logits: Any, message: str) -> None:
    single = np.ndim(logits) == 1
    calls: list[Callable[[], Any]] = [
        lambda: fs.sample(logits, u=0.5),
        lambda: fs.sample(logits, seed=1, temperature=0.0),
        lambda: fs.sample(logits, u=0.5, top_k=1, top_p=0.5, min_p=0.5),
        lambda: fs.probs(logits, top_p=0.9),
        lambda: fs.argmax(logits),
        lambda: fs.softmax(logits),
        lambda: fs.log_softmax(logits),
        lambda: fs.top_k(logits, 1),
        lambda: fs.Sampler(seed=1)(logits),
    ]
    if single:
        calls.append(lambda: fs.survivors(logits, top_k=1))
    for call in calls:
        check(call, ValueError, message)


def test_an_extreme_but_good_row_passes(variant: str) -> None:
    # Sums overflow, differences overflow, and most is masked; all of it is allowed.
    row = np.full(600, -INF, np.float32)
    row[[0, 1, 2, 300]] = np.finfo(np.float32).max
    row[[5, 599]] = np.finfo(np.float32).min
    for chain in ({}, {"top_k": 3}, {"top_p": 0.9}, {"min_p": 0.5}, {"temperature": 0.0}):
        assert fs.sample(row, u=0.1, **chain) == 0
    assert fs.probs(row)[[0, 1, 2, 300]].tolist() == [0.25] * 4


def test_mark_yields_minus_one_for_bad_rows_alone(variant: str) -> None:
    batch = np.stack([ROW] * 6)
    batch[1, 2], batch[3], batch[4, 0] = NAN, -INF, INF
    out = np.full(6, 99)
    expected = [0, -1, 0, -1, -1, 0]
    assert fs.sample(batch, temperature=0.0, errors="mark").tolist() == expected
    assert fs.sample(batch, u=0.0, top_p=0.9, errors="mark", out=out) is out
    assert out.tolist() == expected
    assert fs.sample(batch[1], u=0.0, errors="mark") == -1


def test_nothing_is_written_where_a_call_fails(variant: str) -> None:
    out = np.array([7, 8, 9])
    bad = BATCH.copy()
    bad[2, 1] = NAN  # the last row: the others could be drawn
    failing: list[dict[str, Any]] = [
        {"logits": bad, "u": 0.5},
        {"logits": BATCH, "u": [0.5, 0.5, 1.0]},
        {"logits": BATCH, "seed": [1, 2, -1]},
        {"logits": BATCH, "u": 0.5, "top_p": [0.5, 0.5, 2.0]},
        {"logits": BATCH, "u": 0.5, "order": ("top_k", "top_k")},
        {"logits": BATCH, "u": 0.5, "errors": "ignore"},
    ]
    for arguments in failing:
        with pytest.raises((ValueError, TypeError)):
            fs.sample(**arguments, out=out)
        assert out.tolist() == [7, 8, 9]


# ---- shapes and types ------------------------------------------------------------------------

MUST_FLOAT = "logits must be float32, float64, float16 or bfloat16, got "
BAD_LOGITS = [
    (np.zeros(0, np.float32), ValueError,
     "logits must have 1 to 4194304 tokens, got shape (0,)"),
    (np.zeros((3, 0)), ValueError, "logits must have 1 to 4194304 tokens, got shape (3, 0)"),
    (np.zeros((0, 0)), ValueError, "logits must have 1 to 4194304 tokens, got shape (0, 0)"),
    (np.broadcast_to(np.float32(0), (2, 4194305)), ValueError,
     "logits must have 1 to 4194304 tokens, got shape (2, 4194305)"),
    ([], ValueError, "logits must have 1 to 4194304 tokens, got shape (0,)"),
    (np.float32(1), ValueError, "logits must be 1-D or 2-D, got shape ()"),
    (np.zeros((), np.float32), ValueError, "logits must be 1-D or 2-D, got shape ()"),
    (np.zeros((1, 1, 2)), ValueError, "logits must be 1-D or 2-D, got shape (1, 1, 2)"),
    ([[[1.0]]], ValueError, "logits must be 1-D or 2-D, got shape (1, 1, 1)"),
    (np.zeros(3, np.int64), TypeError, MUST_FLOAT + "int64 (ndarray)"),
    # What bfloat16 travels as inside is not bfloat16.
    (np.zeros(3, np.uint16), TypeError, MUST_FLOAT + "uint16 (ndarray)"),
    (np.zeros(3, bool), TypeError, MUST_FLOAT + "bool (ndarray)"),
    (np.zeros(3, np.complex64), TypeError, MUST_FLOAT + "complex64 (ndarray)"),
    (np.zeros(3, object), TypeError, MUST_FLOAT + "object (ndarray)"),
    (np.array(["1.0", "2.0"]), TypeError, MUST_FLOAT + "<U3 (ndarray)"),
    (np.zeros(3, [("x", np.float32)]), TypeError, MUST_FLOAT + "[('x', '<f4')] (ndarray)"),
    (np.zeros(3, np.longdouble), TypeError, MUST_FLOAT + f"{np.dtype(np.longdouble)} (ndarray)"),
    ("text", TypeError, MUST_FLOAT + "<U4 (str)"),
    (None, TypeError, MUST_FLOAT + "object (NoneType)"),
    ({1.0: 2.0}, TypeError, MUST_FLOAT + "object (dict)"),
    (7, TypeError, MUST_FLOAT + "int64 (int)"),
    (["1.0", "2.0"], TypeError, None),
    ([True, False], TypeError, None),
    ([1.0, None], TypeError, None),
    ([1j, 2j], TypeError, None),
    ([[1.0, 2.0], [3.0]], TypeError, None),
    ([object()], TypeError, None),
    ([np.ma.masked_array([1.0, 2.0], [False, True])], TypeError,
     "logits must not be a masked array: fill it, e.g. x.filled(-np.inf)"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("logits", "error", "message"), BAD_LOGITS, ids=[str(i) for i in range(len(BAD_LOGITS))]
)
def test_bad_shapes_and_types(
    variant: str, logits: Any, error: type[Exception], message: str | None
) -> None:
    # None: the text is NumPy's in part; it still starts with the name of the argument.
    functions = (fs.sample, fs.probs, fs.argmax, fs.survivors, fs.softmax, fs.log_softmax)
    for function in (*functions, lambda x: fs.top_k(x, 1), fs.Sampler(seed=1)):
        if message is not None:
            check(lambda f=function: f(logits), error, message)  # type: ignore[misc]
        else:
            with pytest.raises(error, match=r"^logits must "):
                function(logits)


def test_survivors_are_those_of_one_row(variant: str) -> None:
    check(lambda: fs.survivors(BATCH), ValueError, "logits must be 1-D, got shape (3, 4)")


def test_no_rows_give_no_tokens(variant: str) -> None:
    for dtype in (np.float32, np.float16, np.float64):
        none = np.zeros((0, 5), dtype)
        sources: list[dict[str, Any]] = [
            {}, {"seed": 1}, {"u": 0.5}, {"u": []}, {"rng": np.random.default_rng(0)},
            {"seed": []}, {"temperature": []},
        ]  # fmt: skip
        for source in sources:
            tokens = fs.sample(none, **source)
            assert tokens.shape == (0,)
            assert tokens.dtype == np.int64
        assert fs.argmax(none).shape == (0,)
        assert fs.probs(none, top_k=2).shape == (0, 5)
        assert fs.softmax(none).shape == fs.log_softmax(none).shape == (0, 5)
        assert [a.shape for a in fs.top_k(none, 2)] == [(0, 2), (0, 2)]
        assert fs.Sampler(seed=1)(none).shape == (0,)


# ---- parameters ------------------------------------------------------------------------------

FINITE, UNIT = "temperature must be finite and >= 0, got ", "must be in [0, 1], got "
STAGES = ", ".join(map(repr, fs.ORDERS))
BAD_PARAMETERS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"temperature": -0.1}, ValueError, FINITE + "-0.1"),
    ({"temperature": NAN}, ValueError, FINITE + "nan"),
    ({"temperature": INF}, ValueError, FINITE + "inf"),
    ({"temperature": -INF}, ValueError, FINITE + "-inf"),
    ({"temperature": None}, TypeError, "temperature must be a number, got None (NoneType)"),
    ({"temperature": True}, TypeError, "temperature must be a number, got True (bool)"),
    ({"temperature": "1.0"}, TypeError, "temperature must be a number, got '1.0' (str)"),
    ({"temperature": 1j}, TypeError, "temperature must be a number, got 1j (complex)"),
    ({"top_k": -2}, ValueError, "top_k must be None, -1, 0 or >= 1, got -2"),
    ({"top_k": 2.0}, TypeError, "top_k must be an integer, got 2.0 (float)"),
    ({"top_k": True}, TypeError, "top_k must be an integer, got True (bool)"),
    ({"top_k": "5"}, TypeError, "top_k must be an integer, got '5' (str)"),
    ({"top_p": 1.5}, ValueError, f"top_p {UNIT}1.5"),
    ({"top_p": -1e-9}, ValueError, f"top_p {UNIT}-1e-09"),
    ({"top_p": NAN}, ValueError, f"top_p {UNIT}nan"),
    ({"top_p": None}, TypeError, "top_p must be a number, got None (NoneType)"),
    ({"top_p": False}, TypeError, "top_p must be a number, got False (bool)"),
    ({"min_p": 1.0000001}, ValueError, f"min_p {UNIT}1.0000001"),
    ({"min_p": -1}, ValueError, f"min_p {UNIT}-1"),
    ({"min_p": NAN}, ValueError, f"min_p {UNIT}nan"),
    ({"min_p": [0.1]}, ValueError, "min_p must be a scalar or of shape (3,), got (1,)"),
    ({"min_p": "0.1"}, TypeError, "min_p must be a number, got '0.1' (str)"),
    ({"min_tokens_to_keep": 0}, ValueError, "min_tokens_to_keep must be >= 1, got 0"),
    ({"min_tokens_to_keep": None}, TypeError,
     "min_tokens_to_keep must be an integer, got None (NoneType)"),
    ({"min_tokens_to_keep": 1.5}, TypeError,
     "min_tokens_to_keep must be an integer, got 1.5 (float)"),
    # greedy ignores the others, but not what they must be
    ({"temperature": 0.0, "top_p": 2.0}, ValueError, f"top_p {UNIT}2.0"),
    # one per row
    ({"temperature": [1.0, 0.5, -1.0]}, ValueError, FINITE + "-1.0 (row 2)"),
    ({"temperature": np.array([1.0, NAN, 1.0])}, ValueError, FINITE + "nan (row 1)"),
    ({"temperature": [1.0, "a", 1.0]}, TypeError,
     "temperature must be a number, got 'a' (str) (row 1)"),
    ({"temperature": [1.0, 2.0]}, ValueError,
     "temperature must be a scalar or of shape (3,), got (2,)"),
    ({"temperature": np.ones((3, 1))}, ValueError,
     "temperature must be a scalar or of shape (3,), got (3, 1)"),
    ({"top_k": [5, -7, None]}, ValueError,
     "top_k must be None, -1, 0 or >= 1, got -7 (row 1)"),
    ({"top_k": np.array([1.0, 2.0, 3.0])}, TypeError,
     "top_k must be an integer, got 1.0 (float) (row 0)"),
    ({"top_k": np.ones(3, bool)}, TypeError,
     "top_k must be an integer, got True (bool) (row 0)"),
    ({"top_p": (0.5, 1.0, 1.1)}, ValueError, f"top_p {UNIT}1.1 (row 2)"),
    ({"min_p": np.array([0.0, 2.0, 0.0])}, ValueError, f"min_p {UNIT}2.0 (row 1)"),
    ({"min_tokens_to_keep": [1, 2, 0]}, ValueError,
     "min_tokens_to_keep must be >= 1, got 0 (row 2)"),
    # order
    ({"order": "HF"}, ValueError,
     f"order must be one of {STAGES} or a tuple of stage names, got 'HF'"),
    ({"order": 3}, TypeError,
     "order must be a string or a tuple of stage names, got 3 (int)"),
    ({"order": None}, TypeError,
     "order must be a string or a tuple of stage names, got None (NoneType)"),
    ({"order": ("top_k", "topp")}, ValueError,
     f"order must be made of {', '.join(KINDS)}, got 'topp'"),
    ({"order": ["top_k", "top_p", "top_k"]}, ValueError,
     "order must not name a stage twice, got top_k"),
    ({"order": (), "temperature": 0.5}, ValueError, "order must name temperature, which is active"),
    ({"order": ("top_p",), "top_k": 3}, ValueError, "order must name top_k, which is active"),
    ({"order": ("top_k",), "top_p": 0.9}, ValueError, "order must name top_p, which is active"),
    ({"order": "onnxruntime-genai", "min_p": 0.1}, ValueError,
     "order must name min_p, which is active"),
    ({"order": ("top_k",), "top_p": [1.0, 1.0, 0.9]}, ValueError,
     "order must name top_p, which is active"),
]  # fmt: skip


@pytest.mark.parametrize(("parameters", "error", "message"), BAD_PARAMETERS, ids=str)
def test_bad_parameters(
    variant: str, parameters: dict[str, Any], error: type[Exception], message: str
) -> None:
    check(lambda: fs.sample(BATCH, u=0.5, **parameters), error, message)
    check(lambda: fs.probs(BATCH, **parameters), error, message)
    if not any(np.ndim(value) for name, value in parameters.items() if name != "order"):
        check(lambda: fs.survivors(ROW, **parameters), error, message)
        check(lambda: fs.sample(ROW, seed=1, **parameters), error, message)
        check(lambda: fs.Sampler(**parameters), error, message)
    elif "shape" not in message:
        check(lambda: fs.Sampler(**parameters), error, message)


def test_a_number_beyond_float64_is_out_of_range(variant: str) -> None:
    for name in ("temperature", "top_p", "min_p"):
        for value in (10**400, -(10**400)):
            with pytest.raises(ValueError, match=f"^{name} must be "):
                fs.sample(ROW, u=0.5, **{name: value})
    assert fs.sample(ROW, u=0.99, top_k=10**400, min_tokens_to_keep=10**30) == 3


GREEDY_ORDERS = [(), ("top_k",), "onnxruntime-genai"]


@pytest.mark.parametrize("order", GREEDY_ORDERS)
def test_greedy_needs_no_stage(variant: str, order: Any) -> None:
    chain: dict[str, Any] = {"top_p": 0.9, "min_p": 0.1, "order": order}
    assert fs.sample(ROW, temperature=0.0, u=0.9, **chain) == 0


# ---- sources of uniforms, errors, out --------------------------------------------------------

RNG = np.random.default_rng(0)
BAD_SOURCES: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"u": 1.0}, ValueError, "u must be in [0, 1), got 1.0"),
    ({"u": -1e-300}, ValueError, "u must be in [0, 1), got -1e-300"),
    ({"u": NAN}, ValueError, "u must be in [0, 1), got nan"),
    ({"u": [0.0, 0.5, 1.0]}, ValueError, "u must be in [0, 1), got 1.0 (row 2)"),
    ({"u": np.array([0.0, NAN, 2.0])}, ValueError, "u must be in [0, 1), got nan (row 1)"),
    ({"u": [0.5, 0.5]}, ValueError, "u must be a scalar or of shape (3,), got (2,)"),
    ({"u": np.zeros((3, 1))}, ValueError, "u must be a scalar or of shape (3,), got (3, 1)"),
    ({"u": "half"}, TypeError, "u must be a number, got 'half' (str)"),
    ({"u": "0.5"}, TypeError, "u must be a number, got '0.5' (str)"),
    ({"u": 0.5j}, TypeError, "u must be a number, got 0.5j (complex)"),
    ({"u": False}, TypeError, "u must be a number, got False (bool)"),
    ({"seed": -1}, ValueError, "seed must be in [0, 2**64), got -1"),
    ({"seed": 2**64}, ValueError, f"seed must be in [0, 2**64), got {2**64}"),
    ({"seed": 1.0}, TypeError, "seed must be an integer, got 1.0 (float)"),
    ({"seed": True}, TypeError, "seed must be an integer, got True (bool)"),
    ({"seed": "1"}, TypeError, "seed must be an integer, got '1' (str)"),
    ({"seed": "abc"}, TypeError, "seed must be an integer, got 'abc' (str)"),
    ({"seed": [1, 2, -3]}, ValueError, "seed must be in [0, 2**64), got -3 (row 2)"),
    ({"seed": [1, 2.5, 3]}, TypeError, "seed must be an integer, got 2.5 (float) (row 1)"),
    ({"seed": [1, 2]}, ValueError, "seed must be a scalar or of shape (3,), got (2,)"),
    ({"seed": 1, "offset": -1}, ValueError, "offset must be in [0, 2**64), got -1"),
    ({"seed": 1, "offset": 2**64}, ValueError, f"offset must be in [0, 2**64), got {2**64}"),
    ({"seed": 1, "offset": 0.0}, TypeError, "offset must be an integer, got 0.0 (float)"),
    ({"seed": 1, "offset": [0, 1, -1]}, ValueError,
     "offset must be in [0, 2**64), got -1 (row 2)"),
    ({"seed": 1, "offset": [0]}, ValueError,
     "offset must be a scalar or of shape (3,), got (1,)"),
    ({"seed": 1, "stream": -1}, ValueError, "stream must be in [0, 2**64), got -1"),
    ({"seed": 1, "stream": [0, 1, 2.0]}, TypeError,
     "stream must be an integer, got 2.0 (float) (row 2)"),
    ({"seed": [1, 2, 3], "stream": [0]}, ValueError,
     "stream must be a scalar or of shape (3,), got (1,)"),
    ({"stream": 3}, ValueError, "stream must come with a seed, got stream=3 without one"),
    ({"stream": 3, "u": 0.5}, ValueError,
     "stream must come with a seed, got stream=3 without one"),
    ({"rng": 5}, TypeError, "rng must be a numpy.random.Generator, got 5 (int)"),
    ({"rng": np.random.RandomState}, TypeError,
     f"rng must be a numpy.random.Generator, got {np.random.RandomState!r} (type)"),
    ({"seed": 1, "u": 0.5}, ValueError,
     "at most one of seed, u and rng must be given, got seed, u"),
    ({"u": 0.5, "rng": RNG}, ValueError,
     "at most one of seed, u and rng must be given, got u, rng"),
    ({"seed": 0, "u": 0.0, "rng": RNG}, ValueError,
     "at most one of seed, u and rng must be given, got seed, u, rng"),
    ({"errors": "ignore"}, ValueError, "errors must be 'raise' or 'mark', got 'ignore'"),
    ({"errors": None}, ValueError, "errors must be 'raise' or 'mark', got None"),
    ({"out": [0, 0, 0]}, TypeError, "out must be an int64 array, got list"),
    ({"out": np.zeros(3)}, TypeError, "out must be an int64 array, got float64"),
    ({"out": np.zeros(3, np.int32)}, TypeError, "out must be an int64 array, got int32"),
    ({"out": np.zeros(2, np.int64)}, ValueError, "out must be of shape (3,), got shape (2,)"),
    ({"out": np.zeros((3, 1), np.int64)}, ValueError,
     "out must be of shape (3,), got shape (3, 1)"),
    ({"out": np.zeros(6, np.int64)[::2]}, ValueError, "out must be contiguous and writeable"),
    ({"out": np.broadcast_to(np.int64(0), 3)}, ValueError, "out must be contiguous and writeable"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "error", "message"), BAD_SOURCES, ids=str)
def test_bad_sources(
    variant: str, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    check(lambda: fs.sample(BATCH, **arguments), error, message)


def test_bad_out_of_a_single_row(variant: str) -> None:
    out = np.zeros(1, np.int64)
    message = "out must be None for a single row, got shape (1,)"
    check(lambda: fs.sample(ROW, out=out), ValueError, message)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, True, "abc", [1, -1], [1, 2.0]], ids=str)
def test_bad_seed_of_a_sampler(variant: str, seed: Any) -> None:
    expected = ValueError if seed in (-1, 2**64, [1, -1]) else TypeError
    sampler = fs.Sampler(seed=5, offset=2)
    for call in (fs.Sampler(seed=5).reset, lambda s: fs.Sampler(seed=s), sampler.reset):
        with pytest.raises(expected, match=r"^seed must be (an integer|in \[0, 2\*\*64\)), got "):
            call(seed)
    with pytest.raises(ValueError, match=r"^offset must be in \[0, 2\*\*64\), got -1$"):
        sampler.reset(6, offset=-1)
    assert (sampler.seed, sampler.offset) == (5, 2)  # nothing half done


def test_sampler_with_parameters_for_another_batch(variant: str) -> None:
    sampler = fs.Sampler(temperature=[1.0, 0.5], seed=1)
    message = "temperature must be a scalar or of shape (3,), got (2,)"
    check(lambda: sampler(BATCH), ValueError, message)
    message = "errors must be 'raise' or 'mark', got 'x'"
    check(lambda: fs.Sampler(errors="x"), ValueError, message)
    with pytest.raises(ValueError, match="must be a scalar or of shape"):
        fs.Sampler(temperature=[1.0, 0.5], top_k=[1, 2, 3])


# ---- the other functions ---------------------------------------------------------------------


@pytest.mark.parametrize("function", [fs.softmax, fs.log_softmax])
@pytest.mark.parametrize("value", [0.0, -1.0, NAN, INF])
def test_softmax_needs_a_temperature(function: Any, value: float) -> None:
    with pytest.raises(ValueError, match=f"^temperature must be finite and >=? 0, got {value}$"):
        function(ROW, value)


def test_top_k_of_something_else(variant: str) -> None:
    check(lambda: fs.top_k(ROW, 0), ValueError, "k must be in [1, 4], got 0")
    check(lambda: fs.top_k(ROW, 5), ValueError, "k must be in [1, 4], got 5")
    check(lambda: fs.top_k(ROW, -3), ValueError, "k must be in [1, 4], got -3")
    check(lambda: fs.top_k(ROW, 2.0), TypeError, "k must be an integer, got 2.0 (float)")
    check(lambda: fs.top_k(ROW, None), TypeError, "k must be an integer, got None (NoneType)")
    masked = BATCH.copy()
    masked[1, 1:] = -INF
    message = "k must be at most the 1 finite logits of row 1, got 2"
    check(lambda: fs.top_k(masked, 2), ValueError, message)


def test_an_unknown_backend() -> None:
    message = "backend must be one of core, numba, reference, got 'gpu'"
    with pytest.raises(ValueError, match=message), fs.use_backend("gpu"):
        pass


@pytest.mark.parametrize("u", [0.0, math.nextafter(1, 0)])
def test_a_row_is_never_written_to(variant: str, u: float) -> None:
    row = make_row("masked", 600)
    before = row.tobytes()
    for chain in ({}, {"top_k": 5}, {"top_p": 0.5}, {"min_p": 0.2}):
        fs.sample(row, u=u, **chain)
        fs.probs(row, **chain)
        fs.survivors(row, **chain)
    fs.top_k(row, 3)
    fs.log_softmax(row, 0.5)
    assert row.tobytes() == before


@pytest.mark.parametrize("huge", [2**61, 2**63 - 1, 10**30])
def test_a_huge_count_keeps_everything(variant: str, huge: int) -> None:
    row = np.linspace(10, -10, 20_000, dtype=np.float32)
    for chain in ({"top_p": 0.5}, {"min_p": 0.5}, {"top_k": 3}):
        assert fs.survivors(row, min_tokens_to_keep=huge, **chain)[0].size == row.size
    assert fs.survivors(row, top_k=huge)[0].size == row.size


def test_masked_arrays_are_refused(variant: str) -> None:
    message = "logits must not be a masked array: fill it, e.g. x.filled(-np.inf)"
    check(lambda: fs.argmax(np.ma.masked_array(ROW, ROW > 2.0)), TypeError, message)


def test_an_offset_needs_a_seed(variant: str) -> None:
    message = "offset must come with a seed, got offset=5 without one"
    check(lambda: fs.sample(ROW, offset=5), ValueError, message)


def test_an_order_has_an_order() -> None:
    with pytest.raises(TypeError, match=r"^order must be a string or a tuple"):
        fs.sample(ROW, order={"top_k", "temperature"})  # type: ignore[arg-type]
