"""How many connections may be on their way to another backend at a time.

When one backend of many fails, the few connections that it would have had go elsewhere. When most fail,
trying again multiplies the connects while those that still serve have the least to spare. So retries are a
share of what is open, and only a few while little is.
"""

from __future__ import annotations

LEAST_RETRIES = 3
"""So many are always allowed, or a proxy with few connections could never retry."""


class RetryBudget:
    """The retries of one worker that have not come to their end."""

    def __init__(self, percent: int) -> None:
        self.percent = percent
        """Of the open connections, so many may retry at a time."""
        self._under_way = 0

    def begin(self, open_connections: int) -> bool:
        """Take one retry out of the budget; false when nothing is left of it."""
        if self._under_way >= max(LEAST_RETRIES, open_connections * self.percent // 100):
            return False
        self._under_way += 1
        return True

    def end(self) -> None:
        """Give one back: that connection has a backend, or has ended."""
        self._under_way -= 1
