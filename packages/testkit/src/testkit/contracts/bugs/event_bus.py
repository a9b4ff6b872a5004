"""Event buses with a known bug."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from testkit.contracts.event_bus import Event, EventBusContract, Handler, Priority, Statistics
from testkit.contracts.planted import PlantedBugs, Suite
from testkit.contracts.references.event_bus import MemoryBus, MemoryBusHarness

Contract = EventBusContract
BUGS = PlantedBugs(Contract, MemoryBusHarness)


@BUGS.caught_by(Contract.test_every_subscriber_of_a_topic_is_told)
class TellsTheFirstOnly(MemoryBus):
    def _tell(self, event: Event) -> None:
        for topic, handler in self._subscriptions.values():
            if topic == event.topic:
                self._call(handler, event)
                break


@BUGS.caught_by(Contract.test_subscriber_of_another_topic_is_not_told)
class TellsEverybodyEverything(MemoryBus):
    def _tell(self, event: Event) -> None:
        for _, handler in [*self._subscriptions.values()]:
            self._call(handler, event)


@BUGS.caught_by(Contract.test_each_event_is_told_once_and_in_order)
class TellsTheNewestFirst(MemoryBus):
    def publish(self, topic: str, data: Any, priority: Priority = Priority.NORMAL) -> None:
        super().publish(topic, data, priority)
        self._waiting.sort(key=lambda entry: (entry[0], -entry[1]))


@BUGS.caught_by(Contract.test_each_event_is_told_once_and_in_order)
class TellsTwice(MemoryBus):
    def _tell(self, event: Event) -> None:
        super()._tell(event)
        super()._tell(event)


@BUGS.caught_by(Contract.test_empty_data_arrives_as_it_is)
class TakesNothingForNoEvent(MemoryBus):
    def _tell(self, event: Event) -> None:
        if event.data:
            super()._tell(event)


@BUGS.caught_by(Contract.test_handler_may_subscribe_to_several_topics)
class KnowsOneTopicOfAHandler(MemoryBus):
    def subscribe(self, topic: str, handler: Handler) -> int:
        for subscription, (_, known) in [*self._subscriptions.items()]:
            if known is handler:
                self.unsubscribe(subscription)
        return super().subscribe(topic, handler)


@BUGS.caught_by(Contract.test_unsubscribed_handler_is_told_no_more_and_others_are)
class UnsubscribesNobody(MemoryBus):
    def unsubscribe(self, subscription: int) -> None: ...


@BUGS.caught_by(
    Contract.test_unsubscribed_handler_is_told_no_more_and_others_are,
    Contract.test_handler_may_unsubscribe_itself_while_it_is_told,
)
class UnsubscribesEverybody(MemoryBus):
    def unsubscribe(self, subscription: int) -> None:
        self._subscriptions.clear()


@BUGS.caught_by(Contract.test_nothing_is_delivered_before_the_start)
class DeliversBeforeTheStart(MemoryBus):
    def publish(self, topic: str, data: Any, priority: Priority = Priority.NORMAL) -> None:
        if self._running is None:
            self._tell(Event(topic, data, priority))
        else:
            super().publish(topic, data, priority)


@BUGS.caught_by(Contract.test_stop_delivers_what_waits)
class ForgetsWhatWaitsAtTheStop(MemoryBus):
    async def stop(self) -> None:
        self._waiting.clear()
        await super().stop()


@BUGS.caught_by(Contract.test_nothing_is_delivered_after_the_stop)
class NeverStops(MemoryBus):
    async def stop(self) -> None:
        await self.settle()


@BUGS.caught_by(Contract.test_bus_can_be_started_again)
class StartsOnlyOnce(MemoryBus):
    has_run = False

    async def start(self) -> None:
        if not self.has_run:
            await super().start()
        self.has_run = True


@BUGS.caught_by(Contract.test_stop_waits_for_handlers_under_way)
class AbandonsHandlersAtTheStop(MemoryBus):
    async def stop(self) -> None:
        while self._waiting:
            await self._changed.wait()
        if self._running is not None:
            self._running.cancel()
            self._running = None


@BUGS.caught_by(
    Contract.test_more_urgent_events_are_told_first, Contract.test_critical_event_overtakes_what_waits
)
class IgnoresPriorities(MemoryBus):
    def publish(self, topic: str, data: Any, priority: Priority = Priority.NORMAL) -> None:
        super().publish(topic, data, priority)
        self._waiting.sort(key=lambda entry: entry[1])


@BUGS.caught_by(Contract.test_event_keeps_its_priority)
class ForgetsThePriority(MemoryBus):
    def _tell(self, event: Event) -> None:
        super()._tell(Event(event.topic, event.data))


@BUGS.caught_by(Contract.test_full_bus_drops_and_the_publisher_does_not_wait)
class KeepsEverything(MemoryBus):
    def _room(self) -> int:
        return 1


@BUGS.caught_by(Contract.test_least_urgent_events_make_room)
class DropsTheNewestWhateverItIs(MemoryBus):
    def publish(self, topic: str, data: Any, priority: Priority = Priority.NORMAL) -> None:
        if self._room() < 1:
            self._published += 1
            self._dropped += 1
        else:
            super().publish(topic, data, priority)


@BUGS.caught_by(Contract.test_critical_events_are_never_dropped)
class DropsCriticalEvents(MemoryBus):
    def _room(self) -> int:
        return self._capacity - len(self._waiting)


@BUGS.caught_by(Contract.test_publisher_that_may_wait_waits_for_room)
class DropsForWhomMayWait(MemoryBus):
    async def publish_when_there_is_room(self, topic: str, data: Any) -> None:
        self.publish(topic, data)


@BUGS.caught_by(Contract.test_coroutine_handler_is_awaited)
class ForgetsToAwait(MemoryBus):
    def _call(self, handler: Handler, event: Event) -> None:
        outcome = handler(event)
        if asyncio.iscoroutine(outcome):
            outcome.close()
        self._delivered += 1


@BUGS.caught_by(
    Contract.test_slow_handler_holds_up_no_other_handler, Contract.test_events_are_handled_side_by_side
)
class HandlesOneAfterTheOther(MemoryBus):
    turn: asyncio.Lock | None = None

    async def _finish(self, outcome: Awaitable[None]) -> None:
        self.turn = self.turn or asyncio.Lock()
        async with self.turn:
            await super()._finish(outcome)


@BUGS.caught_by(
    Contract.test_failing_handler_harms_no_other, Contract.test_failing_handler_is_told_the_next_event
)
class FailsWithItsHandlers(MemoryBus):
    def _call(self, handler: Handler, event: Event) -> None:
        failed = self._failed
        super()._call(handler, event)
        if self._failed > failed:
            raise RuntimeError("which ends the task that tells")


@BUGS.caught_by(Contract.test_failing_handler_is_told_the_next_event)
class BansHandlersThatFailed(MemoryBus):
    def _call(self, handler: Handler, event: Event) -> None:
        failed = self._failed
        super()._call(handler, event)
        if self._failed > failed:
            self._subscriptions = {
                subscription: each
                for subscription, each in self._subscriptions.items()
                if each[1] is not handler
            }


@BUGS.caught_by(Contract.test_statistics_count_handlers_that_failed)
class CountsFailuresAsDeliveries(MemoryBus):
    def statistics(self) -> Statistics:
        return Statistics(
            self._published, self._delivered + self._failed, 0, self._dropped, queued=len(self._waiting)
        )


@BUGS.caught_by(Contract.test_statistics_count_coroutines_when_they_are_done)
class CountsCoroutinesWhenTheyBegin(MemoryBus):
    async def _finish(self, outcome: Awaitable[None]) -> None:
        self._delivered += 1
        try:
            await outcome
        except ZeroDivisionError:
            self._failed += 1
        asyncio.get_running_loop().call_soon(self._wake)


@BUGS.caught_by(Contract.test_a_flood_lets_others_have_their_turn)
class TellsAllInOneGo(MemoryBus):
    def _tell(self, event: Event) -> None:
        super()._tell(event)
        while self._waiting:
            super()._tell(self._waiting.pop(0)[2])


@BUGS.caught_by(Contract.test_statistics_count_what_waits_and_what_was_dropped)
class CountsNoDrops(MemoryBus):
    def statistics(self) -> Statistics:
        return Statistics(self._published, self._delivered, self._failed, queued=len(self._waiting))


SUITE = Suite(
    Contract, "testkit.contracts.references.event_bus:MemoryBusHarness", BUGS, mutate=(MemoryBus.__name__,)
)
