"""The contract of event buses, held by the reference and, as far as they go, by blinker and pyee."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import blinker
import pytest
from pyee.asyncio import AsyncIOEventEmitter

from testkit.contracts.event_bus import Event, EventBusContract, Handler, Priority, Statistics
from testkit.contracts.references.event_bus import MemoryBusHarness


class TestReference(EventBusContract, level=2):
    @pytest.fixture
    def harness(self) -> MemoryBusHarness:
        return MemoryBusHarness()


class BlinkerBus:
    """Topics are named signals; sending calls the receivers, in the order in which they connected."""

    def __init__(self) -> None:
        self._signals = blinker.Namespace()

    def subscribe(self, topic: str, handler: Handler) -> tuple[str, Callable[..., Any]]:
        def receive(_: object, *, data: Any) -> None:
            handler(Event(topic, data))

        self._signals.signal(topic).connect(receive, weak=False)
        return topic, receive

    def unsubscribe(self, subscription: tuple[str, Callable[..., Any]]) -> None:
        topic, receive = subscription
        self._signals.signal(topic).disconnect(receive)

    def publish(self, topic: str, data: Any, priority: Priority = Priority.NORMAL) -> None:
        self._signals.signal(topic).send(None, data=data)

    async def publish_when_there_is_room(self, topic: str, data: Any) -> None:
        self.publish(topic, data)

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def settle(self) -> None: ...

    def statistics(self) -> Statistics:
        raise NotImplementedError


class BlinkerHarness:
    def open(self, capacity: int | None = None) -> BlinkerBus:
        return BlinkerBus()


class TestBlinker(
    EventBusContract,
    level=2,
    lacks={
        "lifecycle": "sending a signal calls its receivers, there is nothing to start",
        "priorities": "nothing waits, so nothing overtakes",
        "bound": "nothing waits",
        "waiting": "nothing waits",
        "critical": "nothing waits, so nothing is dropped",
        "coroutines": "send() refuses coroutine functions, send_async() awaits them one after the other",
        "concurrency": "receivers are called one after the other",
        "isolation": "what a receiver raises reaches the sender",
        "statistics": "nothing is counted",
    },
):
    @pytest.fixture
    def harness(self) -> BlinkerHarness:
        return BlinkerHarness()


class PyeeBus:
    """Topics are the emitter's events; coroutines are started, and waited for by who wants to."""

    def __init__(self) -> None:
        self._emitter = AsyncIOEventEmitter()
        # What a handler raises is an event of its own, and raised where there is no listener.
        self._emitter.on("error", lambda _error: None)

    def subscribe(self, topic: str, handler: Handler) -> tuple[str, Callable[..., Any]]:
        def receive(data: Any) -> Any:
            return handler(Event(topic, data))

        self._emitter.on(topic, receive)
        return topic, receive

    def unsubscribe(self, subscription: tuple[str, Callable[..., Any]]) -> None:
        self._emitter.remove_listener(*subscription)

    def publish(self, topic: str, data: Any, priority: Priority = Priority.NORMAL) -> None:
        self._emitter.emit(topic, data)

    async def publish_when_there_is_room(self, topic: str, data: Any) -> None:
        raise NotImplementedError

    async def start(self) -> None: ...

    async def stop(self) -> None:
        await self.settle()

    async def settle(self) -> None:
        await self._emitter.wait_for_complete()

    def statistics(self) -> Statistics:
        raise NotImplementedError


class PyeeHarness:
    def open(self, capacity: int | None = None) -> PyeeBus:
        return PyeeBus()


class TestPyee(
    EventBusContract,
    level=2,
    lacks={
        "lifecycle": "emitting an event calls its listeners, there is nothing to start",
        "priorities": "nothing waits, so nothing overtakes",
        "bound": "nothing waits",
        "waiting": "nothing waits",
        "critical": "nothing waits, so nothing is dropped",
        "statistics": "nothing is counted",
    },
):
    @pytest.fixture
    def harness(self) -> PyeeHarness:
        return PyeeHarness()
