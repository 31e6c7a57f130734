"""Hugging Face transformers: ``model.generate`` that draws with fastsample.

Needs the extra ``transformers``.
"""

from __future__ import annotations

import copy
import inspect
import os
import secrets
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..orders import Order
from ..sampler import Sampler
from ..sampling import survivors
from . import how_to_get

try:
    import torch
    from transformers import GenerationMixin, LogitsProcessor, LogitsProcessorList
    from transformers.generation import GenerationMode
except ImportError as error:
    raise ImportError(
        f"this needs transformers and torch ({error}): {how_to_get('transformers')}"
    ) from error

# What `generate` would apply where the draw has been made already, and the values that turn it off.
_LACKING: dict[str, tuple[Any, ...]] = {
    "top_h": (None,),
    "typical_p": (None, 1.0),
    "epsilon_cutoff": (None, 0.0),
    "eta_cutoff": (None, 0.0),
    "watermarking_config": (None,),
}

# What `generate` has where a parameter is None: the stage is off.
_OFF = {"temperature": 1.0, "top_k": None, "top_p": 1.0, "min_p": 0.0}


class _TorchSeeds:
    """Seeds of torch's generator, which ``torch.manual_seed`` and ``set_seed`` repeat.

    A forked child inherits its state. Where nothing has seeded it, a child must not repeat its
    parent, nor its siblings.
    """

    def __init__(self) -> None:
        self._initial, self._salt = torch.initial_seed(), 0
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self._salt = secrets.randbits(63)

    def next(self) -> int:
        seed: int = torch.randint(2**63 - 1, (), device="cpu").item()
        return seed ^ self._salt if torch.initial_seed() == self._initial else seed


_torch_seeds = _TorchSeeds()


class FastSampleLogitsProcessor(LogitsProcessor):
    """Draw a token per row, and return scores that leave no other: 0 for it, -inf for the rest.

    Put last in ``logits_processor``, it decides what ``generate`` appends, whether ``do_sample`` is
    set or not. `generate` of this module uses it so that ``generate``'s own parameters apply.

    Parameters
    ----------
    seed : int or array of shape (B,), optional
        As in `fastsample.Sampler`. With a scalar, row i of the batch draws from stream i; with an
        array each row has a seed of its own and draws as it does alone.
    offset : int, default 0
        The step of the first call; each call advances it.
    **parameters
        temperature, top_k, top_p, min_p, min_tokens_to_keep and order of `fastsample.Sampler`, with
        its defaults: `top_k` is off.

    Attributes
    ----------
    sampler : fastsample.Sampler
        What draws.

    Raises
    ------
    ValueError, TypeError
        As in `fastsample.sample`.

    Examples
    --------
    >>> import torch
    >>> from fastsample.integrations.transformers import FastSampleLogitsProcessor
    >>> draw = FastSampleLogitsProcessor(temperature=0.8, top_k=2, seed=7)
    >>> draw(None, torch.tensor([[3.0, 2.5, 2.0, 1.0]]))
    tensor([[-inf, 0., -inf, -inf]])
    """

    def __init__(self, *, seed: Any = None, offset: int = 0, **parameters: Any) -> None:
        self.sampler = Sampler(**parameters, seed=seed, offset=offset)

    def __call__(self, input_ids: Any, scores: torch.Tensor) -> torch.Tensor:
        """Return new scores, of the shape and on the device of those given, which stay as is."""
        tokens = torch.from_numpy(self.sampler(scores.detach().cpu()))
        # New: `generate` may keep the tensor it gave as the raw logits.
        drawn = torch.full_like(scores, -torch.inf)
        return drawn.scatter_(1, tokens[:, None].to(scores.device), 0.0)


class _Recorder(FastSampleLogitsProcessor):
    """Also keep what the warpers of `generate` would have returned."""

    def __init__(self, *, seed: Any, renormalize: bool, **parameters: Any) -> None:
        super().__init__(seed=seed, **parameters)
        self.parameters, self.renormalize = parameters, renormalize
        self.scores: list[torch.Tensor] = []

    def __call__(self, input_ids: Any, scores: torch.Tensor) -> torch.Tensor:
        warped = torch.full_like(scores, -torch.inf)
        for row, logits in enumerate(scores.detach().cpu()):
            ids = torch.from_numpy(survivors(logits, **self.parameters)[0]).to(scores.device)
            warped[row, ids] = scores[row, ids] / (self.parameters["temperature"] or 1.0)
        self.scores.append(torch.log_softmax(warped, -1) if self.renormalize else warped)
        return super().__call__(input_ids, scores)


def _parameters(config: Any) -> dict[str, Any]:
    """Return the arguments of `Sampler`; refuse what fastsample does not have."""
    for name, off in _LACKING.items():
        value = getattr(config, name, None)
        if value not in off:
            wanted = " or ".join(map(repr, off))
            raise ValueError(f"{name} must be {wanted} to draw with fastsample, got {value!r}")
    given = {name: getattr(config, name) for name in _OFF}
    return {name: _OFF[name] if value is None else value for name, value in given.items()}


def _refuse_other_models(model: Any) -> None:
    if not (hasattr(model, "_prepare_generation_config") and hasattr(model, "generate")):
        raise TypeError(f"model must be a transformers model that generates, got {type(model)}")


def _ours(function: Any) -> bool:
    """Return whether `enable` has made a function."""
    return isinstance(function, partial) and function.func is generate


def _original(model: Any) -> Callable[..., Any]:
    """Return a model's own ``generate``, also where `enable` has put another in its place.

    A wrapper, as `torch.compile` gives, has that of the model inside.
    """
    found: Callable[..., Any] = model.generate
    if _ours(found):
        owner = found.args[0]  # type: ignore[attr-defined]
        return partial(type(owner).generate, owner)
    return found


def _by_name(original: Callable[..., Any], args: Sequence[Any]) -> dict[str, Any]:
    """Return positional arguments after the third by the names that they have in ``generate``."""
    names = _positional(original)
    if "logits_processor" not in names:  # a wrapper's (*args, **kwargs)
        names = _positional(GenerationMixin.generate)[1:]
    names = names[3:]
    if len(args) > len(names):
        raise TypeError(
            f"generate takes at most {len(names) + 3} positional arguments after the model, "
            f"got {len(args) + 3}"
        )
    return dict(zip(names, args, strict=False))


def _positional(function: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]


def generate(
    model: Any,
    inputs: Any = None,
    generation_config: Any = None,
    logits_processor: Sequence[Any] | None = None,
    *args: Any,
    seed: Any = None,
    order: Order = "hf",
    **kwargs: Any,
) -> Any:
    """Call ``model.generate``, and draw with fastsample where it samples.

    Everything else is left to ``model.generate``: streamers, stop strings, penalties, caches,
    padding and ``num_return_sequences`` work as they do there. Where it does not sample
    (``do_sample=False``), it is called as it is.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A model that generates.
    inputs, generation_config, logits_processor, *args, **kwargs
        As in ``model.generate``, by position too, with the same defaults: of the arguments, the
        configuration, the model's configuration and the library (`top_k` is 50), the first that
        says something.
    seed : int or array of shape (B,), optional
        Step i of row r draws with ``offset=i`` in stream r; an array gives each row a seed of its
        own, with which it draws as it would alone. B counts the rows that are generated, those of
        ``num_return_sequences`` included. Without it the attribute ``seed`` of the configuration
        counts, and without that torch's generator gives one: ``torch.manual_seed`` and
        ``transformers.set_seed`` repeat a text.
    order : str or tuple of str, default "hf"
        As in `fastsample.sample`.

    Returns
    -------
    torch.Tensor or transformers.utils.ModelOutput
        What ``model.generate`` returns. ``logits`` are the model's; ``scores`` are what its own
        warpers would have returned: divided by the temperature, -inf for what is not kept.

    Raises
    ------
    ValueError
        Sampling is asked for with what fastsample does not have: beams, an assistant model,
        ``typical_p``, ``top_h``, ``epsilon_cutoff``, ``eta_cutoff``, a watermark, a paged cache,
        ``custom_generate``. Or as in `fastsample.sample`.
    TypeError
        `model` does not generate, or as in `fastsample.sample`.

    Examples
    --------
    >>> import torch, transformers
    >>> from fastsample.integrations.transformers import generate
    >>> sizes = {"vocab_size": 100, "n_embd": 8, "n_layer": 1, "n_head": 1}
    >>> config = transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)
    >>> model = transformers.GPT2LMHeadModel(config).eval()
    >>> text = [
    ...     generate(model, torch.tensor([[5, 6]]), max_length=8, do_sample=True, top_p=0.9, seed=1)
    ...     for _ in range(2)
    ... ]
    >>> text[0].tolist() == text[1].tolist()
    True
    """
    _refuse_other_models(model)
    original = _original(model)
    named = _by_name(original, args)
    for name in named.keys() & kwargs.keys():
        raise TypeError(f"generate got {name} by position and by name")
    kwargs |= named
    config, _ = model._prepare_generation_config(generation_config, **kwargs)
    if not config.do_sample:
        return original(
            inputs, generation_config=generation_config, logits_processor=logits_processor, **kwargs
        )
    mode = config.get_generation_mode(kwargs.get("assistant_model"))
    if mode is not GenerationMode.SAMPLE:
        raise ValueError(f"fastsample draws in plain sampling, not in {mode.value}")
    # Both leave before the logits processors are looked at.
    if kwargs.get("custom_generate") is not None:
        raise ValueError("custom_generate must be None to draw with fastsample")
    if kwargs.get("cache_implementation") == "paged":
        raise ValueError("cache_implementation must not be 'paged' to draw with fastsample")

    parameters: dict[str, Any] = {**_parameters(config), "order": order}
    if seed is None:
        seed = getattr(config, "seed", None)
    if seed is None:
        seed = _torch_seeds.next()
    draw: FastSampleLogitsProcessor
    if config.return_dict_in_generate and config.output_scores:
        draw = _Recorder(seed=seed, renormalize=bool(config.renormalize_logits), **parameters)
    else:
        draw = FastSampleLogitsProcessor(seed=seed, **parameters)

    # One token is left, so the largest score is the draw. Where several sequences are asked for,
    # `generate` insists on sampling: then from a distribution of one token, without stages.
    several = (config.num_return_sequences or 1) > 1
    changes = {"do_sample": several, **_OFF, "top_k": 0 if several else 50, "min_p": None}
    if getattr(config, "penalty_alpha", None) is not None:
        changes["penalty_alpha"] = None  # it plays no part in sampling, but would without
    kwargs = {name: value for name, value in kwargs.items() if name not in changes}
    if generation_config is None:
        kwargs |= changes
    else:  # arguments beside it are deprecated
        generation_config = copy.deepcopy(generation_config)
        generation_config.update(**changes)

    processors = LogitsProcessorList([*(logits_processor or ()), draw])
    result = original(
        inputs, generation_config=generation_config, logits_processor=processors, **kwargs
    )
    if isinstance(draw, _Recorder):
        result.scores = tuple(draw.scores[: len(result.scores)])
    return result


def enable(model: Any, *, order: Order = "hf") -> Any:
    """Make a model's own ``generate`` draw with fastsample, and take ``seed``.

    Pipelines and other code that calls ``model.generate`` draw with fastsample too. It is the
    `generate` of this module, bound to the model; ``del model.generate`` undoes it. Of a wrapper,
    as ``torch.compile`` gives, it is the model inside that is changed.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A model that generates.
    order : str or tuple of str, default "hf"
        As in `fastsample.sample`.

    Returns
    -------
    transformers.PreTrainedModel
        The same model.

    Raises
    ------
    TypeError
        `model` does not generate.

    Examples
    --------
    >>> import torch, transformers
    >>> from fastsample.integrations.transformers import enable
    >>> sizes = {"vocab_size": 100, "n_embd": 8, "n_layer": 1, "n_head": 1}
    >>> config = transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=None)
    >>> model = enable(transformers.GPT2LMHeadModel(config).eval())
    >>> model.generate(torch.tensor([[5, 6]]), max_length=8, do_sample=True, seed=1).shape
    torch.Size([1, 8])
    """
    _refuse_other_models(model)
    found = model.generate
    owner = found.args[0] if _ours(found) else getattr(found, "__self__", model)
    owner.generate = partial(generate, owner, order=order)
    return model
