"""Our lock over three real servers, held to testkit's contract."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from examples.jobs.locks import Locks
from examples.jobs.redlock import NotAcquiredError, NotHeldError, QuorumLock
from testkit.contracts.distributed_lock import (
    LONG_S,
    TTL_S,
    DistributedLockContract,
    LockInfo,
)
from testkit.valkey import ValkeyServer


class Lock(QuorumLock):
    async def info(self) -> LockInfo | None:
        raise NotImplementedError


class HandedOut:
    """The service's locks, with the words of the contract."""

    def __init__(self, clients: list[Redis]) -> None:
        self._locks = Locks(clients)
        self.held, self.clean_up, self.release_all = (
            self._locks.held,
            self._locks.clean_up,
            self._locks.release_all,
        )

    def lock(self, name: str, *, ttl_s: float = TTL_S) -> QuorumLock:
        return self._locks.lock(name, ttl_s=ttl_s, wait_s=LONG_S)


class ThreeServers:
    not_held = NotHeldError
    not_acquired = NotAcquiredError
    instances = 3

    def __init__(self, servers: list[ValkeyServer], clients: list[Redis]) -> None:
        self._servers = servers
        self._clients = clients

    def lock(self, name: str, *, ttl_s: float = TTL_S, wait_s: float = LONG_S) -> Lock:
        return Lock(self._clients, name, ttl_s=ttl_s, wait_s=wait_s)

    def manager(self) -> HandedOut:
        return HandedOut(self._clients)

    async def pass_time(self, seconds: float) -> None:
        for server in self._servers:
            server.pass_time(seconds)

    async def cut_off(self, instance: int) -> None:
        self._servers[instance].kill()

    async def restore(self, instance: int, *, forgets: bool = False) -> None:
        self._servers[instance].start()
        if forgets:
            self._servers[instance].empty()

    async def votes(self, name: str) -> int:
        return sum(
            server.execute("EXISTS", f"lock:{name}") == "1" for server in self._servers if server.running
        )


class TestQuorumLock(
    DistributedLockContract,
    lacks={"info": "nobody needs to know who holds it"},
):
    @pytest.fixture
    def harness(self, servers: list[ValkeyServer], clients: list[Redis]) -> ThreeServers:
        return ThreeServers(servers, clients)


async def test_server_that_hangs_is_one_vote_less(servers: list[ValkeyServer]) -> None:
    hasty = [Redis.from_url(server.url, socket_timeout=0.2) for server in servers]
    servers[0].pause()
    try:
        async with QuorumLock(hasty, "a", ttl_s=TTL_S, wait_s=LONG_S) as lock:
            assert await lock.is_held()
    finally:
        servers[0].resume()
        for client in hasty:
            await client.aclose()
