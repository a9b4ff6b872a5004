"""The bus: nobody waits for it, nothing critical is lost, and no handler harms another."""

from __future__ import annotations

import pytest

from edgeproxy.core.controlplane.events import BusStatistics, Event, EventBus, Priority, RecentEvents, Topic


def event(name: str, priority: Priority = Priority.NORMAL, topic: Topic = Topic.HEALTH) -> Event:
    return Event(topic, name, priority=priority)


def names(events: list[Event]) -> list[str]:
    return [each.name for each in events]


def test_events_reach_every_handler_in_the_order_of_publication() -> None:
    bus, one, other = EventBus(), [], []  # type: tuple[EventBus, list[Event], list[Event]]
    bus.subscribe("one", one.append)
    bus.subscribe("other", other.append)
    bus.publish(event("first"))
    bus.publish(event("second"))
    assert one == []
    assert bus.deliver(10) == 2
    assert names(one) == names(other) == ["first", "second"]
    assert bus.deliver(10) == 0


def test_a_handler_hears_of_its_topics_only() -> None:
    bus, heard = EventBus(), []  # type: tuple[EventBus, list[Event]]
    bus.subscribe("workers", heard.append, [Topic.WORKER, Topic.DRAIN])
    for topic in Topic:
        bus.publish(event(topic, topic=topic))
    bus.deliver(10)
    assert sorted(names(heard)) == ["drain", "worker"]


def test_the_more_urgent_event_comes_first() -> None:
    bus, heard = EventBus(), []  # type: tuple[EventBus, list[Event]]
    bus.subscribe("log", heard.append)
    for priority in (Priority.LOW, Priority.NORMAL, Priority.CRITICAL):
        bus.publish(event(priority.name, priority))
    bus.deliver(10)
    assert names(heard) == ["CRITICAL", "NORMAL", "LOW"]


def test_delivery_stops_at_its_limit() -> None:
    bus, heard = EventBus(), []  # type: tuple[EventBus, list[Event]]
    bus.subscribe("log", heard.append)
    for number in range(5):
        bus.publish(event(str(number)))
    assert bus.deliver(2) == 2
    assert names(heard) == ["0", "1"]
    assert len(bus) == 3


def test_when_it_is_full_the_oldest_of_the_least_priority_makes_room() -> None:
    bus, heard = EventBus(capacity=3), []  # type: tuple[EventBus, list[Event]]
    bus.subscribe("log", heard.append)
    for name, priority in (("low 1", Priority.LOW), ("low 2", Priority.LOW), ("normal 1", Priority.NORMAL)):
        bus.publish(event(name, priority))
    bus.publish(event("normal 2"))
    bus.publish(event("normal 3"))
    bus.publish(event("normal 4"))
    bus.publish(event("low 3", Priority.LOW))
    bus.deliver(10)
    assert names(heard) == ["normal 2", "normal 3", "normal 4"]
    assert bus.statistics().dropped == {"low": 3, "normal": 1}


def test_critical_events_are_never_dropped() -> None:
    bus, heard = EventBus(capacity=2), []  # type: tuple[EventBus, list[Event]]
    bus.subscribe("log", heard.append)
    for number in range(50):
        bus.publish(event(str(number), Priority.CRITICAL))
        bus.publish(event("normal"))
    bus.deliver(1_000)
    assert names(heard) == [*map(str, range(50)), "normal", "normal"]


def test_a_failing_handler_harms_no_other() -> None:
    bus, heard = EventBus(), []  # type: tuple[EventBus, list[Event]]

    def fail(_event: Event) -> None:
        raise RuntimeError("broken")

    bus.subscribe("broken", fail)
    bus.subscribe("log", heard.append)
    bus.publish(event("first"))
    bus.publish(event("second"))
    assert bus.deliver(10) == 2
    assert names(heard) == ["first", "second"]
    assert bus.statistics().failures == {"broken": 2}
    assert bus.statistics().delivered == 2


def test_a_handler_may_publish() -> None:
    bus, heard = EventBus(), []  # type: tuple[EventBus, list[Event]]

    def answer(each: Event) -> None:
        heard.append(each)
        if each.name == "question":
            bus.publish(event("answer"))

    bus.subscribe("one", answer)
    bus.publish(event("question"))
    bus.deliver(10)
    assert names(heard) == ["question", "answer"]


def test_statistics_count_everything() -> None:
    bus = EventBus(capacity=2)
    bus.subscribe("log", lambda _event: None)
    for _ in range(3):
        bus.publish(event("a"))
    bus.publish(event("b", topic=Topic.DRAIN, priority=Priority.CRITICAL))
    bus.deliver(1)
    assert bus.statistics() == BusStatistics(
        published={"health": 3, "drain": 1},
        dropped={"normal": 1},
        delivered=1,
        failures={},
        queued=2,
        queued_max=3,
    )


@pytest.mark.parametrize(
    ("count", "topic", "expected"),
    [
        (2, None, ["3", "4"]),
        (99, None, ["2", "3", "4"]),
        (0, None, []),
        (99, Topic.DRAIN, ["3"]),
        (1, Topic.HEALTH, ["4"]),
        (5, Topic.CONFIG, []),
    ],
)
def test_the_ring_keeps_the_last_events(count: int, topic: Topic | None, expected: list[str]) -> None:
    recent = RecentEvents(capacity=3)
    for number in range(5):
        recent(event(str(number), topic=Topic.DRAIN if number in (0, 3) else Topic.HEALTH))
    assert names(recent.latest(count, topic)) == expected
