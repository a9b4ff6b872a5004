"""Open connections of clients, all and by client, in the segment that the workers share.

As with the backends' connections each worker counts in a row of its own, and the sums over the rows are the
POP's counts: what a dead worker had is given back by zeroing its row. Looking at a sum and adding to it is
one step under a lock; subtracting needs none.

Clients are found by their tags in a set-associative table, under a lock of the set. Nobody may be forgotten
while one of its connections is open, so the sets are wide: a full one, in which nothing is free, turns a
further client away. With a hundred thousand clients at a time the odds of that are one in a million. Tags of
clients without connections stay until their place is needed.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Sequence

CLIENTS = 1 << 18
_WAYS = 32
_SETS = CLIENTS // _WAYS
LOCKS = 1024
_PAGE = 4096
TAGS_BYTES = 8 * CLIENTS
ROW_BYTES = _PAGE + 4 * CLIENTS
"""A page for the worker's count of all connections, then those of each client."""
_ROW_WORDS = ROW_BYTES // 4
_FIRST_CLIENT = _PAGE // 4


class SharedPlaces:
    """The counts as one process sees them.

    Implements :class:`edgeproxy.core.dataplane.caps.Places`; a process that counts nothing only looks.
    """

    def __init__(
        self,
        fd: int,
        tags: memoryview,
        counts: memoryview,
        rows: Callable[[], Sequence[int]],
        row: int | None,
        first_lock: int,
    ) -> None:
        """``tags`` has ``TAGS_BYTES``, ``counts`` ``ROW_BYTES`` for each row; both are parts of the segment
        behind ``fd``. ``rows`` tells which rows are in use, ``row`` is that of this process."""
        self._fd = fd
        self._tags = tags.cast("Q")
        self._counts = counts.cast("I")
        self._rows = rows
        self._own = (row or 0) * _ROW_WORDS
        self._total_lock = first_lock
        self._first_lock = first_lock + 1

    @property
    def connections(self) -> int:
        """Those of all clients that were counted."""
        return self._sum(0)

    def connections_of(self, tag: int) -> int:
        """Those of the client ``tag``."""
        entry = self._find(tag)
        return 0 if entry is None else self._sum(_FIRST_CLIENT + entry)

    def enter(self, most: int) -> bool:
        fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, self._total_lock)
        try:
            if self._sum(0) >= most:
                return False
            self._counts[self._own] += 1
            return True
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, self._total_lock)

    def leave(self) -> None:
        self._counts[self._own] -= 1

    def enter_client(self, tag: int, most: int) -> int | None:
        lock = self._first_lock + tag % _SETS % LOCKS
        fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, lock)
        try:
            entry = self._find(tag)
            if entry is None:
                entry = self._free_entry(tag)
                if entry is None:
                    return None
                self._tags[entry] = tag
            elif self._sum(_FIRST_CLIENT + entry) >= most:
                return None
            self._counts[self._own + _FIRST_CLIENT + entry] += 1
            return entry
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, lock)

    def leave_client(self, entry: int) -> None:
        self._counts[self._own + _FIRST_CLIENT + entry] -= 1

    def _sum(self, word: int) -> int:
        counts, total = self._counts, 0
        for row in self._rows():
            total += counts[row * _ROW_WORDS + word]
        return total

    def _find(self, tag: int) -> int | None:
        base = tag % _SETS * _WAYS
        tags = self._tags[base : base + _WAYS].tolist()
        return base + tags.index(tag) if tag in tags else None

    def _free_entry(self, tag: int) -> int | None:
        """An entry of the tag's set that nobody uses; the caller holds the lock."""
        base = tag % _SETS * _WAYS
        tags = self._tags[base : base + _WAYS].tolist()
        if 0 not in tags:
            # All that are unused become free at once, so that the next ones need not look.
            for way in range(_WAYS):
                if not self._sum(_FIRST_CLIENT + base + way):
                    self._tags[base + way] = tags[way] = 0
        return base + tags.index(0) if 0 in tags else None
