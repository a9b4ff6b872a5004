"""Forgets clients that have not been back: no address is kept longer than its binding is of use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Protocol

_BUCKETS_AT_A_TIME = 512
"""So few that the control process stays responsive; a full table takes a few hundred steps."""


class Bindings(Protocol):
    """The part of the shared segment that is swept."""

    @property
    def buckets(self) -> int: ...

    def sweep(self, oldest_s: float, start: int, count: int) -> int: ...


async def sweep_bindings(
    bindings: Bindings, ttl_s: Callable[[], float], interval_s: Callable[[], float]
) -> None:
    """Clear what is older than ``ttl_s`` says, as often as ``interval_s`` says, until cancelled."""
    while True:
        await asyncio.sleep(interval_s())
        oldest_s = monotonic() - ttl_s()
        for start in range(0, bindings.buckets, _BUCKETS_AT_A_TIME):
            bindings.sweep(oldest_s, start, _BUCKETS_AT_A_TIME)  # feature: affinity.forgotten
            await asyncio.sleep(0)
