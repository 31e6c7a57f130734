"""Draw the next token from a row of logits: exactly, reproducibly, fast."""

try:
    from . import _build
except ImportError:
    raise ImportError(
        f"fastsample was imported from its source folder {__path__[0]}, where it is not built. "
        "Start Python in another folder to use the installed one; or run pip install -e . in the "
        "checkout, after which the source folder works too"
    ) from None

from .backend import backends, build_info, use_backend
from .details import Draw, draw
from .generation import generate, stream
from .orders import ORDERS
from .sampler import Sampler
from .sampling import probs, sample, survivors
from .simple import argmax, log_softmax, softmax, top_k
from .stepping import step
from .verification import Verified, verify

__version__ = _build.version

__all__ = [
    "ORDERS",
    "Draw",
    "Sampler",
    "Verified",
    "__version__",
    "argmax",
    "backends",
    "build_info",
    "draw",
    "generate",
    "log_softmax",
    "probs",
    "sample",
    "softmax",
    "step",
    "stream",
    "survivors",
    "top_k",
    "use_backend",
    "verify",
]
