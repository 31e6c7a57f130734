"""The table of the parameters: each one's name, type, default, range, stage and meaning.

Signatures unpack ``Parameters``, so that type checkers and editors know it; validation, ``help()``
and the site read the same entries. The files of ``csrc/stages/`` state the same ranges for callers
of the C ABI.
"""

from __future__ import annotations

import math
import sys
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, TypeAlias, TypedDict, TypeVar

import numpy as np

from .lists import bans, biases, ids_of, one_or_more_ids, sequence_biases, sequences
from .orders import Order
from .values import flag, integer, real


class SupportsArray(Protocol):
    """An array of any library on the CPU, which NumPy can read."""

    def __array__(self, *args: Any, **named: Any) -> Any: ...


_K_co = TypeVar("_K_co", covariant=True)
_V_co = TypeVar("_V_co", covariant=True)


class SupportsItems(Protocol[_K_co, _V_co]):
    """A mapping; to a type checker the keys of a `Mapping` itself are of one type exactly."""

    def items(self) -> Iterable[tuple[_K_co, _V_co]]:
        """Return keys and values."""
        ...


_Real: TypeAlias = float | np.floating[Any] | np.integer[Any]
_Int: TypeAlias = int | np.integer[Any]
_Bool: TypeAlias = bool | np.bool_
Reals: TypeAlias = _Real | Sequence[_Real] | SupportsArray
Ints: TypeAlias = _Int | Sequence[_Int] | SupportsArray
OptionalReals: TypeAlias = _Real | Sequence[_Real | None] | SupportsArray | None
OptionalInts: TypeAlias = _Int | Sequence[_Int | None] | SupportsArray | None
Seeds: TypeAlias = _Int | Sequence[_Int | None] | SupportsArray | None
Bools: TypeAlias = _Bool | Sequence[_Bool] | SupportsArray
_Ids: TypeAlias = Sequence[_Int] | SupportsArray
#: Lists: one for all rows, or a list of one, or None, for each.
IdLists: TypeAlias = _Ids | Sequence[_Ids | None] | None
IdOrLists: TypeAlias = _Int | IdLists
Stops: TypeAlias = Sequence[_Ids] | SupportsArray | None
SequenceLists: TypeAlias = Stops | Sequence[Sequence[_Ids] | None]
_Bias: TypeAlias = SupportsItems[_Int, _Real]
_Biases: TypeAlias = _Bias | tuple[_Ids, Sequence[_Real] | SupportsArray]
BiasLists: TypeAlias = _Biases | Sequence[_Bias | None] | None
_SequenceBiases: TypeAlias = SupportsItems[tuple[_Int, ...], _Real]
SequenceBiasLists: TypeAlias = _SequenceBiases | Sequence[_SequenceBiases | None] | None


@dataclass(frozen=True)
class Parameter:
    """What is true of a parameter, beside its name and type.

    It may have the numbers from ``low`` to ``high``, and does nothing from ``off[0]`` to
    ``off[1]``. A stage, or a rule that edits rows, is off where all of its parameters that have an
    ``off`` do nothing. One that is ``listed`` has ids, and no range.
    """

    default: Any
    convert: Callable[[str, Any, str], Any]
    requirement: str
    low: float
    high: float
    doc: str
    stage: str | None = None
    slot: int = 0  # among the numbers of the stage
    off: tuple[float, float] | None = None
    none: float | None = None  # what None stands for
    listed: bool = False


_TINY, _LARGE, _BELOW_ONE = 5e-324, sys.float_info.max, 1.0 - 2.0**-53
_ADDABLE = 1e290  # added to a finite float64 as often as you like, never makes it infinite
_INF = math.inf
_ZERO, _NIL, _ONE = (-_INF, 0.0), (0.0, 0.0), (1.0, 1.0)


class Parameters(TypedDict, total=False):
    """The parameters of a draw, each a scalar or one value per row."""

    temperature: Annotated[
        Reals,
        Parameter(
            1.0, real, "finite and >= 0", 0.0, _LARGE,
            "Divides the logits. 0 is greedy: the largest logit, the lowest index on a tie, "
            "whatever else is set.",
            "temperature", 0, _ONE,
        ),
    ]  # fmt: skip
    dynatemp_range: Annotated[
        Reals,
        Parameter(
            0.0, real, "finite and >= 0", 0.0, _LARGE,
            "Lets the temperature follow the entropy of what is kept, from `temperature` - this to "
            "`temperature` + this. 0 turns it off.",
            "temperature", 1, _ZERO,
        ),
    ]  # fmt: skip
    dynatemp_exponent: Annotated[
        Reals,
        Parameter(
            1.0, real, "finite", -_LARGE, _LARGE,
            "The power of the relative entropy by which `dynatemp_range` is passed through.",
            "temperature", 2,
        ),
    ]  # fmt: skip
    top_k: Annotated[
        OptionalInts,
        Parameter(
            None, integer, "None, -1, 0 or >= 1", -1, _INF,
            "Keeps the k largest logits [1]_; exactly k, ties by index. None, 0 and -1 turn it "
            "off.",
            "top_k", 0, _ZERO, 0,
        ),
    ]  # fmt: skip
    top_p: Annotated[
        Reals,
        Parameter(
            1.0, real, "in [0, 1]", 0.0, 1.0,
            "Keeps the shortest prefix of the most probable tokens that weighs p of what the "
            "stages before have left, p * (1 - 2**-24) of it at least [2]_. 1 turns it off; 0 "
            "keeps one token.",
            "top_p", 0, _ONE,
        ),
    ]  # fmt: skip
    min_p: Annotated[
        Reals,
        Parameter(
            0.0, real, "in [0, 1]", 0.0, 1.0,
            "Keeps what is at least min_p times as probable as the most probable token [3]_. 0 "
            "turns it off.",
            "min_p", 0, _ZERO,
        ),
    ]  # fmt: skip
    typical_p: Annotated[
        Reals,
        Parameter(
            1.0, real, "in (0, 1]", _TINY, 1.0,
            "Keeps the tokens whose surprise is closest to the entropy, until they weigh this "
            "share [4]_. 1 turns it off.",
            "typical_p", 0, _ONE,
        ),
    ]  # fmt: skip
    epsilon_cutoff: Annotated[
        Reals,
        Parameter(
            0.0, real, "in [0, 1)", 0.0, _BELOW_ONE,
            "Keeps what has at least this probability [5]_. 0 turns it off.",
            "epsilon_cutoff", 0, _ZERO,
        ),
    ]  # fmt: skip
    eta_cutoff: Annotated[
        Reals,
        Parameter(
            0.0, real, "in [0, 1)", 0.0, _BELOW_ONE,
            "Keeps what has at least the probability min(e, sqrt(e) * exp(-entropy)) [5]_. 0 turns "
            "it off.",
            "eta_cutoff", 0, _ZERO,
        ),
    ]  # fmt: skip
    top_a: Annotated[
        Reals,
        Parameter(
            0.0, real, "in [0, 1]", 0.0, 1.0,
            "Keeps what has at least a times the square of the largest probability. 0 turns it "
            "off.",
            "top_a", 0, _ZERO,
        ),
    ]  # fmt: skip
    p_less: Annotated[
        Bools,
        Parameter(
            False, flag, "True or False", 0, 1,
            "Keeps what has at least the probability of drawing the same token twice, the sum of "
            "all squares [9]_.",
            "p_less", 0, _ZERO,
        ),
    ]  # fmt: skip
    top_n_sigma: Annotated[
        OptionalReals,
        Parameter(
            None, real, "None or finite", -_LARGE, _LARGE,
            "Keeps the logits within n standard deviations of the largest, at every temperature "
            "the same [6]_. None, 0 and less turn it off.",
            "top_n_sigma", 0, _ZERO, 0.0,
        ),
    ]  # fmt: skip
    top_h: Annotated[
        OptionalReals,
        Parameter(
            None, real, "None or in (0, 1]", _TINY, 1.0,
            "Of the 100 largest logits, keeps the longest prefix whose part of their entropy is at "
            "most this. None turns it off.",
            "top_h", 0, _ZERO, 0.0,
        ),
    ]  # fmt: skip
    xtc_probability: Annotated[
        Reals,
        Parameter(
            0.0, real, "in [0, 1]", 0.0, 1.0,
            "With this probability, drops all tokens of at least the probability `xtc_threshold` "
            "but the least probable of them. 0 turns it off.",
            "xtc", 0, _ZERO,
        ),
    ]  # fmt: skip
    xtc_threshold: Annotated[
        Reals,
        Parameter(
            0.1, real, "in [0, 1]", 0.0, 1.0,
            "From which probability on `xtc_probability` looks at tokens.",
            "xtc", 1,
        ),
    ]  # fmt: skip
    mirostat: Annotated[
        Ints,
        Parameter(
            0, integer, "0, 1 or 2", 0, 2,
            "The version of a cut that steers the surprise of the text towards `mirostat_tau` "
            "[7]_. It has a state. 0 turns it off.",
            "mirostat", 0, _ZERO,
        ),
    ]  # fmt: skip
    mirostat_tau: Annotated[
        Reals,
        Parameter(
            5.0, real, "in (0, 1e290]", _TINY, _ADDABLE,
            "The surprise, in bits, that `mirostat` aims at.",
            "mirostat", 1,
        ),
    ]  # fmt: skip
    mirostat_eta: Annotated[
        Reals,
        Parameter(
            0.1, real, "in [0, 1]", 0.0, 1.0,
            "How fast `mirostat` learns.",
            "mirostat", 2,
        ),
    ]  # fmt: skip
    adaptive_target: Annotated[
        OptionalReals,
        Parameter(
            None, real, "None or in (0, 1]", _TINY, 1.0,
            "Reweights what is kept, so that the probabilities of the tokens drawn come to this "
            "on average. It has a state. None turns it off.",
            "adaptive", 0, _ZERO, 0.0,
        ),
    ]  # fmt: skip
    adaptive_decay: Annotated[
        Reals,
        Parameter(
            0.9, real, "in [0, 0.99]", 0.0, 0.99,
            "How long `adaptive_target` remembers what was drawn.",
            "adaptive", 1,
        ),
    ]  # fmt: skip
    p_less_norm: Annotated[
        Bools,
        Parameter(
            False, flag, "True or False", 0, 1,
            "Keeps what has at least (n s - 1) / (n - 1) as its probability, of n tokens whose "
            "squares sum to s [9]_: less than p_less asks for.",
            "p_less_norm", 0, _ZERO,
        ),
    ]  # fmt: skip
    min_tokens_to_keep: Annotated[
        Ints,
        Parameter(
            1, integer, ">= 1", 1, _INF,
            "No stage leaves fewer than this many tokens.",
        ),
    ]  # fmt: skip
    logit_bias: Annotated[
        BiasLists,
        Parameter(
            None, biases, "{id: bias} or (ids, biases), a bias finite or -inf", -_INF, _INF,
            "Is added to the logits of these ids, which are in [0, V); -inf bans.",
            listed=True,
        ),
    ]  # fmt: skip
    repetition_penalty: Annotated[
        Reals,
        Parameter(
            1.0, real, "finite and > 0", _TINY, _LARGE,
            "Divides positive logits, and multiplies others, of each id in the window of the "
            "history, the prompt included [8]_. 1 turns it off.",
            off=_ONE,
        ),
    ]  # fmt: skip
    frequency_penalty: Annotated[
        Reals,
        Parameter(
            0.0, real, "finite", -_LARGE, _LARGE,
            "Is subtracted for each time that an id occurs in the window after the prompt. 0 turns "
            "it off.",
            off=_NIL,
        ),
    ]  # fmt: skip
    presence_penalty: Annotated[
        Reals,
        Parameter(
            0.0, real, "finite", -_LARGE, _LARGE,
            "Is subtracted once from each id that occurs in the window after the prompt. 0 turns "
            "it off.",
            off=_NIL,
        ),
    ]  # fmt: skip
    penalty_last_n: Annotated[
        Ints,
        Parameter(
            -1, integer, ">= -1", -1, _INF,
            "The window of these three penalties: the last n tokens of the history. -1 is all of "
            "it, 0 nothing.",
        ),
    ]  # fmt: skip
    dry_multiplier: Annotated[
        Reals,
        Parameter(
            0.0, real, "finite and >= 0", 0.0, _LARGE,
            "DRY: from each id that would extend a repetition of matched length L >= "
            "`dry_allowed_length`, subtracts this times `dry_base` ** (L - `dry_allowed_length`). "
            "0 turns it off.",
            off=_ZERO,
        ),
    ]  # fmt: skip
    dry_base: Annotated[
        Reals,
        Parameter(
            1.75, real, "finite and >= 1", 1.0, _LARGE,
            "How fast `dry_multiplier` grows with the length of a repetition.",
        ),
    ]  # fmt: skip
    dry_allowed_length: Annotated[
        Ints,
        Parameter(
            2, integer, ">= 1", 1, _INF,
            "From which matched length on `dry_multiplier` counts.",
        ),
    ]  # fmt: skip
    dry_last_n: Annotated[
        Ints,
        Parameter(
            -1, integer, ">= -1", -1, _INF,
            "The window of `dry_multiplier`, as `penalty_last_n`.",
        ),
    ]  # fmt: skip
    dry_sequence_breakers: Annotated[
        IdLists,
        Parameter(
            None, ids_of, "a list of ids", -_INF, _INF,
            "Ids over which no repetition of `dry_multiplier` reaches, and which it does not "
            "touch.",
            listed=True,
        ),
    ]  # fmt: skip
    no_repeat_ngram_size: Annotated[
        Ints,
        Parameter(
            0, integer, ">= 0", 0, _INF,
            "Bans what would repeat a sequence of so many tokens of the history. 0 turns it off.",
            off=_ZERO,
        ),
    ]  # fmt: skip
    bad_words_ids: Annotated[
        SequenceLists,
        Parameter(
            None, sequences, "a list of sequences of ids, none of them empty", -_INF, _INF,
            "Bans the last id of each sequence where the ids before it end the history.",
            listed=True,
        ),
    ]  # fmt: skip
    sequence_bias: Annotated[
        SequenceBiasLists,
        Parameter(
            None, sequence_biases, "{ids: bias}, a bias finite or -inf", -_INF, _INF,
            "Adds the bias to the last id of each sequence where the ids before it end the "
            "history; those that apply add up.",
            listed=True,
        ),
    ]  # fmt: skip
    suppress_tokens: Annotated[
        IdLists,
        Parameter(
            None, bans, "a list of ids", -_INF, _INF,
            "Bans these ids, which are in [0, V).",
            listed=True,
        ),
    ]  # fmt: skip
    allowed_token_ids: Annotated[
        IdLists,
        Parameter(
            None, ids_of, "a list of ids", -_INF, _INF,
            "Bans all others; these are in [0, V).",
            listed=True,
        ),
    ]  # fmt: skip
    min_new_tokens: Annotated[
        Ints,
        Parameter(
            0, integer, ">= 0", 0, _INF,
            "Bans `eos_token_id` while fewer tokens than this follow the prompt. 0 turns it off.",
            off=_ZERO,
        ),
    ]  # fmt: skip
    eos_token_id: Annotated[
        IdOrLists,
        Parameter(
            None, one_or_more_ids, "an id or a list of ids", -_INF, _INF,
            "The ids that end a text, for `min_new_tokens`.",
            listed=True,
        ),
    ]  # fmt: skip
    order: Order


#: The table, by name; without `order`, which is no number.
TABLE: dict[str, Parameter] = {
    name: hint.__metadata__[0]
    for name, hint in typing.get_type_hints(Parameters, include_extras=True).items()
    if name != "order"
}
NAMES = (*TABLE, "order")
DEFAULT_ORDER = "hf"
DEFAULTS: dict[str, Any] = {n: p.default for n, p in TABLE.items()} | {"order": DEFAULT_ORDER}

#: Those that edit a row, from lists and from its history.
EDITING = tuple(TABLE)[tuple(TABLE).index("logit_bias") :]

#: The parameters of each stage, in the order of its numbers.
OF_STAGE: dict[str, tuple[str, ...]] = {}
for _name, _parameter in TABLE.items():
    if _parameter.stage is not None:
        OF_STAGE[_parameter.stage] = (*OF_STAGE.get(_parameter.stage, ()), _name)
