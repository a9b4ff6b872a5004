"""Warm connections per backend, in the segment that the workers share.

Counted like clients' connections, by workers and slots, and under the same lock of the slot when one more is
opened: together they stay within the backend's ``hard_limit``. They are not part of the count that the score
and the limit of clients go by, so a client may find the last places of a backend taken by connections that
another worker keeps warm. It asks for room then, and that worker, which looks every
:data:`LOOK_INTERVAL_S`, closes what is too much.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Sequence

LOOK_INTERVAL_S = 0.005
ROOM_BYTES = 4096
"""For the word that tells that room is asked for."""


class WarmCounts:
    """The counts as one process sees them."""

    def __init__(
        self,
        fd: int,
        asked: memoryview,
        counts: memoryview,
        slots: int,
        rows: Callable[[], Sequence[int]],
        row: int | None,
        first_lock: int,
        connections: Callable[[int], int],
    ) -> None:
        """``asked`` has ``ROOM_BYTES``, ``counts`` four for each of the ``slots`` in each row; both are parts
        of the segment behind ``fd``. ``first_lock`` is that of slot 0, ``connections`` counts clients'."""
        self._fd = fd
        self._asked = asked.cast("Q")
        self._counts = counts.cast("I")
        self._slots = slots
        self._rows = rows
        self._own = (row or 0) * slots
        self._first_lock = first_lock
        self._connections = connections

    def count(self, slot: int) -> int:
        """Warm connections of all workers to the backend of ``slot``."""
        counts, slots, total = self._counts, self._slots, 0
        for row in self._rows():
            total += counts[row * slots + slot]
        return total

    def acquire(self, slot: int, most: int, hard_limit: int) -> bool:
        """Count one more, unless there are ``most`` or the backend's ``hard_limit`` (0: none) is reached."""
        fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, self._first_lock + slot)
        try:
            warm = self.count(slot)
            if warm >= most or (hard_limit and self._connections(slot) + warm >= hard_limit):
                return False
            self._counts[self._own + slot] += 1
            return True
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, self._first_lock + slot)

    def release(self, slot: int) -> None:
        """Count one less."""
        self._counts[self._own + slot] -= 1

    def is_crowded(self, slot: int, hard_limit: int) -> bool:
        """Whether clients' and warm connections together are more than ``hard_limit`` (0: none)."""
        return bool(hard_limit) and self._connections(slot) + self.count(slot) > hard_limit

    def ask_for_room(self) -> None:
        """A client has been given a place that a warm connection still takes up."""
        self._asked[0] += 1

    def times_asked(self) -> int:
        """A number that is another one each time room was asked for."""
        return self._asked[0]
