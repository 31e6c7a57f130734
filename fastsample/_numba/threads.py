"""Threads that help a call with its rows, as ``csrc/abi/threads.h`` has them; nothing compiled."""

from __future__ import annotations

import _thread
import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator

#: Parts of the rows for each thread: that one comes late costs no more than a part.
_PARTS = 8


class _Parts:
    """Ranges of rows that none has taken yet, and how many of the taken ones are being worked on.

    A thread may come when the call is over; it finds nothing, and no more holds the call's arrays.
    """

    def __init__(self, parts: Iterator[tuple[int, int]], work: Callable[[int, int], None]) -> None:
        self._parts = parts
        self._work: Callable[[int, int], None] | None = work
        self._running = 0
        self._changed = threading.Condition()
        self._error: BaseException | None = None

    def help(self) -> None:
        """Take parts and work on them while there are any."""
        while True:
            with self._changed:
                part, work = next(self._parts, None), self._work
                if part is None or work is None:
                    return
                self._running += 1
            error: BaseException | None = None
            try:
                work(*part)
            except BaseException as raised:
                error = raised
            del work
            with self._changed:
                self._error = self._error or error
                self._running -= 1
                self._changed.notify()

    def finish(self) -> None:
        """Do what is left, wait for what is taken, and raise what was raised."""
        self.help()
        with self._changed:
            self._work = None
            self._changed.wait_for(lambda: self._running == 0)
            if self._error is not None:
                raise self._error


def share_out(count: int, threads: int, work: Callable[[int, int], None]) -> None:
    """Run work(first, last) on ranges of `count` rows, here and in other threads.

    Who has taken no range is not waited for.
    """
    if threads <= 1:
        work(0, count)
        return
    size = min(count, threads * _PARTS)
    ends = [count * i // size for i in range(size + 1)]
    parts = _Parts(itertools.pairwise(ends), work)
    # Where the system refuses one, those that there are have to do.
    with contextlib.suppress(RuntimeError):
        for _ in range(threads - 1):
            # Unlike threading.Thread, which waits for the thread to begin.
            _thread.start_new_thread(parts.help, ())
    parts.finish()
