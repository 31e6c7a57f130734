"""`use_backend`: for a block, for a function, and from a call on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import fastsample as fs
from fastsample import use_backend


def active() -> str:
    return str(fs.build_info()["backend"])


OTHER = fs.backends()[0]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    with use_backend(OTHER):
        yield


def test_a_plain_call_lasts() -> None:
    use_backend("reference")
    assert active() == "reference"
    with use_backend(OTHER):
        assert active() == OTHER
    assert active() == "reference"
    use_backend(OTHER)
    assert active() == OTHER


def test_a_block_ends_with_what_was_before() -> None:
    with use_backend("reference"):
        assert active() == "reference"
        with use_backend("reference"):
            assert active() == "reference"
        assert active() == "reference"
    assert active() == OTHER
    with pytest.raises(KeyError), use_backend("reference"):
        raise KeyError
    assert active() == OTHER


def test_one_object_for_several_blocks() -> None:
    slow = use_backend("reference")
    assert active() == "reference"
    for _ in range(2):
        with slow:
            assert active() == "reference"
        assert active() == OTHER


def test_a_decorated_function() -> None:
    @use_backend("reference")
    def seen(depth: int) -> list[str]:
        return [active(), *(seen(depth - 1) if depth else [])]

    assert active() == OTHER
    assert seen(2) == ["reference"] * 3
    assert active() == OTHER


def test_what_is_refused_changes_nothing() -> None:
    with pytest.raises(
        ValueError, match=r"^backend must be one of core, numba, reference, got 'x'"
    ):
        use_backend("x")  # type: ignore[arg-type]
    assert active() == OTHER
