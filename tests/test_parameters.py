"""The table of parameters: one spelling, for signatures, documentation, validation and records."""

from __future__ import annotations

import copy
import inspect
import os
import pickle
from typing import Any, get_args

import numpy as np
import pytest

import fastsample as fs
from fastsample.chains import make_records
from fastsample.orders import FLOORS, Preset, StageName, stages_of
from fastsample.parameters import DEFAULTS, NAMES, OF_STAGE, TABLE
from fastsample.plans import make_plan
from fastsample.records import KINDS, NUMBERS, steps
from fastsample.sampler import _reseed_all
from fastsample.values import integer

NUMBERED = [name for name, rule in TABLE.items() if not rule.listed]
ROW = np.linspace(0, 3, 16).astype(np.float32)
FUNCTIONS = (fs.sample, fs.probs, fs.survivors, fs.Sampler)
LOOPS = (fs.generate, fs.stream)


def test_names_are_spelled_once() -> None:
    assert get_args(Preset) == tuple(fs.ORDERS)
    assert get_args(StageName) == KINDS == tuple(OF_STAGE)
    assert {s: len(names) for s, names in OF_STAGE.items()} == NUMBERS
    for order in fs.ORDERS.values():
        assert set(stages_of(order)) <= set(KINDS)
    for stage, names in OF_STAGE.items():
        assert [TABLE[name].slot for name in names] == list(range(len(names))), stage


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_signature_and_help(function: Any) -> None:
    signature = inspect.signature(function)
    assert {n: p.default for n, p in signature.parameters.items() if n in NAMES} == DEFAULTS
    doc = inspect.getdoc(function)
    assert doc is not None
    assert "{" + "parameters}" not in doc
    assert "{" + "references}" not in doc
    for name in NAMES:
        assert f"\n{name} : " in doc


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    ("name", "hint"),
    [("temprature", "temperature"), ("top_kk", "top_k"), ("xtc_treshold", "xtc_threshold")],
)
def test_did_you_mean(function: Any, name: str, hint: str) -> None:
    arguments = () if function is fs.Sampler else (ROW,)
    for value in (0.5, [0.5]):
        with pytest.raises(TypeError) as caught:
            function(*arguments, **{name: value})
        expected = f"{function.__name__}() got an unexpected keyword argument {name!r}"
        assert str(caught.value) == f"{expected}: did you mean {hint!r}?"
    with pytest.raises(TypeError, match=r"argument 'zzz'$"):
        function(*arguments, zzz=1)


def plan(**parameters: Any) -> None:
    """What two rows are drawn with; ``min_new_tokens`` has its end."""
    make_plan(2, "sample", {"eos_token_id": 1, **parameters})


@pytest.mark.parametrize("name", NUMBERED)
def test_bounds(name: str) -> None:
    """What is just inside is taken and just outside refused, alone and in an array."""
    rule = TABLE[name]
    whole = rule.convert is integer
    step = (lambda v, to: v + np.sign(to)) if whole else np.nextafter
    for edge, beyond in ((rule.low, -np.inf), (rule.high, np.inf)):
        if abs(edge) > 1e300 or isinstance(rule.default, bool):
            continue
        inside = int(edge) if whole else edge
        outside = step(edge, beyond)
        outside = int(outside) if whole else float(outside)
        for right in (inside, [inside, inside], np.array([inside, inside])):
            plan(**{name: right, "order": KINDS})
        for value in (outside, [inside, outside], np.array([inside, outside])):
            with pytest.raises(ValueError, match=f"^{name} must be ") as caught:
                plan(**{name: value})
            assert str(caught.value).endswith("(row 1)") == (value is not outside)
    for value in ("x", [rule.default or rule.high, "x"], {}, 1j):
        with pytest.raises(TypeError, match=f"^{name} must be "):
            plan(**{name: value})


@pytest.mark.parametrize("name", NUMBERED)
def test_nan_is_refused(name: str) -> None:
    for value in (np.nan, [0.5, np.nan], np.array([np.nan, np.nan])):
        with pytest.raises((ValueError, TypeError), match=f"^{name} must be "):
            plan(**{name: value})


def test_records() -> None:
    (record,) = make_records(1, top_k=5, temperature=0.5, order="llama.cpp", xtc_threshold=0.3)
    assert list(steps(record)) == [
        ("top_k", (5.0,), False),
        ("temperature", (0.5, 0.0, 1.0), False),
    ]
    first, second = make_records(2, mirostat=[0, 2], order=("mirostat",), min_tokens_to_keep=[1, 3])
    assert list(steps(first)) == [("mirostat", (0.0, 5.0, 0.1), False)]
    assert list(steps(second)) == [("mirostat", (2.0, 5.0, 0.1), False)]
    assert (first["min_tokens_to_keep"], second["min_tokens_to_keep"]) == (1, 3)
    (joint,) = make_records(1, top_k=5, top_p=0.5, min_p=0.1, order="sglang")
    assert [(name, j) for name, _, j in steps(joint)] == [
        ("top_k", False),
        ("top_p", True),
        ("min_p", True),
    ]
    (alone,) = make_records(1, min_p=0.1, order="sglang")
    assert [(name, j) for name, _, j in steps(alone)] == [("min_p", False)]


def test_usual_kinds_are_the_others() -> None:
    """Lists, tuples and arrays of any kind make the same records."""
    values = {"temperature": [0.0, 1, 2.5], "top_k": [None, 2, 3], "top_p": [0.5, 1.0, 0.25]}
    expected = make_records(3, **values)
    exact = {n: [0 if v is None else v for v in value] for n, value in values.items()}
    for kind in (tuple, np.array, lambda v: np.array(v, np.float32), lambda v: np.array(v, object)):
        given: dict[str, Any] = {n: kind(v) for n, v in exact.items()}
        if getattr(given["top_k"], "dtype", None) == np.float32:
            given["top_k"] = given["top_k"].astype(np.uint8)
        assert (make_records(3, **given) == expected).all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"mirostat": 2, "adaptive_target": 0.5, "order": "llama.cpp"},
         "adaptive_target must be None where mirostat is on"),
        ({"mirostat": 2, "top_k": 5, "order": "llama.cpp"},
         "top_k must be off where mirostat is on in the order of llama.cpp"),
        ({"adaptive_target": 0.5, "top_k": 5, "order": ("adaptive", "top_k")},
         "order must have adaptive last, got top_k after it"),
        ({"xtc_probability": 0.5}, "order must name xtc, which is active"),
        ({"temperature": [1.0, 0.5], "order": ("top_k",)},
         "order must name temperature, which is active"),
        ({"order": (("top_k", "temperature"),)},
         "order must have only stages that keep the largest logits in a nested tuple, "
         "got temperature"),
        ({"order": ("top_k", ("top_p", "top_k"))}, "order must not name a stage twice, got top_k"),
    ],
)  # fmt: skip
def test_what_does_not_go_together(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r".*") as caught:
        make_records(2, **parameters)
    assert str(caught.value) == message


def test_greedy_whatever_the_order() -> None:
    order: Any = ("top_k",)
    assert fs.sample([1.0, 3.0, 2.0], temperature=0.0, order=order) == 1
    batch = np.tile(np.array([1.0, 3.0, 2.0]), (2, 1))
    drawn = fs.sample(batch, temperature=[0.0, 1.0], order=order, u=0.999)
    assert np.array_equal(drawn, [1, 2])


def test_orders_of_the_core() -> None:
    core = pytest.importorskip("fastsample._core", reason="fastsample._core is not installed")
    has = {name for order in core.orders().values() for name, _ in order}
    for name, order in fs.ORDERS.items():
        expected = []
        for group in order:
            names = [n for n in ((group,) if isinstance(group, str) else group) if n in has]
            expected += [(n, i > 0) for i, n in enumerate(names)]
        assert core.orders()[name] == expected
    assert list(core.orders()) == list(fs.ORDERS)
    assert set(KINDS) > FLOORS


# ---- where uniforms come from -----------------------------------------------------------------

BATCH = np.zeros((3, 1000), np.float32)


def test_seeded_and_unseeded_rows_share_a_batch() -> None:
    alone = [fs.sample(BATCH[0], seed=seed, offset=5) for seed in (42, 7)]
    drawn = [fs.sample(BATCH, seed=[42, None, 7], offset=5) for _ in range(6)]
    assert {(int(row[0]), int(row[2])) for row in map(np.asarray, drawn)} == {tuple(alone)}
    assert len({int(np.asarray(row)[1]) for row in drawn}) > 1
    unseeded = np.asarray(fs.sample(BATCH, seed=[None, None, None]))
    assert len(set(unseeded.tolist())) > 1
    with pytest.raises(ValueError, match=r"^seed must be a scalar or of shape \(3,\), got \(2,\)$"):
        fs.sample(BATCH, seed=[None, 1])


def test_a_sampler_has_seeded_and_unseeded_rows() -> None:
    made = fs.Sampler(seed=[42, None, 7], offset=5)
    assert repr(made) == "Sampler(seed=[42, None, 7], offset=5)"
    kinds = [made, made.copy(), pickle.loads(pickle.dumps(made)), fs.Sampler()]
    kinds[3].reset(seed=(np.int64(42), None, np.uint8(7)), offset=5)
    steps = [np.stack([sampler(BATCH) for _ in range(6)]) for sampler in kinds]
    for row, seed in ((0, 42), (2, 7)):
        alone = [fs.sample(BATCH[0], seed=seed, offset=5 + step) for step in range(6)]
        assert all(found[:, row].tolist() == alone for found in steps)
    assert len({tuple(found[:, 1]) for found in steps}) == 4
    for wrong, said in (([1, "2", None], "'2'"), ([None, True, 1], "True"), ([None, 0.5], "0.5")):
        with pytest.raises(TypeError, match=f"^seed must be an integer, got {said}"):
            fs.Sampler(seed=wrong)


@pytest.mark.parametrize("backend", fs.backends())
def test_uniforms_of_a_batch(backend: Any) -> None:
    keys = [(0, 0, 0), (42, 7, 1000), (2**64 - 1, 3, 2**64 - 1), (1, 2**64 - 1, 2**63)]
    seeds, streams, offsets = np.array(keys, np.uint64).T.copy()
    expected = [
        [
            np.random.Generator(
                np.random.Philox(
                    key=np.array([seed, stream], np.uint64),
                    counter=np.array([offset, use, 0, 0], np.uint64),
                )
            ).random()
            for seed, stream, offset in keys
        ]
        for use in range(4)
    ]
    with fs.use_backend(backend):
        module = fs.backend.active()
        assert module.uniforms(seeds, streams, offsets).tolist() == expected[0]
        made = [module.uniforms(seeds, streams, offsets, use).tolist() for use in range(4)]
        assert made == expected
        by_row = fs.sample(BATCH, seed=[2**64 - 1, 0, 5], offset=np.array([1, 2, 3], np.uint64))
        assert np.array_equal(
            by_row,
            [fs.sample(BATCH[0], seed=s, offset=o) for s, o in ((2**64 - 1, 1), (0, 2), (5, 3))],
        )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("seeded", [False, True])
def test_samplers_across_a_fork(seeded: bool) -> None:
    sampler = fs.Sampler(seed=3) if seeded else fs.Sampler()
    kept = [sampler, sampler.copy(), pickle.loads(pickle.dumps(sampler)), copy.deepcopy(sampler)]

    def draws() -> list[int]:
        return [int(each(BATCH[0])) for each in kept for _ in range(4)]

    def in_child() -> list[int]:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(write, repr(draws()).encode())
            os._exit(0)
        os.close(write)
        text = os.read(read, 1000).decode()
        os.close(read)
        assert os.waitpid(pid, 0)[1] == 0
        return [int(token) for token in text.strip("[]").split(",")]

    children = [in_child() for _ in range(3)]
    children.append(draws())
    for i in range(0, len(children[0]), 4):
        assert len({tuple(tokens[i : i + 4]) for tokens in children}) == (1 if seeded else 4)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_seed_that_is_given_later_stays() -> None:
    sampler, other = fs.Sampler(), fs.Sampler()
    sampler.reset(seed=5)
    other.seed = 6
    for each in (sampler, other):
        each._reseed()  # what a child does
    assert (sampler.seed, other.seed) == (5, 6)


def test_a_seed_by_row_that_is_given_later_stays() -> None:
    """And does not keep a fork from reseeding others, nor a sampler from being copied."""
    sampler, other = fs.Sampler(), fs.Sampler()
    before, sampler.seed = other.seed, np.array([1, 2])
    copies = [sampler.copy(), pickle.loads(pickle.dumps(sampler))]
    _reseed_all()  # what a child does
    assert other.seed != before
    for each in (sampler, *copies):
        assert list(each.seed) == [1, 2]
