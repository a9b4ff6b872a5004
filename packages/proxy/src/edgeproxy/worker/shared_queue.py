"""Who waits for a place on a backend, in the segment that the workers share.

Each worker has a page: how many wait in it, when it last looked after them, and since when the first of each
of its lines waits. Only its owner writes there. Counting one more is one step under a lock, since the length
is limited for all together. A dead worker's page is zeroed, and nobody waits there any more.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Sequence
from math import inf

from edgeproxy.core.dataplane.waiting import HUNG_S

ROW_BYTES = 4096
_ROW_WORDS = ROW_BYTES // 8
_WAITING, _LOOKED, _LINES_USED = range(3)
_KEYS, _TIMES = 16, 256
MAX_LINES = 240
"""Apps for which one worker's clients may wait in order with other workers'; those of further apps are in
order within their worker alone."""


class SharedQueue:
    """All workers' pages as one process sees them.

    Implements :class:`edgeproxy.core.dataplane.waiting.Queues`; a process in which nobody waits only looks.
    """

    def __init__(
        self, fd: int, pages: memoryview, rows: Callable[[], Sequence[int]], row: int | None, lock: int
    ) -> None:
        """``pages`` has ``ROW_BYTES`` for each row and is part of the segment behind ``fd``; ``rows`` tells
        which rows are in use, ``row`` is that of this process."""
        self._fd = fd
        self._words = pages.cast("Q")
        self._times = pages.cast("d")
        self._rows = rows
        self._row = row
        self._own = (row or 0) * _ROW_WORDS
        self._lock = lock
        self._lines: dict[int, int] = {}

    @property
    def waiting(self) -> int:
        """Clients that wait in all workers."""
        return sum(self._words[row * _ROW_WORDS + _WAITING] for row in self._rows())

    def join(self, most: int) -> bool:
        fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, self._lock)
        try:
            if self.waiting >= most:
                return False
            self._words[self._own + _WAITING] += 1
            return True
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, self._lock)

    def leave(self) -> None:
        self._words[self._own + _WAITING] -= 1

    def publish(self, app_key: int, since_s: float | None) -> None:
        own, lines = self._own, self._lines
        place = lines.get(app_key)
        if place is None:
            if since_s is None or (place := self._free_place()) is None:
                return
            lines[app_key] = place
            self._words[own + _KEYS + place] = app_key
        self._times[own + _TIMES + place] = since_s or 0.0
        if since_s is None:
            del lines[app_key]
        self._words[own + _LINES_USED] = max(lines.values(), default=-1) + 1

    def looked(self, now_s: float) -> None:
        self._times[self._own + _LOOKED] = now_s

    def oldest_elsewhere(self, app_key: int, now_s: float) -> float:
        words, times, oldest_s = self._words, self._times, inf
        for row in self._rows():
            base = row * _ROW_WORDS
            used = words[base + _LINES_USED]
            if not used or row == self._row or now_s - times[base + _LOOKED] > HUNG_S:
                continue
            keys = words[base + _KEYS : base + _KEYS + used].tolist()
            if app_key in keys:
                # 0 when the line has come to its end just now.
                oldest_s = min(oldest_s, times[base + _TIMES + keys.index(app_key)] or inf)
        return oldest_s

    def _free_place(self) -> int | None:
        used = set(self._lines.values())
        return next((place for place in range(MAX_LINES) if place not in used), None)
