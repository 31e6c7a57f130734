"""What draws pieces, several at a time: threads of this process, or a cluster of dask.

An engine takes a function and its arguments and gives a future of the result. Depends on the
standard library, and on distributed where its cluster is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any, Protocol


class Engine(Protocol):
    """What `drawn` needs."""

    width: int
    """How many pieces are drawn at a time."""

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        """Begin a call and return its future."""

    def wait(self, futures: Iterable[Any]) -> set[Any]:
        """Return those that are done, once there are any."""

    def close(self) -> None:
        """Drop what has not begun."""


class Threads:
    """Threads of this process; the kernel runs without the interpreter's lock."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._pool = ThreadPoolExecutor(width, "fastsample-rows")

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        """Begin a call and return its future."""
        return self._pool.submit(function, *args)

    def wait(self, futures: Iterable[Any]) -> set[Any]:
        """Return those that are done, once there are any."""
        return wait(futures, return_when=FIRST_COMPLETED).done

    def close(self) -> None:
        """Wait for what has begun, and drop the rest."""
        self._pool.shutdown(cancel_futures=True)


class Dask:
    """The workers of a cluster, by the address of its scheduler."""

    def __init__(self, address: str) -> None:
        try:
            import distributed
            from distributed import comm
        except ImportError as error:
            from ..integrations import how_to_get

            raise ImportError(f"dask needs distributed ({error}): {how_to_get('dask')}") from None
        self._wait = distributed.wait
        try:  # first: a client that has no address goes after 40 seconds, with a traceback
            comm.get_address_host(comm.normalize_address(address))
        except Exception as error:
            must = "dask must be the address of a scheduler"
            raise ValueError(f"{must}, got {address!r}: {error}") from error
        self._client = distributed.Client(address, timeout="20s", set_as_default=False)
        self.width = max(1, sum(self._client.nthreads().values()))

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        """Begin a call and return its future; what a worker that died had is begun again."""
        return self._client.submit(function, *args, pure=False)

    def wait(self, futures: Iterable[Any]) -> set[Any]:
        """Return those that are done, once there are any."""
        with self._client.as_current():
            done: set[Any] = self._wait(list(futures), return_when="FIRST_COMPLETED").done
        return done

    def close(self) -> None:
        """Leave the cluster, which drops what has not begun."""
        self._client.close()


def processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
