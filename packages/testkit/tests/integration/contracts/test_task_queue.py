"""The contract of task queues, held by saq on a real Valkey, with its clock in our hands."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import saq.queue.redis
import saq.utils
from redis.asyncio import Redis
from saq import Job
from saq import Status as JobStatus
from saq.queue.redis import RedisQueue

from testkit.clocks import ManualClock
from testkit.contracts.task_queue import (
    RETRY_DELAY_S,
    VISIBILITY_S,
    Priority,
    Statistics,
    Status,
    Task,
    TaskQueueContract,
)
from testkit.valkey import ValkeyServer

STATUS = {
    JobStatus.NEW: Status.WAITING,
    JobStatus.QUEUED: Status.WAITING,
    JobStatus.ACTIVE: Status.ACTIVE,
    JobStatus.COMPLETE: Status.DONE,
    JobStatus.FAILED: Status.FAILED,
    JobStatus.ABORTED: Status.FAILED,
}


class SaqQueue:
    """saq's queue, and of its worker what takes a job and says how it went."""

    def __init__(self, url: str, clock: ManualClock) -> None:
        self.client = Redis.from_url(url)
        self._queue = RedisQueue(self.client)
        self._clock = clock

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
        job = Job(
            kind,
            kwargs={"payload": payload},
            timeout=int(VISIBILITY_S),
            retries=attempts,
            retry_delay=RETRY_DELAY_S,
            retry_backoff=True,
            scheduled=int(self._clock() + delay_s) if delay_s else 0,
        )
        job.key = key or job.key
        enqueued = await self._queue.enqueue(job)
        return None if enqueued is None else enqueued.key

    async def dequeue(self, *, wait_s: float = 0.0) -> Task | None:
        await self.client.delete("saq:default:schedule")
        await self._queue.schedule()
        # For saq and the server 0 means for ever.
        if not wait_s and await self._queue.count("queued") == 0:
            return None
        job = await self._queue.dequeue(wait_s or 0.01)
        if job is None:
            return None
        job.started, job.attempts = saq.utils.now(), job.attempts + 1
        await job.update(status=JobStatus.ACTIVE)
        return Task(job.key, job.function, (job.kwargs or {})["payload"], job.attempts)

    async def complete(self, task: Task, result: Any = None) -> None:
        await (await self._job(task.id)).finish(JobStatus.COMPLETE, result=result)

    async def fail(self, task: Task, error: str) -> None:
        job = await self._job(task.id)
        if job.retryable:
            await job.retry(error)
        else:
            await job.finish(JobStatus.FAILED, error=error)

    async def recover(self) -> Sequence[str]:
        await self.client.delete("saq:default:sweep")
        swept = await self._queue.sweep(abort=0.01)
        return [self._queue.job_key_from_id(job_id) for job_id in swept]

    async def status(self, task_id: str) -> Status | None:
        job = await self._queue.job(task_id)
        return None if job is None else STATUS[job.status]

    async def result(self, task_id: str) -> Any:
        return (await self._job(task_id)).result

    async def error(self, task_id: str) -> str:
        return str((await self._job(task_id)).error)

    async def dead_letters(self) -> Sequence[str]:
        raise NotImplementedError

    async def revive(self, task_id: str) -> None:
        raise NotImplementedError

    async def statistics(self) -> Statistics:
        info = await self._queue.info()
        return Statistics(info["queued"], info["active"], info["scheduled"])

    async def purge(self) -> int:
        raise NotImplementedError

    async def close(self) -> None:
        await self._queue.disconnect()

    async def _job(self, task_id: str) -> Job:
        job = await self._queue.job(task_id)
        assert job is not None
        return job


class SaqHarness:
    def __init__(self, url: str, clock: ManualClock) -> None:
        self._url = url
        self._clock = clock
        self._queues: list[SaqQueue] = []

    def open(self) -> SaqQueue:
        self._queues.append(SaqQueue(self._url, self._clock))
        return self._queues[-1]

    async def pass_time(self, seconds: float) -> None:
        self._clock.advance(seconds)

    async def corrupt(self, task_id: str) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        for queue in self._queues:
            await queue.close()


# saq calls redis-py as older versions of it want it.
@pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")
class TestSaq(
    TaskQueueContract,
    lacks={
        "priorities": "its queue on Valkey is a list; the one on PostgreSQL has them",
        "dead_letters": "failed jobs are kept for a time, and not listed apart",
        "purging": "jobs are aborted one by one",
        "corruption": "what cannot be read raises in the worker",
    },
):
    @pytest.fixture
    async def harness(
        self, valkey: ValkeyServer, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> AsyncIterator[SaqHarness]:
        for module in (saq.utils, saq.queue.redis):
            monkeypatch.setattr(module, "time", SimpleNamespace(time=clock))
        # Without the jitter, delays are what they are at most.
        monkeypatch.setattr(saq.utils, "random", lambda: 1.0)
        harness = SaqHarness(valkey.url, clock)
        yield harness
        await harness.close()
