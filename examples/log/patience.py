"""How long to wait for an answer: longer for whoever is far away, and for whoever answers unevenly."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

# As TCP reckons when to send again (RFC 6298), and as much again: what is cut short here has to be done anew.
_OF_THE_LAST = 1 / 8
_OF_THE_LAST_SPREAD = 1 / 4
_SPREADS = 4
_MARGIN = 2.0


class Patience:
    """A limit for calls of one kind to one place, which follows how long they took lately."""

    def __init__(self, *, initial_s: float, least_s: float, most_s: float) -> None:
        """``initial_s``: as long as nothing is known. The limit is never outside the other two."""
        self.limit_s = initial_s
        self._least_s = least_s
        self._most_s = most_s
        self._usual_s: float | None = None
        self._spread_s = 0.0

    async def call(self, operation: Callable[[], Awaitable[T]]) -> T:
        """What ``operation`` returns. An operation that fails says nothing about how long it takes.

        Raises:
            TimeoutError: it took longer than :attr:`limit_s`, which is twice as long from now on.
        """
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        try:
            async with asyncio.timeout(self.limit_s):
                result = await operation()
        except TimeoutError:
            self._limit(2 * self.limit_s)
            raise
        self._learn(loop.time() - began_s)
        return result

    def _learn(self, took_s: float) -> None:
        if self._usual_s is None:
            self._usual_s, self._spread_s = took_s, took_s / 2
        else:
            self._spread_s += _OF_THE_LAST_SPREAD * (abs(self._usual_s - took_s) - self._spread_s)
            self._usual_s += _OF_THE_LAST * (took_s - self._usual_s)
        self._limit(_MARGIN * (self._usual_s + _SPREADS * self._spread_s))

    def _limit(self, limit_s: float) -> None:
        self.limit_s = min(self._most_s, max(self._least_s, limit_s))
