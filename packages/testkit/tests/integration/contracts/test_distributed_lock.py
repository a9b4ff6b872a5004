"""The contract of distributed locks, held by redis-py's lock on a real Valkey."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Self

import pytest
from redis.asyncio import Redis
from redis.asyncio.lock import Lock as ValkeyLock
from redis.exceptions import LockError

from testkit.contracts.distributed_lock import (
    LONG_S,
    TTL_S,
    DistributedLockContract,
    LockInfo,
    LockManager,
)
from testkit.valkey import ValkeyServer


class OneLock:
    """redis-py's lock, with the words of the contract."""

    def __init__(self, client: Redis, name: str, ttl_s: float, wait_s: float) -> None:
        if not name or ttl_s <= 0:
            raise ValueError("redis-py leaves this to the server")
        self._client = client
        self._name = name
        self._wait_s = wait_s
        self._lock: Any = ValkeyLock(client, name, timeout=ttl_s, sleep=0.005, thread_local=False)

    async def acquire(self, *, wait_s: float = 0.0) -> bool:
        return bool(await self._lock.acquire(blocking=wait_s > 0, blocking_timeout=wait_s or None))

    async def acquire_with_retries(self, retries: int, *, delay_s: float) -> bool:
        raise NotImplementedError

    async def release(self) -> None:
        await self._lock.release()

    async def extend(self, ttl_s: float) -> None:
        await self._lock.extend(ttl_s, replace_ttl=True)

    async def is_held(self) -> bool:
        return bool(await self._lock.owned())

    async def info(self) -> LockInfo | None:
        owner, left_ms = await self._client.get(self._name), await self._client.pttl(self._name)
        return None if owner is None else LockInfo(str(owner), left_ms / 1000)

    async def __aenter__(self) -> Self:
        if not await self.acquire(wait_s=self._wait_s):
            raise LockError("not to be had")
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.release()


class ValkeyLockHarness:
    not_held: type[Exception] = LockError
    not_acquired: type[Exception] = LockError
    instances = 1

    def __init__(self, server: ValkeyServer, client: Redis) -> None:
        self._server = server
        self._client = client

    def lock(self, name: str, *, ttl_s: float = TTL_S, wait_s: float = LONG_S) -> OneLock:
        return OneLock(self._client, name, ttl_s, wait_s)

    def manager(self) -> LockManager:
        raise NotImplementedError

    async def pass_time(self, seconds: float) -> None:
        self._server.pass_time(seconds)

    async def cut_off(self, instance: int) -> None: ...

    async def restore(self, instance: int, *, forgets: bool = False) -> None: ...

    async def votes(self, name: str) -> int:
        return int(await self._client.exists(name))


class TestValkeyLock(
    DistributedLockContract,
    lacks={
        "cancelling": "redis-py 8.1 goes on as if nothing was when it is cancelled while it reads an answer",
        "retries": "it waits for a length of time, not for a number of attempts",
        "manager": "each lock stands for itself",
        "quorum": "it is on one server",
    },
):
    @pytest.fixture
    async def harness(self, valkey: ValkeyServer) -> AsyncIterator[ValkeyLockHarness]:
        client = Redis.from_url(valkey.url)
        yield ValkeyLockHarness(valkey, client)
        await client.aclose()
