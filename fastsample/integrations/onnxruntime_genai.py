"""ONNX Runtime GenAI: a generator that draws with fastsample.

Needs the extra ``onnxruntime-genai``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..chains import checked
from ..orders import Order
from ..sampler import Sampler
from ..sampling import sample
from . import how_to_get

try:
    import onnxruntime_genai as og
except ImportError as error:
    raise ImportError(
        f"this needs onnxruntime-genai ({error}): {how_to_get('onnxruntime-genai')}"
    ) from error

# Search options that act inside the runtime's own step, and the value that turns them off.
_LACKING = {"num_beams": 1, "min_length": 0, "no_repeat_ngram_size": 0}


# Of the options that the runtime takes as they come: what they must be, and how that is told.
_RANGES: dict[str, tuple[str, Callable[[float], bool]]] = {
    "repetition_penalty": ("finite and > 0", lambda v: 0.0 < v < math.inf),
    "max_length": (">= 1", lambda v: v >= 1),
}
# The same for those that play no part in greedy search.
_RANGES_OF_SAMPLING: dict[str, tuple[str, Callable[[float], bool]]] = {
    "top_k": (">= 0", lambda v: v >= 0),
    "random_seed": (">= -1", lambda v: v >= -1),
    "length_penalty": ("finite", math.isfinite),
    "diversity_penalty": ("finite", math.isfinite),
}


def _check_ranges(options: dict[str, Any]) -> None:
    ranges = _RANGES | (_RANGES_OF_SAMPLING if options["do_sample"] else {})
    for name, (requirement, valid) in ranges.items():
        if name in options and not valid(options[name]):
            raise ValueError(f"{name} must be {requirement}, got {options[name]:g}")
    if options["do_sample"]:  # where others make it greedy, too
        for name in ("temperature", "top_p"):
            checked(name, options[name])


def _let_the_runtime_check(model: Any, params: Any, options: dict[str, Any]) -> None:
    """Let it refuse what it refuses of options that it will not see as they are.

    The generator that is made for it has room for one token, and goes at once.
    """
    params.set_search_options(max_length=1)
    try:
        og.Generator(model, params)
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    finally:
        params.set_search_options(max_length=int(options["max_length"]))


def _parameters(options: dict[str, Any]) -> dict[str, Any] | None:
    """Return the arguments of `Sampler` that search options stand for; None is greedy."""
    temperature, top_p = float(options["temperature"]), float(options["top_p"])
    top_k = int(options["top_k"])
    # As the runtime decides. To it a top_p of 0 is off, but beside a top_k of 0 it is greedy.
    if not options["do_sample"] or top_k == 1 or temperature == 0.0 or top_k == top_p == 0:
        return None
    for name, off in _LACKING.items():
        if options[name] != off:
            raise ValueError(f"{name} must be {off} to draw with fastsample, got {options[name]:g}")
    return {"temperature": temperature, "top_k": top_k, "top_p": top_p or 1.0}


class FastGenerator(og.Generator):
    """An ``onnxruntime_genai.Generator`` whose ``generate_next_token`` draws with fastsample.

    All else is the runtime's: prompts, caches, the end of sequences, padding of rows that have
    ended, ``is_done``, ``get_next_tokens`` and ``get_sequence``. Greedy search is left to it.

    Parameters
    ----------
    model : onnxruntime_genai.Model
        The model.
    params : onnxruntime_genai.GeneratorParams
        Its search options are read here: do_sample, temperature, top_k, top_p and
        repetition_penalty, as the runtime means them (top_p 0 is off). Those that take part in
        the runtime's own step are refused: num_beams, min_length, no_repeat_ngram_size.
    seed : int or array of shape (B,), optional
        As in `fastsample.Sampler`: with a scalar, row i of the batch draws from stream i. Without
        it, the option random_seed where that is set (>= 0), or else one from the operating system.
    order : str or tuple of str, default "onnxruntime-genai"
        As in `fastsample.sample`.

    Attributes
    ----------
    sampler : fastsample.Sampler or None
        What draws, None where the search is greedy. Its offset counts the draws; ``rewind_to``
        leaves it alone, so that a second try is another one.

    Raises
    ------
    ValueError
        A search option is out of its range, fastsample's or the runtime's (a `top_k` beyond the
        vocabulary), or fastsample does not have it.
    TypeError
        As in `fastsample.sample`.

    Notes
    -----
    Guidance (``params.set_guidance``) masks tokens inside the runtime's step, after the draw. With
    one row a draw that it forbids raises RuntimeError; do not use it with more.

    Examples
    --------
    The runtime's usual loop, with another class::

        generator = FastGenerator(model, params, seed=1)
        generator.append_tokens(tokenizer.encode("The weather today is"))
        while not generator.is_done():
            generator.generate_next_token()
            print(stream.decode(generator.get_next_tokens()[0]), end="")
    """

    def __init__(
        self, model: Any, params: Any, *, seed: Any = None, order: Order = "onnxruntime-genai"
    ) -> None:
        options = params.get_search_options()
        _check_ranges(options)
        parameters = _parameters(options)
        if seed is None and options["random_seed"] >= 0:
            seed = int(options["random_seed"])
        self.sampler = None
        if parameters is not None:
            self.sampler = Sampler(**parameters, order=order, seed=seed)
        if options["do_sample"]:
            _let_the_runtime_check(model, params, options)
        self._penalised: dict[str, Any] | None = None
        if parameters is not None and options["repetition_penalty"] != 1.0:
            penalty = float(options["repetition_penalty"])
            self._penalised = {**parameters, "order": order, "repetition_penalty": penalty}
        # The runtime copies the options. Greedy, it takes the one token that is left to it.
        params.set_search_options(do_sample=False)
        try:
            super().__init__(model, params)
        except RuntimeError as error:
            raise ValueError(str(error)) from error
        finally:
            params.set_search_options(do_sample=options["do_sample"])

    def generate_next_token(self) -> None:
        """Draw a token for each row and append it."""
        if self.sampler is None or self.is_done():  # which the runtime refuses
            super().generate_next_token()
            return
        logits = self.get_logits()
        rows = logits[:, -1]  # the array is a copy
        tokens = self.sampler(rows) if self._penalised is None else self._drawn(rows)
        logits.fill(-np.inf)
        rows[np.arange(len(rows)), tokens] = 0.0
        self.set_logits(logits)
        super().generate_next_token()
        if len(rows) == 1 and (chosen := self.get_next_tokens()[0]) != tokens[0]:
            raise RuntimeError(
                f"the runtime appended token {chosen} where {tokens[0]} was drawn: guidance must "
                "not be set to draw with fastsample"
            )

    def _drawn(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """Draw with the sequences that the runtime has so far."""
        assert self.sampler is not None
        tokens = np.empty(len(rows), np.int64)
        sample(
            rows,
            **self._penalised or {},
            history=[self.get_sequence(row) for row in range(len(rows))],
            seed=self.sampler.seed,
            offset=self.sampler.offset,
            out=tokens,
        )
        self.sampler.offset += 1
        return tokens
