"""Rows of logits that tests share, and what the arithmetic contract promises about them.

The bounds here follow from the contract in csrc/simd/kernels.h alone. They are used in one way: a
backend may differ from the reference only where a bound allows it, and such cases are counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

import fastsample as fs

Float32s = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]

LOG2E = 1.4426950408889634
FLT_MIN, FLT_MAX = 2.0**-126, float(np.finfo(np.float32).max)

REACHES = 1.0 - 2.0**-24  # what reaches p of a total weighs this times p of it at least

# The contract: blocks of 256; a weight is a multiple of 2^(e - 27), e the exponent of the block's
# largest weight rounded up, between -13 and 0; the polynomial for 2^r is within 3 ULP.
BLOCK, MANTISSA_BITS, LOWEST_EXPONENT = 256, 27, -13
POLYNOMIAL_ERROR = 3 * 2.0**-23  # a ULP is at most 2^-23 of the value

LAST_U = 1.0 - 2.0**-53  # the largest uniform

#: Draws that a variant manages in the time that the best instruction sets take for one.
PACE = {"core-scalar": 0.1, "numba": 0.1, "reference": 0.01}


def affordable(count: int, variant: str) -> int:
    """How many draws of a test that wants `count` a variant can be asked for."""
    return int(count * PACE.get(variant, 1))


# ---- rows ------------------------------------------------------------------------------------


def _masked(v: int, rng: np.random.Generator) -> Float32s:
    row = rng.normal(0, 2.5, v)
    row[rng.random(v) < 0.5] = -np.inf
    row[rng.integers(v)] = 1.0
    return row


def _all_but_one_masked(v: int, rng: np.random.Generator) -> Float32s:
    row = np.full(v, -np.inf)
    row[rng.integers(v)] = -7.0
    return row


def _one_hot(v: int, rng: np.random.Generator) -> Float32s:
    row = np.zeros(v)
    row[rng.integers(v)] = 12.0
    return row


ROW_KINDS: dict[str, Callable[[int, np.random.Generator], Any]] = {
    "random": lambda v, rng: rng.normal(0, 2.5, v),
    "flat": lambda v, rng: rng.normal(0, 0.05, v),
    "constant": lambda v, rng: np.full(v, 1.25),
    "ascending": lambda v, rng: np.linspace(-9, 9, v),
    "descending": lambda v, rng: np.linspace(9, -9, v),
    "one-hot": _one_hot,
    "two-valued": lambda v, rng: rng.choice([0.0, 1.5], v),
    "few values": lambda v, rng: rng.integers(-4, 4, v),
    "masked": _masked,
    "all but one masked": _all_but_one_masked,
    "denormal": lambda v, rng: rng.integers(-999, 999, v) * 2.0**-149,
    "huge": lambda v, rng: rng.normal(0, 1, v) * 1e30,
    "signed zeros": lambda v, rng: rng.choice([0.0, -0.0], v),
    "wide": lambda v, rng: rng.normal(0, 40, v),
}


def make_row(kind: str, vocab: int, seed: int = 0) -> Float32s:
    """One row of logits of a kind out of ROW_KINDS."""
    return ROW_KINDS[kind](vocab, np.random.default_rng([seed, vocab])).astype(np.float32)


def all_kinds(vocab: int, seed: int = 0) -> Float32s:
    """A batch of one row of every kind."""
    return np.stack([make_row(kind, vocab, seed) for kind in ROW_KINDS])


def recorded_rows() -> npt.NDArray[np.float16]:
    """The recorded rows of a real model that the installed package carries."""
    with (files("fastsample") / "data" / "smollm2.npz").open("rb") as file, np.load(file) as data:
        logits: npt.NDArray[np.float16] = data["logits"]
        return logits


# ---- bounds ----------------------------------------------------------------------------------


def exact_weights(x: Float32s, temperature: float) -> Floats:
    """exp((x - max) / temperature) in float64."""
    with np.errstate(over="ignore", under="ignore"):
        return np.exp((x.astype(np.float64) - float(x.max())) / temperature)


def weight_error_bound(x: Float32s, temperature: float) -> Floats:
    """How far a kernel's weight of each token of a row may be from the exact one.

    A kernel computes 2^y, y - 1 = (x - max) * s - 1, s = log2(e) / temperature, in float32:

    * argument: x - max, s and y - 1 are rounded once each, 2^-24 relative; so y is off by
      (3 * |y| + 1) * 2^-24 (second-order terms make it 3.01), 2^y by the factor 2^that. s is kept
      between FLT_MIN and FLT_MAX, which matters for absurd temperatures; a difference beyond
      FLT_MAX is infinite and its weight 0.
    * polynomial: 3 ULP.
    * quantum: half of 2^(e - 27); e rounds the argument of the block's maximum up, and is at least
      -13: so 2^-41 at the least, which is also what a token loses that is too light.
    """
    distance = x.astype(np.float64) - float(x.max())
    weights = exact_weights(x, temperature)
    with np.errstate(over="ignore", invalid="ignore"):
        exact_scale = LOG2E / temperature
        scale = min(max(exact_scale, FLT_MIN), FLT_MAX)
        y = distance * scale
        argument = (np.abs(y) * 3.01 + 1.0) * 2.0**-24
        if scale != exact_scale:
            argument += np.abs(distance * exact_scale - y)
        argument[distance == -np.inf] = 0.0
        relative = (1 + POLYNOMIAL_ERROR) * np.exp2(np.minimum(argument, 60)) - 1
        blocks = -(-x.size // BLOCK)
        padded = np.full(blocks * BLOCK, -np.inf)
        padded[: x.size] = y + argument
        heaviest = padded.reshape(blocks, BLOCK).max(axis=1)
        exponent = np.clip(np.ceil(heaviest), LOWEST_EXPONENT, 0)
        quantum = np.repeat(np.exp2(exponent - MANTISSA_BITS), BLOCK)[: x.size]
        bound = np.minimum(weights * relative + quantum / 2, 1.0)
        # Weights that are zero for certain: too light by far, or the difference overflows.
        lost = (y + argument < -43) | (distance < -FLT_MAX * (1 - 2.0**-24))
    return np.where(lost, weights, bound)


def shares(weights: Floats, errors: Floats) -> tuple[Floats, Floats]:
    """Cumulative shares G of weights in the order given, and how far a kernel's may be from them.

    With at most A_i of error in the first i weights and A_n in all, the error of C_i / C_n is at
    most ((1 - G_i) * A_i + G_i * (A_n - A_i)) / (C_n - A_n). Summing n weights in float64 and
    multiplying by u adds (2n + 8) * 2^-53.
    """
    cumulative, error = np.cumsum(weights), np.cumsum(errors)
    g = cumulative / cumulative[-1]
    certain = cumulative[-1] - error[-1]
    if certain <= 0:  # absurd temperatures, see weight_error_bound: nothing is promised
        return g, np.ones_like(g)
    bound = ((1 - g) * error + g * (error[-1] - error)) / certain
    return g, bound + (2 * weights.size + 8) * 2.0**-53


@dataclass
class Chain:
    """Parameters of one row, as the functions of fastsample take them."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    min_tokens_to_keep: int = 1
    order: str | tuple[str, ...] = "hf"

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages, in order."""
        return fs.ORDERS[self.order] if isinstance(self.order, str) else self.order


def ranked(x: Float32s) -> Ids:
    """Ids of the finite logits, by falling value and rising id."""
    ids = np.argsort(-x, kind="stable")
    return ids[x[ids] > -np.inf]


def allowed_counts(x: Float32s, chain: Chain) -> tuple[int, int]:
    """Fewest and most tokens that the stages may keep of a row within the bounds.

    What is kept is always a prefix of the ranking, and every stage keeps no fewer of a longer one;
    so both ends go through the chain by themselves.
    """
    if chain.temperature == 0:
        return 1, 1
    ids = ranked(x)
    values = x[ids].astype(np.float64)
    low = high = ids.size
    temperature = 1.0
    for stage in chain.stages:
        if stage == "temperature":
            temperature = chain.temperature
            continue
        if stage == "top_k" and (chain.top_k or 0) > 0:
            fewest = most = int(chain.top_k or 0)
        elif stage == "top_p" and chain.top_p < 1:
            share = REACHES * chain.top_p
            weights = exact_weights(x, temperature)[ids]
            errors = weight_error_bound(x, temperature)[ids]
            g, bound = shares(weights[:low], errors[:low])
            fewest = 1 + int(np.argmax(np.append(g + bound, np.inf) >= share))
            g, bound = shares(weights[:high], errors[:high])
            most = 1 + int(np.argmax(np.append(g - bound, np.inf) >= share))
        elif stage == "min_p" and chain.min_p > 0:
            # float64 rounds ln, product and sum once each; the threshold is then a float32.
            drop = temperature * math.log(chain.min_p)
            slack = 2.0**-51 * (abs(values[0]) + 2 * abs(drop)) if drop else 0.0
            with np.errstate(over="ignore"):
                fewest = int(np.sum(values >= np.float32(np.float64(values[0] + drop + slack))))
                most = int(np.sum(values >= np.float32(np.float64(values[0] + drop - slack))))
        else:
            continue
        low = min(low, max(fewest, chain.min_tokens_to_keep))
        high = min(high, max(most, chain.min_tokens_to_keep))
    return low, high


# ---- the rule --------------------------------------------------------------------------------


@dataclass
class Tally:
    """How many draws and cuts were compared with the reference, and how many were excused."""

    draws: int = 0
    excused_draws: int = 0
    # With u within 2^-40 of 0 or 1, tokens decide that are too light for the kernels to see.
    extreme_draws: int = 0
    excused_extreme_draws: int = 0
    cuts: int = 0
    excused_cuts: int = 0
    log: list[str] = field(default_factory=list)

    def count_draws(self, u: Floats, excused: npt.NDArray[np.bool_]) -> None:
        """Add some draws, of which some were excused."""
        extreme = (u < 2.0**-40) | (u > 1 - 2.0**-40)
        self.draws += int(np.sum(~extreme))
        self.excused_draws += int(np.sum(~extreme & excused))
        self.extreme_draws += int(np.sum(extreme))
        self.excused_extreme_draws += int(np.sum(extreme & excused))

    def assert_few(
        self,
        draws: float = 0.002,
        extreme_draws: float = 0.2,
        cuts: float = 0.005,
        at_least: int = 100,
    ) -> None:
        """Not more than these shares were excused, of a number that makes them mean something.

        Bounds are worst cases that span about 1e-6 of u around each of thousands of edges; real
        errors have either sign and mostly cancel, so hardly any draw needs its excuse.
        """
        print({name: count for name, count in vars(self).items() if name != "log"})
        assert self.draws >= at_least
        assert self.cuts >= at_least
        assert self.excused_draws <= draws * self.draws, self.log
        assert self.excused_extreme_draws <= extreme_draws * self.extreme_draws, self.log
        assert self.excused_cuts <= cuts * self.cuts, self.log


@dataclass
class Outcome:
    """What a variant says about one row: kept tokens with their probabilities, and draws."""

    ids: Ids
    probs: Float32s
    tokens: Ids

    def same_bits(self, other: Outcome) -> bool:
        """Equal in every bit."""
        return all(
            a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
            for a, b in zip(vars(self).values(), vars(other).values(), strict=True)
        )


def run_rows(logits: npt.NDArray[Any], u: Floats, chains: list[Chain]) -> list[Outcome]:
    """Outcomes of the active variant for each row of a batch; u is of shape (draws, B).

    One chain, or one per row.
    """
    per_row = [vars(chain) for chain in chains]
    together = {
        name: value if len(chains) == 1 or name == "order" else [p[name] for p in per_row]
        for name, value in per_row[0].items()
    }
    tokens = np.array([fs.sample(logits, u=line, **together) for line in u])
    outcomes = []
    for i, row in enumerate(logits):
        kept = fs.survivors(row, **per_row[i % len(chains)])
        outcomes.append(Outcome(*kept, tokens[:, i]))
    return outcomes


def check_outcome(
    x: Float32s, u: Floats, chain: Chain, ours: Outcome, reference: Outcome, tally: Tally
) -> None:
    """Within the bounds, and where not equal to the reference, counted; x is the row as float32."""
    kept = ours.ids.size
    # Whatever the threshold, what is kept are the first of the ranking.
    assert np.array_equal(ours.ids, ranked(x)[:kept])
    low, high = allowed_counts(x, chain)
    assert low <= kept <= high, f"kept {kept}, reference {reference.ids.size}: [{low}, {high}]"
    tally.cuts += 1
    if kept != reference.ids.size:
        tally.excused_cuts += 1
        tally.log.append(f"kept {kept}, reference {reference.ids.size}: {chain}")

    if chain.temperature == 0:
        weights, errors = np.ones(x.size), np.zeros(x.size)
    else:
        temperature = chain.temperature if "temperature" in chain.stages else 1.0
        weights, errors = exact_weights(x, temperature), weight_error_bound(x, temperature)
    by_id = np.sort(ours.ids)
    total, error = weights[by_id].sum(), errors[by_id].sum()
    exact = weights[ours.ids] / total
    if total > error:
        # Weight and total as in `shares`; then one rounding to float32.
        allowed = (errors[ours.ids] + exact * error) / (total - error) + kept * 2.0**-53
        allowed += 2.0**-24 * (exact + allowed) + 2.0**-149
        assert np.all(np.abs(ours.probs - exact) <= allowed)

    places = np.searchsorted(by_id, ours.tokens)
    assert np.array_equal(by_id[np.minimum(places, kept - 1)], ours.tokens), "a filtered token"
    g, bound = shares(weights[by_id], errors[by_id])
    below, above = (
        np.append(0.0, (g - bound)[:-1])[places],
        np.append((g + bound)[:-1], 1.0)[places],
    )
    wrong = ~((below <= u) & (u <= above))
    assert not wrong.any(), (
        f"tokens {ours.tokens[wrong]} for u = {u[wrong]}, reference {reference.tokens[wrong]}"
    )
    differ = ours.tokens != reference.tokens
    tally.count_draws(u, differ)
    if differ.any():
        pairs = list(zip(u[differ], ours.tokens[differ], reference.tokens[differ], strict=True))
        tally.log.append(f"(u, token, reference's) {pairs[:4]}: {chain}")


class OnlyDlpack:
    """What a library exports that knows nothing of NumPy."""

    def __init__(self, x: npt.NDArray[Any]) -> None:
        self._x = x

    def __dlpack__(self, **options: Any) -> Any:
        return self._x.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._x.__dlpack_device__()
