"""A task queue in memory, for one event loop."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from itertools import count
from typing import Any

from testkit.clocks import ManualClock
from testkit.contracts.task_queue import (
    RETRY_DELAY_S,
    VISIBILITY_S,
    Priority,
    Statistics,
    Status,
    Task,
)

_POLL_S = 0.005


@dataclass
class Entry:
    """One task as it is stored."""

    number: int
    kind: str
    stored: str
    priority: Priority
    key: str | None
    attempts_left: int
    not_before_s: float
    status: Status = Status.WAITING
    attempt: int = 0
    until_s: float = 0.0
    result: Any = None
    error: str = ""


class MemoryQueue:
    """All clients share one: what each has is no more than the queue itself."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._numbers = count(1)
        self._entries: dict[str, Entry] = {}

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
        over = (Status.DONE, Status.FAILED)
        if key is not None and any(e.key == key and e.status not in over for e in self._entries.values()):
            return None
        number = next(self._numbers)
        task_id = f"task-{number}"
        stored = json.dumps(payload)
        self._entries[task_id] = Entry(number, kind, stored, priority, key, attempts, self._clock() + delay_s)
        return task_id

    async def dequeue(self, *, wait_s: float = 0.0) -> Task | None:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + wait_s
        while True:
            task = self._take()
            if task is not None or loop.time() >= until_s:
                return task
            await asyncio.sleep(_POLL_S)

    async def complete(self, task: Task, result: Any = None) -> None:
        entry = self._entries[task.id]
        entry.status, entry.result = Status.DONE, result

    async def fail(self, task: Task, error: str) -> None:
        self._give_up(self._entries[task.id], error)

    async def recover(self) -> list[str]:
        stale = [
            task_id
            for task_id, entry in self._entries.items()
            if entry.status is Status.ACTIVE and entry.until_s <= self._clock()
        ]
        for task_id in stale:
            self._give_up(self._entries[task_id], "its worker vanished")
        return stale

    async def status(self, task_id: str) -> Status | None:
        entry = self._entries.get(task_id)
        return None if entry is None else entry.status

    async def result(self, task_id: str) -> Any:
        return self._entries[task_id].result

    async def error(self, task_id: str) -> str:
        return self._entries[task_id].error

    async def dead_letters(self) -> list[str]:
        return [task_id for task_id, entry in self._entries.items() if entry.status is Status.FAILED]

    async def revive(self, task_id: str) -> None:
        entry = self._entries[task_id]
        entry.status, entry.attempts_left = Status.WAITING, 1

    async def statistics(self) -> Statistics:
        waiting = [
            e.not_before_s <= self._clock() for e in self._entries.values() if e.status is Status.WAITING
        ]
        active = sum(e.status is Status.ACTIVE for e in self._entries.values())
        return Statistics(sum(waiting), active, len(waiting) - sum(waiting))

    async def purge(self) -> int:
        waiting = [task_id for task_id, e in self._entries.items() if e.status is Status.WAITING]
        for task_id in waiting:
            del self._entries[task_id]
        return len(waiting)

    def corrupt(self, task_id: str) -> None:
        self._entries[task_id].stored = "{"

    def _take(self) -> Task | None:
        for task_id, entry in sorted(self._entries.items(), key=self._order):
            if entry.status is not Status.WAITING or entry.not_before_s > self._clock():
                continue
            try:
                payload = json.loads(entry.stored)
            except ValueError as error:
                entry.status, entry.error = Status.FAILED, str(error)
                continue
            entry.status = Status.ACTIVE
            entry.attempt += 1
            entry.attempts_left -= 1
            entry.until_s = self._clock() + VISIBILITY_S
            return Task(task_id, entry.kind, payload, entry.attempt)
        return None

    def _order(self, item: tuple[str, Entry]) -> tuple[int, int]:
        return item[1].priority, item[1].number

    def _give_up(self, entry: Entry, error: str) -> None:
        entry.error = error
        if entry.attempts_left <= 0:
            entry.status = Status.FAILED
            return
        entry.status = Status.WAITING
        entry.not_before_s = self._clock() + self._delay_s(entry.attempt)

    def _delay_s(self, attempt: int) -> float:
        return float(RETRY_DELAY_S * 2 ** (attempt - 1))


class MemoryQueueHarness:
    """One queue in memory, or one of a class made from it."""

    def __init__(self, kind: type[MemoryQueue] = MemoryQueue) -> None:
        self._clock = ManualClock()
        self._queue = kind(self._clock)

    def open(self) -> MemoryQueue:
        return self._queue

    async def pass_time(self, seconds: float) -> None:
        self._clock.advance(seconds)

    async def corrupt(self, task_id: str) -> None:
        self._queue.corrupt(task_id)
