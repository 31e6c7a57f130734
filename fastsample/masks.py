"""Which tokens are allowed: masks, lists of ids and the size of the vocabulary, as packed words.

Depends on ``rules.py``. What is not allowed is as if its logit were -inf.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .lists import Ids
from .rules import Rules
from .values import any_integer, named, refuse_masked

Words = npt.NDArray[np.uint32]


def packed(bits: npt.NDArray[np.bool_]) -> Words:
    """Return bits as words: bit i % 32 of word i // 32 is token i."""
    rows, size = bits.shape
    whole = np.zeros((rows, -(-size // 32) * 32), np.bool_)
    whole[:, :size] = bits
    words = np.packbits(whole, axis=1, bitorder="little").view("<u4")
    return np.ascontiguousarray(words, np.uint32)


def _array(value: Any) -> npt.NDArray[Any]:
    refuse_masked("allowed", value)
    with named("allowed must be a mask"):
        if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
            return np.from_dlpack(value)
        return np.asarray(value)


def mask_words(allowed: Any, rows: int, single: bool, vocab: int) -> Words:
    """Return a mask, bool or packed, as packed rows: one for all, or one for each."""
    array = _array(allowed)
    if array.dtype == np.bool_:
        widths = (vocab,)
    elif array.dtype.kind in "iu" and array.dtype.itemsize == 4:
        widths = array.shape[-1:]
    else:
        raise TypeError(f"allowed must be bool, or int32 or uint32 words, got {array.dtype}")
    shapes = [widths, (rows, *widths)]
    if array.ndim < 1 or array.shape not in shapes:
        size = vocab if array.dtype == np.bool_ else "n"
        must = f"({size},)" if single else f"({size},) or ({rows}, {size})"
        raise ValueError(f"allowed must be of shape {must}, got {array.shape}")
    if not array.shape[-1]:
        raise ValueError(f"allowed must have a word at least, got shape {array.shape}")
    if array.dtype == np.bool_:
        return packed(array.reshape(-1, vocab))
    native = np.require(array, array.dtype.newbyteorder("="), ["C", "ALIGNED"])
    return native.view(np.uint32).reshape(-1, *widths)


def mask(allowed: Any, rows: int, single: bool, vocab: int) -> Words:
    """Return a mask, bool or packed, as packed rows."""
    words = mask_words(allowed, rows, single, vocab)
    if len(words) == rows:
        return words
    return np.ascontiguousarray(np.broadcast_to(words, (rows, words.shape[1])))


def _mask_of_ids(ids: Ids | None, vocab: int) -> Words:
    bits = np.full((1, vocab), ids is None)
    if ids is not None:
        bits[0, ids] = True
    return packed(bits)


def masks(
    rules: Rules | Sequence[Rules] | None,
    allowed: Any,
    vocab_size: Any,
    rows: int,
    single: bool,
    vocab: int,
) -> dict[str, Words]:
    """Return what is allowed in each row, by a mask, by ids and by the size of the vocabulary."""
    given = [] if allowed is None else [mask(allowed, rows, single, vocab)]
    if rules is not None:
        each = [rules] if isinstance(rules, Rules) else rules
        if any(r.allowed is not None for r in each):
            given.append(np.concatenate([_mask_of_ids(r.allowed, vocab) for r in each]))
    if vocab_size is not None:
        size = any_integer("vocab_size", vocab_size)
        if size < 1:
            raise ValueError(f"vocab_size must be >= 1, got {vocab_size!r}")
        if size < vocab:
            given.append(packed(np.ones((1, size), np.bool_)))
    if not given:
        return {}
    first, *more = given
    if not more and len(first) == rows and first.flags.c_contiguous and first.flags.aligned:
        return {"allowed": first}  # read where it is
    width = min(words.shape[1] for words in given)
    both = np.full((rows, width), 0xFFFFFFFF, np.uint32)
    for words in given:
        both &= words[:, :width]
    return {"allowed": both}
