"""Time limits for coroutines: of one call, of several together, and one that learns."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

from testkit.contracts.time_limits import Operation

_REMEMBERED = 50
_MARGIN = 2.0
"""The limit is so many times what the slowest of the last calls took."""


class MemoryLimits:
    """What asyncio offers, put together."""

    async def limited(self, operation: Operation, limit_s: float) -> Any:
        async with asyncio.timeout(limit_s):
            return await operation()

    async def partial(self, operations: Sequence[Operation], limit_s: float) -> list[Any]:
        tasks = [asyncio.ensure_future(operation()) for operation in operations]
        if not tasks:
            return []
        _, late = await asyncio.wait(tasks, timeout=limit_s)
        for task in late:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        return [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]

    def adaptive(self, *, initial_s: float, least_s: float, most_s: float) -> LearningLimit:
        return LearningLimit(initial_s, least_s, most_s)


class LearningLimit:
    """Twice what the slowest of the last calls took; a call that was cut off took twice its limit."""

    def __init__(self, initial_s: float, least_s: float, most_s: float) -> None:
        self.least_s = least_s
        self.most_s = most_s
        self.limit_s = initial_s
        self._seconds: deque[float] = deque(maxlen=_REMEMBERED)

    async def call(self, operation: Operation) -> Any:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        limit_s = self.limit_s
        try:
            async with asyncio.timeout(limit_s):
                result = await operation()
        except TimeoutError:
            self.learn(limit_s)
            raise
        self.learn(loop.time() - began_s)
        return result

    def learn(self, seconds: float) -> None:
        """Take in what a call took, or how long it was allowed to take."""
        self._seconds.append(seconds)
        self.limit_s = min(self.most_s, max(self.least_s, _MARGIN * max(self._seconds)))
