"""Draw the next token from a row of logits: exactly, reproducibly, about as fast as it is read."""

from importlib.metadata import version as _version

from .backend import backends, build_info, use_backend
from .generation import generate, stream
from .orders import ORDERS
from .sampler import Sampler
from .sampling import argmax, log_softmax, probs, sample, softmax, survivors, top_k

__version__ = _version("fastsample")

__all__ = [
    "ORDERS",
    "Sampler",
    "argmax",
    "backends",
    "build_info",
    "generate",
    "log_softmax",
    "probs",
    "sample",
    "softmax",
    "stream",
    "survivors",
    "top_k",
    "use_backend",
]
