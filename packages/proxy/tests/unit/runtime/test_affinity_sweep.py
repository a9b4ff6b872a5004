"""The sweep reaches every bucket, a few at a time."""

from __future__ import annotations

import asyncio
from time import monotonic

import pytest

from edgeproxy.runtime.affinity_sweep import sweep_bindings
from testkit.wait import wait_until_async


class FakeBindings:
    """Remembers which buckets were swept, and with what limit of age."""

    def __init__(self, buckets: int) -> None:
        self.buckets = buckets
        self.swept: list[range] = []
        self.oldest_s: set[float] = set()

    def sweep(self, oldest_s: float, start: int, count: int) -> int:
        self.swept.append(range(start, start + count))
        self.oldest_s.add(oldest_s)
        return 0


async def sweep_until(bindings: FakeBindings, sweeps: int) -> None:
    task = asyncio.create_task(sweep_bindings(bindings, ttl_s=lambda: 600.0, interval_s=lambda: 0.001))
    await wait_until_async(lambda: len(bindings.oldest_s) >= sweeps, reason="sweeps")
    task.cancel()


@pytest.mark.feature("affinity.forgotten")
async def test_sweeps_every_bucket_once_and_in_pieces() -> None:
    bindings = FakeBindings(1_300)
    task = asyncio.create_task(sweep_bindings(bindings, ttl_s=lambda: 600.0, interval_s=lambda: 0.001))
    await wait_until_async(lambda: len(bindings.oldest_s) > 1, reason="one whole sweep")
    task.cancel()
    first = [bucket for part in bindings.swept[:3] for bucket in part]
    assert first[:1_300] == list(range(1_300))
    assert max(map(len, bindings.swept)) <= 512


async def test_others_have_their_turn_between_the_pieces() -> None:
    bindings = FakeBindings(512 * 3)
    task = asyncio.create_task(sweep_bindings(bindings, ttl_s=lambda: 600.0, interval_s=lambda: 0.0))
    seen = []
    while len(bindings.swept) < 3:
        seen.append(len(bindings.swept))
        await asyncio.sleep(0)
    task.cancel()
    assert {1, 2} <= set(seen)


async def test_what_was_used_within_the_ttl_stays() -> None:
    bindings = FakeBindings(8)
    before_s = monotonic() - 600.0
    await sweep_until(bindings, 2)
    after_s = monotonic() - 600.0
    assert all(before_s <= oldest_s <= after_s for oldest_s in bindings.oldest_s)
