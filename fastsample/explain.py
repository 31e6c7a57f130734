"""What edits and each stage do to one row of logits, as numbers. Depends on NumPy and the package.

`fastsample explain` shows them on a terminal (``cli/explain_text.py``) or as a picture
(``cli/explain_plot.py``). Nothing here samples by rules of its own: what a stage keeps is what the
backend keeps with the later stages off, and the token is `fastsample.sample`'s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import backend
from .arrays import as_rows
from .explanations import Draw, Explanation, Segment, Stage, Token
from .inputs import Histories, edits_of, histories, inputs_of
from .orders import parse_order
from .parameters import DEFAULT_ORDER, DEFAULTS, EDITING, TABLE, Parameters
from .plans import make_plan, start_of
from .records import KINDS, STAGE, STATES, record_type
from .records import steps as steps_of
from .reference import to_float32, uniform
from .reference.distribution import Distribution
from .reference.inputs import as_drawn_from
from .reference.stages import TABLE as STAGES
from .rules import KINDS as RULES
from .rules import Rules, make_rules
from .sampling import sample
from .signatures import documented
from .uniforms import coins
from .values import integer

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Draw", "Explanation", "Segment", "Stage", "Token", "explain"]

Ids = npt.NDArray[np.int64]
Probs = npt.NDArray[np.float64]
Row = npt.NDArray[np.float32]

#: Lists that other parameters look at, and those that edit by themselves.
_HELPING = frozenset(kind.ids for kind in RULES.values() if kind.ids)
_EDITORS = frozenset(n for n in EDITING if TABLE[n].listed) - _HELPING

_GREEDY = ("temperature", (0.0, 0.0, 1.0), False)


class Step(NamedTuple):
    """A stage of a chain; a joint one cuts what the one before it cut."""

    name: str
    numbers: tuple[float, ...]
    joint: bool = False


class _Kept(NamedTuple):
    """What is left of a row: ids by falling logit, and their probabilities."""

    ids: Ids
    probs: Probs


class _Walk(NamedTuple):
    """A row on its way through a chain: as it came, as it is edited, and what else is needed."""

    given: Row
    row: Row
    at_least: int
    inputs: Mapping[str, Any]
    coin: float | None
    state: tuple[float, ...]

    def survivors(self, steps: Sequence[Step], at_least: int = 0) -> _Kept:
        """Return what the backend keeps of the edited row."""
        records = np.zeros(1, record_type(len(steps)))
        records["min_tokens_to_keep"] = at_least or self.at_least
        for i, (name, numbers, joint) in enumerate(steps):
            stage = records["stages"][:, i]
            stage["struct_size"], stage["kind"] = STAGE.itemsize, KINDS.index(name) + 1
            stage["joint"] = joint
            stage["value"][:, : len(numbers)] = numbers
        ids, probs = backend.active().survivors(self.given[None], records, **self._inputs(steps))
        return _Kept(ids, probs / probs.sum(dtype=np.float64))

    def _inputs(self, steps: Sequence[Step]) -> dict[str, Any]:
        names = {step.name for step in steps}
        unneeded = set()
        if not names & STATES.keys():
            unneeded.add("state")
        if "xtc" not in names:
            unneeded.add("coin")
        return {name: value for name, value in self.inputs.items() if name not in unneeded}

    def distribution(self, kept: _Kept, temperature: float) -> Distribution:
        """Return what a stage sees, of which its file says what the rule is."""
        x = self.row[kept.ids].astype(np.float64)
        return Distribution(kept.ids, x, self.row.size, self.at_least, temperature, self.coin,
                            self.state)  # fmt: skip


def _sigma(d: Distribution, n: float) -> float:
    return float(d.q[0]) * math.exp(-n * float(np.std(d.x)) / d.temperature)


def _mirostat(d: Distribution, version: float, tau: float, eta: float) -> float | None:
    mu = d.state[0] if d.state else 2.0 * tau
    return min(2.0**-mu, 1.0) if version == 2 else None


#: The probability that a stage compares with, where its rule has one.
_THRESHOLDS: dict[str, Callable[..., float | None]] = {
    "top_p": lambda d, p: p,
    "typical_p": lambda d, p: math.exp(-d.entropy),
    "min_p": lambda d, m: m * float(d.q[0]),
    "epsilon_cutoff": lambda d, e: e,
    "eta_cutoff": lambda d, e: min(e, math.sqrt(e) * math.exp(-d.entropy)),
    "top_a": lambda d, a: a * float(d.q[0]) ** 2,
    "p_less": lambda d, on: float(np.sum(d.q**2)),
    "p_less_norm": lambda d, on: (d.ids.size * float(np.sum(d.q**2)) - 1) / max(d.ids.size - 1, 1),
    "top_n_sigma": _sigma,
    "xtc": lambda d, probability, threshold: threshold,
    "mirostat": _mirostat,
}


def _is_off(step: Step) -> bool:
    return STAGES[step.name].off(*step.numbers)


def _chain(record: np.void) -> list[Step]:
    """Return the stages that are on, in the order that they run."""
    chain = [Step(*step) for step in steps_of(record)]
    if any(step.name == "temperature" and step.numbers[0] == 0.0 for step in chain):
        return [Step(*_GREEDY)]  # no other plays a part
    return [step for step in chain if not _is_off(step)]


def _dense(kept: _Kept, size: int) -> Probs:
    """Return probabilities by id; NaN for what is not there."""
    dense = np.full(size, np.nan)
    dense[kept.ids] = kept.probs
    return dense


def _at(values: Probs, shown: Ids) -> tuple[float | None, ...]:
    return tuple(None if math.isnan(v) else v for v in values[shown].tolist())


def _by_rule(name: str, d: Distribution, seen: _Kept) -> Ids:
    """Return places of what a stage saw, in the order in which it keeps them."""
    if name != "typical_p":
        return np.arange(seen.ids.size)
    with np.errstate(divide="ignore"):
        distance = np.abs(-np.log(seen.probs) - d.entropy)
    return np.argsort(distance, kind="stable")


def _stage(walk: _Walk, step: Step, seen: _Kept, left: _Kept, t: float, shown: Ids) -> Stage:
    """Describe a stage by what it saw at the temperature t, and what it left."""
    name, size = step.name, walk.row.size
    d = walk.distribution(seen, t)
    made = STAGES[name].apply(d, *step.numbers).temperature if name == "temperature" else t
    alone = [Step("temperature", (t, 0.0, 1.0)), step._replace(joint=False)]
    held = False
    if walk.at_least > 1 and name != "temperature":
        masked = np.full(size, -np.inf, np.float32)
        masked[seen.ids] = walk.row[seen.ids]
        one = walk._replace(given=masked, inputs={n: v for n, v in walk.inputs.items()
                                                  if n in ("coin", "state")})  # fmt: skip
        held = one.survivors(alone, 1).ids.size < left.ids.size
    by_rule = _by_rule(name, d, seen)
    sums = np.empty(seen.ids.size)
    sums[by_rule] = np.minimum(np.cumsum(seen.probs[by_rule]), 1.0)
    threshold = _THRESHOLDS.get(name)
    before = _dense(seen, size)
    return Stage(
        name="greedy" if made == 0.0 else name,
        value=step.numbers[0],
        numbers=step.numbers,
        temperature=made or 1.0,
        entered=seen.ids.size,
        kept=left.ids.size,
        mass=min(float(before[left.ids].sum()), 1.0),
        threshold=None if threshold is None else threshold(d, *step.numbers),
        coin=walk.coin if name == "xtc" and 0.0 < step.numbers[0] < 1.0 else None,
        held=held,
        before=_at(before, shown),
        cumulative=_at(_dense(_Kept(seen.ids, sums), size), shown),
        after=_at(_dense(left, size), shown),
    )


def _plain(name: str, value: float, raw: _Kept, left: _Kept, size: int, shown: Ids) -> Stage:
    """Describe what is not a stage of a chain: the edits, or a softmax alone."""
    before = _dense(raw, size)
    sums = _Kept(raw.ids, np.minimum(np.cumsum(raw.probs), 1.0))
    return Stage(
        name=name, value=value, numbers=(value,), temperature=1.0,
        entered=raw.ids.size, kept=left.ids.size,
        mass=min(float(before[left.ids].sum()), 1.0),
        threshold=None, coin=None, held=False,
        before=_at(before, shown), cumulative=_at(_dense(sums, size), shown),
        after=_at(_dense(left, size), shown),
    )  # fmt: skip


def _edited_by(
    given: Mapping[str, Any], history: Any, prompt_length: Any, vocab: int
) -> dict[str, Ids]:
    """Return the ids that each parameter edits, by asking each alone."""
    past = histories(1, True, history, prompt_length)
    edited = {}
    for name in (n for n in given if n not in _HELPING):
        if TABLE[name].off is None and not TABLE[name].listed:
            continue
        others = {n: v for n, v in given.items() if TABLE[n].off is None and n not in _EDITORS}
        rules = make_rules(1, others | {name: given[name]})
        if not isinstance(rules, Rules):
            rules = rules[0]
        if rules.allowed is not None:
            edited[name] = np.setdiff1d(np.arange(vocab), rules.allowed)
            continue
        made = edits_of(rules, past, 1, vocab)
        if rules.rules:
            edited[name] = made["edits"]["id"].astype(np.int64) if made else np.empty(0, np.int64)
    return edited


def _segments(kept: _Kept, shown: list[int]) -> tuple[Segment, ...]:
    """Return the line from 0 to 1 by rising id, with runs of tokens that are not shown as one."""
    by_id = np.argsort(kept.ids)
    places = {token: place for place, token in enumerate(shown)}
    # A shown token is a group of its own, whatever stands beside it.
    groups = groupby(
        zip(kept.ids[by_id].tolist(), kept.probs[by_id].tolist(), strict=True),
        key=lambda pair: places.get(pair[0]),
    )
    segments, high = [], 0.0
    for place, group in groups:
        weights = [p for _, p in group]
        low, high = high, high + sum(weights)
        segments.append(Segment(place, len(weights), low, high))
    segments[-1] = Segment(segments[-1].token, segments[-1].count, segments[-1].low, 1.0)
    return tuple(segments)


def _ranks(row: Row) -> Ids:
    """Return each token's place by falling logit, from 1."""
    ranks = np.empty(row.size, np.int64)
    ranks[np.argsort(-row, kind="stable")] = np.arange(1, row.size + 1)
    return ranks


@documented()
def explain(
    logits: Any,
    names: Sequence[str] | Callable[[int], str] = str,
    *,
    seed: int | None = None,
    offset: int = 0,
    u: float | None = None,
    u_xtc: float | None = None,
    history: Histories = None,
    prompt_length: int | None = None,
    state: Any = None,
    top: int = 10,
    **parameters: Unpack[Parameters],
) -> Explanation:
    """Explain one draw: what each stage sees, keeps and removes, and where the uniform fell.

    Parameters
    ----------
    logits : array, shape (V,)
        As in `sample`, one row.
    names : sequence of V str, or function from id to str, default str
        What the tokens are called.
    {parameters}
    seed : int, optional
        As in `sample`; 0 where `u` is not given either.
    offset : int, default 0
        As in `sample`.
    u : float, optional
        The uniform itself, in [0, 1).
    {u_xtc}
    {history}
    state : float64 array, shape (S,), optional
        As in `sample`, but it is not moved; by default the start.
    top : int, default 10
        How many of the most probable tokens to list; >= 1.

    Returns
    -------
    Explanation

    Raises
    ------
    ValueError, TypeError
        As in `sample`; or `names` are not V, or `top` is out of range.

    Examples
    --------
    >>> from fastsample.explain import explain
    >>> report = explain([3.0, 2.5, 2.0, 1.0], "ABCD", top_k=3, top_p=0.8, u=0.4)
    >>> [(stage.name, stage.entered, stage.kept) for stage in report.stages]
    [('top_k', 4, 3), ('top_p', 3, 2)]
    >>> report.drawn.text, round(report.drawn.final, 2)
    ('A', 0.62)
    >>> report = explain([3.0, 2.5, 2.0, 1.0], repetition_penalty=2.0, history=[0, 3], u=0.4)
    >>> [(token.id, token.given_logit, token.logit) for token in report.tokens]
    [(1, 2.5, 2.5), (2, 2.0, 2.0), (0, 3.0, 1.5), (3, 1.0, 0.5)]
    """
    rows, single = as_rows(logits)
    if not single:
        raise ValueError(f"logits must be 1-D, got shape {rows.shape}")
    given = to_float32(rows)[0]
    if not callable(names):
        if len(names) != given.size:
            raise ValueError(f"names must be {given.size}, one for each logit, got {len(names)}")
        names = names.__getitem__
    if integer("top", top) < 1:
        raise ValueError(f"top must be >= 1, got {top}")
    if u is None and seed is None:
        seed = 0
    plan = make_plan(1, "explain", parameters)
    if plan.stateful is not None and state is None:
        state = start_of(plan, 1)[0]
    moved = None if state is None else np.array(state)
    past: dict[str, Any] = {"history": history, "prompt_length": prompt_length}
    drawn = sample(given, seed=seed, offset=offset, u=u, u_xtc=u_xtc, state=moved,
                   **past, **parameters)  # fmt: skip
    inputs = inputs_of(plan, given[None], True, history, prompt_length, None, None, state)
    coin = None
    if plan.coin:
        inputs["coin"] = coins(1, seed, offset, None, u_xtc)
        coin = float(inputs["coin"][0])
    walk = _Walk(
        given,
        as_drawn_from(given, inputs, 0),
        int(plan.records["min_tokens_to_keep"][0]),
        inputs,
        coin,
        () if state is None else tuple(np.array(state).tolist()),
    )
    chain = _chain(plan.records[0])
    edits = {n: v for n, v in parameters.items() if n in EDITING}
    edited = _edited_by(edits, history, prompt_length, given.size) if plan.rules else {}

    raw = walk._replace(inputs={}).survivors(())
    whole = walk.survivors(())
    # Before each stage, what it saw at which temperature; and what it left.
    seen, base, temperature, around = whole, list[Step](), 1.0, []
    left, until = whole, base
    for step in chain:
        if not step.joint:
            seen, base = left, until
        own = walk.survivors([*base, step._replace(joint=False)])
        around.append((step, seen, own, temperature))
        if step.name == "temperature":
            d = walk.distribution(seen, 1.0)
            temperature = STAGES["temperature"].apply(d, *step.numbers).temperature or 1.0
        until = [*until, step]
        left = walk.survivors(until)
    final = left
    tempered = _dense(walk.survivors([Step("temperature", (temperature, 0.0, 1.0))]), given.size)

    ranks, given_ranks = _ranks(walk.row), _ranks(given)
    finite = np.isfinite(given)
    leading = finite & ((ranks <= top) & np.isfinite(walk.row) | (given_ranks <= top))
    leading[drawn] = True
    shown = np.flatnonzero(leading)
    shown = shown[np.argsort(ranks[shown])]
    stages = [_stage(walk, *one[:3], one[3], shown) for one in around]
    if plan.rules:
        changed = np.unique(np.concatenate([np.empty(0, np.int64), *edited.values()]))
        made = _plain("edits", changed.size, raw, whole, given.size, shown)
        stages.insert(0, made)
    elif not stages:
        stages = [_plain("softmax", 1.0, whole, whole, given.size, shown)]

    model, drawable = _dense(raw, given.size), _dense(final, given.size)
    tokens = tuple(
        Token(
            rank=int(ranks[token]),
            id=token,
            text=names(token),
            logit=float(walk.row[token]) if np.isfinite(walk.row[token]) else None,
            given_rank=int(given_ranks[token]),
            given_logit=float(given[token]),
            edited_by=tuple(name for name, ids in edited.items() if token in ids),
            model=float(model[token]),
            prob=float(np.nan_to_num(tempered[token])),
            final=float(np.nan_to_num(drawable[token])),
            cut_by=next((stage.name for stage in stages if stage.after[place] is None), None),
        )
        for place, token in enumerate(shown.tolist())
    )
    segments = _segments(final, shown.tolist())
    place = shown.tolist().index(drawn)
    mine = next(segment for segment in segments if segment.token == place)
    probs = final.probs[final.probs > 0]
    return Explanation(
        parameters={n: v for n, v in DEFAULTS.items() if n not in EDITING}
        | {**parameters, "order": parse_order(parameters.get("order", DEFAULT_ORDER))},
        edits={name: ids.size for name, ids in edited.items()},
        vocabulary=given.size,
        masked=given.size - raw.ids.size,
        kept=final.ids.size,
        mass=min(float(tempered[final.ids].sum()), 1.0),
        entropy=max(float(-probs @ np.log2(probs)), 0.0),
        stages=tuple(stages),
        tokens=tokens,
        draw=Draw(
            seed=seed,
            offset=None if seed is None else offset,
            u=float(u) if u is not None else uniform(int(seed or 0), 0, offset),
            token=place,
            low=mine.low,
            high=mine.high,
            segments=segments,
        ),
    )
