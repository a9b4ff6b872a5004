"""Two instances of the service do what they are given, once, and never two jobs of an account at a time."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from redis.asyncio import Redis

from examples.jobs import service as service_module
from examples.jobs.service import JobService
from testkit.valkey import ValkeyServer
from testkit.wait import wait_until_async

# saq calls redis-py as older versions of it want it.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")


class Work:
    """Notes which jobs were done, and how many at most at the same time for one account."""

    def __init__(self) -> None:
        self.done: Counter[int] = Counter()
        self.inside: Counter[str] = Counter()
        self.most = 0

    async def __call__(self, payload: Any) -> Any:
        account, number = payload
        self.inside[account] += 1
        self.most = max(self.most, self.inside[account])
        for _ in range(5):
            await asyncio.sleep(0)
        self.inside[account] -= 1
        self.done[number] += 1
        return number * 10


async def test_every_job_is_done_once_and_one_at_a_time(clients: list[Redis]) -> None:
    work = Work()
    services = [JobService(clients[0], clients, work) for _ in range(2)]
    watching = JobService(clients[0], clients, work)
    await watching.progress.start()
    jobs = [await services[0].submit(f"account-{n % 2}", [f"account-{n % 2}", n]) for n in range(8)]
    await asyncio.gather(*(service.work() for service in services))
    assert work.done == Counter(dict.fromkeys(range(8), 1))
    assert work.most == 1
    assert [await watching.result(job) for job in jobs] == [n * 10 for n in range(8)]
    await watching.progress.settle()
    assert [watching.progress.cached(f"account-{n}").value for n in range(2)] == [4, 4]
    await watching.progress.stop()


async def test_minority_of_lock_servers_may_be_down(
    clients: list[Redis], servers: list[ValkeyServer]
) -> None:
    service = JobService(clients[0], clients, Work())
    servers[2].kill()
    job = await service.submit("account", ["account", 7])
    await service.work()
    assert await service.result(job) == 70


async def test_job_that_fails_is_tried_again_and_given_up(clients: list[Redis]) -> None:
    attempts = []

    async def fail(payload: Any) -> Any:
        attempts.append(payload)
        raise ZeroDivisionError("on purpose")

    service = JobService(clients[0], clients, fail)
    job = await service.submit("account", "payload", attempts=3)
    await service.work()
    assert attempts == ["payload"] * 3
    failure = await service.failure(job)
    assert failure is not None
    assert "on purpose" in failure
    assert await service.result(job) is None


async def test_lock_lasts_as_long_as_its_job_and_is_missed_when_it_is_lost(
    clients: list[Redis], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(service_module, "RENEWAL_S", 0.01)
    began, go_on = asyncio.Event(), asyncio.Event()

    async def take_long(payload: Any) -> Any:
        began.set()
        await go_on.wait()
        return payload

    service = JobService(clients[0], clients, take_long)
    serving = asyncio.create_task(service.serve(lambda: None))
    job = await service.submit("account", "payload", attempts=1)
    await began.wait()
    # Most of its time is over.
    for client in clients:
        await client.pexpire("lock:account", 10_000)

    async def lasts_longer() -> bool:
        return min([await client.pttl("lock:account") for client in clients]) > 10_000

    await wait_until_async(lasts_longer, reason="the lock to be renewed")
    assert await service.locks.held() == ["account"]
    for client in clients:
        await client.delete("lock:account")
    await wait_until_async(lambda: "lock of account was lost" in caplog.text, reason="the loss to be noticed")
    go_on.set()
    # Somebody else may have been at it, too: it is no success.
    await wait_until_async(lambda: "NotHeldError" in caplog.text, reason="the job to fail")
    assert await service.result(job) is None
    serving.cancel()
    await asyncio.wait([serving])


async def test_worker_that_ends_gives_back_what_its_jobs_could_not(clients: list[Redis]) -> None:
    service = JobService(clients[0], clients, Work())
    lock = service.locks.lock("account", ttl_s=30, wait_s=0)
    assert await lock.acquire()
    # Cancelled when it has begun, and nothing is sent yet.
    giving_back = asyncio.create_task(lock.release())
    await asyncio.sleep(0)
    giving_back.cancel()
    await asyncio.wait([giving_back])
    assert await service.locks.held() == ["account"]
    began = asyncio.Event()
    serving = asyncio.create_task(service.serve(began.set))
    await began.wait()
    serving.cancel()
    await asyncio.wait([serving])
    assert [await client.exists("lock:account") for client in clients] == [0, 0, 0]
    assert await service.locks.held() == []
