"""mlx-lm: a sampler and logits processors that draw, and edit, with fastsample.

Needs the extra ``mlx``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import backend
from ..chains import refuse_unknown
from ..lists import ids_of
from ..orders import Order
from ..parameters import EDITING, Seeds
from ..reference.edits import beyond_float32, exactly
from ..rules import Rule, Rules, check_ids, make_rules
from ..sampler import Sampler
from ..values import any_integer
from . import how_to_get

try:
    import mlx.core as mx
except ImportError as error:
    raise ImportError(f"this needs mlx and mlx-lm ({error}): {how_to_get('mlx')}") from error

#: What mlx-lm calls otherwise, or has one of for each penalty.
_THEIRS = {
    "temperature": "temp",
    "penalty_last_n": "repetition_context_size, presence_context_size, frequency_context_size",
}


def _refuse_others(function: str, given: Mapping[str, Any], editing: bool) -> None:
    """Refuse parameters that mlx-lm has other names for, or another function takes."""
    refuse_unknown(function, given)
    for name in given:
        if name in _THEIRS:
            raise TypeError(f"{function} has no parameter {name}: mlx-lm's name is {_THEIRS[name]}")
        if (name in EDITING) != editing:
            other = "make_sampler" if editing else "make_logits_processors"
            raise TypeError(f"{function} has no parameter {name}: it is one of {other}")


def _is_off(value: Any) -> bool:
    number = isinstance(value, Real) or getattr(value, "ndim", None) == 0
    return value is None or (number and not value)


def _logits(name: str, array: Any) -> Any:
    if not isinstance(array, mx.array):
        raise TypeError(f"{name} must be an mlx array, got {type(array).__name__}")
    return array


# ---- the draw ----------------------------------------------------------------------------------


def _seed_of_mlx() -> int:
    """Return a seed of mlx's generator, which ``mx.random.seed`` repeats."""
    high, low = np.asarray(mx.random.randint(0, 2**32 - 1, (2,), dtype=mx.uint32)).tolist()
    seed: int = high << 32 | low
    return seed


class FastSampler:
    """A ``sampler`` of mlx-lm, from rows of log-probabilities to tokens; see `make_sampler`.

    Parameters
    ----------
    sampler : fastsample.Sampler
        What draws.

    Attributes
    ----------
    sampler : fastsample.Sampler
        The same. Its offset counts the calls; ``sampler.reset()`` begins anew.
    """

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler

    def __call__(self, logprobs: Any) -> Any:
        """Draw a token from each row of log-probabilities (B, V), as they lie in memory.

        Parameters
        ----------
        logprobs : mlx.core.array, shape (B, V) or (V,)
            bfloat16, float16 or float32; logits are as good.

        Returns
        -------
        mlx.core.array, shape (B,) or ()
            uint32.
        """
        tokens = self.sampler(_logits("logprobs", logprobs))
        return mx.array(np.asarray(tokens, np.uint32))


def make_sampler(
    temp: float = 0.0,
    top_p: float = 0.0,
    min_p: float = 0.0,
    min_tokens_to_keep: int = 1,
    top_k: int = 0,
    xtc_probability: float = 0.0,
    xtc_threshold: float = 0.1,
    xtc_special_tokens: Sequence[int] | None = None,
    *,
    seed: Seeds = None,
    order: Order = "mlx-lm",
    **parameters: Any,
) -> FastSampler:
    """Make a sampler for mlx-lm, as ``mlx_lm.sample_utils.make_sampler`` does.

    Parameters
    ----------
    temp, top_p, min_p, min_tokens_to_keep, top_k, xtc_probability, xtc_threshold : float or int
        As there: `temp` is 0 and so greedy unless it is set, and a `top_p` of 0 is off. Ranges are
        those of `fastsample.sample`.
    xtc_special_tokens : list of int, optional
        Must be empty, or None, where XTC is on.
    seed : int or array of shape (B,), optional
        As in `fastsample.Sampler`: call i draws with ``offset=i``, from row r in stream r. Without
        it mlx's generator gives one, so that ``mx.random.seed`` repeats a text; a process that is
        forked goes on with another.
    order : str or tuple of str, default "mlx-lm"
        As in `fastsample.sample`.
    **parameters
        Those of `fastsample.sample` that cut or weigh: `typical_p`, `top_n_sigma`, `mirostat` and
        so on. Their stages must stand in `order`.

    Returns
    -------
    FastSampler
        What ``sampler=`` takes.

    Raises
    ------
    ValueError, TypeError
        A parameter is out of its range, or one of `make_logits_processors`.

    Examples
    --------
    >>> import mlx.core as mx
    >>> from fastsample.integrations.mlx import make_sampler
    >>> sampler = make_sampler(temp=0.8, top_k=2, seed=7)
    >>> logprobs = mx.array([[3.0, 2.5, 2.0, 1.0]], mx.bfloat16)
    >>> [sampler(logprobs).item() for _ in range(4)]
    [1, 0, 0, 0]
    """
    _refuse_others("make_sampler", parameters, editing=False)
    special = () if xtc_special_tokens is None else ids_of("xtc_special_tokens", xtc_special_tokens)
    if len(special) and np.any(xtc_probability):
        raise ValueError(
            "xtc_special_tokens must be empty to draw with fastsample where xtc_probability is on, "
            f"got {xtc_special_tokens!r}"
        )
    sampler = Sampler(
        temperature=temp,
        top_p=1.0 if _is_off(top_p) else top_p,
        min_p=min_p,
        min_tokens_to_keep=min_tokens_to_keep,
        top_k=top_k,
        xtc_probability=xtc_probability,
        xtc_threshold=xtc_threshold,
        order=order,
        seed=seed,
        **parameters,
    )
    if seed is None:  # nobody has given this one either: a forked child takes another
        sampler.seed = sampler._own = _seed_of_mlx()
    return FastSampler(sampler)


# ---- edits of logits -----------------------------------------------------------------------------


def _edited(values: npt.NDArray[np.float32], edits: npt.NDArray[np.void]) -> npt.NDArray[Any]:
    """Return the values of edited ids: computed in float64, rounded once."""
    x = exactly(values, *(edits[name] for name in ("factor", "subtract", "bias", "banned")))
    with np.errstate(over="ignore", under="ignore"):
        made = x.astype(np.float32)
    for row, place in np.argwhere((made == np.inf) & (values < np.inf)).tolist():
        raise ValueError(beyond_float32(row, float(x[row, place]), edits["id"][place]))
    return made


class FastLogitsProcessor:
    """A logits processor of mlx-lm, from tokens and logits to logits; see `make_logits_processors`.

    It is a function of its arguments: one may be used for several texts, as in a batch. For one
    text at a time, what it has seen of the tokens is not looked at again.

    Parameters
    ----------
    rules : fastsample.rules.Rules
        What edits.
    prompt_length : int
        How many of the tokens are the prompt.
    """

    def __init__(self, rules: Rules, prompt_length: int) -> None:
        self._rules, self._prompt_length = rules, prompt_length
        self._history = backend.history(rules.rules)
        self._seen: npt.NDArray[np.int64] | None = None
        self._banned: Any = None  # of which ids allowed ones are not, (V,)

    def __call__(self, tokens: Any, logits: Any) -> Any:
        """Return edited logits; those given stay as they are.

        Parameters
        ----------
        tokens : mlx.core.array, shape (n,)
            The tokens so far.
        logits : mlx.core.array, shape (B, V)
            bfloat16, float16 or float32; what comes back is too.

        Returns
        -------
        mlx.core.array, shape (B, V)
            Rounded to float32, and then to the type of the logits.
        """
        if _logits("logits", logits).ndim != 2:
            raise ValueError(f"logits must be of shape (B, V), got {logits.shape}")
        rows, vocab = logits.shape
        check_ids(self._rules, vocab)
        self._follow(ids_of("tokens", np.asarray(tokens)))
        edits = self._history.edits(vocab)
        if edits.size:
            ids = mx.array(edits["id"])
            values = np.asarray(logits[:, ids].astype(mx.float32))
            edited = mx.array(_edited(values, edits)).astype(logits.dtype)
            places = mx.broadcast_to(ids, (rows, ids.size))
            logits = mx.put_along_axis(logits, places, edited, axis=-1)
        if self._rules.allowed is not None:
            logits = mx.where(self._not_allowed(vocab), -mx.inf, logits)
        return logits

    def _follow(self, ids: npt.NDArray[np.int64]) -> None:
        """Make these the tokens of the history."""
        seen = self._seen
        if seen is not None and np.array_equal(ids[: seen.size], seen):
            self._history.push(ids[seen.size :])
        else:
            if ids.size < self._prompt_length:
                raise ValueError(
                    f"prompt_length must be in [0, {ids.size}], the tokens so far, "
                    f"got {self._prompt_length}"
                )
            self._history.start(ids, self._prompt_length)
        self._seen = ids

    def _not_allowed(self, vocab: int) -> Any:
        if self._banned is None or self._banned.size != vocab:
            banned = np.ones(vocab, np.bool_)
            banned[self._rules.allowed] = False
            self._banned = mx.array(banned)
        return self._banned


def _rules_of(given: Mapping[str, Any]) -> Rules:
    rules = make_rules(None, given)
    if isinstance(rules, Rules):
        return rules
    names = ", ".join(name for name in given if name not in _THEIRS)
    raise ValueError(f"{names} must be one value, got one for each row")


def _penalty(name: str, value: Any, size_name: str, size: Any) -> tuple[Rule, ...]:
    """Return the rule of a penalty, which is off where mlx-lm has it off."""
    if _is_off(value):
        return ()
    tokens = any_integer(size_name, size)
    if tokens < 1 and tokens != -1:  # to mlx-lm 0 is all tokens, to fastsample none
        raise ValueError(f"{size_name} must be >= 1, or -1 for all tokens, got {size!r}")
    return _rules_of({name: value, "penalty_last_n": tokens}).rules


def make_logits_processors(
    logit_bias: Mapping[int, float] | None = None,
    repetition_penalty: float | None = None,
    repetition_context_size: int = 20,
    presence_penalty: float | None = None,
    presence_context_size: int = 20,
    frequency_penalty: float | None = None,
    frequency_context_size: int = 20,
    *,
    prompt_length: int = 0,
    **parameters: Any,
) -> list[FastLogitsProcessor]:
    """Make logits processors for mlx-lm, as its function of this name does.

    Parameters
    ----------
    logit_bias : dict, optional
        As in `fastsample.sample`.
    repetition_penalty, presence_penalty, frequency_penalty : float, optional
        As in `fastsample.sample`; None and 0 are off.
    repetition_context_size, presence_context_size, frequency_context_size : int, default 20
        How many of the last tokens each of them looks at; -1 is all.
    prompt_length : int, default 0
        How many of the tokens are the prompt, which presence_penalty and frequency_penalty do not
        count, and after which `min_new_tokens` begins to. To mlx-lm the prompt is text as any
        other: 0.
    **parameters
        Those of `fastsample.sample` that edit: DRY, `no_repeat_ngram_size`, `bad_words_ids`,
        `sequence_bias`, `suppress_tokens`, `allowed_token_ids`, `min_new_tokens` with
        `eos_token_id`.

    Returns
    -------
    list of FastLogitsProcessor
        What ``logits_processors=`` takes: one that makes all the edits, or none where all are off.

    Raises
    ------
    ValueError, TypeError
        A parameter is out of its range, or one of `make_sampler`.

    Examples
    --------
    >>> import mlx.core as mx
    >>> from fastsample.integrations.mlx import make_logits_processors
    >>> (process,) = make_logits_processors(repetition_penalty=2.0, suppress_tokens=[3])
    >>> process(mx.array([0, 2, 0]), mx.array([[3.0, 2.5, -1.0, 4.0]]))
    array([[1.5, 2.5, -2, -inf]], dtype=float32)
    """
    function = "make_logits_processors"
    _refuse_others(function, parameters, editing=True)
    length = any_integer("prompt_length", prompt_length)
    if length < 0:
        raise ValueError(f"prompt_length must be >= 0, got {prompt_length!r}")
    lists = _rules_of({"logit_bias": logit_bias, **parameters})
    penalties = (
        *_penalty("repetition_penalty", repetition_penalty,
                  "repetition_context_size", repetition_context_size),
        *_penalty("presence_penalty", presence_penalty,
                  "presence_context_size", presence_context_size),
        *_penalty("frequency_penalty", frequency_penalty,
                  "frequency_context_size", frequency_context_size),
    )  # fmt: skip
    rules = lists._replace(rules=(*lists.rules, *penalties))
    if not rules.rules and rules.allowed is None:
        return []
    return [FastLogitsProcessor(rules, length)]
