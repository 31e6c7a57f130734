from collections.abc import Callable
from typing import Any

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
def probs(
    rows: npt.NDArray[Any], params: npt.NDArray[np.void], **inputs: npt.NDArray[Any]
) -> npt.NDArray[np.float32]: ...
def survivors(
    rows: npt.NDArray[Any], params: npt.NDArray[np.void], **inputs: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]: ...
def plan(params: npt.NDArray[np.void]) -> Callable[[object, object, object], int]: ...
def noop(array: npt.NDArray[Any]) -> None: ...
