"""What looks at the end of a history: sequences that it has begun, and repetitions of it."""

from __future__ import annotations

import numpy as np

from .words import Ids, entry


@entry
def follow_ends(tokens: Ids, ids: Ids, offsets: Ids) -> Ids:
    """Return the sequences of which all ids but the last are the end of the tokens."""
    found = np.empty(offsets.size - 1, np.int64)
    count = 0
    for i in range(offsets.size - 1):
        begun = offsets[i + 1] - offsets[i] - 1
        if begun > tokens.size:
            continue
        k = 0
        while k < begun and ids[offsets[i] + k] == tokens[tokens.size - begun + k]:
            k += 1
        if k == begun:
            found[count] = i
            count += 1
    return found[:count]


@entry
def completing(tokens: Ids, n: int) -> Ids:
    """Return the ids that would repeat n of the tokens, n > 1."""
    last, size = tokens[tokens.size - 1], tokens.size
    count = 0
    for i in range(n - 2, size - 1):
        count += tokens[i] == last
    found = np.empty(count, np.int64)
    count = 0
    for i in range(n - 2, size - 1):
        if tokens[i] != last:
            continue
        k = 1
        while k < n - 1 and tokens[i - k] == tokens[size - 1 - k]:
            k += 1
        if k == n - 1:
            found[count] = tokens[i + 1]
            count += 1
    return found[:count]


@entry
def breaks_at(window: Ids, breakers: Ids) -> int:
    """Return how many tokens from the end the first breaker is."""
    for i in range(window.size):
        token = window[window.size - 1 - i]
        for breaker in breakers:
            if token == breaker:
                return i
    return window.size


@entry
def repeated(window: Ids, longest: int, least: int, breakers: Ids) -> tuple[Ids, Ids]:
    """Return the ids before which the end of the window has stood, and how much of it at most.

    No more than ``longest`` tokens of it, nor fewer than ``least``; no breakers. By the Z
    algorithm, which looks at each token once or twice.
    """
    size = window.size
    lengths = np.zeros(size + 1, np.int64)  # of the reversed window: how far it repeats its start
    left, right = 0, 0
    count = 0
    for i in range(1, size):
        length = min(right - i, lengths[i - left]) if i < right else 0
        while i + length < size and window[size - 1 - length] == window[size - 1 - i - length]:
            length += 1
        if i + length > right:
            left, right = i, i + length
        lengths[i] = length
        count += min(length, longest) >= least
    ids, found = np.empty(count, np.int64), np.empty(count, np.int64)
    count = 0
    for i in range(1, size):
        length = min(lengths[i], longest)
        if length >= least:
            ids[count], found[count] = window[size - i], length
            count += 1
    order = np.argsort(ids)
    token, most = np.empty(count, np.int64), np.empty(count, np.int64)
    count = 0
    for at in order:
        breaks = False
        for breaker in breakers:
            breaks |= ids[at] == breaker
        if breaks:
            continue
        if count == 0 or token[count - 1] != ids[at]:
            token[count], most[count] = ids[at], 0
            count += 1
        most[count - 1] = max(most[count - 1], found[at])
    return token[:count], most[:count]
