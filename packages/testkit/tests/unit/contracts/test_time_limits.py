"""The contract of time limits, held by the reference and by what asyncio and anyio offer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from testkit.contracts.references.time_limits import MemoryLimits
from testkit.contracts.time_limits import AdaptiveLimit, Operation, TimeLimitContract

_NOT_ADAPTIVE = {"adaptive": "a limit is given with each call"}


class TestReference(TimeLimitContract, level=2):
    @pytest.fixture
    def harness(self) -> MemoryLimits:
        return MemoryLimits()


class AsyncioLimits:
    async def limited(self, operation: Operation, limit_s: float) -> Any:
        return await asyncio.wait_for(operation(), limit_s)

    async def partial(self, operations: Sequence[Operation], limit_s: float) -> list[Any]:
        raise NotImplementedError

    def adaptive(self, *, initial_s: float, least_s: float, most_s: float) -> AdaptiveLimit:
        raise NotImplementedError


class TestAsyncioWaitFor(
    TimeLimitContract,
    level=2,
    lacks={**_NOT_ADAPTIVE, "partial": "wait_for() has one awaitable, wait() cancels nothing"},
):
    @pytest.fixture
    def harness(self) -> AsyncioLimits:
        return AsyncioLimits()


class AnyioLimits(AsyncioLimits):
    async def limited(self, operation: Operation, limit_s: float) -> Any:
        with anyio.fail_after(limit_s):
            return await operation()

    async def partial(self, operations: Sequence[Operation], limit_s: float) -> list[Any]:
        results: dict[int, Any] = {}

        async def keep(number: int, operation: Operation) -> None:
            try:
                results[number] = await operation()
            except ValueError:
                return

        with anyio.move_on_after(limit_s):
            async with anyio.create_task_group() as group:
                for number, operation in enumerate(operations):
                    group.start_soon(keep, number, operation)
        return [results[number] for number in sorted(results)]


class TestAnyio(
    TimeLimitContract,
    level=2,
    lacks={**_NOT_ADAPTIVE, "patience": "whatever is awaited in a cancelled scope is cancelled too"},
):
    @pytest.fixture
    def harness(self) -> AnyioLimits:
        return AnyioLimits()
