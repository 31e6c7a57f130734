"""Writes tests/data/conformance.json from the reference: python tests/make_conformance.py

What is in it, and how another sampler is run on it, stands in docs/conformance.md. Depends on the
installed package alone. Whatever hangs on a convention, or on the last digits of a sum, is marked.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import fastsample as fs

TARGET = Path(__file__).parent / "data" / "conformance.json"
Row = npt.NDArray[np.float32]

#: Neither a cut nor a draw that is not marked is nearer than this to another one.
MARGIN = 1e-5
UNIFORMS = (0.0, 0.03, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.97, 0.999)

#: Each stage by itself, in front of what changes its meaning, and together.
PARAMETERS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.0},
    {"temperature": 0.5},
    {"temperature": 2.0},
    {"top_k": 1},
    {"top_k": 3},
    {"top_k": 1000},
    {"top_p": 0.0},
    {"top_p": 0.5},
    {"top_p": 0.8},
    {"top_p": 0.95},
    {"min_p": 0.1},
    {"min_p": 0.5},
    {"min_p": 1.0},
    {"top_p": 0.1, "min_tokens_to_keep": 3},
    {"min_p": 0.9, "min_tokens_to_keep": 2},
    {"temperature": 0.5, "top_p": 0.8},
    {"temperature": 2.0, "min_p": 0.3},
    {"top_k": 4, "top_p": 0.8},
    {"top_p": 0.9, "min_p": 0.2},
    {"temperature": 1.5, "top_k": 5, "top_p": 0.9, "min_p": 0.1},
    {"temperature": 0.7, "top_k": 3, "top_p": 0.75, "min_p": 0.05},
    {"typical_p": 0.2},
    {"typical_p": 0.7},
    {"temperature": 0.7, "typical_p": 0.7},
    {"epsilon_cutoff": 0.05},
    {"eta_cutoff": 0.1},
    {"top_a": 0.3},
    {"p_less": True},
    {"p_less_norm": True},
    {"top_n_sigma": 1.0},
    {"temperature": 3.0, "top_n_sigma": 0.5},
    {"top_h": 0.5},
    {"xtc_probability": 1.0, "xtc_threshold": 0.15},
    {"xtc_probability": 1.0, "xtc_threshold": 0.15, "temperature": 0.6},
]
#: Parameters that are moved to see whether a cut hangs on their last digits.
MOVED = (
    *("top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"),
    *("top_a", "top_n_sigma", "top_h", "xtc_threshold"),
)
#: Parameters that are not named as their stage, and those that are of none.
STAGE_OF = {"xtc_probability": "xtc", "xtc_threshold": "xtc"}
OF_NO_STAGE = ("min_tokens_to_keep",)


def rows() -> dict[str, Row]:
    """Rows by their names; None stands for -inf in the file."""
    rng = np.random.default_rng(20)
    masked = rng.normal(0, 2, 24)
    masked[::3] = -np.inf
    return {
        name: np.asarray(row, dtype=np.float32)
        for name, row in {
            "falling": [3.0, 2.5, 2.0, 1.0, 0.0, -1.0],
            "rising": [-1.0, 0.0, 1.0, 2.0, 2.5, 3.0],
            "textbook": np.log([0.1, 0.5, 0.1, 0.3]),
            "tied": [1.0, 2.0, 2.0, 1.0, 2.0, 0.0, 1.0],
            "flat": np.zeros(8),
            "masked": masked,
            "one": [-np.inf, 4.0, -np.inf],
            "far below": [0.0, -30.0, -60.0, -200.0],
            "offset": 1000.0 + np.array([3.0, 2.5, 2.0, 1.0, 0.0]),
            "model-like": rng.gumbel(0, 2, 64).round(4),
        }.items()
    }


def stages_of(parameters: dict[str, Any]) -> list[str]:
    """Return the stages that the parameters need."""
    names = [STAGE_OF.get(name, name) for name in parameters if name not in OF_NO_STAGE]
    return list(dict.fromkeys(names))


def reduced(order: tuple[Any, ...], on: list[str]) -> tuple[Any, ...] | None:
    """Return what runs of an order, its joint stages as a tuple; None where it lacks a stage."""
    steps: list[Any] = []
    for step in order:
        if isinstance(step, str):
            steps += [step] * (step in on)
        else:
            joint = tuple(stage for stage in step if stage in on)
            steps += [joint] if len(joint) > 1 else joint
    flat = [s for step in steps for s in ((step,) if isinstance(step, str) else step)]
    return tuple(steps) if sorted(flat) == sorted(on) else None


def kept_moved(row: Row, order: tuple[Any, ...], parameters: dict[str, Any]) -> list[list[int]]:
    """Return what is kept with the thresholds moved by the margin, down and up."""
    moved = []
    for factor in (1 - MARGIN, 1 + MARGIN):
        values = {k: v * factor if k in MOVED and v < 1 else v for k, v in parameters.items()}
        moved.append(fs.survivors(row, order=order, **values)[0].tolist())
    q = fs.softmax(row).astype(np.float64)
    twice, n = np.sum(q**2), np.isfinite(row).sum()
    # Thresholds that are the row's own.
    for name, threshold in (("p_less", twice), ("p_less_norm", (n * twice - 1) / max(n - 1, 1))):
        if name in parameters:
            near = np.isclose(q, threshold, rtol=MARGIN)
            moved.append([] if near.any() else moved[0])
    return moved


def marks(row: Row, kept: list[int], moved: list[list[int]]) -> list[str]:
    """Return the conventions that decide what is kept."""
    left_out = np.setdiff1d(np.flatnonzero(np.isfinite(row)), kept)
    found = []
    if np.isin(row[left_out], row[kept]).any():
        found.append("ties")
    if any(other != kept for other in moved):
        found.append("reaches")
    return found


def case(
    name: str, row: Row, order: tuple[Any, ...], like: list[str], parameters: dict[str, Any]
) -> dict[str, Any]:
    """Return a case: what goes in, and what follows by the reference."""
    ids, probs = fs.survivors(row, order=order, **parameters)
    cdf = np.cumsum(fs.probs(row, order=order, **parameters), dtype=np.float64)
    draws = [
        (u, fs.sample(row, order=order, u=u, **parameters))
        for u in UNIFORMS
        if u == 0.0 or np.abs(cdf - u).min() > MARGIN
    ]
    kept = ids.tolist()
    return {
        "row": name,
        "like": like,
        "order": order,
        "parameters": parameters,
        "kept": kept,
        "probs": [float(f"{p:.7g}") for p in probs],
        "u": [u for u, _ in draws],
        "tokens": [token for _, token in draws],
        "marks": marks(row, kept, kept_moved(row, order, parameters)),
    }


def document() -> dict[str, Any]:
    """Return what is written."""
    table = rows()
    cases = []
    with fs.use_backend("reference"):
        for (name, row), parameters in itertools.product(table.items(), PARAMETERS):
            on = stages_of(parameters)
            orders: dict[tuple[Any, ...], list[str]] = {}
            for preset, order in fs.ORDERS.items():
                steps = reduced(order, on)
                if steps is not None:
                    orders.setdefault(steps, []).append(preset)
            orders = orders or {tuple(on): []}  # that no runtime has
            cases += [case(name, row, *item, parameters) for item in orders.items()]
    values = {n: [float(x) if np.isfinite(x) else None for x in r] for n, r in table.items()}
    return {"rows": values, "cases": cases}


def text() -> str:
    """Return the file: a row and a case a line."""
    made = document()
    lines = [f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in made["rows"].items()]
    cases = [f"  {json.dumps(case)}" for case in made["cases"]]
    return '{"rows": {\n' + ",\n".join(lines) + '\n},\n"cases": [\n' + ",\n".join(cases) + "\n]}\n"


if __name__ == "__main__":
    TARGET.write_text(text())
    print(f"{TARGET}: {len(document()['cases'])} cases")
