"""llama.cpp's own grammars as masks: what a text may go on with.

Depends on llama-cpp-python alone.
"""

from __future__ import annotations

import ctypes
import weakref
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class Grammar:
    """A `LlamaGrammar` over a text that grows by the tokens it is told of."""

    def __init__(self, vocabulary: Any, size: int, grammar: Any) -> None:
        if not isinstance(grammar, llama_cpp.LlamaGrammar):
            kind = type(grammar).__name__
            raise TypeError(f"grammar must be a LlamaGrammar, got {grammar!r} ({kind})")
        text, root = grammar._grammar, grammar._root
        self._sampler = llama_cpp.llama_sampler_init_grammar(
            vocabulary, text.encode(), root.encode()
        )
        if not self._sampler:
            raise ValueError(f"grammar must be one that llama.cpp parses, got {text!r}")
        weakref.finalize(self, llama_cpp.llama_sampler_free, self._sampler)
        self._candidates = np.zeros(size, _CANDIDATE)

    def mask(self, ids: npt.NDArray[Any] | None = None) -> npt.NDArray[np.bool_]:
        """Return which tokens may come next, of some or of all."""
        rows = self._candidates[: None if ids is None else ids.size]
        rows["id"] = np.arange(rows.size) if ids is None else ids
        rows["logit"] = 0.0
        array = llama_cpp.llama_token_data_array(
            data=rows.ctypes.data_as(llama_cpp.llama_token_data_p),
            size=rows.size,
            selected=-1,
            sorted=False,
        )
        llama_cpp.llama_sampler_apply(self._sampler, ctypes.byref(array))
        return np.asarray(rows["logit"] == 0.0)  # of the others it is -inf

    def allows(self, token: int) -> bool:
        """Return whether a token may come next."""
        return bool(self.mask(np.array([token], np.int32))[0])

    def accept(self, token: int) -> None:
        """Go on after a token, which must be allowed: of another llama.cpp ends the process."""
        llama_cpp.llama_sampler_accept(self._sampler, token)
