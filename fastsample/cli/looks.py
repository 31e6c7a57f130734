"""How each stage is shown: its rule in words, what numbers a token has there, and its bars.

A stage without an entry is shown by the sentence of the table of parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from ..explain import Stage, Token
from ..parameters import OF_STAGE
from .options import sentence


def percent(p: float) -> str:
    """Return a probability in at most six columns."""
    if 0 < p < 0.0001:
        return "<0.01%"
    return f"{p:.2%}" if p < 0.0995 else f"{p:.1%}"


def counted(n: int) -> str:
    """Return a number of tokens."""
    return f"{n:,} token{'s' * (n != 1)}"


class Look(NamedTuple):
    """How a stage is shown.

    ``rule`` in words; the heads of two columns, and the numbers of the token at a place in them;
    a bar, (low, high, line) within 0 to 1, which has its ``scale`` where it is of probabilities.
    """

    rule: Callable[[Stage], str]
    heads: Callable[[Stage], tuple[str, str]]
    numbers: Callable[[Stage, Token, int], tuple[str, str]]
    bar: Callable[[Stage, int], tuple[float, float, float | None]]


def seen(stage: Stage, place: int) -> float:
    """Return the probability of the token at a place, as the stage saw it; 0 if it was gone."""
    return stage.before[place] or 0.0


def largest(stage: Stage) -> float:
    """Return the largest probability that a stage saw or made: the scale of its bars."""
    return max(p for p in (*stage.before, *stage.after) if p is not None)


def _sum(stage: Stage, place: int) -> float:
    return stage.cumulative[place] or 0.0


def _line(stage: Stage) -> float | None:
    threshold = stage.threshold
    scale = max(p for p in stage.before if p is not None)
    return threshold / scale if threshold is not None and threshold <= scale else None


def _plain_bar(stage: Stage, place: int) -> tuple[float, float, float | None]:
    scale = max(p for p in stage.before if p is not None)
    return 0.0, seen(stage, place) / scale, _line(stage)


def _made_bar(stage: Stage, place: int) -> tuple[float, float, float | None]:
    scale = largest(stage)
    return 0.0, (stage.after[place] or 0.0) / scale, seen(stage, place) / scale


def logit_text(logit: float | None) -> str:
    """Return a logit in at most 8 columns; None is -inf."""
    text = "-inf" if logit is None else f"{logit:.2f}"
    return text if len(text) <= 8 else f"{logit:.2g}"


def _logit_and_p(stage: Stage, token: Token, place: int) -> tuple[str, str]:
    return logit_text(token.logit), percent(seen(stage, place))


def _rank_and_p(stage: Stage, token: Token, place: int) -> tuple[str, str]:
    return f"{token.rank}", percent(seen(stage, place))


def _logits(stage: Stage, token: Token, place: int) -> tuple[str, str]:
    return logit_text(token.given_logit), logit_text(token.logit)


def _before_and_after(stage: Stage, token: Token, place: int) -> tuple[str, str]:
    return percent(seen(stage, place)), percent(stage.after[place] or 0.0)


def _p_and_sum(stage: Stage, token: Token, place: int) -> tuple[str, str]:
    return percent(seen(stage, place)), percent(_sum(stage, place))


def surprise(p: float) -> float:
    """Return how surprising a probability is, in bits."""
    return -math.log2(p) if p > 0.0 else math.inf


def _p_and_bits(stage: Stage, token: Token, place: int) -> tuple[str, str]:
    return percent(seen(stage, place)), f"{surprise(seen(stage, place)):.2f}"


def _least(stage: Stage) -> str:
    return percent(stage.threshold or 0.0)


def _floor(rule: Callable[[Stage], str]) -> Look:
    """Return the look of a stage that keeps what has a probability or more."""
    return Look(rule, lambda s: ("rank", "p"), _rank_and_p, _plain_bar)


def _temperature(stage: Stage) -> str:
    t, (_, spread, exponent) = stage.temperature, stage.numbers
    follows = (
        f"temperature {stage.value:g}, with a range of {spread:g} and the exponent {exponent:g}, "
        f"follows the entropy and becomes {t:.4g}: it"
        if spread > 0
        else f"temperature {t:g}"
    )
    return (
        f"{follows} divides the logits: the distribution gets {'sharper' if t < 1 else 'flatter'}"
    )


def coin_says(stage: Stage) -> str:
    """Say how the coin of xtc fell."""
    if stage.coin is None:
        return "it always acts" if stage.value >= 1 else ""
    sign, acts = ("<", "it acts") if stage.coin < stage.value else (">=", "it does nothing")
    return f"coin {stage.coin:.4f} {sign} {stage.value:g}: {acts}"


def _xtc(stage: Stage) -> str:
    return (
        f"xtc_probability {stage.value:g} excludes the top choices: of those with "
        f"{_least(stage)} or more only the least probable stays; {coin_says(stage)}"
    )


def _edits(stage: Stage) -> str:
    n = int(stage.value)
    return f"edits change {n:,} logit{'s' * (n != 1)} before any stage"


def _mirostat(stage: Stage) -> str:
    version, tau, _ = stage.numbers
    if stage.threshold is None:
        rule = "estimates how many tokens to keep"
    else:
        bits = surprise(stage.threshold)
        rule = f"keeps what surprises by mu = {bits:.3g} bits or less, {_least(stage)} or more"
    return f"mirostat {version:g}, which aims at {tau:g} bits, {rule}"


LOOKS = {
    "edits": Look(_edits, lambda s: ("logit", "edited"), _logits, _made_bar),
    "softmax": Look(
        rule=lambda s: "no stage is on: every token can be drawn",
        heads=lambda s: ("logit", "p"),
        numbers=_logit_and_p,
        bar=_plain_bar,
    ),
    "greedy": Look(
        rule=lambda s: "temperature 0 takes the most probable token, whatever else is set",
        heads=lambda s: ("logit", "p"),
        numbers=_logit_and_p,
        bar=_plain_bar,
    ),
    "temperature": Look(
        rule=_temperature,
        heads=lambda s: ("T = 1", f"T = {s.temperature:.4g}"),
        numbers=_before_and_after,
        bar=_made_bar,
    ),
    "top_k": _floor(
        lambda s: f"top_k {s.value:g} keeps the {counted(int(s.value))} of the largest logits"
    ),
    "top_p": Look(
        rule=lambda s: f"top_p {s.value:g} keeps the first tokens that together reach {s.value:g}",
        heads=lambda s: ("p", "sum"),
        numbers=_p_and_sum,
        bar=lambda s, i: (_sum(s, i) - seen(s, i), _sum(s, i), s.value),
    ),
    "min_p": Look(
        rule=lambda s: (
            f"min_p {s.value:g} keeps what has {s.value:g} of the first one's p or more: "
            f"{_least(s)}"
        ),
        heads=lambda s: ("p", "ratio"),
        numbers=lambda s, t, i: (
            percent(seen(s, i)),
            f"{seen(s, i) / max(p for p in s.before if p is not None):.3f}",
        ),
        bar=_plain_bar,
    ),
    "typical_p": Look(
        rule=lambda s: (
            f"typical_p {s.value:g} keeps the tokens whose surprise is nearest to the entropy, "
            f"{surprise(s.threshold or 1.0):.2f} bits, until they reach {s.value:g}"
        ),
        heads=lambda s: ("p", "bits"),
        numbers=_p_and_bits,
        bar=_plain_bar,
    ),
    "epsilon_cutoff": _floor(lambda s: f"epsilon_cutoff keeps what has {_least(s)} or more"),
    "eta_cutoff": _floor(
        lambda s: (
            f"eta_cutoff {s.value:g} keeps what has {_least(s)} or more, which falls where the "
            "entropy rises"
        )
    ),
    "top_a": _floor(
        lambda s: (
            f"top_a {s.value:g} keeps what has {s.value:g} times the square of the largest p or "
            f"more: {_least(s)}"
        )
    ),
    "p_less": _floor(
        lambda s: f"p_less keeps what has the sum of all squares or more: {_least(s)}"
    ),
    "p_less_norm": _floor(
        lambda s: (
            f"p_less_norm keeps what has (n s - 1) / (n - 1) or more, s the sum of all n squares: "
            f"{_least(s)}"
        )
    ),
    "top_n_sigma": _floor(
        lambda s: (
            f"top_n_sigma {s.value:g} keeps the logits within {s.value:g} standard deviations of "
            f"the largest: {_least(s)} or more"
        )
    ),
    "top_h": _floor(
        lambda s: (
            f"top_h {s.value:g} keeps the first tokens whose part of the entropy is at most "
            f"{s.value:g}"
        )
    ),
    "xtc": _floor(_xtc),
    "mirostat": Look(_mirostat, lambda s: ("p", "bits"), _p_and_bits, _plain_bar),
    "adaptive": Look(
        rule=lambda s: f"adaptive_target {s.value:g} reweights: tokens near this p gain",
        heads=lambda s: ("before", "after"),
        numbers=_before_and_after,
        bar=_made_bar,
    ),
}


def look_of(stage: Stage) -> Look:
    """Return how a stage is shown."""
    if stage.name in LOOKS:
        return LOOKS[stage.name]
    (name, *_) = OF_STAGE[stage.name]
    return _floor(lambda s: f"{name} {s.value:g}: {sentence(name)}")
