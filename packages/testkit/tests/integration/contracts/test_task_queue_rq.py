"""The contract of task queues, held by rq on a real Valkey.

It puts aside what it cannot read. That time has passed is that all that is stored is so much older.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis import Redis
from rq import Queue, Retry, SimpleWorker
from rq.exceptions import DeserializationError, NoSuchJobError
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.scheduler import RQScheduler
from rq.serializers import JSONSerializer

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
    JobStatus.QUEUED: Status.WAITING,
    JobStatus.SCHEDULED: Status.WAITING,
    JobStatus.STARTED: Status.ACTIVE,
    JobStatus.FINISHED: Status.DONE,
    JobStatus.FAILED: Status.FAILED,
}
AGE = """
for _, key in ipairs(redis.call('KEYS', 'rq:*')) do
    if redis.call('TYPE', key).ok == 'zset' then
        for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do
            redis.call('ZINCRBY', key, -ARGV[1], member)
        end
    end
end
"""


class Worker(SimpleWorker):
    """Whoever takes a task does the work; when it has begun, it is not heard of before it ends."""

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        return int(VISIBILITY_S)


class RqQueue:
    """rq's queues, the most urgent first, and of its worker what takes a job and says how it went."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._queues = [Queue(each.name, client, serializer=JSONSerializer) for each in sorted(Priority)]
        self._worker = Worker(self._queues, connection=client, serializer=JSONSerializer)
        self._scheduler = RQScheduler(self._queues, client, serializer=JSONSerializer)
        self._scheduler.prepare_registries([queue.name for queue in self._queues])
        self._taken: dict[str, tuple[Job, Queue, Execution]] = {}

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
        queue = self._queues[priority]
        delays = [int(RETRY_DELAY_S) * 2**n for n in range(attempts - 1)]
        job = queue.create_job(
            kind,
            args=(payload,),
            timeout=int(VISIBILITY_S),
            retry=Retry(max=len(delays), interval=delays) if delays else None,
        )
        if delay_s:
            queue.schedule_job(job, datetime.now(UTC) + timedelta(seconds=delay_s))
        else:
            queue.enqueue_job(job)
        return job.id

    async def dequeue(self, *, wait_s: float = 0.0) -> Task | None:
        self._scheduler.enqueue_scheduled_jobs()  # type: ignore[no-untyped-call]
        found = Queue.dequeue_any(self._queues, None, self._client, serializer=JSONSerializer)
        if found is None:
            return None
        job, queue = found
        execution = self._worker.prepare_execution(job)
        failed = len(job.retry_intervals or ()) - (job.retries_left or 0)
        try:
            task = Task(job.id, str(job.func_name), job.args[0], 1 + failed)
        except DeserializationError:
            # What becomes of it is the worker's to say, who cannot read it either.
            self._worker.perform_job(job, queue, execution)
            return await self.dequeue()
        self._worker.prepare_job_execution(job)
        job.started_at = datetime.now(UTC)
        self._taken[job.id] = job, queue, execution
        return task

    async def complete(self, task: Task, result: Any = None) -> None:
        job, queue, execution = self._taken.pop(task.id)
        job.ended_at, job._result = datetime.now(UTC), result
        self._worker.handle_job_success(job, queue, queue.started_job_registry, execution)

    async def fail(self, task: Task, error: str) -> None:
        job, queue, execution = self._taken.pop(task.id)
        job.ended_at = datetime.now(UTC)
        self._worker.handle_job_failure(job, queue, exc_string=error, execution=execution)

    async def recover(self) -> Sequence[str]:
        stalled: list[str] = []
        for queue in self._queues:
            stalled += queue.started_job_registry.get_expired_job_ids()
            queue.started_job_registry.cleanup()
        return stalled

    async def status(self, task_id: str) -> Status | None:
        try:
            return STATUS[self._job(task_id).get_status()]
        except NoSuchJobError:
            return None

    async def result(self, task_id: str) -> Any:
        return self._job(task_id).return_value()

    async def error(self, task_id: str) -> str:
        latest = self._job(task_id).latest_result()
        assert latest is not None
        return str(latest.exc_string)

    async def dead_letters(self) -> Sequence[str]:
        return [each for queue in self._queues for each in queue.failed_job_registry.get_job_ids()]

    async def revive(self, task_id: str) -> None:
        queue = next(each for each in self._queues if task_id in each.failed_job_registry)
        queue.failed_job_registry.requeue(task_id)

    async def statistics(self) -> Statistics:
        return Statistics(
            sum(queue.count for queue in self._queues),
            sum(queue.started_job_registry.count for queue in self._queues),
            sum(queue.scheduled_job_registry.count for queue in self._queues),
        )

    async def purge(self) -> int:
        thrown_away = 0
        for queue in self._queues:
            thrown_away += int(queue.empty())  # type: ignore[no-untyped-call]
            for job_id in queue.scheduled_job_registry.get_job_ids():
                queue.scheduled_job_registry.remove(job_id, delete_job=True)
                thrown_away += 1
        return thrown_away

    def _job(self, task_id: str) -> Job:
        return Job.fetch(task_id, self._client, serializer=JSONSerializer)


class RqHarness:
    def __init__(self, server: ValkeyServer, client: Redis) -> None:
        self._server = server
        self._client = client

    def open(self) -> RqQueue:
        return RqQueue(self._client)

    async def pass_time(self, seconds: float) -> None:
        self._client.eval(AGE, 0, str(seconds))
        self._server.pass_time(seconds)

    async def corrupt(self, task_id: str) -> None:
        self._client.hset(f"rq:job:{task_id}", "data", b"\x00 no data")


class TestRq(
    TaskQueueContract,
    lacks={
        "keys": "an id is taken for as long as what came of the job is kept",
        "waiting": "a worker waits for whole seconds",
    },
):
    @pytest.fixture
    def harness(self, valkey: ValkeyServer) -> Iterator[RqHarness]:
        with Redis.from_url(valkey.url) as client:
            yield RqHarness(valkey, client)
