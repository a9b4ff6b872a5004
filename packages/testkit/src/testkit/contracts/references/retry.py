"""Retries in twenty lines, and the five ways to count delays."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from testkit.contracts.retry import BeforeRetry, Plan, Strategy


class Retrier:
    """Calls again as a plan says; draws by ``random``."""

    def __init__(self, random: Random | None = None) -> None:
        self.random = random or Random()

    async def call(
        self,
        operation: Callable[[], Awaitable[Any]],
        plan: Plan,
        *,
        before_retry: BeforeRetry | None = None,
        fallback: Callable[[Exception], Any] | None = None,
    ) -> Any:
        delay_s = plan.base_s
        for failed in range(1, plan.attempts + 1):
            try:
                return await operation()
            except plan.errors as error:
                if failed == plan.attempts:
                    if fallback is None:
                        raise
                    return fallback(error)
                delay_s = self.delay_s(plan, failed, delay_s)
                if before_retry is not None:
                    before_retry(failed, error, delay_s)
                await self.wait(delay_s)
        raise ValueError("a plan has one attempt at least")

    def delay_s(self, plan: Plan, failed: int, before_s: float) -> float:
        """How long to wait after the ``failed``-th failure, ``before_s`` having been the delay before."""
        if plan.strategy is Strategy.DECORRELATED:
            return min(plan.longest_s, self.random.uniform(plan.base_s, 3 * before_s))
        nominal_s = min(plan.longest_s, plan.base_s * self.factor(plan, failed))
        # All of it, so that the next attempts are spread evenly over the delay.
        return self.random.uniform(0, nominal_s) if plan.jitter else nominal_s

    def factor(self, plan: Plan, failed: int) -> float:
        """How many times the base the delay is."""
        match plan.strategy:
            case Strategy.LINEAR:
                return failed
            case Strategy.EXPONENTIAL:
                # Beyond this a float could not hold it, and every bound has been reached.
                return 2.0 ** min(failed - 1, 1_000)
            case Strategy.FIBONACCI:
                return _fibonacci(failed)
            case _:
                return 1

    async def wait(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)


def _fibonacci(number: int) -> int:
    value, following = 1, 1
    for _ in range(number - 1):
        value, following = following, value + following
    return value
