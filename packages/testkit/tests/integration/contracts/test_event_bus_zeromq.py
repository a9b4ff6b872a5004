"""The contract of event buses, held by ZeroMQ's publishers and subscribers within one process.

It has what emitters have not: what is published waits in bounded queues, and a publisher can wait for room.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
import zmq
import zmq.asyncio

from testkit.contracts.event_bus import Event, EventBusContract, Handler, Priority, Statistics

_numbers = count(1)
_MARK = b"mark\0"


class Subscriber:
    """A socket of a handler's own, and whoever reads it."""

    def __init__(self, topic: str, handler: Handler) -> None:
        self.topic = topic
        self.marks: dict[bytes, asyncio.Event] = {}
        self._handler = handler
        self._socket: zmq.Socket[bytes] | None = None
        self._reading: asyncio.Task[None] | None = None

    def connect(self, publisher: zmq.Socket[bytes], address: str, room: int) -> None:
        """Have what is published kept from now on, if it is not."""
        if self._socket is None:
            self._socket = publisher.context.socket(zmq.SUB)
            self._socket.rcvhwm = room
            self._socket.connect(address)
            # What is subscribed to are prefixes.
            for prefix in (self.topic.encode() + b"\0", _MARK):
                self._socket.subscribe(prefix)
            # The publisher hears of it when it looks.
            publisher.poll(0)

    def start(self) -> None:
        if self._reading is None:
            assert self._socket is not None
            self._reading = asyncio.create_task(self._read(self._socket))

    async def stop(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])

    def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        elif self._socket is not None:
            self._socket.close(linger=0)

    async def mark(self, name: bytes) -> None:
        """Wait until a mark has come by, or nobody reads any more."""
        if self._reading is not None:
            await self.marks.setdefault(name, asyncio.Event()).wait()

    async def _read(self, sock: zmq.Socket[bytes]) -> None:
        with zmq.asyncio.Socket(shadow=sock) as receiving:
            try:
                while True:
                    head, body = await receiving.recv_multipart()
                    if head == _MARK:
                        self.marks.setdefault(body, asyncio.Event()).set()
                    else:
                        self._handler(Event(self.topic, json.loads(body)))
                    # It does not wait for what is there already, and others want their turn.
                    await asyncio.sleep(0)
            finally:
                self._socket = self._reading = None
                for mark in self.marks.values():
                    mark.set()


class ZeroMqBus:
    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], capacity: int | None) -> None:
        # What waits waits on both sides; each has room for one at least.
        self._room = 1_000 if capacity is None else capacity - 1
        self._publisher = context.socket(zmq.XPUB)
        self._publisher.sndhwm = 1
        # Or what a subscriber has no room for would be dropped, and nobody told.
        self._publisher.set(zmq.XPUB_NODROP, 1)
        self._address = f"inproc://bus-{next(_numbers)}"
        self._publisher.bind(self._address)
        self._subscribers: list[Subscriber] = []
        self._is_started = False

    def subscribe(self, topic: str, handler: Handler) -> Subscriber:
        subscriber = Subscriber(topic, handler)
        subscriber.connect(self._publisher, self._address, self._room)
        if self._is_started:
            subscriber.start()
        self._subscribers.append(subscriber)
        return subscriber

    def unsubscribe(self, subscription: Subscriber) -> None:
        self._subscribers.remove(subscription)
        subscription.close()

    def publish(self, topic: str, data: Any, priority: Priority = Priority.NORMAL) -> None:
        try:
            self._publisher.send_multipart([topic.encode() + b"\0", json.dumps(data).encode()], zmq.DONTWAIT)
        except zmq.Again:
            return  # there is no room

    async def publish_when_there_is_room(self, topic: str, data: Any) -> None:
        await self._send(topic.encode() + b"\0", json.dumps(data).encode())

    async def start(self) -> None:
        self._is_started = True
        for subscriber in self._subscribers:
            subscriber.connect(self._publisher, self._address, self._room)
            subscriber.start()

    async def stop(self) -> None:
        if self._is_started:
            await self.settle()
            self._is_started = False
            for subscriber in self._subscribers:
                await subscriber.stop()

    async def settle(self) -> None:
        name = str(next(_numbers)).encode()
        await self._send(_MARK, name)
        for subscriber in list(self._subscribers):
            await subscriber.mark(name)

    def statistics(self) -> Statistics:
        raise NotImplementedError

    def close(self) -> None:
        """In no loop: those who read have ended with theirs."""
        for subscriber in self._subscribers:
            subscriber.close()
        self._publisher.close(linger=0)

    async def _send(self, *parts: bytes) -> None:
        try:
            self._publisher.send_multipart(parts, zmq.DONTWAIT)
        except zmq.Again:
            # It is ZeroMQ that waits. Its asyncio sockets do not: to them such a publisher always has room.
            await asyncio.to_thread(self._publisher.send_multipart, parts)


class ZeroMqHarness:
    def __init__(self) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._buses: list[ZeroMqBus] = []

    def open(self, capacity: int | None = None) -> ZeroMqBus:
        self._buses.append(ZeroMqBus(self._context, capacity))
        return self._buses[-1]

    def close(self) -> None:
        for bus in self._buses:
            bus.close()
        self._context.term()


class TestZeroMq(
    EventBusContract,
    level=2,
    lacks={
        "priorities": "each subscriber has one queue",
        "critical": "all that does not fit waits or is dropped",
        "coroutines": "whoever subscribes reads from a socket, in its own time",
        "concurrency": "whoever subscribes reads one message after the other",
        "isolation": "whoever subscribes reads from a socket, and sees to its own errors",
        "statistics": "sockets count nothing",
    },
):
    @pytest.fixture
    def harness(self) -> Iterator[ZeroMqHarness]:
        harness = ZeroMqHarness()
        yield harness
        harness.close()
