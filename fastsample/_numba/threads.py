"""Threads that help a call with its rows, as ``csrc/abi/threads.h`` has them; nothing compiled."""

from __future__ import annotations

import _thread
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

#: Parts of the rows for each thread: that one comes late costs no more than a part.
_PARTS = 8


def available_threads() -> int:
    """How many threads of this process can run at once."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def idle_processors() -> int:
    """How many processors have nothing to run now; many where the system does not say."""
    try:
        with open("/proc/loadavg", encoding="ascii") as file:
            runnable = int(file.read().split()[3].partition("/")[0])  # this thread too
    except (OSError, ValueError, IndexError):
        return sys.maxsize
    return max(0, (os.cpu_count() or 1) - runnable) if runnable > 0 else sys.maxsize


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

    def help(self, before_each: Callable[[], None] = lambda: None) -> None:
        """Take parts and work on them while there are any."""
        while True:
            before_each()
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

    def finish(self, before_each: Callable[[], None]) -> None:
        """Do what is left, wait for what is taken, and raise what was raised."""
        self.help(before_each)
        with self._changed:
            self._work = None
            self._changed.wait_for(lambda: self._running == 0)
            if self._error is not None:
                raise self._error


def _looks() -> Iterator[bool]:
    """Say, each time that it is asked, whether to look for idle processors: seldom."""
    due, pause = 0.0, 32e-6
    while True:
        now = time.perf_counter()
        if now < due:
            yield False
        else:
            due, pause = now + pause, 8 * pause
            yield True


def share_out(count: int, threads: int, if_idle: bool, work: Callable[[int, int], None]) -> None:
    """Run work(first, last) on ranges of `count` rows, here and in other threads.

    Who has taken no range is not waited for. With `if_idle` there are no more others than idle
    processors.
    """
    if threads <= 1:
        work(0, count)
        return
    size = min(count, threads * _PARTS)
    ends = [count * i // size for i in range(size + 1)]
    parts = _Parts(itertools.pairwise(ends), work)
    missing, looks = threads - 1, _looks()

    def start_more() -> None:
        nonlocal missing
        if missing == 0 or (if_idle and not next(looks)):
            return
        for _ in range(min(missing, idle_processors()) if if_idle else missing):
            try:
                # Unlike threading.Thread, which waits for the thread to begin.
                _thread.start_new_thread(parts.help, ())
            except RuntimeError:  # where the system refuses one, those that there are have to do
                missing = 0
                return
            missing -= 1

    parts.finish(start_more)
