"""The event bus of the control process holds testkit's contract of event buses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

import pytest

from edgeproxy.core.controlplane.events import Event, EventBus, Priority, Topic
from edgeproxy.runtime.event_bus import EventFeed
from testkit.contracts import event_bus as contract
from testkit.wait import wait_until_async

_TOPICS = {"topic": Topic.HEALTH, "other": Topic.WORKER, "nobody": Topic.DRAIN, "question": Topic.CONFIG}
_WORDS = {topic: word for word, topic in _TOPICS.items()}
_PRIORITIES = {
    contract.Priority.CRITICAL: Priority.CRITICAL,
    contract.Priority.NORMAL: Priority.NORMAL,
    contract.Priority.LOW: Priority.LOW,
}
_CONTRACTS_PRIORITIES = {ours: theirs for theirs, ours in _PRIORITIES.items()}


class Feed:
    """The feed as the contract speaks of buses. It has no priority between critical and normal."""

    def __init__(self, capacity: int | None) -> None:
        bus = EventBus() if capacity is None else EventBus(capacity)
        self._feed = EventFeed(bus, wall_clock=lambda: 0.0)
        self._running: asyncio.Task[None] | None = None

    def subscribe(self, topic: str, handler: contract.Handler) -> None:
        def tell(event: Event) -> None:
            priority = _CONTRACTS_PRIORITIES[event.priority]
            outcome = handler(contract.Event(_WORDS[event.topic], event.fields["data"], priority))
            assert not isinstance(outcome, Awaitable)

        self._feed.bus.subscribe(f"handler of {topic}", tell, [_TOPICS[topic]])

    def unsubscribe(self, subscription: Any) -> None:
        raise NotImplementedError

    def publish(self, topic: str, data: Any, priority: contract.Priority = contract.Priority.NORMAL) -> None:
        self._feed.publish(Event(_TOPICS[topic], "event", {"data": data}, _PRIORITIES[priority]))

    async def publish_when_there_is_room(self, topic: str, data: Any) -> None:
        raise NotImplementedError

    async def start(self) -> None:
        if self._running is None:
            self._running = asyncio.create_task(self._feed.run())

    async def stop(self) -> None:
        if self._running is not None:
            self._feed.flush()
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running
            self._running = None

    async def settle(self) -> None:
        await wait_until_async(lambda: len(self._feed.bus) == 0, reason="what waits to be told")

    def statistics(self) -> contract.Statistics:
        ours = self._feed.bus.statistics()
        return contract.Statistics(
            published=sum(ours.published.values()),
            delivered=ours.delivered,
            failed=sum(ours.failures.values()),
            dropped=sum(ours.dropped.values()),
            queued=ours.queued,
        )


class Harness:
    def open(self, capacity: int | None = None) -> Feed:
        return Feed(capacity)


class TestEventFeed(
    contract.EventBusContract,
    level=2,
    lacks={
        "unsubscribing": "who listens is settled when the process is put together",
        "waiting": "a publisher never waits: it is told to go on",
        "coroutines": "handlers are plain functions that only note what they are told",
        "concurrency": "handlers are plain functions that only note what they are told",
    },
):
    @pytest.fixture
    def harness(self) -> Harness:
        return Harness()
