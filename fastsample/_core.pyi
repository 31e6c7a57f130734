from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

version: str

def isa() -> str: ...
def isas() -> str: ...
def force_isa(name: str) -> None: ...
def uniform(seed: int, stream: int, offset: int) -> float: ...
def uniforms(
    seeds: npt.NDArray[np.uint64],
    streams: npt.NDArray[np.uint64],
    offsets: npt.NDArray[np.uint64],
    use: int = 0,
) -> npt.NDArray[np.float64]: ...
def take_numbers(
    values: object, out: npt.NDArray[np.float64], low: float, high: float, integers: bool
) -> bool: ...
def take_words(values: object, out: npt.NDArray[np.uint64]) -> bool: ...
def orders() -> dict[str, list[tuple[str, bool]]]: ...
def sample(
    rows: npt.NDArray[Any],
    params: npt.NDArray[np.void],
    u: npt.NDArray[np.float64],
    mark: bool,
    tokens: npt.NDArray[np.int64],
    threads: int = 0,
    **inputs: npt.NDArray[Any],
) -> None: ...
def sample_details(
    rows: npt.NDArray[Any],
    params: npt.NDArray[np.void],
    u: npt.NDArray[np.float64],
    mark: bool,
    tokens: npt.NDArray[np.int64],
    threads: int,
    logprobs: int,
    details: dict[str, npt.NDArray[Any]],
    **inputs: npt.NDArray[Any],
) -> None: ...
def verify(
    tokens: npt.NDArray[np.int64],
    target: tuple[npt.NDArray[Any], npt.NDArray[np.void], dict[str, Any]],
    draft: Any,
    method: int,
    key: tuple[int, int, int],
    out: npt.NDArray[np.int64],
) -> int: ...

# The same of arrays without a copy, one chain each, and a draft that is None for the tokens
# themselves: tokens and how many are accepted, or None.
def verify_quickly(
    tokens: object,
    target: object,
    params: npt.NDArray[np.void],
    draft: object,
    draft_params: npt.NDArray[np.void],
    method: int,
    seed: object,
    offset: object,
) -> tuple[npt.NDArray[np.int64], int] | None: ...
def probs(
    rows: npt.NDArray[Any], params: npt.NDArray[np.void], **inputs: npt.NDArray[Any]
) -> npt.NDArray[np.float32]: ...
def survivors(
    rows: npt.NDArray[Any], params: npt.NDArray[np.void], **inputs: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]: ...

# Name, numbers, ids, offsets of sequences of ids, weights: an fs_rule.
_Rule: TypeAlias = tuple[str, Any, Any, Any, Any]

class History:
    """Tokens, and the edits of the next row that rules make of them."""

    def __init__(self, rules: Iterable[_Rule] = ()) -> None: ...
    # Without a prompt_length all of it is the prompt.
    def start(self, ids: Any, prompt_length: int | None = None) -> None: ...
    def push(self, ids: Any) -> None: ...
    # A prompt that is reached becomes shorter.
    def pop(self, n: int) -> None: ...
    def __len__(self) -> int: ...
    @property
    def prompt_length(self) -> int: ...
    def tokens(self) -> npt.NDArray[np.int64]: ...
    # By rising id, those below vocab.
    def edits(self, vocab: int) -> npt.NDArray[np.void]: ...

class Sequence:
    """A chain, rules, a history and a state: what `fs_sampler` is."""

    def __init__(self, params: npt.NDArray[np.void], rules: Iterable[_Rule] = ()) -> None: ...
    # draw(row) or draw(row, allowed) draws a token at its seed and offset, pushes it and moves on;
    # or it is -1 with nothing moved, where the general path has to look at the arguments.
    @property
    def draw(self) -> Callable[..., int]: ...
    # tell(row, logprobs, top_logprobs, support, log_mass) does so too, and is what a Draw has; or
    # it is None.
    @property
    def tell(self) -> Callable[..., tuple[Any, ...] | None]: ...
    # Whether tokens are kept: else they are dropped now and then.
    keeps: bool
    def start(self, ids: Any, prompt_length: int | None = None) -> None: ...
    def push(self, ids: Any) -> None: ...
    # Appends what was drawn elsewhere at this offset and those that follow.
    def accept(self, ids: Any, offset: int) -> None: ...
    # Returns the offset of the first token taken back that was drawn, or None.
    def pop(self, n: int) -> int | None: ...
    # The offset at which each token was drawn; None where it was not, or cannot be taken back.
    def steps(self) -> list[int | None]: ...
    # Returns False where they are no words: then nothing is drawn until it is told better.
    def seek(self, seed: object, offset: object) -> bool: ...
    @property
    def seed(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def prompt_length(self) -> int: ...
    def __len__(self) -> int: ...
    def tokens(self) -> npt.NDArray[np.int64]: ...
    def edits(self, vocab: int) -> npt.NDArray[np.void]: ...
    # One number or two, or None where no stage has a state.
    @property
    def state(self) -> npt.NDArray[np.float64] | None: ...
    @state.setter
    def state(self, state: npt.NDArray[np.float64]) -> None: ...

def plan(params: npt.NDArray[np.void]) -> Callable[[object, object, object], int]: ...

# Draws a token of each sequence from its row, and moves them; or returns False, with nothing moved,
# where the general path has to look at the arguments. A marked row is -1, and its sequence has not
# moved. `allowed` has a row of words for all or for each; `details` what sample_details takes.
def step(
    sequences: list[Sequence],
    rows: npt.NDArray[Any],
    mark: bool,
    tokens: npt.NDArray[np.int64],
    threads: int = 0,
    allowed: npt.NDArray[np.uint32] | None = None,
    logprobs: int = 0,
    details: dict[str, npt.NDArray[Any]] | None = None,
) -> bool: ...

# The same of rows one after the other with nothing else asked for: returns the tokens, or None.
def step_quickly(sequences: object, rows: object) -> npt.NDArray[np.int64] | None: ...
def noop(array: npt.NDArray[Any]) -> None: ...
