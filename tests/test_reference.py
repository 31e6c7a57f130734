"""The specification against what is plainer still: loops over small vocabularies, 34 digits.

A threshold is a float32 in the specification, so that a token within 2^-22 of one may fall on
either side; such cases are counted, and few.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from decimal import Decimal, localcontext

import numpy as np
import numpy.typing as npt
import pytest
import rows
from scipy import stats

from fastsample.reference import edits
from fastsample.reference.chain import Step, draw, state_after, uniform, walk
from fastsample.reference.distribution import Distribution
from fastsample.reference.edits import dry
from fastsample.reference.stages import TABLE

Row = npt.NDArray[np.float32]
DIGITS = 34
NEAR = Decimal(2) ** -22


class Plain:
    """A row, what is kept of it, and exact probabilities; notes where something is too near."""

    def __init__(self, x: Row, kept: list[int], temperature: float, at_least: int) -> None:
        self.x = [Decimal(float(value)) for value in x]
        self.order = sorted(kept, key=lambda i: (-x[i], i))
        self.at_least = at_least
        weights = {i: (self.x[i] / Decimal(temperature)).exp() for i in kept}
        total = sum(weights.values())
        self.q = {i: w / total for i, w in weights.items()}
        self.entropy = -sum(q * q.ln() for q in self.q.values())
        self.vocab = x.size
        self.temperature = Decimal(temperature)
        self.near = False

    def compare(self, a: Decimal, b: Decimal) -> bool:
        """Whether a >= b."""
        self.near |= abs(a - b) <= NEAR * (abs(a) + abs(b))
        return a >= b

    def filled(self, kept: list[int], order: list[int] | None = None) -> list[int]:
        return kept if len(kept) >= self.at_least else (order or self.order)[: self.at_least]

    def floor(self, threshold: Decimal) -> list[int]:
        return self.filled([i for i in self.order if self.compare(self.q[i], threshold)])

    def shortest(self, order: list[int], p: float) -> list[int]:
        """The fewest that reach p; what only just does, does so on paper."""
        for count in range(1, len(order) + 1):
            mass = sum(self.q[i] for i in order[:count])
            if mass >= Decimal(p) * (1 - Decimal(2) ** -24):
                break
        return self.filled(order[:count], order)


def typical_p(d: Plain, p: float) -> list[int]:
    def distance(i: int) -> Decimal:
        return abs(-d.q[i].ln() - d.entropy).quantize(Decimal(10) ** -30)

    order = sorted(d.order, key=lambda i: (distance(i), -d.x[i], i))
    for a, b in itertools.pairwise(order):  # in float64 two such may change places
        d.near |= d.x[a] != d.x[b] and distance(b) - distance(a) < Decimal(10) ** -12
    return d.shortest(order, p)


def top_n_sigma(d: Plain, s: float) -> list[int]:
    values = [d.x[i] for i in d.order]
    mean = sum(values) / len(values)
    sd = (sum((v - mean) ** 2 for v in values) / len(values)).sqrt()
    threshold = values[0] - Decimal(s) * sd
    return d.filled([i for i in d.order if d.compare(d.x[i], threshold)])


def top_h(d: Plain, h: float) -> list[int]:
    first = d.order[:100]
    total = sum(d.q[i] for i in first)
    parts = [-(d.q[i] / total) * (d.q[i] / total).ln() for i in first]
    if h == 1:
        return d.filled(first if len(first) > 1 else first[:1])
    count = 0
    while count < len(first) and d.compare(Decimal(h) * sum(parts), sum(parts[: count + 1])):
        count += 1
    return d.filled(first[: max(1, count)])


def xtc(d: Plain, probability: float, threshold: float) -> list[int]:
    assert probability == 1
    top = [i for i in d.order if d.compare(d.q[i], Decimal(threshold))]
    left = [i for i in d.order if i not in top[:-1]]
    return left if len(top) >= 2 and len(left) >= d.at_least else d.order


def mirostat(d: Plain, version: float, tau: float, eta: float) -> list[int]:
    mu = Decimal(2 * tau)
    if version == 2:
        two = Decimal(2).ln()
        fitting = [i for i in d.order if d.compare(mu, -d.q[i].ln() / two)]
        return d.filled(fitting or d.order[:1])
    first = d.order[:100]
    if len(first) < 2:
        return d.order
    t = [(Decimal(i + 2) / Decimal(i + 1)).ln() for i in range(len(first) - 1)]
    b = [(d.x[i] - d.x[j]) / d.temperature for i, j in itertools.pairwise(first)]
    s = sum(x * y for x, y in zip(t, b, strict=True)) / sum(x * x for x in t)
    d.near |= s == 0
    if d.near:
        return d.order
    e = s - 1
    k = (e * 2**mu / (1 - Decimal(d.vocab) ** -e)) ** (1 / s)
    d.near |= abs(k - k.to_integral_value()) < NEAR * abs(k)
    return d.filled(d.order[: max(1, int(min(k, Decimal(d.vocab))))])


def p_less_norm(d: Plain, on: float) -> list[int]:
    n, twice = len(d.order), sum(q * q for q in d.q.values())
    d.near |= abs(n * twice - 1) < Decimal(10) ** -12  # where float64 may not know the sign
    return d.floor((n * twice - 1) / (n - 1)) if n > 1 else d.order


PLAIN: dict[str, Callable[..., list[int]]] = {
    "top_k": lambda d, k: d.filled(d.order[: int(k)]),
    "top_p": lambda d, p: d.shortest(d.order, p),
    "min_p": lambda d, m: d.floor(Decimal(m) * d.q[d.order[0]]),
    "typical_p": typical_p,
    "epsilon_cutoff": lambda d, e: d.floor(Decimal(e)),
    "eta_cutoff": lambda d, e: d.floor(min(Decimal(e), Decimal(e).sqrt() * (-d.entropy).exp())),
    "top_a": lambda d, a: d.floor(Decimal(a) * d.q[d.order[0]] ** 2),
    "p_less": lambda d, on: d.floor(sum(q * q for q in d.q.values())),
    "p_less_norm": p_less_norm,
    "top_n_sigma": top_n_sigma,
    "top_h": top_h,
    "xtc": xtc,
    "mirostat": mirostat,
}
NUMBERS: dict[str, list[tuple[float, ...]]] = {
    "top_k": [(1,), (3,), (50,)],
    "top_p": [(0.0,), (0.3,), (0.8,), (0.97,)],
    "min_p": [(1.0,), (0.3,), (0.02,)],
    "typical_p": [(0.05,), (0.4,), (0.9,)],
    "epsilon_cutoff": [(0.01,), (0.12,), (0.9,)],
    "eta_cutoff": [(0.002,), (0.1,), (0.6,)],
    "top_a": [(0.1,), (0.6,), (1.0,)],
    "p_less": [(1.0,)],
    "p_less_norm": [(1.0,)],
    "top_n_sigma": [(0.3,), (1.0,), (2.5,)],
    "top_h": [(0.1,), (0.5,), (0.95,), (1.0,)],
    "xtc": [(1.0, 0.0), (1.0, 0.06), (1.0, 0.2), (1.0, 0.6)],
    "mirostat": [(v, tau, 0.1) for v in (1, 2) for tau in (0.4, 1.0, 3.0)],
}


def small_rows() -> Iterator[Row]:
    rng = np.random.default_rng(11)
    for vocab, coarse in itertools.product([1, 2, 3, 5, 8, 120], (True, True, False)):
        x = rng.normal(0, 2, vocab)
        x = np.round(x * 2) / 2 if coarse else x
        x[rng.random(vocab) < 0.1] = -np.inf
        x[rng.integers(vocab)] = 1.5
        yield x.astype(np.float32)


def test_every_stage_that_keeps_has_a_plain_twin() -> None:
    assert PLAIN.keys() == NUMBERS.keys() == TABLE.keys() - {"temperature", "adaptive"}


@pytest.mark.parametrize("stage", PLAIN)
def test_against_loops(stage: str) -> None:
    compared = excused = cut = 0
    for x in small_rows():
        finite = np.flatnonzero(x > -np.inf).tolist()
        settings = itertools.product(NUMBERS[stage], (0.5, 1.0, 3.0), (1, 4))
        for value, temperature, at_least in settings:
            if x.size > 20 and temperature != 1.0:
                continue
            chain = [Step("temperature", (temperature, 0.0, 1.0)), Step(stage, value)]
            ours = walk(x, chain, at_least).ids.tolist()
            assert ours == sorted(ours, key=lambda i: (-x[i], i))
            with localcontext() as context:
                context.prec = DIGITS
                plain = Plain(x, finite, temperature, at_least)
                expected = PLAIN[stage](plain, *value)
            compared += 1
            cut += len(ours) < len(finite)
            if sorted(ours) != sorted(expected):
                assert plain.near, (x, value, temperature, at_least, ours, expected)
                excused += 1
    assert compared > 90
    assert cut > compared / 5
    assert excused <= compared / 20, f"{excused} of {compared}"


def test_joint_stages_keep_what_each_keeps() -> None:
    x = rows.make_row("random", 60)
    floors = [("top_k", (9.0,)), ("top_p", (0.7,)), ("min_p", (0.1,)), ("top_n_sigma", (1.0,))]
    hot = Step("temperature", (1.5, 0.0, 1.0))
    differs = 0
    for chosen in itertools.permutations(floors, 3):
        alone = [set(walk(x, [hot, Step(*floor)]).ids.tolist()) for floor in chosen]
        joint = [Step(*floor, joint=i > 0) for i, floor in enumerate(chosen)]
        together = walk(x, [hot, *joint]).ids
        assert set(together.tolist()) == set.intersection(*alone)
        in_turn = walk(x, [hot, *(Step(*floor) for floor in chosen)]).ids
        differs += in_turn.size != together.size
        # What follows cuts what the group has left.
        last = walk(x, [hot, *joint, Step("top_k", (2.0,))])
        assert last.ids.tolist() == together[:2].tolist()
    assert differs


# ---- temperature -----------------------------------------------------------------------------


def test_dynatemp_follows_the_entropy() -> None:
    x = np.log(np.array([0.5, 0.25, 0.25])).astype(np.float32)
    share = 1.5 * math.log(2) / math.log(3)
    for t, spread, exponent in ((1.0, 0.5, 1.0), (2.0, 3.0, 2.0), (1.0, 0.5, -1.0)):
        d = walk(x, [Step("temperature", (t, spread, exponent))])
        low, high = max(0, t - spread), t + spread
        assert d.temperature == pytest.approx(low + (high - low) * share**exponent, rel=1e-6)
    # One token has no entropy to speak of.
    d = walk(x[:1], [Step("temperature", (0.7, 0.5, 1.0))])
    assert d.temperature == 0.7


def test_a_temperature_that_comes_out_as_0_is_greedy() -> None:
    x = np.array([0.0, 500.0, 500.0, -600.0], np.float32)
    peaked = np.array([0.0, 1500.0, -600.0], np.float32)
    chain = [Step("temperature", (1.0, 1.0, 1.0)), Step("mirostat", (2, 3.0, 0.1))]
    d = walk(peaked, chain, at_least=3)
    assert (d.ids.tolist(), d.temperature) == ([1], 0.0)
    assert state_after(chain, d, 0) == ()
    assert walk(x, chain, at_least=3).ids.size == 3
    # And where no entropy is raised to a negative power, as flat as can be.
    d = walk(peaked, [Step("temperature", (1.0, 1.0, -1.0)), Step("min_p", (1.0,))])
    assert d.ids.tolist() == [1]
    d = walk(peaked, [Step("temperature", (1.0, 1.0, -1.0)), Step("min_p", (0.5,))])
    np.testing.assert_allclose(d.probs, 1 / 3)


STATEFUL = [
    ("mirostat", (1, 3.0, 0.1), (4.0,)),
    ("mirostat", (2, 3.0, 0.1), (4.0,)),
    ("adaptive", (0.3, 0.9), (2.0, 9.0)),
]


@pytest.mark.parametrize(("stage", "value", "state"), STATEFUL)
def test_greedy_leaves_states_as_they_are(
    stage: str, value: tuple[float, ...], state: tuple[float, ...]
) -> None:
    x = rows.make_row("random", 40)
    for order in ((0, 1), (1, 0)):
        steps = [Step("temperature", (0.0, 2.0, 1.0)), Step(stage, value)]
        chain = [steps[i] for i in order]
        d = walk(x, chain, at_least=7, state=state)
        assert d.ids.tolist() == [int(np.argmax(x))]
        assert state_after(chain, d, 0) == state
    drawn = walk(x, [Step(stage, value)], state=state)
    assert state_after([Step(stage, value)], drawn, 3) != state


# ---- stages with a coin or a state -----------------------------------------------------------


def test_xtc_fires_with_its_probability() -> None:
    x = np.log(np.array([0.4, 0.3, 0.2, 0.1])).astype(np.float32)
    never = walk(x, []).probs
    always = walk(x, [Step("xtc", (1.0, 0.15))])
    assert always.ids.tolist() == [2, 3]
    np.testing.assert_allclose(always.probs, [2 / 3, 1 / 3], rtol=1e-6)
    for probability in (0.0, 0.125, 0.5, 1.0):
        mean = np.zeros(4)
        for coin in (np.arange(1000) + 0.5) / 1000:
            d = walk(x, [Step("xtc", (probability, 0.15))], coin=coin)
            mean[d.ids] += d.probs / 1000
        mixture = (1 - probability) * never
        mixture[2:] += probability * always.probs
        np.testing.assert_allclose(mean, mixture, rtol=1e-9)


def test_the_coin_is_a_uniform_of_its_own() -> None:
    coins = np.array([uniform(7, 3, offset, 1) for offset in range(2000)])
    draws = np.array([uniform(7, 3, offset) for offset in range(2000)])
    assert stats.kstest(coins, "uniform").pvalue > 1e-6
    assert abs(np.corrcoef(coins, draws)[0, 1]) < 0.1
    bits = np.random.Philox(key=np.array([7, 3], np.uint64), counter=np.array([5, 1, 0, 0], "u8"))
    assert coins[5] == np.random.Generator(bits).random()


def heads(count: int) -> list[Row]:
    """The largest values of the recorded rows."""
    return [np.sort(row.astype(np.float32))[::-1][:count] for row in rows.recorded_rows()]


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_comes_to_its_surprise(version: int) -> None:
    tau, eta = 2.0, 0.1
    chain = [Step("mirostat", (version, tau, eta))]
    state: tuple[float, ...] = ()
    surprise = []
    texts = heads(3000)
    for offset in range(2000):
        d = walk(texts[offset % len(texts)], chain, state=state)
        place = draw(d, uniform(5, 0, offset))
        surprise.append(-math.log2(d.probs[place]))
        state = state_after(chain, d, place)
    # What is missing from the mean is what mu has moved, and mu stays where rows have tokens.
    assert np.mean(surprise) - tau == pytest.approx((2 * tau - state[0]) / (eta * 2000))
    assert np.mean(surprise) == pytest.approx(tau, abs=0.1)


def test_adaptive_draws_near_its_target() -> None:
    texts = heads(1000)
    mean = {}
    for target in (0.1, 0.5):
        chain = [Step("min_p", (0.01,)), Step("adaptive", (target, 0.9))]
        state: tuple[float, ...] = ()
        drawn = []
        for offset in range(600):
            d = walk(texts[offset % len(texts)], chain, state=state)
            assert state == () or 0 < state[0] < state[1] <= 10 * (1 + 1e-12)
            place = draw(d, uniform(5, 0, offset))
            drawn.append(d.q[place])
            state = state_after(chain, d, place)
        mean[target] = np.mean(drawn)
    assert mean[0.1] + 0.1 < mean[0.5]
    d = walk(np.zeros(2, np.float32), [Step("adaptive", (0.5, 0.9))])
    assert d.redrawn == pytest.approx([math.exp(5)] * 2)


# ---- edits -----------------------------------------------------------------------------------


def edited(history: list[int], prompt_length: int = 0, vocab: int = 9, **p: object) -> Row:
    row = np.linspace(-2, 2, vocab).astype(np.float32)
    return edits.apply(row, edits.edits_of(history, prompt_length, vocab, p).values())


def some_history(seed: int, size: int, vocab: int = 4) -> list[int]:
    history: list[int] = np.random.default_rng(seed).integers(0, vocab, size).tolist()
    return history


def longest_match(window: list[int], token: int, breakers: set[int]) -> int:
    """Of all places where the token stands and all lengths: the longest that ends the window."""
    return max(
        (
            length
            for place in range(len(window))
            for length in range(place + 1)
            if window[place] == token
            and window[place - length : place] == window[len(window) - length :]
            and not breakers.intersection(window[place - length : place])
        ),
        default=-1,
    )


@pytest.mark.parametrize("breakers", [set(), {2}, {0, 3}])
@pytest.mark.parametrize("vocab", [1, 2, 4])
def test_dry_against_its_definition(vocab: int, breakers: set[int]) -> None:
    found = 0
    for seed, size in itertools.product(range(12), (0, 1, 2, 5, 13, 30)):
        history = some_history(seed, size, vocab)
        for last_n, allowed in ((-1, 1), (-1, 2), (0, 1), (7, 1), (400, 3)):
            window = history[len(history) - last_n :] if 0 <= last_n < size else history
            p = {"dry_multiplier": 0.7, "dry_base": 1.5, "dry_allowed_length": allowed,
                 "dry_last_n": last_n, "dry_sequence_breakers": sorted(breakers)}  # fmt: skip
            made = edits.edits_of(history, 0, vocab, p)
            expected = {}
            for token in set(range(vocab)) - breakers:
                length = longest_match(window, token, breakers)
                if length >= allowed:
                    expected[token] = 0.7 * 1.5 ** (length - allowed)
            assert made.keys() == expected.keys()
            for token, edit in made.items():
                assert edit == (token, 1.0, pytest.approx(expected[token]), 0.0, False)
            found += len(expected)
    assert found > 10 or breakers.issuperset(range(vocab))


def test_dry_holds_its_exponent() -> None:
    history = [1] * 300
    for base, largest in ((2.0, 127), (1.75, 158), (1.0, None), (1e300, 0)):
        assert dry.limit(base) == largest
        p = {"dry_multiplier": 1.0, "dry_base": base, "dry_allowed_length": 1}
        subtract = edits.edits_of(history, 0, 9, p)[1].subtract
        assert subtract == pytest.approx(base ** (298 if largest is None else largest))
        assert subtract < 2.0**128 * (1 + 1e-6)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_ngrams_against_all_of_them(n: int) -> None:
    for seed, size in itertools.product(range(8), (0, 1, 2, 3, 4, 9, 25)):
        history = some_history(seed, size, 3)
        seen = {tuple(history[i : i + n]) for i in range(size - n + 1)}
        banned = {t for t in range(3) if tuple([*history, t][-n:]) in seen and size >= n - 1}
        made = edits.edits_of(history, 0, 3, {"no_repeat_ngram_size": n})
        assert made.keys() == banned
        assert all(edit.ban for edit in made.values())


def test_penalties_by_hand() -> None:
    row = edited([8, 0, 8, 1, 8, 8], prompt_length=3, repetition_penalty=2.0)
    assert row.tolist() == [-4, -3, -1, -0.5, 0, 0.5, 1, 1.5, 1]
    row = edited([8, 0, 8, 1, 8, 8], 3, frequency_penalty=0.5, presence_penalty=0.25)
    assert row.tolist() == [-2, -2.25, -1, -0.5, 0, 0.5, 1, 1.5, 0.75]
    row = edited([8, 0, 8, 1, 8, 8], 3, repetition_penalty=2.0, frequency_penalty=1.0,
                 penalty_last_n=1, logit_bias=[(8, -5.0), (3, 1.0), (3, 2.0)])  # fmt: skip
    assert row.tolist() == [-2, -1.5, -1, 2.5, 0, 0.5, 1, 1.5, -7]
    row = edited([8, 0], 0, repetition_penalty=2.0, penalty_last_n=0)
    assert row.tolist() == edited([]).tolist()


def test_what_is_outside_of_the_window_changes_nothing() -> None:
    p = {"repetition_penalty": 1.3, "frequency_penalty": 0.2, "presence_penalty": 0.1,
         "penalty_last_n": 6, "dry_multiplier": 0.5, "dry_last_n": 6,
         "dry_allowed_length": 1}  # fmt: skip
    history = some_history(3, 20)
    before = edits.edits_of(history, 5, 4, p)
    for seed in range(5):
        shuffled = np.random.default_rng(seed).permutation(history[:14]).tolist()
        assert edits.edits_of(shuffled + history[14:], 5, 4, p) == before
    assert edits.edits_of(history[14:], 0, 4, p) == before


def test_ids_beyond_the_vocabulary_match_and_change_nothing() -> None:
    p = {"repetition_penalty": 2.0, "frequency_penalty": 1.0, "no_repeat_ngram_size": 2,
         "dry_multiplier": 1.0, "dry_allowed_length": 1}  # fmt: skip
    made = edits.edits_of([20, 1, 20, 20], 0, 9, p)
    assert made.keys() == {1}
    assert made[1].ban
    assert made[1].subtract == 1.0 + 1.0
    assert not edits.edits_of([20, 1, 20], 3, 1, p)


def test_edits_leave_minus_infinity_and_the_row() -> None:
    row = np.array([-np.inf, 1.0, 2.0], np.float32)
    made = edits.edits_of([0, 1], 0, 3, {"repetition_penalty": 2.0, "logit_bias": [(0, 9.0)],
                                         "suppress_tokens": [2]})  # fmt: skip
    assert edits.apply(row, made.values()).tolist() == [-np.inf, 0.5, -np.inf]
    assert row.tolist() == [-np.inf, 1.0, 2.0]
    # A ban is one whatever stands there, also where it is written as a bias.
    for p in ({"suppress_tokens": [0]}, {"logit_bias": [(0, -np.inf)]}):
        made = edits.edits_of([], 0, 3, p)
        for wrong in (np.nan, np.inf):
            assert edits.apply(np.float32([wrong, 1, 2]), made.values())[0] == -np.inf


def test_a_band_and_a_ceiling_leave_no_trace_in_what_is_left() -> None:
    x = np.float32([90.0, 3.0, 2.0, 1.0])
    d = walk(x, [Step("xtc", (1.0, 0.0)), Step("temperature", (0.5, 0.0, 1.0))])
    assert isinstance(d, Distribution)
    assert d.ids.tolist() == [3]
    banned = walk(np.float32([-np.inf, 3.0, 2.0, 1.0]), [])
    np.testing.assert_array_equal(banned.probs, walk(x[1:], []).probs)
