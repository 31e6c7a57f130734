"""Which tokens are allowed at all: masks, ``allowed_token_ids`` and ``vocab_size``.

A token that is not allowed is as if its logit were -inf, for everything that follows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .row import Floats32

Mask = npt.NDArray[np.bool_]


def allowed_of(
    vocab: int,
    packed: npt.NDArray[np.int32] | npt.NDArray[np.uint32] | None = None,
    token_ids: Sequence[int] | None = None,
    vocab_size: int | None = None,
) -> Mask:
    """Return whether each token is allowed, by all that are given."""
    allowed = np.ones(vocab, np.bool_)
    if packed is not None:
        # Bit i % 32 of word i // 32 is token i; what is beyond the words is not allowed.
        words = packed.astype("<u4" if packed.dtype.kind == "u" else "<i4").view(np.uint8)
        bits = np.unpackbits(words, bitorder="little")[:vocab]
        allowed[: bits.size] &= bits.astype(np.bool_)
        allowed[bits.size :] = False
    if token_ids is not None:
        allowed &= np.isin(np.arange(vocab), np.asarray(token_ids, np.int64))
    if vocab_size is not None:
        allowed[vocab_size:] = False
    return allowed


def apply(row: Floats32, allowed: Mask) -> Floats32:
    """Return the row with -inf for all that is not allowed."""
    return np.where(allowed, row, np.float32(-np.inf))
