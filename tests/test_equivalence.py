"""Every variant against the reference within derived bounds, and the variants among each other
in every bit: over shapes, dtypes, layouts, parameters, orders, uniforms.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import rows
from hypothesis import given
from hypothesis import strategies as st
from rows import Chain, Floats, Tally, check_outcome, run_rows

import fastsample as fs

Activate = Callable[[str], AbstractContextManager[None]]

DTYPES = {
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}

# ---- layouts: the same values, elsewhere in memory -------------------------------------------


def _embed(x: npt.NDArray[Any], index: Any, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    whole = np.zeros(shape, x.dtype)
    whole[index] = x
    view: npt.NDArray[Any] = whole[index]
    return view


def _unaligned(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    raw = np.zeros(x.nbytes + 1, np.uint8)
    raw[1:] = np.frombuffer(x.tobytes(), np.uint8)
    return raw[1:].view(x.dtype).reshape(x.shape)


def _read_only(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    x = x.copy()
    x.flags.writeable = False
    return x


LAYOUTS: dict[str, Callable[[npt.NDArray[Any]], npt.NDArray[Any]]] = {
    "contiguous": lambda x: x,
    "Fortran": np.asfortranarray,
    "every other row": lambda x: _embed(x, np.s_[::2], (2 * len(x), x.shape[1])),
    "every third column": lambda x: _embed(x, np.s_[:, ::3], (len(x), 3 * x.shape[1])),
    "part of longer rows": lambda x: _embed(x, np.s_[:, 1:-2], (len(x), x.shape[1] + 3)),
    "rows reversed": lambda x: x[::-1].copy()[::-1],
    "columns reversed": lambda x: x[:, ::-1].copy()[:, ::-1],
    "transposed": lambda x: x.T.copy().T,
    "unaligned": _unaligned,
    "read-only": _read_only,
    "byte-swapped": lambda x: x.astype(x.dtype.newbyteorder()),
}


def _layouts_of(dtype: str) -> list[str]:
    # ml_dtypes' bfloat16 has one byte order only.
    return [name for name in LAYOUTS if (dtype, name) != ("bfloat16", "byte-swapped")]


@pytest.mark.parametrize(
    ("dtype", "layout"), [(d, name) for d in DTYPES for name in _layouts_of(d)]
)
def test_layouts(variant: str, dtype: str, layout: str) -> None:
    x = rows.all_kinds(300).clip(-6e4, 6e4).astype(DTYPES[dtype])
    other = LAYOUTS[layout](x)
    assert np.array_equal(other.astype(np.float32), x.astype(np.float32))
    parameters = {"temperature": 0.9, "top_k": 40, "top_p": 0.9}
    u = np.linspace(0, rows.LAST_U, len(x))
    assert np.array_equal(fs.sample(other, u=u, **parameters), fs.sample(x, u=u, **parameters))
    assert fs.probs(other, **parameters).tobytes() == fs.probs(x, **parameters).tobytes()


# ---- random cases ----------------------------------------------------------------------------


@dataclass
class Case:
    logits: npt.NDArray[Any]
    chains: list[Chain]
    u: Floats  # (draws, B)

    @property
    def as_float32(self) -> rows.Float32s:
        return self.logits.astype(np.float32)


SIZES = st.one_of(st.integers(1, 80), st.integers(250, 260), st.integers(300, 2600))
ORDERS = st.one_of(
    st.sampled_from(sorted(fs.ORDERS)),
    st.sampled_from([p for n in range(5) for p in itertools.permutations(fs.ORDERS["hf"], n)]),
)


@st.composite
def chains(draw: st.DrawFn, order: str | tuple[str, ...]) -> Chain:
    chain = Chain(order=order, min_tokens_to_keep=draw(st.sampled_from([1, 1, 1, 2, 3, 40])))
    stages = chain.stages
    if "temperature" in stages:
        chain.temperature = draw(
            st.one_of(
                st.sampled_from([1.0, 0.0, 1e-40, 1e-3, 1e3, 1e300]),
                st.floats(0.1, 4.0),
            )
        )
    if "top_k" in stages:
        chain.top_k = draw(
            st.one_of(st.sampled_from([None, 0, -1]), st.integers(1, 60), st.integers(1, 3000))
        )
    if "top_p" in stages:
        chain.top_p = draw(st.one_of(st.sampled_from([1.0, 0.0, 0.5, 0.9]), st.floats(0, 1)))
    if "min_p" in stages:
        chain.min_p = draw(st.one_of(st.sampled_from([0.0, 1.0, 0.05]), st.floats(0, 1)))
    return chain


@st.composite
def cases(draw: st.DrawFn) -> Case:
    dtype = draw(st.sampled_from(sorted(DTYPES)))
    if draw(st.booleans()):  # values one by one, which shrink well
        finite = st.floats(-60000, 60000, width=16) | st.just(-np.inf)
        row = st.lists(finite, min_size=1, max_size=12)
        values = np.array([draw(row)], np.float32)
        if values.max() == -np.inf:
            values[0, -1] = 0.0
    else:
        batch, vocab, seed = draw(st.integers(1, 4)), draw(SIZES), draw(st.integers(0, 2**32))
        kinds = [draw(st.sampled_from(sorted(rows.ROW_KINDS))) for _ in range(batch)]
        values = np.stack([rows.make_row(k, vocab, seed + i) for i, k in enumerate(kinds)])
    if dtype == "float16":
        values = np.maximum(values, -60000, where=values > -np.inf, out=values).clip(None, 60000)
    layout = LAYOUTS[draw(st.sampled_from(_layouts_of(dtype)))]
    order = draw(ORDERS)
    count = draw(st.sampled_from([1, len(values)]))
    # Not by hypothesis, whose round numbers are edges of the round rows that it also likes.
    u = np.random.default_rng(draw(st.integers(0, 2**32))).random((6, len(values)))
    u[0], u[-1] = 0.0, rows.LAST_U
    return Case(
        layout(values.astype(DTYPES[dtype])), [draw(chains(order)) for _ in range(count)], u
    )


def test_within_bounds_of_the_reference(variant: str, activate: Activate) -> None:
    tally = Tally()

    @given(cases())
    def check(case: Case) -> None:
        ours = run_rows(case.logits, case.u, case.chains)
        with activate("reference"):
            theirs = run_rows(case.logits, case.u, case.chains)
        for i, x in enumerate(case.as_float32):
            chain = case.chains[i % len(case.chains)]
            check_outcome(x, case.u[:, i], chain, ours[i], theirs[i], tally)

    check()
    # Few examples are drawn under the profile ci-short.
    tally.assert_few(at_least=20)


def test_equal_bits(fast_variants: tuple[str, ...], activate: Activate) -> None:
    if len(fast_variants) == 1:
        pytest.skip(f"only {fast_variants[0]} and the reference can run here")

    @given(cases())
    def check(case: Case) -> None:
        first, *others = fast_variants
        with activate(first):
            expected = run_rows(case.logits, case.u, case.chains)
            dense = [
                fs.probs(x, **vars(case.chains[i % len(case.chains)]))
                for i, x in enumerate(case.logits)
            ]
        for outcome, probs in zip(expected, dense, strict=True):
            assert probs[outcome.ids].tobytes() == outcome.probs.tobytes()
            assert np.count_nonzero(probs) == np.count_nonzero(outcome.probs)
            assert np.all(probs[outcome.tokens] > 0)
        for name in others:
            with activate(name):
                got = run_rows(case.logits, case.u, case.chains)
                for i, x in enumerate(case.logits):
                    assert got[i].same_bits(expected[i]), name
                    probs = fs.probs(x, **vars(case.chains[i % len(case.chains)]))
                    assert probs.tobytes() == dense[i].tobytes(), name

    check()
