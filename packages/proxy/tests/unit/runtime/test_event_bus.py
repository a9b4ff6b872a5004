"""Events are stamped when they are published and delivered soon after, by whoever runs the loop."""

from __future__ import annotations

import asyncio

from edgeproxy.core.controlplane.events import Event, EventBus, Priority, Topic
from edgeproxy.runtime.event_bus import EventFeed, TopicLog


def event(name: str) -> Event:
    return Event(Topic.HEALTH, name)


class Heard:
    """A subscriber that can be waited for."""

    def __init__(self, count: int) -> None:
        self.events: list[Event] = []
        self.enough = asyncio.Event()
        self._count = count

    def __call__(self, each: Event) -> None:
        self.events.append(each)
        if len(self.events) == self._count:
            self.enough.set()


async def test_published_events_are_delivered_while_it_runs() -> None:
    feed, heard = EventFeed(EventBus(), wall_clock=lambda: 1234.5), Heard(3)
    feed.bus.subscribe("test", heard)
    feed.publish(event("before"))
    running = asyncio.create_task(feed.run())
    feed.publish(event("first"), event("second"))
    feed.publish()
    await asyncio.wait_for(heard.enough.wait(), 10)
    assert [(each.name, each.at_s) for each in heard.events] == [
        ("before", 1234.5),
        ("first", 1234.5),
        ("second", 1234.5),
    ]
    running.cancel()


async def test_a_flood_lets_others_have_their_turn() -> None:
    feed, heard = EventFeed(EventBus(), wall_clock=lambda: 0.0), Heard(1_000)
    feed.bus.subscribe("test", heard)
    feed.publish(*(event(str(number)) for number in range(1_000)))
    running = asyncio.create_task(feed.run())
    turns = 0
    while not heard.enough.is_set():
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 10
    running.cancel()


async def test_flushing_delivers_all_that_waits() -> None:
    feed, heard = EventFeed(EventBus(), wall_clock=lambda: 0.0), Heard(200)
    feed.bus.subscribe("test", heard)
    feed.publish(*(event(str(number)) for number in range(200)))
    feed.flush()
    assert heard.enough.is_set()
    assert len(feed.bus) == 0


def test_what_a_part_logs_is_an_event_of_its_topic_and_troubles_are_never_dropped() -> None:
    told: list[Event] = []
    feed = EventFeed(EventBus(capacity=0), wall_clock=lambda: 12.5)
    feed.bus.subscribe("test", told.append)
    log = TopicLog(feed, Topic.REGISTRY)
    log.info("a backend registered", backend="b")
    log.warning("cannot be stored", why="away")
    log.error("fails")
    feed.flush()
    assert told == [
        Event(Topic.REGISTRY, "cannot be stored", {"why": "away"}, Priority.CRITICAL, "warning", 12.5),
        Event(Topic.REGISTRY, "fails", {}, Priority.CRITICAL, "error", 12.5),
    ]
    assert feed.bus.statistics().dropped == {"normal": 1}
