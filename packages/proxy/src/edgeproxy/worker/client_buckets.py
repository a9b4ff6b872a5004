"""The token buckets of all clients, in the segment that the workers share.

A set-associative table like that of the bindings: eight places for each tag, under a lock of their own. An
entry is a tag, a level and the time at which it was that (:mod:`edgeproxy.core.dataplane.rate_limit`).
Where there is no room, the entry that was not changed for longest goes: its bucket is the likeliest to be
full, and a full one need not be remembered. So the table is bounded, and only who has more clients in one
set than it has places gains anything by that, which the secret in the tags prevents.

A tag is cleared before its entry is rewritten and set last, so that a worker killed in between leaves a
full bucket, never another client's.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf

from edgeproxy.core.dataplane.rate_limit import TokenBucket

WAYS = 8
_LEVEL, _TIME, _WORDS_PER_SET = WAYS, 2 * WAYS, 3 * WAYS
SET_BYTES = 8 * _WORDS_PER_SET
LOCKS = 1024


class ClientBuckets:
    """The table as one process sees it. Times are on the clock that all processes share."""

    def __init__(self, fd: int, view: memoryview, first_lock: int) -> None:
        """Use ``view``, a part of the segment behind ``fd``, and byte locks from ``first_lock`` on."""
        self._fd = fd
        self._first_lock = first_lock
        self._tags = view.cast("Q")
        self._values = view.cast("d")
        self._sets = len(view) // SET_BYTES

    @property
    def buckets(self) -> int:
        """Number of sets of the table, each with a lock."""
        return self._sets

    def take(self, terms: TokenBucket, tag: int, now_s: float, cost: float = 1.0) -> bool:
        """Take ``cost`` tokens out of the bucket of ``tag``, if it has so many: one step for all workers."""
        place = tag % self._sets
        # Not _locked(): each new connection passes here, and that would cost as much as all the rest.
        lock = self._first_lock + place % LOCKS
        fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, lock)
        try:
            at = self._find(tag)
            level, level_at_s = self._level(at, terms, now_s)
            if not terms.allows(level, cost):
                return False
            if at is None:
                at = self._make_room(place * _WORDS_PER_SET)
            self._values[at + _LEVEL] = level - cost
            self._values[at + _TIME] = level_at_s
            self._tags[at] = tag
            return True
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, lock)

    def remaining(self, terms: TokenBucket, tag: int, now_s: float) -> float:
        """Tokens in the bucket of ``tag``, with their fraction."""
        with self._locked(tag % self._sets):
            return max(0.0, self._level(self._find(tag), terms, now_s)[0])

    def clear(self, tag: int) -> None:
        """Make the bucket of ``tag`` that of a new client."""
        with self._locked(tag % self._sets):
            at = self._find(tag)
            if at is not None:
                self._tags[at] = 0

    def clear_all(self) -> int:
        """Make all clients new ones; return how many had been remembered."""
        return self.sweep(inf, 0, self._sets)

    def sweep(self, oldest_s: float, start: int, count: int) -> int:
        """Forget buckets last changed before ``oldest_s`` in ``count`` sets from ``start``; say how many."""
        cleared = 0
        for place in range(start, min(start + count, self._sets)):
            base = place * _WORDS_PER_SET
            if not any(self._tags[base : base + WAYS]):
                continue
            with self._locked(place):
                for at in range(base, base + WAYS):
                    if self._tags[at] and self._values[at + _TIME] < oldest_s:
                        self._tags[at] = 0
                        cleared += 1
        return cleared

    def _level(self, at: int | None, terms: TokenBucket, now_s: float) -> tuple[float, float]:
        """The level of an entry, and the time for which that holds."""
        if at is None:
            return terms.burst, now_s
        changed_at_s = self._values[at + _TIME]
        # A worker counts with the time at which its turn began, and another's may have begun later.
        now_s = max(now_s, changed_at_s)
        return terms.level(self._values[at + _LEVEL], changed_at_s, now_s), now_s

    def _find(self, tag: int) -> int | None:
        base = tag % self._sets * _WORDS_PER_SET
        tags = self._tags[base : base + WAYS].tolist()
        return base + tags.index(tag) if tag in tags else None

    def _make_room(self, base: int) -> int:
        """A place in the set at ``base``, with its tag cleared."""
        tags = self._tags[base : base + WAYS].tolist()
        if 0 in tags:
            return base + tags.index(0)
        times = self._values[base + _TIME : base + _TIME + WAYS].tolist()
        at = base + times.index(min(times))
        self._tags[at] = 0
        return at

    @contextmanager
    def _locked(self, place: int) -> Iterator[None]:
        lock = self._first_lock + place % LOCKS
        fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, lock)
        try:
            yield
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, lock)
