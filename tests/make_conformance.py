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
]


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


def kept_alone(row: Row, order: tuple[str, ...], parameters: dict[str, Any]) -> list[list[int]]:
    """Return what is kept with its boundaries moved by the margin, for top_p and min_p."""
    moved = []
    for step in (-MARGIN, MARGIN):
        values = dict(parameters)
        for name in ("top_p", "min_p"):
            if 0.0 < values.get(name, 0.0) < 1.0:
                values[name] += step
        moved.append(fs.survivors(row, order=order, **values)[0].tolist())
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


def case(name: str, row: Row, like: list[str], parameters: dict[str, Any]) -> dict[str, Any]:
    """Return a case: what goes in, and what follows by the reference."""
    stages = fs.ORDERS[like[0]]
    ids, probs = fs.survivors(row, order=stages, **parameters)
    cdf = np.cumsum(fs.probs(row, order=stages, **parameters), dtype=np.float64)
    draws = [
        (u, fs.sample(row, order=stages, u=u, **parameters))
        for u in UNIFORMS
        if u == 0.0 or np.abs(cdf - u).min() > MARGIN
    ]
    kept = ids.tolist()
    return {
        "row": name,
        "like": like,
        "order": list(stages),
        "parameters": parameters,
        "kept": kept,
        "probs": [float(f"{p:.7g}") for p in probs],
        "u": [u for u, _ in draws],
        "tokens": [token for _, token in draws],
        "marks": marks(row, kept, kept_alone(row, stages, parameters)),
    }


def document() -> dict[str, Any]:
    """Return what is written."""
    table = rows()
    cases = []
    with fs.use_backend("reference"):
        for (name, row), parameters in itertools.product(table.items(), PARAMETERS):
            orders: dict[str, list[str]] = {}
            for order, stages in fs.ORDERS.items():
                if {*parameters} - {"min_tokens_to_keep"} <= {*stages}:
                    # Orders that differ only in what is off are one case.
                    orders.setdefault(str([s for s in stages if s in parameters]), []).append(order)
            cases += [case(name, row, like, parameters) for like in orders.values()]
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
