"""What every event bus must do: tell each event to whoever subscribed to its topic, once, and harm nobody.

Publishers publish and go on; handlers are called soon after. What a bus may lack is a capability:
priorities, a bound on what waits, handlers that are coroutines, and so on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol

from testkit.contracts.contract import Contract, needs, since


class Priority(IntEnum):
    """Lower is more urgent."""

    CRITICAL = 0
    NORMAL = 1
    LOW = 2


@dataclass(frozen=True, slots=True)
class Event:
    """What a handler is given; a harness makes one of whatever its bus gives."""

    topic: str
    data: Any
    priority: Priority = Priority.NORMAL


Handler = Callable[[Event], Awaitable[None] | None]


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counted since the bus was made."""

    published: int
    delivered: int
    """Calls of handlers that returned."""
    failed: int
    """Calls of handlers that raised."""
    dropped: int = 0
    """Events that had to make room."""
    queued: int = 0
    """Events that wait now."""


class Bus(Protocol):
    """The bus under test."""

    def subscribe(self, topic: str, handler: Handler) -> object:
        """Tell ``handler`` of events of ``topic`` from now on; what is returned stands for that."""
        ...

    def unsubscribe(self, subscription: Any) -> None:
        """End what :meth:`subscribe` returned."""
        ...

    def publish(self, topic: str, data: Any, priority: Priority = Priority.NORMAL) -> None:
        """Publish without waiting."""
        ...

    async def publish_when_there_is_room(self, topic: str, data: Any) -> None:
        """Publish an event of normal priority, but wait while the bus is full."""
        ...

    async def start(self) -> None:
        """Deliver from now on. A bus without a lifecycle does so anyway."""
        ...

    async def stop(self) -> None:
        """Deliver what waits, then nothing more."""
        ...

    async def settle(self) -> None:
        """Wait until everything published so far has been delivered."""
        ...

    def statistics(self) -> Statistics: ...


class EventBusHarness(Protocol):
    """What a test must know of an implementation."""

    def open(self, capacity: int | None = None) -> Bus:
        """A bus that has not been started. ``capacity``: so many events may wait, critical ones not counted
        if the bus never drops those; ``None`` for what is usual, 100 at least."""
        ...


@dataclass
class Recorder:
    """A handler that remembers what it was told."""

    events: list[Event] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    @property
    def data(self) -> list[Any]:
        return [event.data for event in self.events]


class EventBusContract(
    Contract,
    contract="event_bus",
    capabilities={
        "lifecycle": "it can be started and stopped; before and after it delivers nothing",
        "unsubscribing": "a subscription can be ended",
        "priorities": "the more urgent event is told first",
        "bound": "so many events may wait; when there are more, the least urgent make room",
        "waiting": "a publisher can wait for room",
        "critical": "critical events are never dropped",
        "coroutines": "handlers may be coroutine functions",
        "concurrency": "a slow handler holds up neither other handlers nor other events",
        "isolation": "what a handler raises harms nobody else",
        "statistics": "it counts",
    },
    virtual_time=True,
):
    """Subclass it and define the fixture ``harness``, or call :func:`~testkit.contracts.checking.check`."""

    # ---- events and priorities ---------------------------------------------------------------------

    async def test_event_arrives_with_its_topic_and_data(self, harness: EventBusHarness) -> None:
        bus, heard = await started(harness)
        bus.publish("topic", {"key": "value"})
        await bus.settle()
        assert [(event.topic, event.data) for event in heard.events] == [("topic", {"key": "value"})]

    @needs("priorities")
    async def test_event_keeps_its_priority(self, harness: EventBusHarness) -> None:
        bus, heard = await started(harness)
        for priority in Priority:
            bus.publish("topic", None, priority)
            await bus.settle()
        assert [event.priority for event in heard.events] == [*Priority]

    @needs("priorities")
    async def test_event_is_of_normal_priority_unless_it_says_otherwise(
        self, harness: EventBusHarness
    ) -> None:
        bus, heard = await started(harness)
        bus.publish("topic", None)
        await bus.settle()
        assert [event.priority for event in heard.events] == [Priority.NORMAL]

    async def test_empty_data_arrives_as_it_is(self, harness: EventBusHarness) -> None:
        bus, heard = await started(harness)
        empty: list[Any] = [None, {}, "", 0]
        for data in empty:
            bus.publish("topic", data)
        await bus.settle()
        assert heard.data == empty

    async def test_large_data_arrives_whole(self, harness: EventBusHarness) -> None:
        bus, heard = await started(harness)
        large = {"payload": "x" * 1_000_000, "list": list(range(10_000))}
        bus.publish("topic", large)
        await bus.settle()
        assert heard.data == [large]

    # ---- lifecycle ---------------------------------------------------------------------------------

    @needs("lifecycle")
    async def test_nothing_is_delivered_before_the_start(self, harness: EventBusHarness) -> None:
        bus, heard = harness.open(), Recorder()
        bus.subscribe("topic", heard)
        bus.publish("topic", "early")
        await pause()
        assert heard.data == []
        await bus.start()
        await bus.settle()
        assert heard.data == ["early"]
        await bus.stop()

    @needs("lifecycle")
    async def test_stop_delivers_what_waits(self, harness: EventBusHarness) -> None:
        bus, heard = await started(harness)
        for number in range(50):
            bus.publish("topic", number)
        await bus.stop()
        assert heard.data == [*range(50)]

    @needs("lifecycle")
    async def test_nothing_is_delivered_after_the_stop(self, harness: EventBusHarness) -> None:
        bus, heard = await started(harness)
        await bus.stop()
        bus.publish("topic", "late")
        await pause()
        assert heard.data == []

    @needs("lifecycle")
    async def test_bus_can_be_started_again(self, harness: EventBusHarness) -> None:
        bus, heard = await started(harness)
        await bus.stop()
        await bus.start()
        bus.publish("topic", "again")
        await bus.settle()
        assert heard.data == ["again"]
        await bus.stop()

    @needs("lifecycle")
    async def test_starting_and_stopping_twice_changes_nothing(self, harness: EventBusHarness) -> None:
        bus, heard = await started(harness)
        await bus.start()
        for number in range(10):
            bus.publish("topic", number)
        await bus.settle()
        assert heard.data == [*range(10)]
        await bus.stop()
        await bus.stop()

    @needs("lifecycle", "coroutines")
    async def test_stop_waits_for_handlers_under_way(self, harness: EventBusHarness) -> None:
        bus, done = harness.open(), Recorder()

        async def slow(event: Event) -> None:
            await asyncio.sleep(5.0)
            done(event)

        bus.subscribe("topic", slow)
        await bus.start()
        bus.publish("topic", "slow")
        await pause()
        await bus.stop()
        assert done.data == ["slow"]

    # ---- subscriptions -----------------------------------------------------------------------------

    async def test_every_subscriber_of_a_topic_is_told(self, harness: EventBusHarness) -> None:
        bus, first = await started(harness)
        others = [Recorder() for _ in range(3)]
        for other in others:
            bus.subscribe("topic", other)
        bus.publish("topic", "news")
        await bus.settle()
        assert [each.data for each in (first, *others)] == [["news"]] * 4

    async def test_subscriber_of_another_topic_is_not_told(self, harness: EventBusHarness) -> None:
        bus, heard = await started(harness)
        other = Recorder()
        bus.subscribe("other", other)
        bus.publish("other", 1)
        bus.publish("topic", 2)
        await bus.settle()
        assert (heard.data, other.data) == ([2], [1])

    async def test_handler_may_subscribe_to_several_topics(self, harness: EventBusHarness) -> None:
        bus, heard = await started(harness)
        bus.subscribe("other", heard)
        bus.publish("topic", 1)
        bus.publish("other", 2)
        await bus.settle()
        assert [(event.topic, event.data) for event in heard.events] == [("topic", 1), ("other", 2)]

    async def test_event_without_subscribers_is_no_error(self, harness: EventBusHarness) -> None:
        bus, heard = await started(harness)
        bus.publish("nobody", "hello?")
        bus.publish("topic", "next")
        await bus.settle()
        assert heard.data == ["next"]

    async def test_subscriber_is_told_nothing_published_before(self, harness: EventBusHarness) -> None:
        bus, _ = await started(harness)
        bus.publish("topic", "before")
        await bus.settle()
        late = Recorder()
        bus.subscribe("topic", late)
        bus.publish("topic", "after")
        await bus.settle()
        assert late.data == ["after"]

    @needs("unsubscribing")
    async def test_unsubscribed_handler_is_told_no_more_and_others_are(
        self, harness: EventBusHarness
    ) -> None:
        bus, stays = await started(harness)
        goes = Recorder()
        subscription = bus.subscribe("topic", goes)
        bus.publish("topic", 1)
        await bus.settle()
        bus.unsubscribe(subscription)
        bus.publish("topic", 2)
        await bus.settle()
        assert (stays.data, goes.data) == ([1, 2], [1])

    @since(2)
    @needs("unsubscribing")
    async def test_handler_may_unsubscribe_itself_while_it_is_told(self, harness: EventBusHarness) -> None:
        bus, told = harness.open(), Recorder()
        subscriptions: list[object] = []

        def once(event: Event) -> None:
            bus.unsubscribe(subscriptions.pop())
            told(event)

        subscriptions.append(bus.subscribe("topic", once))
        after = Recorder()
        bus.subscribe("topic", after)
        await bus.start()
        for number in (1, 2):
            bus.publish("topic", number)
            await bus.settle()
        assert (told.data, after.data) == ([1], [1, 2])
        await bus.stop()

    # ---- delivery ----------------------------------------------------------------------------------

    async def test_each_event_is_told_once_and_in_order(self, harness: EventBusHarness) -> None:
        bus, heard = await started(harness)
        for number in range(100):
            bus.publish("topic", number)
        await bus.settle()
        assert heard.data == [*range(100)]

    async def test_events_of_many_publishers_all_arrive_in_each_ones_order(
        self, harness: EventBusHarness
    ) -> None:
        bus, heard = await started(harness)

        async def publish(name: int) -> None:
            for number in range(10):
                bus.publish("topic", (name, number))
                await asyncio.sleep(0)

        await asyncio.gather(*(publish(name) for name in range(10)))
        await bus.settle()
        assert len(heard.data) == 100
        for name in range(10):
            assert [number for who, number in heard.data if who == name] == [*range(10)]

    @since(2)
    @needs("lifecycle")
    async def test_a_flood_lets_others_have_their_turn(self, harness: EventBusHarness) -> None:
        bus, heard = harness.open(), Recorder()
        bus.subscribe("topic", heard)
        for number in range(100):
            bus.publish("topic", number)
        await bus.start()
        turns: list[int] = []
        while len(heard.events) < 100:
            turns.append(len(heard.events))
            assert len(turns) < 10_000, "what waits must be told"
            await asyncio.sleep(0)
        assert any(0 < each < 100 for each in turns), "all were told without a pause"
        await bus.stop()

    @since(2)
    async def test_handler_may_publish(self, harness: EventBusHarness) -> None:
        bus, heard = await started(harness)

        def answer(event: Event) -> None:
            # A bus that tells everybody everything must fail, not go on for ever.
            if event.topic == "question":
                bus.publish("topic", f"answer to {event.data}")

        bus.subscribe("question", answer)
        bus.publish("question", "who?")
        await bus.settle()
        await bus.settle()
        assert heard.data == ["answer to who?"]

    # ---- order by priority -------------------------------------------------------------------------

    @needs("priorities", "lifecycle")
    async def test_more_urgent_events_are_told_first(self, harness: EventBusHarness) -> None:
        bus, heard = harness.open(), Recorder()
        bus.subscribe("topic", heard)
        for priority in (Priority.LOW, Priority.CRITICAL, Priority.NORMAL):
            bus.publish("topic", priority, priority)
        await bus.start()
        await bus.settle()
        assert heard.data == [*Priority]
        await bus.stop()

    @needs("priorities", "lifecycle")
    async def test_events_of_one_priority_keep_their_order(self, harness: EventBusHarness) -> None:
        bus, heard = harness.open(), Recorder()
        bus.subscribe("topic", heard)
        for number in range(20):
            bus.publish("topic", number, Priority.LOW if number % 2 else Priority.NORMAL)
        await bus.start()
        await bus.settle()
        assert heard.data == [*range(0, 20, 2), *range(1, 20, 2)]
        await bus.stop()

    # ---- a full bus --------------------------------------------------------------------------------

    @needs("bound", "lifecycle")
    async def test_full_bus_drops_and_the_publisher_does_not_wait(self, harness: EventBusHarness) -> None:
        bus, heard = harness.open(capacity=3), Recorder()
        bus.subscribe("topic", heard)
        for number in range(10):
            bus.publish("topic", number)
        await bus.start()
        await bus.settle()
        assert len(heard.data) == 3
        assert heard.data == sorted({*heard.data}), "what was not dropped is told once and in order"
        bus.publish("topic", "next")
        await bus.settle()
        assert heard.data[3:] == ["next"]
        await bus.stop()

    @needs("bound", "lifecycle", "priorities")
    async def test_least_urgent_events_make_room(self, harness: EventBusHarness) -> None:
        bus, heard = harness.open(capacity=2), Recorder()
        bus.subscribe("topic", heard)
        for priority in (Priority.LOW, Priority.NORMAL, Priority.LOW, Priority.NORMAL, Priority.LOW):
            bus.publish("topic", priority, priority)
        await bus.start()
        await bus.settle()
        assert heard.data == [Priority.NORMAL, Priority.NORMAL]
        await bus.stop()

    @needs("waiting", "lifecycle")
    async def test_publisher_that_may_wait_waits_for_room(self, harness: EventBusHarness) -> None:
        bus, heard = harness.open(capacity=2), Recorder()
        bus.subscribe("topic", heard)
        for number in range(2):
            await bus.publish_when_there_is_room("topic", number)
        third = asyncio.create_task(bus.publish_when_there_is_room("topic", 2))
        await pause()
        assert not third.done(), "it must wait while there is no room"
        await bus.start()
        await third
        await bus.settle()
        assert heard.data == [0, 1, 2]
        await bus.stop()

    # ---- critical events ---------------------------------------------------------------------------

    @needs("critical", "bound", "lifecycle")
    async def test_critical_events_are_never_dropped(self, harness: EventBusHarness) -> None:
        bus, heard = harness.open(capacity=2), Recorder()
        bus.subscribe("topic", heard)
        for number in range(10):
            bus.publish("topic", number, Priority.CRITICAL)
            bus.publish("topic", -1, Priority.LOW)
        await bus.start()
        await bus.settle()
        assert [each for each in heard.data if each >= 0] == [*range(10)]
        await bus.stop()

    @needs("critical", "lifecycle")
    async def test_critical_event_overtakes_what_waits(self, harness: EventBusHarness) -> None:
        bus, heard = harness.open(), Recorder()
        bus.subscribe("topic", heard)
        for number in range(50):
            bus.publish("topic", number)
        bus.publish("topic", "fire", Priority.CRITICAL)
        await bus.start()
        await bus.settle()
        assert heard.data == ["fire", *range(50)]
        await bus.stop()

    # ---- coroutines and concurrency ----------------------------------------------------------------

    @needs("coroutines")
    async def test_coroutine_handler_is_awaited(self, harness: EventBusHarness) -> None:
        bus, plain = await started(harness)
        heard = Recorder()

        async def handle(event: Event) -> None:
            await asyncio.sleep(0.1)
            heard(event)

        bus.subscribe("topic", handle)
        bus.publish("topic", "news")
        await bus.settle()
        assert (plain.data, heard.data) == (["news"], ["news"])

    @needs("coroutines")
    async def test_publisher_does_not_wait_for_slow_handlers(self, harness: EventBusHarness) -> None:
        bus, _ = await started(harness)
        done = Recorder()

        async def slow(event: Event) -> None:
            await asyncio.sleep(60.0)
            done(event)

        bus.subscribe("topic", slow)
        before_s = asyncio.get_running_loop().time()
        bus.publish("topic", "news")
        assert asyncio.get_running_loop().time() == before_s
        assert done.data == []
        await bus.settle()
        assert done.data == ["news"]

    @needs("coroutines", "concurrency")
    async def test_slow_handler_holds_up_no_other_handler(self, harness: EventBusHarness) -> None:
        bus = harness.open()
        times: dict[str, float] = {}
        loop = asyncio.get_running_loop()

        async def slow(event: Event) -> None:
            await asyncio.sleep(60.0)
            times["slow"] = loop.time() - began_s

        async def quick(event: Event) -> None:
            times["quick"] = loop.time() - began_s

        bus.subscribe("topic", slow)
        bus.subscribe("topic", quick)
        await bus.start()
        began_s = loop.time()
        bus.publish("topic", None)
        await bus.settle()
        assert times["quick"] < 1.0
        assert times["slow"] >= 60.0
        await bus.stop()

    @needs("coroutines", "concurrency")
    async def test_events_are_handled_side_by_side(self, harness: EventBusHarness) -> None:
        bus = harness.open()
        under_way = most = 0

        async def slow(event: Event) -> None:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(10.0)
            under_way -= 1

        bus.subscribe("topic", slow)
        await bus.start()
        began_s = asyncio.get_running_loop().time()
        for _ in range(4):
            bus.publish("topic", None)
        await bus.settle()
        assert most == 4
        assert asyncio.get_running_loop().time() - began_s < 20.0
        await bus.stop()

    # ---- handlers that fail ------------------------------------------------------------------------

    @needs("isolation")
    async def test_failing_handler_harms_no_other(self, harness: EventBusHarness) -> None:
        bus, before = await started(harness)
        bus.subscribe("topic", fail)
        after = Recorder()
        bus.subscribe("topic", after)
        bus.publish("topic", "news")
        await bus.settle()
        assert (before.data, after.data) == (["news"], ["news"])

    @needs("isolation")
    async def test_failing_handler_is_told_the_next_event(self, harness: EventBusHarness) -> None:
        bus, told = harness.open(), Recorder()

        def fail_first(event: Event) -> None:
            told(event)
            if len(told.events) == 1:
                raise ZeroDivisionError("on purpose")

        bus.subscribe("topic", fail_first)
        await bus.start()
        for number in (1, 2):
            bus.publish("topic", number)
        await bus.settle()
        assert told.data == [1, 2]
        await bus.stop()

    @needs("isolation", "coroutines")
    async def test_failing_coroutine_harms_no_other(self, harness: EventBusHarness) -> None:
        bus, heard = await started(harness)

        async def fail_later(event: Event) -> None:
            await asyncio.sleep(1.0)
            raise ZeroDivisionError("on purpose")

        bus.subscribe("topic", fail_later)
        for number in (1, 2):
            bus.publish("topic", number)
        await bus.settle()
        assert heard.data == [1, 2]

    # ---- statistics --------------------------------------------------------------------------------

    @needs("statistics")
    async def test_statistics_count_what_was_published_and_delivered(self, harness: EventBusHarness) -> None:
        bus, _ = await started(harness)
        assert bus.statistics() == Statistics(published=0, delivered=0, failed=0)
        bus.subscribe("topic", Recorder())
        for _ in range(3):
            bus.publish("topic", None)
        bus.publish("nobody", None)
        await bus.settle()
        assert bus.statistics() == Statistics(published=4, delivered=6, failed=0)

    @needs("statistics", "isolation")
    async def test_statistics_count_handlers_that_failed(self, harness: EventBusHarness) -> None:
        bus, _ = await started(harness)
        bus.subscribe("topic", fail)
        for _ in range(2):
            bus.publish("topic", None)
        await bus.settle()
        assert bus.statistics() == Statistics(published=2, delivered=2, failed=2)

    @needs("statistics", "coroutines", "isolation")
    async def test_statistics_count_coroutines_when_they_are_done(self, harness: EventBusHarness) -> None:
        bus = harness.open()

        async def handle(event: Event) -> None:
            await asyncio.sleep(10.0)
            if event.data == "bad":
                raise ZeroDivisionError("on purpose")

        bus.subscribe("topic", handle)
        await bus.start()
        for data in ("good", "bad", "good"):
            bus.publish("topic", data)
        await pause()
        assert bus.statistics() == Statistics(published=3, delivered=0, failed=0)
        await bus.settle()
        assert bus.statistics() == Statistics(published=3, delivered=2, failed=1)
        await bus.stop()

    @needs("statistics", "bound", "lifecycle")
    async def test_statistics_count_what_waits_and_what_was_dropped(self, harness: EventBusHarness) -> None:
        bus = harness.open(capacity=3)
        bus.subscribe("topic", Recorder())
        for _ in range(5):
            bus.publish("topic", None)
        assert bus.statistics() == Statistics(published=5, delivered=0, failed=0, dropped=2, queued=3)
        await bus.start()
        await bus.settle()
        assert bus.statistics() == Statistics(published=5, delivered=3, failed=0, dropped=2)
        await bus.stop()


async def started(harness: EventBusHarness) -> tuple[Bus, Recorder]:
    """A bus that delivers, and a subscriber of ``topic``."""
    bus, heard = harness.open(), Recorder()
    bus.subscribe("topic", heard)
    await bus.start()
    return bus, heard


async def pause() -> None:
    """Give whoever could do something every opportunity; costs nothing, for time is virtual."""
    await asyncio.sleep(1.0)  # sleeps: in the virtual time of the contract


def fail(event: Event) -> None:
    raise ZeroDivisionError("on purpose")
