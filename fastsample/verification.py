"""Drafts verified: speculative decoding whose text is the target's own."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from . import backend
from .arrays import Logits, as_rows, to_array
from .inputs import Histories, History, histories, together
from .lists import ids_of
from .masks import masks
from .parameters import Ints, Parameters, Seeds, SupportsArray
from .plans import Plan, plan_of, plan_of_scalars
from .reference.verification import Draft, Lists, Side
from .rules import Rules, check_ids
from .signatures import documented
from .uniforms import Keys, keys_of, refuse_unseeded
from .values import named, uint64

if TYPE_CHECKING:
    from typing_extensions import Unpack

Method: TypeAlias = Literal["token", "exact", "block"]
#: Ids and weights of one position.
Pairs: TypeAlias = Sequence[tuple[Any, Any]]
Drafts: TypeAlias = "SupportsArray | Pairs | Literal['onehot']"

_METHODS = ("token", "exact", "block")  # by fs_method
_MAX_DRAFTS = 4096  # FS_MAX_DRAFTS


class Verified(NamedTuple):
    """What `verify` emits.

    Attributes
    ----------
    tokens : int64 array, shape (K + 1,) or (B, K + 1)
        The accepted drafts and one token more, padded with -1; K is that of the longest draft.
    accepted : int or int64 array of shape (B,)
        How many drafts are accepted.
    """

    tokens: npt.NDArray[np.int64]
    accepted: Any


class _Sequence(NamedTuple):
    """One sequence of a batch; `where` names it in messages."""

    r: int
    tokens: npt.NDArray[Any]
    history: History | None
    keys: Keys
    where: str


class _told_of:
    """Let errors of logits name the parameter that these are, and its sequence."""

    __slots__ = ("_name", "_where")

    def __init__(self, where: str, name: str = "logits") -> None:
        self._where, self._name = where, name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, (TypeError, ValueError)):
            return
        text = str(error)
        if text.startswith("logits "):
            text = self._name + text.removeprefix("logits")
        raised = TypeError if isinstance(error, TypeError) else ValueError
        raise raised(text if text.endswith(self._where) else text + self._where) from error


def _coins(one: _Sequence, count: int) -> npt.NDArray[np.float64]:
    seed, stream, offset = (words[one.r] for words in one.keys)
    same = np.full(count, seed), np.full(count, stream)
    coins: npt.NDArray[np.float64] = backend.active().uniforms(
        *same, offset + np.arange(count, dtype=np.uint64), 1
    )
    return coins


def _edits(rules: Rules, one: _Sequence, count: int, vocab: int) -> dict[str, Any]:
    """Return the edits of so many positions, whose histories have the drafts before them."""
    check_ids(rules, vocab)
    if rules.needs_history and one.history is None:
        raise ValueError(f"history must be given where {rules.needs_history} is on{one.where}")
    if not rules.rules:
        return {}
    history = backend.history(rules.rules)
    if one.history is not None:
        history.start(*one.history)
    made = [history.edits(vocab)]
    for token in one.tokens[: count - 1].tolist():
        history.push((token,))
        made.append(history.edits(vocab))
    return together(made[:count])


def _side(
    plan: Plan, one: _Sequence, rows: npt.NDArray[Any], allowed: Any = None, vocab_size: Any = None
) -> Side:
    """Return rows and what they are drawn from with."""
    count, vocab = rows.shape
    if plan.moves:
        raise ValueError(f"{plan.stateful} must be off where drafts are verified: it has a state")
    rules = plan.rules
    if rules is not None and not isinstance(rules, Rules):
        rules = rules[one.r]
    inputs: dict[str, Any] = {}
    if rules is not None:
        inputs |= _edits(rules, one, count, vocab)
    with _told_of(one.where):
        inputs |= masks(rules, allowed, vocab_size, count, False, vocab)
    if plan.coin:
        inputs["coin"] = _coins(one, count)
    records = plan.records if plan.records.size == 1 else plan.records[one.r : one.r + 1]
    return Side(rows, records, inputs)


def _lists(pairs: Any, one: _Sequence, vocab: int) -> Lists:
    """Return valid lists of ids and weights."""
    count, where = len(one.tokens), one.where
    must = f"draft must be {count} pairs of ids and weights"
    for pair in pairs:
        if not isinstance(pair, Sequence):
            raise TypeError(f"{must}, got {pair!r} ({type(pair).__name__}){where}")
    if len(pairs) != count or any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"{must}, got {len(pairs)} of length {[len(p) for p in pairs]}{where}")
    all_ids, all_weights = [], []
    for ids, weights in pairs:
        mine = ids_of("draft", ids, where).astype(np.int64)
        with named(f"{must}{where}"):
            heavy = np.asarray(weights, np.float64)
        if mine.ndim != 1 or heavy.shape != mine.shape or mine.size == 0:
            raise ValueError(f"{must}, got {mine.size} ids with {heavy.size} weights{where}")
        if mine.max() >= vocab or np.unique(mine).size < mine.size:
            raise ValueError(f"draft must have different ids in [0, {vocab}), got {ids!r}{where}")
        if not (heavy >= 0.0).all() or not 0.0 < heavy.sum() < np.inf:
            raise ValueError(
                f"draft must have weights >= 0 with a finite sum > 0, got {weights!r}{where}"
            )
        all_ids.append(mine.astype(np.int32))
        all_weights.append(heavy)
    ends = np.cumsum([0, *(ids.size for ids in all_ids)], dtype=np.int64)
    return Lists(
        np.concatenate([np.empty(0, np.int32), *all_ids]),
        np.concatenate([np.empty(0), *all_weights]),
        ends,
    )


def _draft(draft: Any, plan: Plan | None, one: _Sequence, vocab: int, exact: bool) -> Draft:
    """Return what drafts were drawn from."""
    if exact:
        return None
    if isinstance(draft, str) and draft == "onehot":
        return None
    if isinstance(draft, (list, tuple)):
        return _lists(draft, one, vocab)
    if draft is None or isinstance(draft, str):
        raise ValueError(
            f"draft must be logits, pairs of ids and weights or 'onehot', got {draft!r}{one.where}"
        )
    with _told_of(one.where, "draft"):
        rows, single = as_rows(draft)
    shape = (len(one.tokens), vocab)
    if single or rows.shape != shape:
        raise ValueError(f"draft must have logits of shape {shape}, got {rows.shape}{one.where}")
    assert plan is not None
    return _side(plan, one, rows)


def _tokens(given: Any, vocab: int, where: str) -> npt.NDArray[np.int64]:
    tokens = ids_of("draft_tokens", given, where).astype(np.int64)
    if tokens.size > _MAX_DRAFTS:
        raise ValueError(
            f"draft_tokens must be at most {_MAX_DRAFTS} ids, got {tokens.size}{where}"
        )
    if tokens.size and tokens.max() >= vocab:
        raise ValueError(f"draft_tokens must be in [0, {vocab}), got {tokens.max()}{where}")
    return tokens


def _batch(value: Any) -> list[Any] | None:
    """Return the sequences of a batch, or None where it is one alone."""
    if isinstance(value, (list, tuple)):
        return list(value)
    with _told_of("", "target_logits"):
        array = to_array(value)
    return list(array) if array.ndim == 3 else None


def _of_each(name: str, value: Any, count: int) -> list[Any]:
    """Return what each sequence of a batch has."""
    if value is None or isinstance(value, str):
        return [value] * count
    must = f"{name} must have one entry for each of {count} sequences"
    if isinstance(value, Mapping):
        raise TypeError(f"{must}, got {value!r}")
    try:
        entries = list(value)
    except TypeError as error:
        raise TypeError(f"{must}, got {value!r}") from error
    if len(entries) != count:
        raise ValueError(f"{must}, got {len(entries)}")
    return entries


def _parameters(draft_params: Any) -> dict[str, Any]:
    """Return the parameters with which drafts were drawn."""
    given = {} if draft_params is None else draft_params
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        kind = type(given).__name__
        raise TypeError(f"draft_params must be a dict of parameters, got {given!r} ({kind})")
    return dict(given)


def _quickly(
    tokens: Any,
    target: Any,
    draft: Any,
    draft_params: Any,
    method: Any,
    seed: Any,
    offset: Any,
    parameters: Mapping[str, Any],
) -> Verified | None:
    """Let the backend verify what needs no second look; None where it does.

    That is one sequence, without edits and coins, of arrays that are read where they are.
    """
    verify = getattr(backend.active(), "verify_quickly", None)
    if verify is None or type(method) is not str or method not in _METHODS:
        return None
    if method == "exact":
        if draft is not None:
            return None
    elif type(draft) is str and draft == "onehot":
        draft = None
    elif draft is None:
        return None
    if draft_params is not None and type(draft_params) is not dict:
        return None
    plan, of_draft = plan_of_scalars(parameters), plan_of_scalars(draft_params or {})
    if plan is None or of_draft is None or plan.draw is None or of_draft.draw is None:
        return None
    number = _METHODS.index(method) + 1
    found = verify(tokens, target, plan.records, draft, of_draft.records, number, seed, offset)
    return None if found is None else tuple.__new__(Verified, found)


@documented()
def verify(
    draft_tokens: Any,
    target_logits: Logits | Sequence[Logits],
    *,
    draft: Drafts | Sequence[Drafts] | None = None,
    draft_params: Mapping[str, Any] | None = None,
    method: Method = "token",
    seed: Seeds = None,
    offset: Ints = 0,
    stream: Ints | None = None,
    history: Histories = None,
    prompt_length: Ints | None = None,
    allowed: Any = None,
    vocab_size: int | None = None,
    **parameters: Unpack[Parameters],
) -> Verified:
    """Verify drafted tokens: accept some, and draw one more, so that the text is the target's own.

    Parameters
    ----------
    draft_tokens : int array, shape (K,), or a list of them
        What was drafted. A batch is a list with one entry for each sequence, ragged or not; so
        are then `target_logits`, `draft`, `history` and `allowed`.
    target_logits : array, shape (K + 1, V), or a list of them
        The target's logits at the position of each draft, and at the one after all of them.
        Arrays as in `sample`; those of shape (B, K + 1, V) are a batch too.
    draft : array of shape (K, V), K pairs of ids and weights, or "onehot"
        What the drafts were drawn from: logits with `draft_params`, lists of ids with weights that
        need not sum to 1, or nothing but the tokens themselves, as of a look-up. "exact" needs
        none.
    draft_params : dict, optional
        Parameters as those below, with which the drafts were drawn.
    method : {"token", "exact", "block"}, default "token"
        "token" accepts drafts one by one [10]_, "block" as many as may be at once, which is never
        fewer on average [11]_: both emit tokens that are distributed as without drafts. "exact"
        accepts a draft where `sample` at its offset gives that: the text *is* the one without
        drafts.
    {parameters}
    seed, offset, stream
        As in `sample`: position i has the offset `offset` + i, and sequence r of a batch the
        stream of row r.
    {history}
    allowed : bool array, shape (V,) or (K + 1, V), or packed, optional
        As in `sample`, for each position.
    vocab_size : int, optional
        As in `sample`.

    Returns
    -------
    Verified
        ``tokens`` and ``accepted``.

    Raises
    ------
    ValueError, TypeError
        As in `sample`. Stages with a state are refused. A bad row is an error where it is looked
        at: nothing after the first refusal is ("token", "exact"), or after what makes all of a
        block impossible.

    Notes
    -----
    The history of position i has the drafts before i. Its uniforms are those of
    ``Generator(Philox(key=[seed, stream], counter=[offset + i, use, 0, 0]))``: use 0 draws the
    token after all drafts and those of "exact", 1 is XTC's coin, 2 accepts, 3 draws after a
    refusal.

    References
    ----------
    {references}
    .. [10] Leviathan et al., "Fast Inference from Transformers via Speculative Decoding", ICML
       2023.
    .. [11] Sun et al., "Block Verification Accelerates Speculative Decoding", ICLR 2025.

    Examples
    --------
    >>> import numpy as np
    >>> import fastsample
    >>> logits = np.array([[3.0, 2.5, 2.0], [0.0, 9.0, 0.0], [1.0, 0.0, 5.0]], np.float32)
    >>> fastsample.verify([0, 2], logits, draft="onehot", seed=3)
    Verified(tokens=array([ 0,  1, -1]), accepted=1)
    """
    if (
        stream is None
        and history is None
        and prompt_length is None
        and allowed is None
        and vocab_size is None
    ):
        verified = _quickly(
            draft_tokens, target_logits, draft, draft_params, method, seed, offset, parameters
        )
        if verified is not None:
            return verified
    if not isinstance(method, str) or method not in _METHODS:
        raise ValueError(f"method must be 'token', 'exact' or 'block', got {method!r}")
    several = _batch(target_logits)
    single = several is None
    targets = [target_logits] if several is None else several
    count = len(targets)
    drafted = [draft_tokens] if single else _of_each("draft_tokens", draft_tokens, count)
    drafts = [draft] if single else _of_each("draft", draft, count)
    masked = [allowed] if single else _of_each("allowed", allowed, count)
    plan = plan_of(count, "verify", parameters)
    of_draft = _parameters(draft_params)
    draft_plan = plan_of(count, "draft_params", of_draft)
    if seed is None:
        refuse_unseeded(count, offset, stream)
        seed = secrets.randbits(64)
    keys = keys_of(count, seed, offset, stream)
    past = histories(count, single, history, prompt_length)
    out = []
    for r in range(count):
        where = "" if single else f" (row {r})"
        with _told_of(where, "target_logits"):
            rows, alone = as_rows(targets[r])
        tokens = _tokens(drafted[r], rows.shape[1], where)
        if alone or len(rows) != tokens.size + 1:
            raise ValueError(
                f"target_logits must have {tokens.size + 1} rows, one more than there are drafts, "
                f"got shape {rows.shape[1:] if alone else rows.shape}{where}"
            )
        one = _Sequence(r, tokens, None if past is None else past[r], keys, where)
        key = tuple(int(words[r]) for words in keys)
        uint64("offset", key[2] + tokens.size, where)
        target = _side(plan, one, rows, masked[r], vocab_size)
        of = _draft(drafts[r], draft_plan, one, rows.shape[1], method == "exact")
        mine = np.empty(tokens.size + 1, np.int64)
        number = _METHODS.index(method) + 1
        with _told_of(where):
            accepted = backend.active().verify(tokens, target, of, number, key, mine)
        out.append((mine, accepted))
    if single:
        return Verified(*out[0])
    whole = np.full((count, max((mine.size for mine, _ in out), default=1)), -1, np.int64)
    for line, (mine, _) in zip(whole, out, strict=True):
        line[: mine.size] = mine
    return Verified(whole, np.array([accepted for _, accepted in out], np.int64))
