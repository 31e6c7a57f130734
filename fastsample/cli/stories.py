"""Stories of `fastsample explain`: rows, settings, and sentences whose numbers are computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..explain import Explanation, Token
from .looks import counted, percent, surprise

Grid = Sequence[Sequence[Explanation]]  # explanations by row and by setting


class Example(NamedTuple):
    """A distribution that is made up: small enough to be seen whole."""

    text: str
    probs: dict[str, float]
    level: float = 0.0  # the logit of a certain token; logits of models are positive
    loops: bool = False  # whether the words of the text are its history


class Story(NamedTuple):
    """Recorded prompts or examples, settings side by side, and what is to be seen in them."""

    title: str
    rows: tuple[int | Example, ...]
    compare: str
    seed: int  # whose draws show the point
    tell: Callable[[Sequence[str], Grid], list[str]]  # of the rows' texts and the explanations


def _named(e: Explanation) -> str:
    return f'"{e.drawn.text}"'


def _first(e: Explanation) -> str:
    return f'"{e.tokens[0].text}" ({percent(e.tokens[0].prob)})'


def _top_p(texts: Sequence[str], grid: Grid) -> list[str]:
    (peaked_k, peaked_p), (flat_k, flat_p) = grid
    k, p = peaked_k.parameters["top_k"], peaked_p.parameters["top_p"]
    return [
        f'After "{texts[0]}" the distribution is peaked: the most probable token is '
        f'{_first(peaked_k)}. After "{texts[1]}" it is flat: {_first(flat_k)}.',
        f"top_k={k} keeps {counted(peaked_k.kept)} each time: {percent(peaked_k.mass)} of the "
        f"probability of the first, but only {percent(flat_k.mass)} of the second, whose other "
        f"{percent(1 - flat_k.mass)} can no longer be said.",
        f"top_p={p:g} asks for a share of the probability, not for a number of tokens: it keeps "
        f"{counted(peaked_p.kept)} of the first and {flat_p.kept:,} of the second. So it adapts "
        f"to how sure the model is.",
        f"The same uniform, u = {peaked_k.draw.u:.4f}, draws {_named(peaked_k)} with top_k and "
        f"{_named(peaked_p)} with top_p after the first; {_named(flat_k)} and "
        f"{_named(flat_p)} after the second.",
    ]


def _temperature(texts: Sequence[str], grid: Grid) -> list[str]:
    (row,) = grid
    each = ", ".join(
        f"{percent(e.tokens[0].prob)} at T = {e.parameters['temperature']:g}" for e in row
    )
    entropies = ", ".join(f"{e.entropy:.1f}" for e in row)
    drawn = ", ".join(f"{_named(e)} (rank {e.drawn.rank:,})" for e in row)
    return [
        f'After "{texts[0]}", "{row[0].tokens[0].text}" has {each}: a low temperature favours the '
        f"probable, a high one levels.",
        f"The ranking stays, and nothing is removed: {counted(row[0].kept)} can be drawn at each, "
        f"but the entropy is {entropies} bits.",
        f"One uniform, u = {row[0].draw.u:.4f}, draws in turn {drawn}.",
    ]


def _min_p(texts: Sequence[str], grid: Grid) -> list[str]:
    ((cool_p, hot_p, cool_m, hot_m),) = grid
    hot = hot_p.parameters["temperature"]
    p, m = cool_p.parameters["top_p"], cool_m.parameters["min_p"]
    return [
        f'After "{texts[0]}" a temperature of {hot:g} moves probability into the long tail: '
        f'"{cool_p.tokens[0].text}" falls from'
        f" {percent(cool_p.tokens[0].prob)} to "
        f"{percent(hot_p.tokens[0].prob)}.",
        f"top_p={p:g} must then keep {counted(hot_p.kept)} to reach its share, instead of "
        f"{cool_p.kept:,}.",
        f"min_p={m:g} compares with the most probable token: at T = {hot:g} its threshold falls "
        f"to {percent(m * hot_p.tokens[0].prob)}, and it keeps {hot_m.kept:,} instead of "
        f"{cool_m.kept:,}.",
        f"At T = {hot:g}, u = {hot_p.draw.u:.4f} draws {_named(hot_p)} (rank "
        f"{hot_p.drawn.rank:,}) with top_p and {_named(hot_m)} with min_p.",
    ]


def _order(texts: Sequence[str], grid: Grid) -> list[str]:
    ((before, after),) = grid
    temperature, p = before.parameters["temperature"], before.parameters["top_p"]
    return [
        f'Temperature {temperature:g} and top_p={p:g} after "{texts[0]}", in two orders.',
        f"Temperature first: top_p sees the flat distribution and keeps {counted(before.kept)}.",
        f"Temperature last: top_p sees T = 1, keeps {counted(after.kept)}, and only among these "
        f"does the temperature level: the first has {percent(after.tokens[0].final)} of the draws "
        f"instead of {percent(before.tokens[0].final)}.",
    ]


def _repetition(texts: Sequence[str], grid: Grid) -> list[str]:
    ((plain, penalised, dry),) = grid
    first = plain.tokens[0].id
    before, at, after = (
        next(t for t in e.tokens if t.id == first) for e in (plain, penalised, dry)
    )
    r, m = penalised.parameters["repetition_penalty"], dry.parameters["dry_multiplier"]
    return [
        f'"{texts[0]}" is about to go round again: "{before.text}" has {percent(before.prob)}, '
        f"and {counted(plain.kept)} can be drawn.",
        f"repetition_penalty={r:g} divides the logits of all "
        f"{penalised.edits['repetition_penalty']} words that have occurred. "
        f'"{at.text}" falls from {before.logit:.2f} to {at.logit:.2f}, to {percent(at.prob)}; but '
        f'so does every common word, such as "{_common(plain, penalised)}".',
        f"DRY with dry_multiplier={m:g} looks for what would go on with a repetition: only "
        f'"{after.text}" would make the repeated part longer. It falls to {after.logit:.2f}, to '
        f"{percent(after.prob)}, and no other word is touched.",
        f"u = {plain.draw.u:.4f} draws in turn {', '.join(map(_named, grid[0]))}.",
    ]


def _common(plain: Explanation, penalised: Explanation) -> str:
    """Return the most probable word that is penalised, after the first."""
    edited = {t.id for t in penalised.tokens if t.edited_by}
    return next(t.text for t in plain.tokens[1:] if t.id in edited)


def _words(tokens: Sequence[Token]) -> str:
    return ", ".join(f'"{t.text}"' for t in tokens)


def _xtc(texts: Sequence[str], grid: Grid) -> list[str]:
    ((plain, tails, heads),) = grid
    probability, threshold = (tails.parameters[n] for n in ("xtc_probability", "xtc_threshold"))
    gone = [t for t in heads.tokens if t.cut_by == "xtc"]
    stays = next(t for t in heads.tokens if t.cut_by is None)
    coins = [stage.coin or 0.0 for e in (tails, heads) for stage in e.stages if stage.name == "xtc"]
    return [
        f'After "{texts[0]}" {counted(len(gone) + 1)} have {percent(threshold)} or more. Without '
        f"xtc all {counted(plain.kept)} can be drawn.",
        f"With xtc_probability={probability:g} a coin is tossed for each draw. Of seed "
        f"{tails.draw.seed} it is {coins[0]:.4f}, not below {probability:g}: nothing happens, and "
        f"{counted(tails.kept)} are kept.",
        f"Of seed {heads.draw.seed} it is {coins[1]:.4f}: the top choices "
        f"{_words(gone)} are excluded, and "
        f'"{stays.text}", the least probable of those above the line, stays; {heads.kept:,} are '
        "kept.",
        f'What is left is renormalised: "{stays.text}" rises from {percent(stays.prob)} to '
        f"{percent(stays.final)}.",
    ]


def _typical(texts: Sequence[str], grid: Grid) -> list[str]:
    ((top, typical),) = grid
    p, (stage,) = typical.parameters["typical_p"], typical.stages
    first = typical.tokens[0]
    return [
        f'After "{texts[0]}" the entropy is {surprise(stage.threshold or 1.0):.2f} bits: a token '
        f"of {percent(stage.threshold or 0.0)} surprises as much as is to be expected.",
        f"top_p={p:g} keeps the most probable {counted(top.kept)}.",
        f"typical_p={p:g} keeps the {counted(typical.kept)} whose surprise is nearest to the "
        f'entropy. "{first.text}", with {percent(first.prob)}, surprises by only '
        f"{surprise(first.prob):.2f} bits, and is cut: what is kept is a band, not the top.",
        f"u = {top.draw.u:.4f} draws {_named(top)} and {_named(typical)}.",
    ]


PEAKED = Example("The sun rises in the", {"east": 0.70, "morning": 0.16, "sky": 0.10, "west": 0.04})
FLAT = Example("My favourite colour is", {"blue": 0.30, "green": 0.27, "red": 0.23, "black": 0.20})
LOOP = Example(
    "the cat sat on the mat and the cat sat on the",
    {"mat": 0.57, "cat": 0.12, "rug": 0.10, "sofa": 0.07, "floor": 0.06, "sat": 0.03,
     "on": 0.02, "and": 0.02, "the": 0.01},
    level=12.0,
    loops=True,
)  # fmt: skip

STORIES = {
    "top-p": Story(
        "the same top_k and top_p on a peaked and on a flat distribution",
        rows=(PEAKED, FLAT),
        compare="top_k=3;top_p=0.85",
        seed=8,
        tell=_top_p,
    ),
    "top-p-model": Story(
        "the same, on what a model gives for 49,152 tokens",
        rows=(6, 4),
        compare="top_k=3;top_p=0.85",
        seed=8,
        tell=_top_p,
    ),
    "temperature": Story(
        "one row at three temperatures",
        rows=(9,),
        compare="temperature=0.5;temperature=1;temperature=1.5",
        seed=1,
        tell=_temperature,
    ),
    "min-p": Story(
        "top_p and min_p when the temperature rises",
        rows=(9,),
        compare="temperature=1,top_p=0.9;temperature=2,top_p=0.9;"
        "temperature=1,min_p=0.1;temperature=2,min_p=0.1",
        seed=10,
        tell=_min_p,
    ),
    "order": Story(
        "top_p before and after the temperature",
        rows=(9,),
        compare="temperature=2,top_p=0.9,order=hf;temperature=2,top_p=0.9,order=llama.cpp",
        seed=10,
        tell=_order,
    ),
    "repetition": Story(
        "no penalty, a repetition penalty and DRY on a text that loops",
        rows=(LOOP,),
        compare="temperature=1;repetition_penalty=1.2;dry_multiplier=0.8",
        seed=12,
        tell=_repetition,
    ),
    "xtc": Story(
        "the coin of xtc, and what it excludes",
        rows=(9,),
        compare="temperature=1;xtc_probability=0.5,xtc_threshold=0.06,order=llama.cpp,seed=16;"
        "xtc_probability=0.5,xtc_threshold=0.06,order=llama.cpp,seed=2",
        seed=1,
        tell=_xtc,
    ),
    "typical-p": Story(
        "top_p keeps the top, typical_p a band",
        rows=(7,),
        compare="top_p=0.5;typical_p=0.5",
        seed=8,
        tell=_typical,
    ),
}
