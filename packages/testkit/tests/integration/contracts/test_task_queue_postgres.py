"""The contract of task queues, held by procrastinate on a real PostgreSQL.

It has what a list on Valkey has not: priorities, and failed jobs that are listed and can be tried again. That
time has passed is that all that is stored is so much older.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from procrastinate import App, PsycopgConnector
from procrastinate.jobs import Job
from procrastinate.jobs import Status as JobStatus
from procrastinate.retry import BaseRetryStrategy, RetryDecision
from procrastinate.utils import utcnow

from testkit.contracts.task_queue import (
    RETRY_DELAY_S,
    VISIBILITY_S,
    Priority,
    Statistics,
    Status,
    Task,
    TaskQueueContract,
)
from testkit.postgres import PostgresServer

STATUS = {
    JobStatus.TODO: Status.WAITING,
    JobStatus.DOING: Status.ACTIVE,
    JobStatus.SUCCEEDED: Status.DONE,
    JobStatus.FAILED: Status.FAILED,
}
AGE = """
WITH j AS (UPDATE procrastinate_jobs SET scheduled_at = scheduled_at - %(by)s),
     w AS (UPDATE procrastinate_workers SET last_heartbeat = last_heartbeat - %(by)s)
UPDATE procrastinate_events SET at = at - %(by)s
"""


class Doubling(BaseRetryStrategy):
    """Each job says itself how often it may be tried."""

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        if job.attempts + 1 >= int(str(job.task_kwargs["attempts"])):
            return None
        return RetryDecision(retry_in={"seconds": int(RETRY_DELAY_S) * 2**job.attempts})


class ProcrastinateQueue:
    """procrastinate's jobs, and of its worker what takes a job and says how it went."""

    def __init__(self, app: App) -> None:
        self._jobs = app.job_manager
        self._worker_id: int | None = None

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
            id=None,
            queue="default",
            priority=-priority,
            lock=None,
            queueing_lock=key,
            task_name=kind,
            # As text: what PostgreSQL keeps as JSON has no NUL in it.
            task_kwargs={"payload": json.dumps(payload), "attempts": attempts},
            scheduled_at=utcnow() + timedelta(seconds=delay_s) if delay_s else None,
        )
        return str((await self._jobs.defer_job_async(job)).id)

    async def dequeue(self, *, wait_s: float = 0.0) -> Task | None:
        if self._worker_id is None:
            self._worker_id = await self._jobs.register_worker()
        await self._jobs.update_heartbeat(self._worker_id)
        job = await self._jobs.fetch_job(None, self._worker_id)
        if job is None:
            return None
        return Task(str(job.id), job.task_name, json.loads(str(job.task_kwargs["payload"])), job.attempts + 1)

    async def complete(self, task: Task, result: Any = None) -> None:
        await self._jobs.finish_job(await self._job(task.id), JobStatus.SUCCEEDED, delete_job=False)

    async def fail(self, task: Task, error: str) -> None:
        await self._give_up(await self._job(task.id), RuntimeError(error))

    async def recover(self) -> Sequence[str]:
        stalled = list(await self._jobs.get_stalled_jobs(seconds_since_heartbeat=VISIBILITY_S))
        for job in stalled:
            await self._give_up(job, TimeoutError("its worker vanished"))
        return [str(job.id) for job in stalled]

    async def status(self, task_id: str) -> Status | None:
        found = list(await self._jobs.list_jobs_async(id=int(task_id))) if task_id.isdecimal() else []
        return STATUS[JobStatus(found[0].status)] if found else None

    async def result(self, task_id: str) -> Any:
        raise NotImplementedError

    async def error(self, task_id: str) -> str:
        raise NotImplementedError

    async def dead_letters(self) -> Sequence[str]:
        return [str(job.id) for job in await self._jobs.list_jobs_async(status="failed")]

    async def revive(self, task_id: str) -> None:
        await self._jobs.retry_job_by_id_async(int(task_id), utcnow())

    async def statistics(self) -> Statistics:
        raise NotImplementedError

    async def purge(self) -> int:
        waiting = list(await self._jobs.list_jobs_async(status="todo"))
        cancelled = [
            await self._jobs.cancel_job_by_id_async(job.id, delete_job=True)
            for job in waiting
            if job.id is not None
        ]
        return sum(cancelled)

    async def _give_up(self, job: Job, why: Exception) -> None:
        decision = Doubling().get_retry_decision(exception=why, job=job)
        if decision is None:
            await self._jobs.finish_job(job, JobStatus.FAILED, delete_job=False)
        else:
            await self._jobs.retry_job(job, decision.retry_at)

    async def _job(self, task_id: str) -> Job:
        (job,) = await self._jobs.list_jobs_async(id=int(task_id))
        return job


class ProcrastinateHarness:
    def __init__(self, app: App) -> None:
        self._app = app

    def open(self) -> ProcrastinateQueue:
        return ProcrastinateQueue(self._app)

    async def pass_time(self, seconds: float) -> None:
        await self._app.connector.execute_query_async(AGE, by=timedelta(seconds=seconds))

    async def corrupt(self, task_id: str) -> None:
        raise NotImplementedError


class TestProcrastinate(
    TaskQueueContract,
    lacks={
        "keys": "a second job with the key is refused while the first one waits, not while it is worked on",
        "waiting": "it is the worker that waits, by listening and by asking again",
        "results": "what a job returns is logged, not kept",
        "errors": "what a job raises is logged, not kept",
        "statistics": "jobs that wait for their time are counted with those that wait",
        "corruption": "what cannot be read raises in the worker",
    },
):
    @pytest.fixture
    async def harness(self, postgres: PostgresServer) -> AsyncIterator[ProcrastinateHarness]:
        schema = f"queue_{uuid.uuid4().hex}"
        postgres.execute(f"CREATE SCHEMA {schema}")
        connector = PsycopgConnector(
            conninfo=postgres.url(), kwargs={"options": f"-c search_path={schema}"}, min_size=1, max_size=4
        )
        async with App(connector=connector).open_async() as app:
            await app.schema_manager.apply_schema_async()
            yield ProcrastinateHarness(app)
        postgres.execute(f"DROP SCHEMA {schema} CASCADE")
