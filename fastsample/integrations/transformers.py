"""Hugging Face transformers: ``model.generate`` that draws with fastsample.

Needs the extra ``transformers``.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ..orders import Order
from ..plans import start_of
from ..rules import Rules
from ..sampler import Sampler
from ..sampling import sample
from ..values import plain
from . import how_to_get

try:
    import torch
    from transformers import GenerationMixin, LogitsProcessor, LogitsProcessorList
    from transformers.generation import GenerationMode
except ImportError as error:
    raise ImportError(
        f"this needs transformers and torch ({error}): {how_to_get('transformers')}"
    ) from error

from ._torch_seeds import torch_seeds

# What `generate` has where a parameter is None: the stage is off.
_OFF = {"temperature": 1.0, "top_k": None, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0,
        "epsilon_cutoff": 0.0, "eta_cutoff": 0.0, "top_h": None}  # fmt: skip

# The edits of a configuration, and the values that turn `generate`'s own off.
_EDITS = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "bad_words_ids": None,
          "sequence_bias": None, "suppress_tokens": None, "min_length": 0,
          "min_new_tokens": None}  # fmt: skip

# What else makes a logits processor of `generate`: it has to see edited logits, or to have the last
# word, and so leaves all edits to `generate`. With the values that turn it off.
_OTHERS: dict[str, tuple[Any, ...]] = {
    "encoder_repetition_penalty": (None, 1.0),
    "encoder_no_repeat_ngram_size": (None, 0),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "remove_invalid_values": (None, False),
    "exponential_decay_length_penalty": (None,),
    "begin_suppress_tokens": (None,),
    "watermarking_config": (None,),
}


def _rows(scores: Any) -> torch.Tensor:
    """Return scores on the CPU, or say who may have given something else."""
    if isinstance(scores, torch.Tensor):
        return scores.detach().cpu()
    kind = type(scores).__name__
    raise TypeError(f"scores must be a tensor, as every logits processor returns, got {kind}")


def _only(scores: torch.Tensor, tokens: npt.NDArray[np.int64]) -> torch.Tensor:
    """Return scores that leave one token in each row."""
    # New: `generate` may keep the tensor it gave as the raw logits.
    drawn = torch.full_like(scores, -torch.inf)
    return drawn.scatter_(1, torch.from_numpy(tokens)[:, None].to(scores.device), 0.0)


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
        Those of `fastsample.Sampler`, with its defaults: `top_k` is off. The history of a row is
        its ``input_ids``, of which the prompt is what the first call is given.

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
        self._parameters = parameters
        plan = self.sampler._plan
        rules = [plan.rules] if isinstance(plan.rules, Rules) else plan.rules or ()
        self._looks_back = plan.moves or any(rule.needs_history for rule in rules)
        self._padding: list[int] = []  # how many tokens before each row's text only pad it
        self._length = self._prompt = 0  # of a row in the last call, and in the first of its text
        self._state: Any = None

    def __call__(self, input_ids: Any, scores: torch.Tensor) -> torch.Tensor:
        """Return new scores, of the shape and on the device of those given, which stay as is."""
        rows = _rows(scores)
        drawn = self._drawn(input_ids, rows) if self._looks_back else self.sampler(rows)
        return _only(scores, drawn)

    def _drawn(self, input_ids: torch.Tensor, rows: torch.Tensor) -> npt.NDArray[np.int64]:
        """Draw where the text so far plays a part."""
        texts, plan = input_ids.detach().cpu().numpy(), self.sampler._plan
        if texts.shape[1] != self._length + 1:  # another text begins
            self._prompt = texts.shape[1]
            self._state = start_of(plan, len(texts)) if plan.moves else None
        self._length = texts.shape[1]
        padding = self._padding or [0] * len(texts)
        tokens: npt.NDArray[np.int64] = sample(
            rows,
            **self._parameters,
            history=[text[begin:] for text, begin in zip(texts, padding, strict=True)],
            prompt_length=[self._prompt - begin for begin in padding],
            state=self._state,
            seed=self.sampler.seed,
            offset=self.sampler.offset,
        )
        self.sampler.offset += 1
        return tokens


class _Recorder(FastSampleLogitsProcessor):
    """Also keep what the warpers of `generate` would have returned, of what the draw has kept."""

    def __init__(self, *, seed: Any, renormalize: bool, **parameters: Any) -> None:
        super().__init__(seed=seed, **parameters)
        self.renormalize = renormalize
        self.scores: list[torch.Tensor] = []

    def __call__(self, input_ids: Any, scores: torch.Tensor) -> torch.Tensor:
        told = self.sampler.draw(_rows(scores), logprobs=None, support=True)
        assert told.support is not None
        assert told.offsets is not None
        rows = np.repeat(np.arange(len(scores)), np.diff(told.offsets))
        kept = (
            torch.from_numpy(rows).to(scores.device),
            torch.from_numpy(told.support.astype(np.int64)).to(scores.device),
        )
        warped = torch.full_like(scores, -torch.inf)
        warped[kept] = scores[kept] / (self._parameters["temperature"] or 1.0)
        self.scores.append(torch.log_softmax(warped, -1) if self.renormalize else warped)
        return _only(scores, told.token)


def _stages(config: Any) -> dict[str, Any]:
    """Return the arguments of `Sampler` that a configuration's stages are; refuse what it lacks."""
    if config.watermarking_config is not None:
        got = config.watermarking_config
        raise ValueError(f"watermarking_config must be None to draw with fastsample, got {got!r}")
    given = {name: getattr(config, name, None) for name in _OFF}
    return {name: _OFF[name] if value is None else value for name, value in given.items()}


def _is_generates(model: Any, own: Any, config: Any, ids: Any, kwargs: dict[str, Any]) -> bool:
    """Return whether edits are `generate`'s to make, for what comes before or after them."""
    return (
        not isinstance(ids, torch.Tensor)
        or model.config.is_encoder_decoder  # where the history is the decoder's
        or model.main_input_name != "input_ids"
        or kwargs.get("inputs_embeds") is not None
        or kwargs.get("prefix_allowed_tokens_fn") is not None
        or any(getattr(config, name, None) not in off for name, off in _OTHERS.items())
        # To a configuration that is passed, None is what the model's own says.
        or (own is not None and any(getattr(model.generation_config, name, None) is not None
                                    for name, off in _EDITS.items() if off is None))
    )  # fmt: skip


def _edits(config: Any, prompt: int) -> dict[str, Any]:
    """Return the arguments of `Sampler` that a configuration's edits are, those that are on.

    Numbers are rounded to float32, as torch does before it calculates with them.
    """
    ends = [token for token in _ids(config.eos_token_id) if token >= 0]  # of others is no end
    biases = config.sequence_bias or {}
    if not isinstance(biases, dict):
        biases = {tuple(ids): bias for ids, bias in biases}
    least = config.min_new_tokens
    if least is None:
        least = (config.min_length or 0) - prompt
    found = {
        "repetition_penalty": _float32(config.repetition_penalty or 1.0),
        "no_repeat_ngram_size": config.no_repeat_ngram_size or 0,
        "bad_words_ids": [
            ids for ids in config.bad_words_ids or () if [*ids] not in [[end] for end in ends]
        ],
        "sequence_bias": {ids: _float32(bias) for ids, bias in biases.items()},
        "suppress_tokens": [token for token in _ids(config.suppress_tokens) if token >= 0],
        "min_new_tokens": max(least, 0) if ends else 0,
    }
    on = {
        n: value for n, value in found.items() if value and (n, value) != ("repetition_penalty", 1)
    }
    return on | ({"eos_token_id": ends} if "min_new_tokens" in on else {})


def _ids(value: Any) -> list[int]:
    """Return one id, a list or a tensor of them, or None as a list."""
    ids = plain("an id", value)
    return [] if ids is None else ids if isinstance(ids, list) else [ids]


def _float32(value: Any) -> Any:
    return float(np.float32(value)) if isinstance(value, float) else value


def _padding(config: Any, ids: torch.Tensor, mask: Any) -> list[int]:
    """Return how many tokens before each row's text only pad it, as `generate` finds it."""
    pad, eos = config.pad_token_id, config.eos_token_id
    if mask is None and pad is not None and pad not in _ids(eos):
        mask = ids != pad
    if mask is None or mask.shape != ids.shape:
        mask = torch.ones_like(ids)
    found = (mask != 0).int().argmax(dim=1).repeat_interleave(config.num_return_sequences or 1)
    lengths: list[int] = found.tolist()
    return lengths


def _refuse_other_models(model: Any) -> None:
    if not (hasattr(model, "_prepare_generation_config") and hasattr(model, "generate")):
        raise TypeError(f"model must be a transformers model that generates, got {type(model)}")


_BEFORE = "_generate_before_fastsample"  # an attribute of what `enable` has changed


def _ours(function: Any) -> bool:
    """Return whether `enable` has made a function."""
    return isinstance(function, partial) and function.func is generate


def _original(model: Any) -> Callable[..., Any]:
    """Return a model's own ``generate``, also where `enable` has put another in its place.

    A wrapper, as `torch.compile` gives, has that of the model inside.
    """
    found: Callable[..., Any] = model.generate
    if not _ours(found):
        return found
    owner = found.args[0]  # type: ignore[attr-defined]
    before: Callable[..., Any] | None = vars(owner).get(_BEFORE)
    return before or partial(type(owner).generate, owner)


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

    Everything else is left to ``model.generate``: streamers, stop strings, caches, padding and
    ``num_return_sequences`` work as they do there. Where it does not sample (``do_sample=False``),
    it is called as it is, but for the edits of logits.

    These are repetition_penalty, no_repeat_ngram_size, bad_words_ids, sequence_bias,
    suppress_tokens, min_length and min_new_tokens. They are made with the draw, in greedy search
    too. Where the model is an encoder-decoder, scores are returned, or there are other processors,
    they are ``model.generate``'s.

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
        Sampling is asked for with what fastsample does not have: beams, an assistant model, a
        watermark, a paged cache, ``custom_generate``. Or as in `fastsample.sample`.
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
    if isinstance(original, partial):  # what it brings along is as good as given
        first = {"inputs": inputs, "generation_config": generation_config,
                 "logits_processor": logits_processor}  # fmt: skip
        given = {name: value for name, value in first.items() if value is not None}
        kwargs = {**original.keywords, **given, **kwargs}
        inputs, generation_config, logits_processor = (kwargs.pop(name, None) for name in first)
        original = partial(original.func, *original.args)
    named = _by_name(original, args)
    for name in named.keys() & kwargs.keys():
        raise TypeError(f"generate got {name} by position and by name")
    kwargs |= named
    config, _ = model._prepare_generation_config(generation_config, **kwargs)
    recorded = config.return_dict_in_generate and config.output_scores
    ids: Any = kwargs.get("input_ids") if inputs is None else inputs
    edits: dict[str, Any] = {}
    # Scores are those of `generate`'s own processors: where they are asked for, these run.
    if not (recorded or logits_processor or _is_generates(model, generation_config, config, ids,
                                                          kwargs)):  # fmt: skip
        edits = _edits(config, ids.shape[1])
    mode = config.get_generation_mode(kwargs.get("assistant_model"))
    # Both leave before the logits processors are looked at.
    custom = kwargs.get("custom_generate") is not None
    paged = kwargs.get("cache_implementation") == "paged"
    if not config.do_sample:
        if not edits or custom or paged or mode is not GenerationMode.GREEDY_SEARCH:
            return original(
                inputs,
                generation_config=generation_config,
                logits_processor=logits_processor,
                **kwargs,
            )
        draw = FastSampleLogitsProcessor(seed=0, temperature=0.0, **edits)
        changes = dict[str, Any]()
    else:
        if config.do_sample is not True:  # to `generate` another true value is both
            got = f"{config.do_sample!r} ({type(config.do_sample).__name__})"
            raise TypeError(f"do_sample must be True or False, got {got}")
        if mode is not GenerationMode.SAMPLE:
            raise ValueError(f"fastsample draws in plain sampling, not in {mode.value}")
        if custom:
            raise ValueError("custom_generate must be None to draw with fastsample")
        if paged:
            raise ValueError("cache_implementation must not be 'paged' to draw with fastsample")
        parameters: dict[str, Any] = {**_stages(config), **edits, "order": order}
        if seed is None:
            seed = getattr(config, "seed", None)
        seed = torch_seeds.in_place_of_none(seed)
        if recorded:
            draw = _Recorder(seed=seed, renormalize=bool(config.renormalize_logits), **parameters)
        else:
            draw = FastSampleLogitsProcessor(seed=seed, **parameters)
        # One token is left, so the largest score is the draw. Where several sequences are asked
        # for, `generate` insists on sampling: then from a distribution of one token, without
        # stages.
        several = (config.num_return_sequences or 1) > 1
        changes = {"do_sample": several, **_OFF, "top_k": 0 if several else 50, "min_p": None}
        if getattr(config, "penalty_alpha", None) is not None:
            changes["penalty_alpha"] = None  # it plays no part in sampling, but would without
    if edits:
        changes |= _EDITS
        draw._padding = _padding(config, ids, kwargs.get("attention_mask"))
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
    if _ours(found):
        owner = found.args[0]
    else:
        owner = getattr(found, "__self__", model)
        # One that somebody has set is still what is called; that of the class is found by its name.
        of_class = getattr(type(owner), "generate", None)
        before = None if getattr(found, "__func__", found) is of_class else found
        setattr(owner, _BEFORE, before)
    owner.generate = partial(generate, owner, order=order)
    return model
