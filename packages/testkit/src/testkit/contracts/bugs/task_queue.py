"""Task queues with a known bug."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from testkit.contracts.planted import PlantedBugs, Suite
from testkit.contracts.references.task_queue import Entry, MemoryQueue, MemoryQueueHarness
from testkit.contracts.task_queue import Statistics, Status, Task, TaskQueueContract

Contract = TaskQueueContract
BUGS = PlantedBugs(Contract, MemoryQueueHarness)


@BUGS.caught_by(Contract.test_each_task_is_taken_by_one)
class GivesOneTaskToTwo(MemoryQueue):
    async def dequeue(self, *, wait_s: float = 0.0) -> Task | None:
        task = await super().dequeue(wait_s=wait_s)
        if task is not None and task.attempt == 1:
            self._entries[task.id].status = Status.WAITING
            await asyncio.sleep(0)
            self._entries[task.id].status = Status.ACTIVE
        return task


@BUGS.caught_by(Contract.test_tasks_are_taken_in_their_order)
class TakesTheNewestFirst(MemoryQueue):
    def _order(self, item: tuple[str, Entry]) -> tuple[int, int]:
        return item[1].priority, -item[1].number


@BUGS.caught_by(Contract.test_more_urgent_task_is_taken_first)
class KnowsNoPriorities(MemoryQueue):
    def _order(self, item: tuple[str, Entry]) -> tuple[int, int]:
        return 0, item[1].number


@BUGS.caught_by(Contract.test_payload_is_what_it_was_when_it_was_put_in)
class KeepsThePayloadItself(MemoryQueue):
    async def enqueue(self, kind: str, payload: Any = None, **options: Any) -> str | None:
        task_id = await super().enqueue(kind, payload, **options)
        self._payloads = {**getattr(self, "_payloads", {}), task_id: payload}
        return task_id

    def _take(self) -> Task | None:
        task = super()._take()
        return task and Task(task.id, task.kind, self._payloads[task.id], task.attempt)


@BUGS.caught_by(Contract.test_payload_that_cannot_be_stored_is_refused_at_once)
class StoresWhateverItIsAsText(MemoryQueue):
    async def enqueue(self, kind: str, payload: Any = None, **options: Any) -> str | None:
        return await super().enqueue(kind, json.loads(json.dumps(payload, default=str)), **options)


@BUGS.caught_by(Contract.test_payloads_are_kept_whole)
class CutsLargePayloadsOff(MemoryQueue):
    async def enqueue(self, kind: str, payload: Any = None, **options: Any) -> str | None:
        return await super().enqueue(
            kind, payload[:65_535] if isinstance(payload, str) else payload, **options
        )


@BUGS.caught_by(
    Contract.test_failed_task_is_tried_again, Contract.test_task_of_a_worker_that_vanished_is_given_to_another
)
class NeverTriesAgain(MemoryQueue):
    def _give_up(self, entry: Entry, error: str) -> None:
        entry.attempts_left = 0
        super()._give_up(entry, error)


@BUGS.caught_by(
    Contract.test_task_without_attempts_left_fails_for_good,
    Contract.test_task_that_kills_its_workers_is_given_up,
)
class TriesForEver(MemoryQueue):
    def _give_up(self, entry: Entry, error: str) -> None:
        entry.attempts_left += 1
        super()._give_up(entry, error)


@BUGS.caught_by(Contract.test_task_that_kills_its_workers_is_given_up)
class DoesNotCountWhatVanished(MemoryQueue):
    """A poisonous task goes from worker to worker."""

    async def recover(self) -> list[str]:
        for entry in self._entries.values():
            entry.attempts_left += entry.status is Status.ACTIVE
        return await super().recover()


@BUGS.caught_by(Contract.test_retries_back_off)
class RetriesAtOnce(MemoryQueue):
    def _delay_s(self, attempt: int) -> float:
        return 0.0


@BUGS.caught_by(Contract.test_retries_back_off)
class RetriesAfterTheSameTime(MemoryQueue):
    def _delay_s(self, attempt: int) -> float:
        return super()._delay_s(1)


@BUGS.caught_by(Contract.test_task_of_a_worker_that_vanished_is_given_to_another)
class ForgetsWhatVanished(MemoryQueue):
    async def recover(self) -> list[str]:
        return []


@BUGS.caught_by(Contract.test_task_that_is_worked_on_is_left_to_its_worker)
class RecoversWhatIsWorkedOn(MemoryQueue):
    async def recover(self) -> list[str]:
        for entry in self._entries.values():
            entry.until_s = 0.0
        return await super().recover()


@BUGS.caught_by(Contract.test_completed_task_is_never_given_again)
class RecoversWhatIsDone(MemoryQueue):
    async def recover(self) -> list[str]:
        for entry in self._entries.values():
            if entry.status is Status.DONE:
                entry.status = Status.ACTIVE
        return await super().recover()


@BUGS.caught_by(Contract.test_delayed_task_waits_for_its_time)
class IgnoresDelays(MemoryQueue):
    async def enqueue(self, kind: str, payload: Any = None, **options: Any) -> str | None:
        return await super().enqueue(kind, payload, **{**options, "delay_s": 0.0})


@BUGS.caught_by(Contract.test_key_is_used_by_one_task_at_a_time)
class UsesAKeyForEver(MemoryQueue):
    async def enqueue(self, kind: str, payload: Any = None, **options: Any) -> str | None:
        if options.get("key") in {None, *(entry.key for entry in self._entries.values())} - {None}:
            return None
        return await super().enqueue(kind, payload, **options)


@BUGS.caught_by(Contract.test_purging_throws_away_what_waits)
class PurgesWhatIsWorkedOn(MemoryQueue):
    async def purge(self) -> int:
        purged = await super().purge()
        self._entries.clear()
        return purged


@BUGS.caught_by(Contract.test_last_error_is_kept)
class KeepsTheFirstErrorOnly(MemoryQueue):
    def _give_up(self, entry: Entry, error: str) -> None:
        super()._give_up(entry, entry.error or error)


@BUGS.caught_by(Contract.test_what_failed_for_good_is_a_dead_letter)
class LosesDeadLetters(MemoryQueue):
    async def dead_letters(self) -> list[str]:
        return []


@BUGS.caught_by(Contract.test_spoilt_task_is_put_aside_and_others_go_on)
class StumblesOverSpoiltTasks(MemoryQueue):
    def _take(self) -> Task | None:
        for entry in self._entries.values():
            json.loads(entry.stored)
        return super()._take()


@BUGS.caught_by(Contract.test_statistics_tell_what_waits_for_its_time)
class CountsWhatIsDelayedAsWaiting(MemoryQueue):
    async def statistics(self) -> Statistics:
        told = await super().statistics()
        return Statistics(told.waiting + told.scheduled, told.active, 0)


SUITE = Suite(
    Contract,
    "testkit.contracts.references.task_queue:MemoryQueueHarness",
    BUGS,
    mutate=("MemoryQueue",),
)
