"""What ``Llama.generate`` draws with in place of llama.cpp's sampler.

Depends on llama-cpp-python, ``sampler.py`` and ``details.py``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from time import perf_counter
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from ..details import Draw, draw
from ..parameters import EDITING
from ..sampler import Sampler
from ..sampling import survivors
from ._llama_grammar import Grammar

Row = npt.NDArray[np.float32]
Edit = Callable[[Row], Any]  # what it returns replaces the row; may work in place

# The public function without the ctypes pointer around its result: (context, index) -> address.
logits_address = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32)(
    ctypes.cast(llama_cpp.llama_get_logits_ith, ctypes.c_void_p).value or 0
)


class Call(int):
    """The seed of one completion, which leaves that of the object as it is, and what it tells."""

    top_logprobs: int | None = None
    told: list[Draw]


class Draws:
    """What ``Llama.generate`` asks for tokens; counts them, and the time that they take."""

    def __init__(
        self,
        vocab: int,
        sampler: Sampler,
        edits: list[Edit],
        prompt: Callable[[], Any] | None = None,
        grammar: Grammar | None = None,
        top_k: int = 0,
        call: Call | None = None,
    ) -> None:
        self.draws = 0
        self.seconds = 0.0
        self._vocab, self._sampler, self._edits, self._prompt = vocab, sampler, edits, prompt
        self._grammar, self._top_k, self._call = grammar, top_k, call
        self._greedy = sampler._parameters.get("temperature") == 0.0
        self._edited_with = {n: v for n, v in sampler._parameters.items() if n in EDITING}
        if grammar is not None and self._greedy:
            sampler.push([])  # from now on it remembers its steps
        self._address = 0
        self._row = np.empty(0, np.float32)

    def sample(self, ctx: Any, idx: int = -1) -> int:
        # Few calls: a step of the model leaves nothing of this, nor of the logits, in the caches.
        address = logits_address(ctx.ctx, idx)  # waits for the model, and so is not timed
        since = perf_counter()
        if address != self._address:
            self._row = self._view(address)
        if self._prompt is not None:  # there is one now: the model has read it
            self._sampler.start(self._prompt(), prompt_length=0)
            self._prompt = None
        row = self._edited() if self._edits else self._row
        token = int(self._sampler(row)) if self._grammar is None else self._fitting(row)
        if self._call is not None and self._call.top_logprobs is not None:
            self._call.told.append(self._told(token, self._call.top_logprobs))
        self.draws += 1
        self.seconds += perf_counter() - since
        return token

    def _told(self, token: int, top: int) -> Draw:
        """Return what is told of a token: of the row as it came, whatever processors made of it."""
        if self._row[token] > -np.inf:
            return draw(self._row, top_logprobs=top, allowed_token_ids=[token], temperature=0.0)
        # A processor has lifted what the model itself never says.
        told = draw(self._row, top_logprobs=top, temperature=0.0)
        return told._replace(token=token, logprob=-np.inf)

    def _fitting(self, row: Row) -> int:
        """Return a token that the grammar allows, and tell the grammar of it."""
        assert self._grammar is not None
        token = -1
        if self._greedy:  # the largest of all, where it is allowed, is the largest of the allowed
            token = int(self._sampler(row))
            if not self._grammar.allows(token):
                self._sampler.rollback(1)
                token = -1
        if token < 0:
            token = int(self._sampler(row, allowed=self._mask(row)))
        self._grammar.accept(token)
        return token

    def _mask(self, row: Row) -> npt.NDArray[np.bool_]:
        """Return which tokens the grammar allows, as far as it matters.

        Where top_k comes first, only the k largest of the allowed do; mostly they are among the
        largest of all, and to check these takes a hundredth of the time.
        """
        assert self._grammar is not None
        if self._top_k:
            chain: dict[str, Any] = {"top_k": 4 * self._top_k, **self._edited_with}
            if self._sampler._plan.rules is not None:
                chain |= {"history": self._sampler.history, "prompt_length": 0}
            ids, _ = survivors(row, **chain)
            ids = ids[self._grammar.mask(ids)]
            if ids.size >= self._top_k:
                mask = np.zeros(self._vocab, np.bool_)
                mask[ids] = True
                return mask
        return self._grammar.mask()

    def _view(self, address: int | None) -> Row:
        if not address:
            raise RuntimeError("llama.cpp has no logits here: nothing has been decoded")
        self._address = address
        floats = (ctypes.c_float * self._vocab).from_address(address)
        return np.frombuffer(memoryview(floats), np.float32)

    def _edited(self) -> Row:
        row = self._row.copy()
        with np.errstate(over="ignore"):  # which the draw says better
            for edit in self._edits:
                row[:] = edit(row)
        return row
