"""What ``help()`` and editors show of functions that unpack the table of parameters."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from .lists import bans, biases, ids_of, one_or_more_ids, sequence_biases, sequences
from .orders import ORDERS
from .parameters import DEFAULTS, TABLE
from .values import flag, integer

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_REFERENCES = """\
.. [1] Fan et al., "Hierarchical Neural Story Generation", ACL 2018.
.. [2] Holtzman et al., "The Curious Case of Neural Text Degeneration", ICLR 2020.
.. [3] Nguyen et al., "Turning Up the Heat: Min-p Sampling for Creative and Coherent LLM
   Outputs", ICLR 2025.
.. [4] Meister et al., "Locally Typical Sampling", TACL 2023.
.. [5] Hewitt et al., "Truncation Sampling as Language Model Desmoothing", EMNLP Findings 2022.
.. [6] Tang et al., "Top-n-sigma: Eliminating Noise in Logit Space for Robust Token Sampling of
   LLM", ACL 2025.
.. [7] Basu et al., "Mirostat: A Neural Text Decoding Algorithm that Directly Controls
   Perplexity", ICLR 2021.
.. [8] Keskar et al., "CTRL: A Conditional Transformer Language Model for Controllable
   Generation", 2019.
.. [9] Tan et al., "p-less Sampling: A Robust Hyperparameter-Free Approach for LLM Decoding",
   arXiv 2509.23234, 2025."""

_LISTS = {
    biases: "dict or tuple",
    ids_of: "list of int",
    one_or_more_ids: "int or list of int",
    bans: "list of int",
    sequences: "list of lists of int",
    sequence_biases: "dict",
}

#: Options that several functions have.
_SHARED = {
    "{u_xtc}": """\
u_xtc : float or array of shape (B,), optional
    Explicit uniforms in [0, 1) of the coin of `xtc_probability`, which must come with `u`. The coin
    of a seed is that of ``counter=[offset, 1, 0, 0]``.""",
    "{history}": """\
history : int array, shape (n,), or B of them, optional
    The tokens of each row so far, prompt included, for the parameters that look at it. Ids >= V are
    matched, and change nothing.
prompt_length : int or array of shape (B,), default 0
    How many tokens of the history are the prompt.""",
    "{allowed}": """\
allowed : bool array, shape (V,) or (B, V), or packed, optional
    Which tokens are allowed. Packed: int32 or uint32, shape (n,) or (B, n); bit i % 32 of word
    i // 32 is token i; what is beyond the words is not allowed.
vocab_size : int, optional
    Tokens from here on, which pad a vocabulary, are not allowed; >= 1.""",
}


def _entry(name: str) -> str:
    rule = TABLE[name]
    if rule.listed:
        head = f"{name} : {_LISTS[rule.convert]}, or B of them, optional"
        must = f"{rule.requirement[0].upper()}{rule.requirement[1:]}. "
        return f"{head}\n{textwrap.indent(textwrap.fill(must + rule.doc, 92), '    ')}"
    kind = "int" if rule.convert is integer else "bool" if rule.convert is flag else "float"
    must = "" if rule.convert is flag else f"{rule.requirement[0].upper()}{rule.requirement[1:]}. "
    head = f"{name} : {kind} or array of shape (B,), default {rule.default}"
    return f"{head}\n{textwrap.indent(textwrap.fill(must + rule.doc, 92), '    ')}"


def _order() -> str:
    presets = ", ".join(f'"{name}"' for name in ORDERS)
    text = (
        f"The order of the stages: a preset ({presets}; see `fastsample.ORDERS`), or stage names, "
        'e.g. ``("top_k", "top_p", "temperature")``. A stage that runs before "temperature" sees '
        "temperature 1. Stages in a nested tuple cut the same distribution, and a token stays "
        "where all of them keep it."
    )
    return f'order : str or tuple, default "hf"\n{textwrap.indent(textwrap.fill(text, 92), "    ")}'


def documented(**defaults: Any) -> Callable[[F], F]:
    """Put the parameters of the table into a function's signature and docstring.

    It may have other defaults.
    """

    def document(function: F) -> F:
        function.__signature__ = _signature(function, defaults)  # type: ignore[attr-defined]
        function.__doc__ = _filled(function.__doc__)
        return function

    return document


def documented_class(kind: type[T]) -> type[T]:
    """Put the parameters of the table into the signature of a class and its docstring."""
    kind.__init__.__signature__ = _signature(kind.__init__, {})  # type: ignore[attr-defined]
    kind.__doc__ = _filled(kind.__doc__)
    return kind


def _signature(function: Callable[..., Any], defaults: Mapping[str, Any]) -> inspect.Signature:
    signature = inspect.signature(function)
    given = list(signature.parameters.values())
    named = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=defaults.get(name, default),
            annotation="Order" if name == "order" else "Any",
        )
        for name, default in DEFAULTS.items()
    ]
    first = [p for p in given if p.kind <= inspect.Parameter.POSITIONAL_OR_KEYWORD]
    last = [p for p in given if p.kind == inspect.Parameter.KEYWORD_ONLY]
    names = {p.name for p in last}
    whole = [*first, *(p for p in named if p.name not in names), *last]
    return signature.replace(parameters=whole)


def _filled(doc: str | None) -> str | None:
    if not doc:  # which `python -OO` drops
        return doc
    entries = {"{parameters}": "\n".join([*map(_entry, TABLE), _order()])}
    if "{references}" not in doc:  # which the citations would lead to
        entries["{parameters}"] = re.sub(r"\s+\[\d\]_", "", entries["{parameters}"])
    entries |= {"{references}": _REFERENCES, **_SHARED}
    lines = []
    for line in doc.splitlines():
        text = entries.get(line.strip())
        indent = line[: len(line) - len(line.lstrip())]
        lines.append(line if text is None else textwrap.indent(text, indent))
    return "\n".join(lines)
