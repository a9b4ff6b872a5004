"""What happens in this POP, told to whoever listens: the log, and a ring of what happened last.

Whoever has something to tell publishes it and goes on; handlers run later, in :meth:`EventBus.deliver`,
the most urgent events first. The queue is bounded: when it is full, the oldest event of the least
priority makes room, and what is lost is counted. Critical events are never dropped, they are few. A handler
that fails is counted and harms neither the others nor the publisher.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping
from enum import IntEnum, StrEnum
from typing import Any

import msgspec


class Topic(StrEnum):
    """What an event is about."""

    CONFIG = "config"
    REGISTRY = "registry"
    HEALTH = "health"
    WORKER = "worker"
    DRAIN = "drain"
    REPLICATION = "replication"


class Priority(IntEnum):
    """Lower is more urgent."""

    CRITICAL = 0
    """Never dropped."""
    NORMAL = 1
    LOW = 2
    """The first to go when there is no room."""


class Event(msgspec.Struct, frozen=True):
    """One thing that happened."""

    topic: Topic
    name: str
    """For people, the same for all events of a kind: ``a worker died, starting another``."""
    fields: Mapping[str, Any] = msgspec.field(default_factory=dict)
    priority: Priority = Priority.NORMAL
    level: str = "info"
    """Of the line in the log."""
    at_s: float = 0.0
    """Wall time."""


class BusStatistics(msgspec.Struct, frozen=True):
    """Counted since the start."""

    published: dict[str, int]
    """By topic."""
    dropped: dict[str, int]
    """By priority, for want of room."""
    delivered: int
    """Calls of handlers that returned."""
    failures: dict[str, int]
    """Calls of handlers that raised, by name of the handler."""
    queued: int
    """Waiting now."""
    queued_max: int
    """Most that ever waited."""


Handler = Callable[[Event], None]


class EventBus:
    """Queues of events by priority, and who is told of them."""

    def __init__(self, capacity: int = 1_000) -> None:
        """``capacity``: events that may wait, critical ones not counted."""
        self._capacity = capacity
        self._queues: dict[Priority, deque[Event]] = {priority: deque() for priority in Priority}
        self._handlers: list[tuple[str, Handler, Collection[Topic]]] = []
        self._published: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._delivered = 0
        self._queued_max = 0

    def subscribe(self, name: str, handler: Handler, topics: Collection[Topic] = tuple(Topic)) -> None:
        """Call ``handler`` with every event of ``topics`` from now on; ``name`` is for the statistics."""
        self._handlers.append((name, handler, topics))

    def publish(self, event: Event) -> None:
        """Queue ``event``; what must make room for it is dropped and counted."""
        self._published[event.topic] += 1
        self._queues[event.priority].append(event)
        self._queued_max = max(self._queued_max, len(self))
        if len(self) - len(self._queues[Priority.CRITICAL]) > self._capacity:
            least = Priority.LOW if self._queues[Priority.LOW] else Priority.NORMAL
            self._queues[least].popleft()
            self._dropped[least.name.lower()] += 1

    def deliver(self, limit: int) -> int:
        """Tell handlers of at most ``limit`` events; return of how many."""
        for told in range(limit):
            event = self._next()
            if event is None:
                return told
            for name, handler, topics in self._handlers:
                if event.topic in topics:
                    self._call(name, handler, event)
        return limit

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def statistics(self) -> BusStatistics:
        return BusStatistics(
            published=dict(self._published),
            dropped=dict(self._dropped),
            delivered=self._delivered,
            failures=dict(self._failures),
            queued=len(self),
            queued_max=self._queued_max,
        )

    def _next(self) -> Event | None:
        for queue in self._queues.values():
            if queue:
                return queue.popleft()
        return None

    def _call(self, name: str, handler: Handler, event: Event) -> None:
        try:
            handler(event)
        except Exception:  # noqa: BLE001  whatever it is, it is that handler's
            self._failures[name] += 1
        else:
            self._delivered += 1


class RecentEvents:
    """A handler that keeps the last events for whoever asks."""

    def __init__(self, capacity: int = 256) -> None:
        self._events: deque[Event] = deque(maxlen=capacity)

    def __call__(self, event: Event) -> None:
        self._events.append(event)

    def latest(self, count: int, topic: Topic | None = None) -> list[Event]:
        """At most ``count`` of them, those of one topic when it is given; the newest one last."""
        matching = [event for event in self._events if topic in (None, event.topic)]
        return matching[len(matching) - min(count, len(matching)) :]
