"""A row, a batch, and how a call on them is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

ROW = np.array([3.0, 2.5, 2.0, 1.0], np.float32)
BATCH = np.stack([ROW, ROW[::-1], ROW])


def check(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert caught.type is error
    assert str(caught.value) == message
