"""The recorded logits of a real model, which come with the package. Depends on NumPy alone."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_SIGNS = {" ": "␣", "\n": "⏎", "\t": "⇥"}


class Recorded(NamedTuple):
    """Prompts, and the logits that a model gave; ``data/README.md`` says how they were recorded.

    Attributes
    ----------
    prompts : tuple of str
        The texts, as the model got them.
    logits : float16 array, shape (prompts, V)
        Of the token after each prompt; read-only.
    pieces : tuple of bytes
        Each token's bytes, perhaps part of a UTF-8 character.
    source : str
        The model, its licence, and what recorded it.
    """

    prompts: tuple[str, ...]
    logits: npt.NDArray[np.float16]
    pieces: tuple[bytes, ...]
    source: str

    def show(self, token: int) -> str:
        """Return a token as text in which every byte can be seen: `` Paris`` is ``␣Paris``."""
        return visible(self.pieces[token])


def visible(piece: bytes) -> str:
    """Return a token's bytes as text in which each of them can be seen."""
    # Bytes that are only a part of a character become surrogates, which do not print.
    text = piece.decode(errors="surrogateescape")
    return "".join(c if c.isprintable() and c != " " else _sign(c) for c in text)


def _sign(char: str) -> str:
    encoded = char.encode(errors="surrogateescape")
    return _SIGNS.get(char) or "".join(f"<0x{byte:02X}>" for byte in encoded)


@cache
def load() -> Recorded:
    """Return the recorded logits.

    Returns
    -------
    Recorded

    Examples
    --------
    >>> from fastsample import recorded
    >>> data = recorded.load()
    >>> data.prompts[1]
    'The capital of France is'
    >>> data.show(data.logits[1].argmax())
    '␣Paris'
    """
    path = resources.files("fastsample") / "data" / "smollm2.npz"
    with path.open("rb") as file, np.load(file) as arrays:
        logits = arrays["logits"]
        logits.flags.writeable = False  # all callers share it
        vocabulary, ends = arrays["pieces"].tobytes(), arrays["piece_ends"].tolist()
        bounds = zip([0, *ends], ends, strict=False)
        return Recorded(
            prompts=tuple(arrays["prompts"].tolist()),
            logits=logits,
            pieces=tuple(vocabulary[start:end] for start, end in bounds),
            source=str(arrays["source"]),
        )
