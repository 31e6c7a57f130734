"""Adaptive-p: draws tokens near a target probability, which follows what has been drawn.

State: two sums, of the probabilities drawn and of how many, both decayed. It keeps all tokens, and
draws with other weights; it is the last stage.
"""

from __future__ import annotations

import numpy as np

from ..distribution import Distribution, State
from .stage import Stage

WIDTH, PEAK, SHARPNESS = 0.3, 5.0, 10.0


def apply(d: Distribution, target: float, decay: float) -> Distribution:
    """Weigh tokens by how near they are to what brings the mean back to the target."""
    drawn, count = d.state or start(target, decay)
    aim = min(max(2.0 * target - drawn / count, 0.0), 1.0)
    distance = np.abs(d.q - aim) / WIDTH
    return d._replace(redrawn=np.exp(PEAK - SHARPNESS * distance**2 / (1.0 + distance)))


def start(target: float, decay: float) -> State:
    """Return the sums as if the target had been drawn for ever."""
    return (target / (1.0 - decay), 1.0 / (1.0 - decay))


def after(d: Distribution, place: int, target: float, decay: float) -> State:
    """Return the sums with the probability that the token had before it was reweighted."""
    drawn, count = d.state or start(target, decay)
    return (float(d.q[place]) + decay * drawn, 1.0 + decay * count)


# A target is positive; 0 stands for None.
STAGE = Stage(lambda target, decay: target <= 0.0, apply, start, after)
