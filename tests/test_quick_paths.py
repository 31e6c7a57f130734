"""The low-latency paths: what they give, refuse and leave alone is what the general paths do.

A list of floats and a `stream` of 0 mean the same as an array and none, but are not read in place.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from sequences import logits_of, looks, samplers_of

import fastsample as fs
from fastsample.plans import plan_of_scalars

CHAINS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.0},
    {"temperature": 0.8, "top_k": 50, "top_p": 0.95},
    {"top_p": 1.0, "repetition_penalty": 1.2, "mirostat": 2, "order": "llama.cpp"},
    {"min_p": 0.01, "xtc_probability": 0.5, "logit_bias": {3: 2.0}, "order": "llama.cpp"},
]
DTYPES = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)


def rows_of(count: int, vocab: int, dtype: Any = np.float32) -> Any:
    return np.random.default_rng(vocab).normal(0, 2.5, (count, vocab)).astype(dtype)


def same(a: Any, b: Any) -> bool:
    """Whether two fields of a Draw are the same, their types too."""
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return type(a) is type(b) and (a == b or (a != a and b != b))


# ---- what is told of a draw --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("params", CHAINS)
def test_a_draw_of_an_array_is_that_of_a_list(
    variant: str, params: dict[str, Any], dtype: Any
) -> None:
    asked: list[dict[str, Any]] = [
        {"logprobs": kind, "top_logprobs": top, "support": support, "log_mass": mass}
        for kind, top, support, mass in itertools.product(
            ("raw", "processed", None), (0, 3, 16), (False, True), (False, True)
        )
        if kind or not top
    ]
    quick, general = fs.Sampler(seed=5, **params), fs.Sampler(seed=5, **params)
    for wanted, row in zip(asked, rows_of(len(asked), 300, dtype), strict=True):
        one = quick.draw(row, **wanted)
        other = general.draw(row.astype(np.float64).tolist(), **wanted)
        assert type(one) is fs.Draw
        for name, a, b in zip(fs.Draw._fields, one, other, strict=True):
            assert same(a, b), (name, wanted)
    assert repr(quick) == repr(general)


@pytest.mark.parametrize(
    "wanted",
    [
        {"logprobs": "all"},
        {"logprobs": 1},
        {"top_logprobs": -1},
        {"top_logprobs": 17},
        {"top_logprobs": 2**70},
        {"top_logprobs": 1.5},
        {"top_logprobs": 2, "logprobs": None},
        {"support": "yes"},
        {"log_mass": None},
    ],
)
def test_what_a_draw_refuses_does_not_move_it(variant: str, wanted: dict[str, Any]) -> None:
    sampler, row = fs.Sampler(seed=5, repetition_penalty=1.1), rows_of(1, 16)[0]
    sampler.start([1, 2])
    before = looks([sampler])
    messages = []
    for given in (row, row.tolist()):
        with pytest.raises((TypeError, ValueError)) as refused:
            sampler.draw(given, **wanted)
        messages.append(str(refused.value))
    assert messages[0] == messages[1]
    row[3] = np.nan
    with pytest.raises(ValueError, match=r"^logits row 0 must not contain NaN, got one at token 3"):
        sampler.draw(row)
    assert looks([sampler]) == before


def test_a_marked_row_is_told_of(variant: str) -> None:
    sampler = fs.Sampler(seed=5, errors="mark")
    drawn = sampler.draw(np.array([np.nan, 1.0], np.float32), support=True)
    assert (drawn.token, drawn.rank) == (-1, 0)
    assert drawn.support is not None
    assert drawn.support.size == 0


# ---- a step ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_step_without_options_is_one_with_them(variant: str, dtype: Any) -> None:
    one, other = samplers_of(16), samplers_of(16)
    for i in range(4):
        batch = np.stack([logits_of(i + j) for j in range(16)]).astype(dtype)
        tokens = fs.step(one, batch)
        assert tokens.dtype == np.int64
        assert tokens.tolist() == fs.step(other, batch, threads=1).tolist()
        assert fs.step(tuple(one), batch).tolist() == fs.step(other, batch, threads=2).tolist()
    assert looks(one) == looks(other)


def test_no_step_is_half_done(variant: str) -> None:
    samplers, others = samplers_of(4), samplers_of(4)
    batch = np.stack([logits_of(j) for j in range(4)])
    before = looks(samplers)
    bad = batch.copy()
    bad[3, 2] = np.nan
    calls: list[tuple[Callable[[], Any], str]] = [
        (lambda: fs.step(samplers, bad), "logits row 3 must not contain NaN, got one at token 2"),
        (lambda: fs.step(samplers[:3], batch), "samplers must be 4, one for each row, got 3"),
        (lambda: fs.step([*samplers[:3], samplers[0]], batch), "samplers must not hold the same"),
        (lambda: fs.step(samplers, batch[0]), "logits must be of shape (B, V), got "),
        (lambda: fs.step(samplers, batch, errors="no"), "errors must be 'raise' or 'mark'"),  # type: ignore[arg-type]
        (lambda: fs.step([*samplers[:3], 5], batch), "samplers must hold Samplers, got 5"),  # type: ignore[list-item]
    ]
    for call, message in calls:
        with pytest.raises((TypeError, ValueError)) as refused:
            call()
        assert str(refused.value).startswith(message)
        assert looks(samplers) == before
    strided = np.asfortranarray(batch)
    assert fs.step(samplers, strided).tolist() == fs.step(others, batch).tolist()


# ---- verification ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ["token", "exact", "block"])
@pytest.mark.parametrize("kind", ["onehot", "dense"])
def test_verified_alike(variant: str, method: Any, kind: str, dtype: Any) -> None:
    params = {"temperature": 0.9, "top_k": 12, "top_p": 0.9}
    accepted = set()
    for seed in range(30):
        count = seed % 5
        rows = rows_of(2 * count + 1, 16 + seed, dtype)
        draft: Any = "onehot"
        of: dict[str, Any] = {}
        if kind == "dense":
            draft, of = rows[: len(rows) // 2], {"draft_params": {"top_k": 3}}
        if method == "exact":
            draft, of = None, {}
        target = rows[len(rows) // 2 :]
        tokens = [fs.sample(row, seed=seed, offset=i, top_k=3) for i, row in enumerate(target[:-1])]
        for given in (tokens, np.array(tokens, np.int64)):
            call: Any = {"draft": draft, "method": method, "seed": seed, **of, **params}
            quick = fs.verify(given, target, **call)
            general = fs.verify(given, target, stream=0, **call)
            assert quick.tokens.dtype == np.int64
            assert type(quick.accepted) is int
            assert quick.tokens.tolist() == general.tokens.tolist()
            assert quick.accepted == general.accepted
        accepted.add(quick.accepted)
    assert len(accepted) > 2


def test_what_is_not_verified_is_worded_alike(variant: str) -> None:
    rows = rows_of(3, 16)
    bad = rows.copy()
    bad[0, 3] = np.nan
    refused: list[tuple[tuple[Any, Any], dict[str, Any]]] = [
        (([1, 2], bad), {}),
        (([1, 99], rows), {}),
        (([1, -2], rows), {}),
        (([1], rows), {}),
        (([1, True], rows), {"seed": -1}),
        (([1, 2], rows), {"offset": 2**64 - 2}),
        (([1, 2], rows), {"draft": rows, "method": "token"}),
        (([1, 2], rows), {"draft": bad[:2], "method": "token"}),
        (([1, 2], rows), {"draft": None, "method": "token"}),
        (([1, 2], rows), {"draft_params": {"top_k": -5}}),
        (([1, 2], rows), {"top_p": 2.0}),
        (([1, 2], rows), {"mirostat": 2, "order": "llama.cpp"}),
        (([1, 2], rows[0]), {}),
    ]
    for args, options in refused:
        options = {"method": "exact", "seed": 3, **options}
        messages = []
        others: list[dict[str, Any]] = [{}, {"stream": 0}]
        for more in others:
            with pytest.raises((TypeError, ValueError)) as error:
                fs.verify(*args, **options, **more)
            messages.append(f"{error.type.__name__}: {error.value}")
        assert messages[0] == messages[1]


# ---- exceptions --------------------------------------------------------------------------------

# The name of a type of another package is asked of Python, once, where an array of it is first
# read; at the end of the stack that fails.
DEEP = """
import sys
import ml_dtypes, numpy as np, fastsample
row = np.zeros(4, ml_dtypes.bfloat16)
sampler = fastsample.Sampler(temperature=0.0)
failed = 0
def deep():
    global failed
    try:
        deep()
    except RecursionError:
        failed += 1
        CALL
try:
    sys.setrecursionlimit(200)
    deep()
finally:
    sys.setrecursionlimit(1000)
assert failed, failed
print("alive")
"""


@pytest.mark.skipif("core" not in fs.backends(), reason="needs the extension")
@pytest.mark.parametrize(
    "call", ["sampler._draw(row)", "sampler._tell(row, None, 0, False, False)"]
)
def test_no_exception_leaves_a_function_of_c(call: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", DEEP.replace("CALL", call)],
        cwd=os.path.dirname(__file__),
        env=environment | {"FASTSAMPLE_BACKEND": "core"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


@pytest.mark.skipif("core" not in fs.backends(), reason="needs the extension")
def test_a_function_of_c_takes_no_object_for_another() -> None:
    core = import_module("fastsample._core")
    rows = rows_of(2, 16)
    plan = plan_of_scalars({"top_k": 4})
    assert plan is not None
    record = plan.records
    for params, of_draft in ((None, record), (record, None), ("top_k", record), (record, [4])):
        given = [1], rows, params, None, of_draft, 1, 3, 0
        assert core.verify_quickly(*given) is None
    assert core.verify_quickly([1], rows, record, None, record, 1, 3, 0) is not None
    for item in (None, core.Sequence, core.Sequence.__new__(core.Sequence)):
        assert core.step_quickly([item], rows[:1]) is None
