"""Two instances of the service do what they are given, once, and never two jobs of an account at a time."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from redis.asyncio import Redis

from examples.jobs.service import JobService
from testkit.valkey import ValkeyServer

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


async def test_lock_lasts_as_long_as_its_job_and_not_longer(clients: list[Redis]) -> None:
    """What `serve` does every few seconds, and when it ends."""
    service = JobService(clients[0], clients, Work())
    lock = service.locks.lock("account", ttl_s=0.3, wait_s=0)
    assert await lock.acquire()
    for _ in range(2):
        # Each time, two thirds of its time are over.
        for client in clients:
            await client.pexpire("lock:account", 100)
        await service.locks.renew()
        assert await clients[0].pttl("lock:account") > 100
    for client in clients:
        await client.delete("lock:account")
    assert await service.locks.clean_up() == ["account"]
    await service.locks.renew()
    assert await service.locks.held() == []
