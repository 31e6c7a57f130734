"""The loop around a model: draw, append, ask again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .arrays import to_array, widen
from .chains import refuse_unknown
from .lists import column_of_lists, one_or_more_ids
from .parameters import EDITING, Ints, Parameters, Seeds, Stops, SupportsArray
from .plans import make_plan, start_of
from .sampling import sample
from .signatures import documented
from .uniforms import uniforms
from .values import any_integer, integer, named, plain, refuse_masked

if TYPE_CHECKING:
    from typing_extensions import Unpack

DEFAULT_MAX_LENGTH, DEFAULT_TOP_K = 20, 50  # those of Hugging Face's generate

Ids = npt.NDArray[np.int64]


def _prompt(input_ids: Any) -> Ids:
    refuse_masked("input_ids", input_ids)
    with named("input_ids must be integers"):
        ids = np.asarray(input_ids)
    if ids.dtype.kind not in "iu":
        raise TypeError(f"input_ids must be integers, got {ids.dtype}")
    if ids.ndim not in (1, 2) or ids.size == 0:
        raise ValueError(f"input_ids must be of shape (n,) or (B, n), n >= 1, got {ids.shape}")
    if ids.dtype.kind == "u" and ids.max() >= 2**63:
        raise ValueError(f"input_ids must be below 2**63, got {int(ids.max())}")
    return ids.astype(np.int64)


def _check_callable(name: str, function: Any) -> None:
    if not callable(function):
        kind = type(function).__name__
        raise TypeError(f"{name} must be callable, got {function!r} ({kind})")


def _steps(length: int, max_length: int | None, max_new_tokens: int | None) -> int:
    if max_new_tokens is not None:
        steps = integer("max_new_tokens", max_new_tokens)
        if steps < 1:
            raise ValueError(f"max_new_tokens must be >= 1, got {max_new_tokens}")
        return steps
    limit = DEFAULT_MAX_LENGTH if max_length is None else integer("max_length", max_length)
    if limit <= length:
        raise ValueError(
            f"max_length must be greater than the {length} tokens of the prompt, got {limit}"
        )
    return limit - length


def _token(name: str, value: Any) -> int:
    token = any_integer(name, value)
    if not -(2**63) <= token < 2**63:
        raise ValueError(f"{name} must be in [-2**63, 2**63), got {token}")
    return token


def _items(name: str, value: Any) -> list[Any] | None:
    """Return what a list, a tuple or an array of any library has in it, or None."""
    items = plain(name, value)
    return items if isinstance(items, list) else None


class _Ends:
    """What ends a row, of the tokens that it has drawn, and what fills it from there on."""

    def __init__(self, eos: Any, sequences: Any, pad: Any, rows: int) -> None:
        found = column_of_lists("eos_token_id", eos, rows, _tokens, like=one_or_more_ids)
        self._eos = [ids or () for ids in found] if isinstance(found, list) else [found] * rows
        self._sequences = _stop_sequences(sequences)
        if pad is None and rows > 1 and self._sequences and not all(self._eos):
            raise ValueError(
                "pad_token_id or eos_token_id must be given where stop_sequences end rows of a "
                "batch: what fills them"
            )
        first = [ids[0] if ids else 0 for ids in self._eos]
        self.pad = np.array(first if pad is None else [_token("pad_token_id", pad)], np.int64)

    def reached(self, drawn: Ids) -> npt.NDArray[np.bool_]:
        """Return which rows of drawn tokens, (B, n), end with what ends a row."""
        last = zip(drawn[:, -1].tolist(), self._eos, strict=True)
        done = np.array([token in ends for token, ends in last], np.bool_)
        for sequence in self._sequences:
            if drawn.shape[1] >= sequence.size:
                done |= (drawn[:, -sequence.size :] == sequence).all(axis=1)
        return done


def _tokens(name: str, value: Any, where: str = "") -> tuple[int, ...]:
    """Return one id, several or none."""
    items = plain(name, value)
    if isinstance(items, (set, frozenset)):
        items = sorted(items)
    given = [] if items is None else items if isinstance(items, list) else [value]
    return tuple(_token(name, token) for token in given)


def _stop_sequences(sequences: Any) -> list[Ids]:
    name = "stop_sequences"
    must = f"{name} must be sequences of ids, as in [[13, 13], [2]]"
    found = [] if sequences is None else _items(name, sequences)
    if found is None:
        raise TypeError(f"{must}, got {sequences!r} ({type(sequences).__name__})")
    stops = []
    for sequence in found:
        ids = _items(name, sequence)
        if ids is None:
            raise TypeError(f"{must}, got {sequence!r} ({type(sequence).__name__}) in them")
        if not ids:
            raise ValueError(f"{name} must not have an empty sequence")
        stops.append(np.array([_token(f"an id of {name}", token) for token in ids], np.int64))
    return stops


def _last_logits(output: Any, ids: Ids) -> npt.NDArray[Any]:
    """(B, V) or (V,) of a model's output, which may have a time axis."""
    logits = getattr(output, "logits", output)
    if isinstance(logits, Mapping):
        if "logits" not in logits:
            raise TypeError(
                "model must return logits, or what has them as logits, got a "
                f"{type(logits).__name__} with {', '.join(map(repr, logits)) or 'nothing in it'}"
            )
        logits = logits["logits"]
    if logits is None:
        what = "None" if output is None else f"a {type(output).__name__} whose logits are None"
        raise TypeError(f"model must return logits, got {what}")
    try:
        array = to_array(logits)
    except TypeError as error:
        raise TypeError(f"model must return logits that sample takes: {error}") from error
    if array.ndim == ids.ndim + 1:
        if array.shape[-2] == 0:
            raise ValueError(
                f"model must return logits of at least one step, got shape {array.shape}"
            )
        array = array[..., -1, :]
    elif array.ndim != ids.ndim:
        raise ValueError(
            f"model must return logits of {ids.ndim} or {ids.ndim + 1} dimensions for input_ids "
            f"of shape {ids.shape}, got shape {array.shape}"
        )
    if ids.ndim == 2 and array.shape[0] != ids.shape[0]:
        raise ValueError(
            f"model must return {ids.shape[0]} rows of logits, got shape {array.shape}"
        )
    return widen(array)  # after the last step has been taken


def _offsets(offset: Any) -> Callable[[int], Any]:
    """Return what gives the offsets of a step; `sample` has checked them."""
    starts = _items("offset", offset)
    if starts is None:
        start = any_integer("offset", offset)
        return lambda step: start + step
    return lambda step: [int(plain("offset", start)) + step for start in starts]


@documented(top_k=DEFAULT_TOP_K)
def stream(
    model: Callable[[npt.NDArray[np.int64]], Any],
    input_ids: Any,
    *,
    max_length: int | None = None,
    max_new_tokens: int | None = None,
    do_sample: bool = False,
    stop_sequences: Stops = None,
    pad_token_id: int | None = None,
    seed: Seeds = None,
    offset: Ints = 0,
    allowed: SupportsArray | None = None,
    vocab_size: int | None = None,
    **parameters: Unpack[Parameters],
) -> Iterator[Any]:
    """Yield tokens as they are drawn; see `generate`.

    Parameters
    ----------
    model, input_ids, max_length, max_new_tokens, do_sample
        As in `generate`.
    stop_sequences, pad_token_id, seed, offset, allowed, vocab_size
        As in `generate`.
    {parameters}

    Yields
    ------
    int or int64 array of shape (B,)
        The tokens of one step; of a row that has ended, what pads it.

    Raises
    ------
    ValueError, TypeError
        As in `generate`, when the first token is asked for.

    Examples
    --------
    >>> import fastsample
    >>> cycle = lambda ids: [1.0 if t == (ids[-1] + 1) % 4 else 0.0 for t in range(4)]
    >>> list(fastsample.stream(cycle, [0], max_new_tokens=5))
    [1, 2, 3, 0, 1]
    """
    _check_callable("model", model)
    ids = _prompt(input_ids)
    if not isinstance(do_sample, (bool, np.bool_)):
        kind = type(do_sample).__name__
        raise TypeError(f"do_sample must be True or False, got {do_sample!r} ({kind})")
    single, length = ids.ndim == 1, ids.shape[-1]
    steps = _steps(length, max_length, max_new_tokens)
    chain: dict[str, Any] = {"top_k": DEFAULT_TOP_K, **parameters}
    rows = 1 if single else len(ids)
    ends = _Ends(chain.get("eos_token_id"), stop_sequences, pad_token_id, rows)
    if "min_new_tokens" not in chain:
        chain.pop("eos_token_id", None)
    refuse_unknown("generate", chain)
    if not do_sample:
        kept = {n: v for n, v in chain.items() if n in EDITING or n == "order"}
        chain = {"temperature": 0.0, **kept}
    # What is wrong with the parameters is said before the model is asked.
    plan = make_plan(rows, "generate", chain)
    uniforms(rows, seed, offset)
    offset_of = _offsets(offset)
    options: dict[str, Any] = {"seed": seed, "allowed": allowed, "vocab_size": vocab_size}
    if plan.moves:
        begun = start_of(plan, rows)
        options["state"] = begun[0] if single else begun
    # A row that has ended is not looked at: it is drawn from as the last time.
    ends_at = np.full(rows, length)
    active = np.ones(rows, bool)

    for step in range(steps):
        logits = _last_logits(model(ids.copy()), ids)
        if not active.all():  # a finished row is not looked at; the others keep their places
            logits = np.array(logits)
            logits[~active] = 0.0
        # Without a seed there is no place to draw at.
        at: dict[str, Any] = {} if seed is None else {"offset": offset_of(step)}
        if plan.rules is not None:
            ends_at[active] = ids.shape[-1]
            past = [row[:end] for row, end in zip(np.atleast_2d(ids), ends_at, strict=True)]
            options |= {"history": past[0] if single else past, "prompt_length": length}
        drawn = sample(logits, **chain, **options, **at)
        tokens = np.where(active, drawn, ends.pad)
        yield int(tokens[0]) if single else tokens.copy()
        ids = np.concatenate([ids, tokens if single else tokens[:, None]], axis=-1)
        active &= ~ends.reached(np.atleast_2d(ids)[:, length:])
        if not active.any():
            return


@documented(top_k=DEFAULT_TOP_K)
def generate(
    model: Callable[[npt.NDArray[np.int64]], Any],
    input_ids: Any,
    *,
    max_length: int | None = None,
    max_new_tokens: int | None = None,
    do_sample: bool = False,
    stop_sequences: Stops = None,
    pad_token_id: int | None = None,
    seed: Seeds = None,
    offset: Ints = 0,
    allowed: SupportsArray | None = None,
    vocab_size: int | None = None,
    on_token: Callable[[Any], object] | None = None,
    **parameters: Unpack[Parameters],
) -> npt.NDArray[np.int64]:
    """Continue a prompt with the names, defaults and meaning of Hugging Face's ``generate``.

    Parameters
    ----------
    model : callable
        ``model(ids) -> logits``: ids a NumPy int64 array of shape (n,) or (B, n); logits of the
        next token, (V,) or (B, V), with or without a time axis, of any kind that `sample` takes;
        or what has them as its attribute ``logits`` or, a dict, under that key.
    input_ids : int array, shape (n,) or (B, n)
        The prompt, or B prompts of equal length.
    max_length : int, optional
        Tokens in all, prompt included; 20 where `max_new_tokens` is not given either.
    max_new_tokens : int, optional
        Tokens to draw; wins over `max_length`.
    do_sample : bool, default False
        False is greedy: the stages play no part, while penalties, biases and bans do.
    {parameters}
    stop_sequences : sequence of sequences of int, optional
        A row ends, too, when the tokens drawn for it end with one of these. What ends a row stays
        in it; what is in the prompt ends nothing.
    pad_token_id : int, optional
        What fills a row that has ended; by default the first of `eos_token_id`.
    seed : int or array of shape (B,), optional
        Step i draws with ``seed=seed, offset=offset + i`` of `sample`: from one seed row r draws in
        stream r, with a seed for each a row draws as it does alone. Without it, the draws are the
        process's own.
    offset : int or array of shape (B,), default 0
        The step of the first token. A text of which n tokens have been drawn goes on with its own
        uniforms with ``offset=n``.
    {allowed}
    on_token : callable, optional
        Called with each step's token, or array of tokens, as it is drawn.

    Returns
    -------
    int64 array, shape (n + drawn,) or (B, n + drawn)
        The prompt and what was drawn.

    Notes
    -----
    Each of `eos_token_id` ends a row; of a list for each row, its own do. `top_k` is 50 by default.
    The history that penalties look at is the prompt and what has been drawn; what a stage has as
    its state begins anew.

    Raises
    ------
    ValueError
        A parameter is out of its range, or the model's logits are of another shape.
    TypeError
        `input_ids` are not integers, or what the model returns is not logits.

    Examples
    --------
    >>> import fastsample
    >>> cycle = lambda ids: [1.0 if t == (ids[-1] + 1) % 4 else 0.0 for t in range(4)]
    >>> fastsample.generate(cycle, [0], max_length=6, eos_token_id=3)
    array([0, 1, 2, 3])
    >>> fastsample.generate(cycle, [0], max_length=9, stop_sequences=[[0, 1]])
    array([0, 1, 2, 3, 0, 1])
    """
    _check_callable("model", model)
    if on_token is not None:
        _check_callable("on_token", on_token)
    prompt = _prompt(input_ids)
    steps = []
    for tokens in stream(
        model,
        prompt,
        max_length=max_length,
        max_new_tokens=max_new_tokens,
        do_sample=do_sample,
        stop_sequences=stop_sequences,
        pad_token_id=pad_token_id,
        seed=seed,
        offset=offset,
        allowed=allowed,
        vocab_size=vocab_size,
        **parameters,
    ):
        steps.append(np.copy(tokens))  # what is handed out is the caller's to change
        if on_token is not None:
            on_token(tokens)
    return np.concatenate([prompt, np.array(steps, np.int64).T], axis=-1)
