"""The job service: saq hands out jobs, one at a time for each account; all instances see how far they are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis.asyncio import Redis
from saq import Worker
from saq.queue.redis import RedisQueue

from examples.jobs.locks import Locks
from examples.jobs.state import Namespaces

LOCK_TTL_S = 30.0
LOCK_WAIT_S = 20.0
RENEWAL_S = LOCK_TTL_S / 3
CONCURRENCY = 4

_log = logging.getLogger(__name__)

Task = Callable[[Any], Awaitable[Any]]


class JobService:
    """One instance. ``task`` does the work of a job.

    ``lock_clients`` are of the servers on which accounts are locked; ``client`` is of the one with the queue.
    """

    def __init__(self, client: Redis, lock_clients: Sequence[Redis], task: Task) -> None:
        self.state = Namespaces(client)
        self.progress = self.state.namespace("progress")
        self.locks = Locks(lock_clients)
        self._queue = RedisQueue(client, name="jobs")
        self._task = task

    async def submit(self, account: str, payload: Any, *, attempts: int = 3) -> str:
        """Have it done; returns the job's id."""
        job = await self._queue.enqueue("run", account=account, payload=payload, retries=attempts)
        assert job is not None, "ids are our own"
        return str(job.key)

    async def work(self) -> None:
        """Do all jobs that wait, and those that others put in meanwhile, until there are none.

        Tasks must bear to be done twice: a job whose worker vanished is given to another, and when saq sweeps
        it takes one for such that was taken from the queue and has not been marked as begun.
        """
        # Before any worker of this instance takes a job; those that begin in the next minute need not sweep.
        await self._queue.sweep()
        while await self._queue.count("incomplete"):
            # It ends when one of its takers found nothing, whatever the others are about.
            worker: Worker[Any] = Worker(
                self._queue, [("run", self._run)], concurrency=CONCURRENCY, burst=True, dequeue_timeout=0.05
            )
            await worker.start()

    async def serve(self, began: Callable[[], None]) -> None:
        """Do jobs until SIGTERM or SIGINT; say so when it begins to. Tasks must bear what :meth:`work` says.

        Jobs under way at the end are left to others, who need not wait for their locks.
        """
        await self._queue.sweep()
        worker: Worker[Any] = Worker(self._queue, [("run", self._run)], concurrency=CONCURRENCY)
        tending = asyncio.create_task(self._tend())
        began()
        try:
            await worker.start()
        finally:
            tending.cancel()
            await self.locks.release_all()

    async def _tend(self) -> None:
        """A job may take longer than a lock lasts."""
        while True:
            await asyncio.sleep(RENEWAL_S)
            for account in await self.locks.clean_up():
                _log.error("the lock of %s was lost while a job was at it", account)
            await self.locks.renew()

    async def result(self, job_id: str) -> Any:
        """What the task returned, ``None`` while it has not."""
        job = await self._queue.job(job_id)
        return None if job is None else job.result

    async def failure(self, job_id: str) -> str | None:
        """Why there is no result, and will be none."""
        job = await self._queue.job(job_id)
        return None if job is None or job.status != "failed" else job.error

    async def _run(self, _context: Any, *, account: str, payload: Any) -> Any:
        async with self.locks.lock(account, ttl_s=LOCK_TTL_S, wait_s=LOCK_WAIT_S):
            result = await self._task(payload)
            await self.progress.increment(account)
            return result
