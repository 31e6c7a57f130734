"""What a stage is given and gives back: the tokens still kept, and the temperature in force.

Depends on NumPy alone. All sums are float64; all thresholds are computed in float64 and compared
as float32 values, which is what logits are.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
State = tuple[float, ...]

#: A mass reaches p of a total where it is at least p * REACHES * total: rounding below the
#: resolution of float32 decides nothing, and of .5 .3 .1 .1 two reach 0.8, as on paper.
REACHES = 1.0 - 2.0**-24


class Distribution(NamedTuple):
    """Tokens by falling logit and rising id, and what they are drawn with.

    Attributes
    ----------
    ids, x
        The tokens that are kept, and their logits.
    vocab : int
        The size of the row that they come from.
    at_least : int
        ``min_tokens_to_keep``.
    temperature : float
        The one in force. 0 is greedy: one token is left, and no later stage changes that.
    coin : float or None
        The uniform of a stage that may or may not act.
    state : tuple of float
        Of a stage that has one; empty at the start.
    redrawn : float64 array or None
        Weights of the draw that are not those of the logits; then no other stage follows.
    """

    ids: Ids
    x: Floats
    vocab: int
    at_least: int = 1
    temperature: float = 1.0
    coin: float | None = None
    state: State = ()
    redrawn: Floats | None = None

    def weights_at(self, temperature: float) -> Floats:
        """Return exp((x - max) / temperature): the largest weighs 1."""
        if temperature == 0.0:
            return np.ones(self.ids.size)
        # What overflows is far below the maximum, and weighs nothing.
        with np.errstate(over="ignore", under="ignore"):
            weights: Floats = np.exp((self.x - self.x[0]) / temperature)
            return weights

    @property
    def weights(self) -> Floats:
        """Weights at the temperature in force, as the stages see them."""
        return self.weights_at(self.temperature)

    @property
    def total(self) -> float:
        """Sum of the weights."""
        return float(self.weights.sum())

    @property
    def q(self) -> Floats:
        """Probabilities at the temperature in force, as the stages see them."""
        return self.weights / self.total

    @property
    def probs(self) -> Floats:
        """Probabilities that the token is drawn with."""
        weights = self.weights if self.redrawn is None else self.redrawn
        probs: Floats = weights / weights.sum()
        return probs

    @property
    def entropy(self) -> float:
        """Entropy of q in nats."""
        return entropy_of(self.q)

    def where(self, stays: npt.NDArray[np.bool_]) -> Distribution:
        """Return what is left of a distribution; the rest of the tokens is gone."""
        return self._replace(ids=self.ids[stays], x=self.x[stays])

    def first(self, count: int) -> Distribution:
        """Return the first ones, and min_tokens_to_keep at least."""
        count = max(count, self.at_least)
        return self._replace(ids=self.ids[:count], x=self.x[:count])

    def count_from(self, log_weight: float) -> int:
        """Return how many tokens have a weight whose logarithm is at least this."""
        with np.errstate(over="ignore"):
            threshold = np.float32(np.float64(self.x[0]) + self.temperature * log_weight)
        return int(np.sum(self.x >= threshold))

    def floor(self, weight: float) -> Distribution:
        """Return the tokens of at least this weight; the largest weighs 1."""
        if weight <= 0.0:  # what is 0 in float64 is less than any
            return self
        return self.first(self.count_from(math.log(weight)))


def entropy_of(q: Floats) -> float:
    """Return the entropy of some probabilities in nats; those that are 0 add nothing."""
    q = q[q > 0.0]
    return float(0.0 - np.sum(q * np.log(q)))  # of a certain one +0


def count_reaching(weights: Floats, p: float) -> int:
    """Return how many of the weights, from the first on, it takes to reach their share p."""
    cumulative = np.cumsum(weights)
    return 1 + int(np.sum(cumulative[:-1] < p * REACHES * cumulative[-1]))
