"""An event bus in memory, for one event loop."""

from __future__ import annotations

import asyncio
import inspect
from bisect import insort
from collections.abc import Awaitable
from itertools import count
from typing import Any

from testkit.contracts.event_bus import Event, Handler, Priority, Statistics

_CAPACITY = 1_000


class MemoryBus:
    """Events wait in the order in which they are to be told; a task of its own starts their handlers.

    Handlers run side by side, each in a task if it is a coroutine. When there are too many events, the
    newest of the least urgent ones goes; critical ones always find room.
    """

    def __init__(self, capacity: int | None = None) -> None:
        self._capacity = _CAPACITY if capacity is None else capacity
        self._numbers = count()
        self._waiting: list[tuple[Priority, int, Event]] = []
        self._subscriptions: dict[int, tuple[str, Handler]] = {}
        self._changed = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._under_way: set[asyncio.Task[None]] = set()
        self._published = self._delivered = self._failed = self._dropped = 0

    # ---- subscribers -------------------------------------------------------------------------------

    def subscribe(self, topic: str, handler: Handler) -> int:
        subscription = next(self._numbers)
        self._subscriptions[subscription] = topic, handler
        return subscription

    def unsubscribe(self, subscription: int) -> None:
        del self._subscriptions[subscription]

    # ---- publishers --------------------------------------------------------------------------------

    def publish(self, topic: str, data: Any, priority: Priority = Priority.NORMAL) -> None:
        self._published += 1
        insort(self._waiting, (priority, next(self._numbers), Event(topic, data, priority)))
        if self._room() < 0:
            del self._waiting[-1]
            self._dropped += 1
        self._wake()

    async def publish_when_there_is_room(self, topic: str, data: Any) -> None:
        while self._room() < 1:
            await self._changed.wait()
        self.publish(topic, data)

    # ---- lifecycle ---------------------------------------------------------------------------------

    async def start(self) -> None:
        if self._running is None:
            self._running = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._running is not None:
            await self.settle()
            self._running.cancel()
            self._running = None

    async def settle(self) -> None:
        while self._waiting or self._under_way:
            await self._changed.wait()

    def statistics(self) -> Statistics:
        return Statistics(
            self._published, self._delivered, self._failed, self._dropped, queued=len(self._waiting)
        )

    async def _run(self) -> None:
        while True:
            while self._waiting:
                _, _, event = self._waiting.pop(0)
                self._tell(event)
                self._wake()
                # Whoever publishes or is told may be somebody else.
                await asyncio.sleep(0)
            await self._changed.wait()

    def _tell(self, event: Event) -> None:
        for topic, handler in [*self._subscriptions.values()]:
            if topic == event.topic:
                self._call(handler, event)

    def _call(self, handler: Handler, event: Event) -> None:
        try:
            outcome = handler(event)
        except Exception:  # noqa: BLE001  whatever it is, it is that handler's
            self._failed += 1
            return
        if inspect.isawaitable(outcome):
            task = asyncio.create_task(self._finish(outcome))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        else:
            self._delivered += 1

    async def _finish(self, outcome: Awaitable[None]) -> None:
        try:
            await outcome
        except Exception:  # noqa: BLE001
            self._failed += 1
        else:
            self._delivered += 1
        # Not before it has been discarded.
        asyncio.get_running_loop().call_soon(self._wake)

    def _room(self) -> int:
        """How many more events may wait, below zero if too many do; critical ones do not count."""
        return self._capacity - sum(priority is not Priority.CRITICAL for priority, _, _ in self._waiting)

    def _wake(self) -> None:
        """Have whoever waits look again."""
        self._changed.set()
        self._changed = asyncio.Event()


class MemoryBusHarness:
    """Buses in memory, or of a class made from them."""

    def __init__(self, kind: type[MemoryBus] = MemoryBus) -> None:
        self._kind = kind

    def open(self, capacity: int | None = None) -> MemoryBus:
        return self._kind(capacity)
