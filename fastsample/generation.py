"""The loop around a model: draw, append, ask again."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import backend
from .params import Order, integer, make_records, named, refuse_masked
from .sampling import sample, uint64

DEFAULT_MAX_LENGTH = 20  # that of Hugging Face's generate


def _prompt(input_ids: Any) -> npt.NDArray[np.int64]:
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


def _last_logits(output: Any, ids: npt.NDArray[np.int64]) -> Any:
    """(B, V) or (V,) of a model's output, which may have a time axis."""
    logits = getattr(output, "logits", output)
    shape = getattr(logits, "shape", None)
    if shape is None:
        with named("model must return an array of numbers"):
            logits = np.asarray(logits)
        shape = logits.shape
    if len(shape) == ids.ndim + 1:
        if shape[-2] == 0:
            raise ValueError(
                f"model must return logits of at least one step, got shape {tuple(shape)}"
            )
        logits = logits[:, -1] if ids.ndim == 2 else logits[-1]
    elif len(shape) != ids.ndim:
        raise ValueError(
            f"model must return logits of {ids.ndim} or {ids.ndim + 1} dimensions for input_ids "
            f"of shape {ids.shape}, got shape {tuple(shape)}"
        )
    if ids.ndim == 2 and logits.shape[0] != ids.shape[0]:
        raise ValueError(
            f"model must return {ids.shape[0]} rows of logits, got shape {tuple(logits.shape)}"
        )
    return logits


def stream(
    model: Callable[[npt.NDArray[np.int64]], Any],
    input_ids: Any,
    *,
    max_length: int | None = None,
    max_new_tokens: int | None = None,
    do_sample: bool = False,
    temperature: Any = 1.0,
    top_k: Any = 50,
    top_p: Any = 1.0,
    min_p: Any = 0.0,
    eos_token_id: int | Sequence[int] | None = None,
    seed: int | None = None,
    order: Order = "hf",
) -> Iterator[Any]:
    """Yield tokens as they are drawn; see `generate`.

    Parameters
    ----------
    model, input_ids, max_length, max_new_tokens, do_sample
        As in `generate`.
    temperature, top_k, top_p, min_p, eos_token_id, seed, order
        As in `generate`.

    Yields
    ------
    int or int64 array of shape (B,)
        The tokens of one step. A row that has finished yields the first end-of-sequence id.

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
    steps = _steps(ids.shape[-1], max_length, max_new_tokens)
    eos = [] if eos_token_id is None else np.atleast_1d(np.asarray(eos_token_id, object)).tolist()
    eos = [integer("eos_token_id", token) for token in eos]
    rows = 1 if ids.ndim == 1 else ids.shape[0]
    active = np.ones(rows, bool)
    key = secrets.randbits(64) if seed is None else uint64("seed", seed)
    chain: dict[str, Any] = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
    }
    if do_sample:  # before the model is asked
        make_records(rows, temperature, top_k, top_p, min_p, 1, order)
    else:
        chain = {"temperature": 0.0}
    uniform = backend.active().uniform

    for step in range(steps):
        logits = _last_logits(model(ids.copy()), ids)
        tokens = np.full(rows, eos[0] if eos else 0, np.int64)
        if ids.ndim == 1:
            tokens[0] = sample(logits, **chain, order=order, seed=key, offset=step)
        else:
            # A finished row is not looked at; the others keep the stream of their place.
            alive = np.flatnonzero(active)
            u = [uniform(key, int(row), step) for row in alive]
            kept: dict[str, Any] = {
                n: [v[row] for row in alive] if np.ndim(v) else v for n, v in chain.items()
            }
            part = logits if alive.size == rows else logits[alive]
            drawn = sample(part, **kept, order=order, u=u, errors="mark")
            if (drawn < 0).any():  # let the error name the row by its place in the batch
                sample(logits, **chain, order=order, u=0.0)
            tokens[alive] = drawn
        yield int(tokens[0]) if ids.ndim == 1 else tokens.copy()
        active &= ~np.isin(tokens, eos)
        if not active.any():
            return
        ids = np.concatenate([ids, tokens if ids.ndim == 1 else tokens[:, None]], axis=-1)


def generate(
    model: Callable[[npt.NDArray[np.int64]], Any],
    input_ids: Any,
    *,
    max_length: int | None = None,
    max_new_tokens: int | None = None,
    do_sample: bool = False,
    temperature: Any = 1.0,
    top_k: Any = 50,
    top_p: Any = 1.0,
    min_p: Any = 0.0,
    eos_token_id: int | Sequence[int] | None = None,
    seed: int | None = None,
    order: Order = "hf",
    on_token: Callable[[Any], object] | None = None,
) -> npt.NDArray[np.int64]:
    """Continue a prompt with the names, defaults and meaning of Hugging Face's ``generate``.

    Parameters
    ----------
    model : callable
        ``model(ids) -> logits``: ids a NumPy int64 array of shape (n,) or (B, n); logits of the
        next token, (V,) or (B, V), with or without a time axis, or an object that has them as
        its attribute ``logits``.
    input_ids : int array, shape (n,) or (B, n)
        The prompt, or B prompts of equal length.
    max_length : int, optional
        Tokens in all, prompt included; 20 where `max_new_tokens` is not given either.
    max_new_tokens : int, optional
        Tokens to draw; wins over `max_length`.
    do_sample : bool, default False
        False is greedy: the sampling parameters play no part.
    temperature, top_k, top_p, min_p, order
        As in `sample`, but `top_k` is 50 by default.
    eos_token_id : int or sequence of int, optional
        Ids that end a row. A row that has ended is padded with the first.
    seed : int, optional
        Step i of row r draws with ``seed=seed, offset=i`` in stream r; without it, a seed from the
        operating system.
    on_token : callable, optional
        Called with each step's token, or array of tokens, as it is drawn.

    Returns
    -------
    int64 array, shape (n + drawn,) or (B, n + drawn)
        The prompt and what was drawn.

    Raises
    ------
    ValueError
        A parameter is out of its range, or the model's logits are of another shape.
    TypeError
        `input_ids` are not integers.

    Examples
    --------
    >>> import fastsample
    >>> cycle = lambda ids: [1.0 if t == (ids[-1] + 1) % 4 else 0.0 for t in range(4)]
    >>> fastsample.generate(cycle, [0], max_length=6, eos_token_id=3)
    array([0, 1, 2, 3])
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
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        eos_token_id=eos_token_id,
        seed=seed,
        order=order,
    ):
        steps.append(np.copy(tokens))  # what is handed out is the caller's to change
        if on_token is not None:
            on_token(tokens)
    return np.concatenate([prompt, np.array(steps, np.int64).T], axis=-1)
