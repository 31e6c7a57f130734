"""tests/data/conformance.json is what the reference gives, and what every backend gives."""

from __future__ import annotations

import json
from typing import Any

import make_conformance
import numpy as np

import fastsample as fs

FILE: dict[str, Any] = json.loads(make_conformance.TARGET.read_text())


def test_the_file_is_what_its_command_writes() -> None:
    assert make_conformance.TARGET.read_text() == make_conformance.text()


def test_it_has_every_order_and_every_mark() -> None:
    assert {name for case in FILE["cases"] for name in case["like"]} == set(fs.ORDERS)
    assert {mark for case in FILE["cases"] for mark in case["marks"]} == {"ties", "reaches"}
    assert sum(not case["marks"] for case in FILE["cases"]) > 200


def test_every_backend_conforms(variant: str) -> None:
    rows = {
        name: np.array([-np.inf if x is None else x for x in row], np.float32)
        for name, row in FILE["rows"].items()
    }
    for case in FILE["cases"]:
        row = rows[case["row"]]
        order = tuple(s if isinstance(s, str) else tuple(s) for s in case["order"])
        parameters = case["parameters"] | {"order": order}
        ids, probs = fs.survivors(row, **parameters)
        assert ids.tolist() == case["kept"], case
        assert np.allclose(probs, case["probs"], rtol=1e-5, atol=1e-7), case
        tokens = [fs.sample(row, u=u, **parameters) for u in case["u"]]
        assert tokens == case["tokens"], case
