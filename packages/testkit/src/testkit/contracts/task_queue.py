"""What every task queue must do: have each task done, by one at a time, and lose none.

Producers put tasks in; workers take one, and say that it is done or that it failed. A worker that says
neither within the time that a task may take is given up, and the task is somebody else's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any, Protocol

from testkit.contracts.checking import assert_raises_async
from testkit.contracts.contract import Contract, needs

VISIBILITY_S = 60.0
"""How long a worker has for a task."""
RETRY_DELAY_S = 4.0
"""Before the second attempt; twice as long before each later one."""


class Priority(IntEnum):
    """Lower is more urgent."""

    CRITICAL = 0
    HIGH = 1
    NORMAL = 2
    LOW = 3


class Status(StrEnum):
    WAITING = "waiting"
    ACTIVE = "active"
    DONE = "done"
    FAILED = "failed"
    """For good: there is no attempt left."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is given."""

    id: str
    kind: str
    payload: Any
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Statistics:
    """How many there are now."""

    waiting: int
    """Could be taken."""
    active: int
    scheduled: int
    """Wait for their time."""


class TaskQueue(Protocol):
    """One client of the queue under test."""

    async def enqueue(
        self,
        kind: str,
        payload: Any = None,
        *,
        priority: Priority = Priority.NORMAL,
        key: str | None = None,
        attempts: int = 1,
        delay_s: float = 0.0,
    ) -> str | None:
        """Put a task in and return its id, ``None`` when one with that ``key`` is not over yet.

        ``payload`` is made of what JSON can say, or a ``TypeError``.
        """
        ...

    async def dequeue(self, *, wait_s: float = 0.0) -> Task | None:
        """Take the next task; ``None`` when there is none within ``wait_s``."""
        ...

    async def complete(self, task: Task, result: Any = None) -> None: ...

    async def fail(self, task: Task, error: str) -> None:
        """Give the task up; it is tried again if it has attempts left."""
        ...

    async def recover(self) -> Sequence[str]:
        """Give up tasks whose worker took too long, and say which; then they are as if it had failed."""
        ...

    async def status(self, task_id: str) -> Status | None:
        """``None``: there is no such task."""
        ...

    async def result(self, task_id: str) -> Any:
        """What :meth:`complete` was told."""
        ...

    async def error(self, task_id: str) -> str:
        """What :meth:`fail` was told last."""
        ...

    async def dead_letters(self) -> Sequence[str]:
        """Tasks that failed for good."""
        ...

    async def revive(self, task_id: str) -> None:
        """Try a dead letter again, with one attempt."""
        ...

    async def statistics(self) -> Statistics: ...

    async def purge(self) -> int:
        """Forget all that waits, now or for its time, and say how many; active tasks go on."""
        ...


class TaskQueueHarness(Protocol):
    """What a test must know of an implementation. Begins with an empty queue."""

    def open(self) -> TaskQueue:
        """A client of its own of the one queue. Tasks may take `VISIBILITY_S`."""
        ...

    async def pass_time(self, seconds: float) -> None:
        """Let that time pass for the queue."""
        ...

    async def corrupt(self, task_id: str) -> None:
        """Spoil what is stored of the task."""
        ...


class TaskQueueContract(
    Contract,
    contract="task_queue",
    capabilities={
        "priorities": "the more urgent task is taken first",
        "delays": "a task can wait for its time",
        "keys": "a task can have a key that only one task at a time has",
        "waiting": "a worker can wait for a task",
        "results": "what a task came to is kept",
        "errors": "what a task failed with is kept",
        "dead_letters": "what failed for good is listed and can be tried again",
        "statistics": "tasks are counted",
        "purging": "what waits can be thrown away",
        "corruption": "a task whose data is spoilt is put aside",
    },
):
    """Subclass it, define the fixture ``harness``, and pytest runs it."""

    # ---- putting in and taking ---------------------------------------------------------------------

    async def test_new_queue_is_empty(self, harness: TaskQueueHarness) -> None:
        queue = harness.open()
        assert await queue.dequeue() is None
        assert list(await queue.recover()) == []
        assert await queue.status("nothing") is None

    async def test_task_arrives_as_it_was_put_in(self, harness: TaskQueueHarness) -> None:
        task_id = await harness.open().enqueue("send", {"to": "ä", "n": [1, 2.5, None, True]})
        task = await taken(harness.open())
        assert task == Task(str(task_id), "send", {"to": "ä", "n": [1, 2.5, None, True]}, 1)

    async def test_payloads_are_kept_whole(self, harness: TaskQueueHarness) -> None:
        queue = harness.open()
        payloads: tuple[Any, ...] = (None, "", [], {}, 0, False, "\0\n", "x" * (1 << 20))
        for payload in payloads:
            await queue.enqueue("kind", payload)
            task = await taken(queue)
            assert task.payload == payload
            assert type(task.payload) is type(payload)
            await queue.complete(task)

    async def test_payload_is_what_it_was_when_it_was_put_in(self, harness: TaskQueueHarness) -> None:
        queue, payload = harness.open(), {"n": 1}
        await queue.enqueue("kind", payload)
        payload["n"] = 2
        task = await taken(queue)
        assert task.payload == {"n": 1}

    async def test_payload_that_cannot_be_stored_is_refused_at_once(self, harness: TaskQueueHarness) -> None:
        queue = harness.open()
        await assert_raises_async(TypeError, lambda: queue.enqueue("kind", object()))
        assert await queue.dequeue() is None

    async def test_tasks_are_taken_in_their_order(self, harness: TaskQueueHarness) -> None:
        queue = harness.open()
        ids = [await queue.enqueue("kind", n) for n in range(10)]
        assert len({*ids}) == 10
        assert [(await taken(queue)).payload for _ in range(10)] == [*range(10)]
        assert await queue.dequeue() is None

    async def test_each_task_is_taken_by_one(self, harness: TaskQueueHarness) -> None:
        queues = [harness.open() for _ in range(4)]
        ids = {await queues[0].enqueue("kind") for _ in range(20)}
        found = await asyncio.gather(*(queues[n % 4].dequeue() for n in range(24)))
        tasks = [task.id for task in found if task is not None]
        assert sorted(tasks) == sorted(map(str, ids))

    @needs("priorities")
    async def test_more_urgent_task_is_taken_first(self, harness: TaskQueueHarness) -> None:
        queue = harness.open()
        for priority in (Priority.LOW, Priority.NORMAL, Priority.CRITICAL, Priority.HIGH, Priority.CRITICAL):
            await queue.enqueue(priority.name, priority=priority)
        kinds = [(await taken(queue)).kind for _ in range(5)]
        assert kinds == ["CRITICAL", "CRITICAL", "HIGH", "NORMAL", "LOW"]

    @needs("waiting")
    async def test_worker_that_waits_gets_the_next_task(self, harness: TaskQueueHarness) -> None:
        waiting = asyncio.create_task(harness.open().dequeue(wait_s=20))
        await asyncio.sleep(0)
        task_id = await harness.open().enqueue("kind")
        task = await waiting
        assert task is not None
        assert task.id == task_id

    @needs("waiting")
    async def test_worker_waits_no_longer_than_it_wants(self, harness: TaskQueueHarness) -> None:
        async with asyncio.timeout(20):
            assert await harness.open().dequeue(wait_s=0.02) is None

    @needs("delays")
    async def test_delayed_task_waits_for_its_time(self, harness: TaskQueueHarness) -> None:
        queue = harness.open()
        await queue.enqueue("later", delay_s=100)
        await queue.enqueue("now")
        assert (await taken(queue)).kind == "now"
        await harness.pass_time(98)
        assert await queue.dequeue() is None
        await harness.pass_time(3)
        assert (await taken(queue)).kind == "later"

    @needs("keys")
    async def test_key_is_used_by_one_task_at_a_time(self, harness: TaskQueueHarness) -> None:
        queue = harness.open()
        assert await queue.enqueue("kind", 1, key="k") is not None
        assert await queue.enqueue("kind", 2, key="k") is None
        task = await taken(queue)
        assert await queue.enqueue("kind", 3, key="k") is None
        await queue.complete(task)
        assert await queue.enqueue("kind", 4, key="k") is not None
        assert (await taken(queue)).payload == 4

    # ---- done --------------------------------------------------------------------------------------

    async def test_status_follows_the_task(self, harness: TaskQueueHarness) -> None:
        queue = harness.open()
        task_id = str(await queue.enqueue("kind"))
        seen = [await queue.status(task_id)]
        task = await taken(queue)
        seen.append(await queue.status(task_id))
        await queue.complete(task)
        seen.append(await harness.open().status(task_id))
        assert seen == [Status.WAITING, Status.ACTIVE, Status.DONE]

    async def test_completed_task_is_never_given_again(self, harness: TaskQueueHarness) -> None:
        queue = harness.open()
        await queue.enqueue("kind", attempts=5)
        await queue.complete(await taken(queue))
        await harness.pass_time(10 * VISIBILITY_S)
        assert list(await queue.recover()) == []
        assert await queue.dequeue() is None

    @needs("results")
    async def test_result_is_kept(self, harness: TaskQueueHarness) -> None:
        queue = harness.open()
        task_id = str(await queue.enqueue("kind"))
        await queue.complete(await taken(queue), {"rows": 7})
        assert await harness.open().result(task_id) == {"rows": 7}

    # ---- failed ------------------------------------------------------------------------------------

    async def test_failed_task_is_tried_again(self, harness: TaskQueueHarness) -> None:
        queue = harness.open()
        task_id = await queue.enqueue("kind", {"n": 1}, attempts=2)
        await queue.fail(await taken(queue), "no luck")
        await harness.pass_time(RETRY_DELAY_S + 1)
        assert await taken(queue) == Task(str(task_id), "kind", {"n": 1}, 2)

    async def test_retries_back_off(self, harness: TaskQueueHarness) -> None:
        queue = harness.open()
        await queue.enqueue("kind", attempts=4)
        for delay_s in (RETRY_DELAY_S, 2 * RETRY_DELAY_S, 4 * RETRY_DELAY_S):
            await queue.fail(await taken(queue), "no luck")
            await harness.pass_time(delay_s - 2)
            assert await queue.dequeue() is None
            await harness.pass_time(3)

    async def test_task_without_attempts_left_fails_for_good(self, harness: TaskQueueHarness) -> None:
        queue = harness.open()
        task_id = str(await queue.enqueue("kind", attempts=2))
        await queue.fail(await taken(queue), "first")
        assert await queue.status(task_id) == Status.WAITING
        await harness.pass_time(RETRY_DELAY_S + 1)
        await queue.fail(await taken(queue), "second")
        assert await queue.status(task_id) == Status.FAILED
        await harness.pass_time(10 * VISIBILITY_S)
        assert await queue.dequeue() is None

    @needs("errors")
    async def test_last_error_is_kept(self, harness: TaskQueueHarness) -> None:
        queue = harness.open()
        task_id = str(await queue.enqueue("kind", attempts=2))
        await queue.fail(await taken(queue), "first")
        await harness.pass_time(RETRY_DELAY_S + 1)
        await queue.fail(await taken(queue), "second")
        assert await harness.open().error(task_id) == "second"

    @needs("dead_letters")
    async def test_what_failed_for_good_is_a_dead_letter(self, harness: TaskQueueHarness) -> None:
        queue = harness.open()
        ids = {payload: await queue.enqueue("kind", payload) for payload in ("good", "bad", "waiting")}
        await queue.complete(await taken(queue))
        await queue.fail(await taken(queue), "no luck")
        assert list(await queue.dead_letters()) == [ids["bad"]]

    @needs("dead_letters")
    async def test_dead_letter_can_be_tried_again(self, harness: TaskQueueHarness) -> None:
        queue = harness.open()
        await queue.enqueue("kind", "payload")
        await queue.fail(await taken(queue), "no luck")
        (dead,) = await queue.dead_letters()
        await queue.revive(dead)
        assert list(await queue.dead_letters()) == []
        task = await taken(queue)
        assert (task.id, task.payload) == (dead, "payload")
        await queue.fail(task, "again")
        assert list(await queue.dead_letters()) == [dead]

    # ---- workers that vanish -----------------------------------------------------------------------

    async def test_task_of_a_worker_that_vanished_is_given_to_another(
        self, harness: TaskQueueHarness
    ) -> None:
        queue = harness.open()
        task_id = str(await queue.enqueue("kind", attempts=2))
        await taken(harness.open())
        await harness.pass_time(VISIBILITY_S + 2)
        assert list(await queue.recover()) == [task_id]
        await harness.pass_time(RETRY_DELAY_S + 1)
        task = await taken(queue)
        assert (task.id, task.attempt) == (task_id, 2)

    async def test_task_that_is_worked_on_is_left_to_its_worker(self, harness: TaskQueueHarness) -> None:
        queue = harness.open()
        await queue.enqueue("kind", attempts=2)
        task = await taken(queue)
        await harness.pass_time(VISIBILITY_S / 2)
        assert list(await queue.recover()) == []
        assert await queue.dequeue() is None
        await queue.complete(task)
        assert await queue.status(task.id) == Status.DONE

    async def test_task_that_kills_its_workers_is_given_up(self, harness: TaskQueueHarness) -> None:
        queue = harness.open()
        task_id = str(await queue.enqueue("kind", attempts=2))
        for _ in range(2):
            await taken(queue)
            await harness.pass_time(VISIBILITY_S + 2)
            assert list(await queue.recover()) == [task_id]
            await harness.pass_time(4 * RETRY_DELAY_S)
        assert await queue.dequeue() is None
        assert await queue.status(task_id) == Status.FAILED

    # ---- looking after it --------------------------------------------------------------------------

    @needs("statistics")
    async def test_statistics_count_what_there_is(self, harness: TaskQueueHarness) -> None:
        queue = harness.open()
        assert await queue.statistics() == Statistics(0, 0, 0)
        for _ in range(4):
            await queue.enqueue("kind")
        await queue.complete(await taken(queue))
        await taken(queue)
        assert await queue.statistics() == Statistics(waiting=2, active=1, scheduled=0)

    @needs("statistics", "delays")
    async def test_statistics_tell_what_waits_for_its_time(self, harness: TaskQueueHarness) -> None:
        queue = harness.open()
        await queue.enqueue("kind", delay_s=100)
        assert await queue.statistics() == Statistics(waiting=0, active=0, scheduled=1)

    @needs("purging")
    async def test_purging_throws_away_what_waits(self, harness: TaskQueueHarness) -> None:
        queue = harness.open()
        assert await queue.purge() == 0
        for delay_s in (0, 0, 0, 100):
            await queue.enqueue("kind", delay_s=delay_s)
        task = await taken(queue)
        assert await queue.purge() == 3
        await harness.pass_time(101)
        assert await queue.dequeue() is None
        await queue.complete(task)
        assert await queue.status(task.id) == Status.DONE

    @needs("corruption")
    async def test_spoilt_task_is_put_aside_and_others_go_on(self, harness: TaskQueueHarness) -> None:
        queue = harness.open()
        spoilt = str(await queue.enqueue("kind", "spoilt"))
        await queue.enqueue("kind", "whole")
        await harness.corrupt(spoilt)
        assert (await taken(queue)).payload == "whole"
        assert await queue.dequeue() is None
        assert await queue.status(spoilt) == Status.FAILED


async def taken(queue: TaskQueue) -> Task:
    """The next task, which there must be."""
    task = await queue.dequeue()
    assert task is not None, "there is no task"
    return task
