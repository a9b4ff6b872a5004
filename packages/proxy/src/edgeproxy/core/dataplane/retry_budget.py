"""How many connections may be on their way to another backend at a time.

When one backend of many fails, the few connections that it would have had go elsewhere. When most fail,
trying again multiplies the connects while those that still serve have the least to spare. So retries are a
share of the connections that are open or have come lately, and only a few while there are few.

Those that are open at that moment would not do alone: where connections are short, few are, and all of them
may be on their way to the backend that has just died.
"""

from __future__ import annotations

from math import inf

LEAST_RETRIES = 3
"""So many are always allowed, or a proxy with few connections could never retry."""
WINDOW_S = 10.0
"""Connections of the last window, and of this one so far, have come lately."""


class RetryBudget:
    """The retries of one worker that have not come to their end."""

    __slots__ = ("_came", "_came_before", "_under_way", "_window_ends_s", "percent")

    def __init__(self, percent: int) -> None:
        self.percent = percent
        """Of the connections that are open or have come lately, so many may retry at a time."""
        self._under_way = 0
        self._came = self._came_before = 0
        self._window_ends_s = -inf

    def came(self, now_s: float) -> None:
        """A connection has come."""
        if now_s >= self._window_ends_s:
            self._turn(now_s)
        self._came += 1

    def begin(self, open_connections: int, now_s: float) -> bool:
        """Take one retry out of the budget; false when nothing is left of it."""
        if now_s >= self._window_ends_s:
            self._turn(now_s)
        connections = max(open_connections, self._came_before + self._came)
        if self._under_way >= max(LEAST_RETRIES, connections * self.percent // 100):
            return False
        self._under_way += 1
        return True

    def end(self) -> None:
        """Give one back: that connection has a backend, or has ended."""
        self._under_way -= 1

    def _turn(self, now_s: float) -> None:
        is_next = now_s < self._window_ends_s + WINDOW_S
        self._came_before, self._came = self._came if is_next else 0, 0
        self._window_ends_s = now_s + WINDOW_S
