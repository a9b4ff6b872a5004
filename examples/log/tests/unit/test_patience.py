"""How long a node waits for its peers, held to testkit's contract of time limits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from examples.log.patience import Patience
from testkit.contracts.time_limits import Operation, TimeLimitContract
from testkit.virtual_time import virtual_time


class PatientCalls:
    async def limited(self, operation: Operation, limit_s: float) -> Any:
        return await Patience(initial_s=limit_s, least_s=0.0, most_s=limit_s).call(operation)

    async def partial(self, operations: Sequence[Operation], limit_s: float) -> list[Any]:
        raise NotImplementedError

    def adaptive(self, *, initial_s: float, least_s: float, most_s: float) -> Patience:
        return Patience(initial_s=initial_s, least_s=least_s, most_s=most_s)


class TestPatience(TimeLimitContract, level=2, lacks={"partial": "each peer is called by itself"}):
    @pytest.fixture
    def harness(self) -> PatientCalls:
        return PatientCalls()


@virtual_time
async def test_who_answers_unevenly_is_waited_for_longer() -> None:
    async def take(seconds: float) -> None:
        await asyncio.sleep(seconds)

    even, uneven = (Patience(initial_s=10, least_s=0.1, most_s=10) for _ in range(2))
    for n in range(100):
        await even.call(lambda: take(0.5))
        await uneven.call(lambda n=n: take(0.1 if n % 2 else 0.9))  # type: ignore[misc]
    assert even.limit_s == pytest.approx(1.0)
    assert uneven.limit_s > 3 * even.limit_s
