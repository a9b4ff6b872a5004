"""The contract of connection pools, held by asyncpg's with a real PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest

from testkit.contracts.connection_pool import Bounds, ConnectionPoolContract, Statistics
from testkit.contracts.references.connection_pool import PoolManager
from testkit.postgres import PostgresServer
from testkit.wait import wait_until_async


class AsyncpgPool:
    """asyncpg's pool under the contract's names."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool

    async def acquire(self, timeout_s: float | None = None) -> Any:
        return await self.pool.acquire(timeout=timeout_s)

    async def release(self, connection: Any) -> None:
        await self.pool.release(connection)

    async def close(self) -> None:
        await self.pool.close()

    def statistics(self) -> Statistics:
        return Statistics(size=self.pool.get_size(), idle=self.pool.get_idle_size())


class AsyncpgHarness:
    closed = asyncpg.InterfaceError
    short_s = 0.15

    def __init__(self, url: str, admin: asyncpg.Connection[Any], stack: AsyncExitStack) -> None:
        self._url = url
        self._admin = admin
        self._stack = stack
        self._opened: dict[int, asyncpg.Connection[Any]] = {}

    async def open(self, bounds: Bounds) -> AsyncpgPool:
        async def note(connection: Any) -> None:
            self._opened[connection.get_server_pid()] = connection

        pool = await asyncpg.create_pool(
            self._url,
            min_size=bounds.least,
            max_size=bounds.most,
            max_inactive_connection_lifetime=bounds.idle_s or 0,
            max_queries=bounds.uses or 50_000,
            init=note,
        )
        self._stack.callback(pool.terminate)
        return AsyncpgPool(pool)

    def manager(self) -> PoolManager:
        return PoolManager(self.open)

    def identity(self, connection: Any) -> Hashable:
        return int(connection.get_server_pid())

    async def use(self, connection: Any) -> None:
        assert await connection.fetchval("SELECT 1") == 1

    async def break_off(self, connection: Any) -> None:
        pid = connection if isinstance(connection, int) else connection.get_server_pid()
        await self._admin.execute("SELECT pg_terminate_backend($1)", pid)
        await wait_until_async(self._opened[pid].is_closed, reason="the end of the connection to be noticed")

    def opened(self) -> int:
        return len(self._opened)

    async def alive(self) -> int:
        query = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY($1)"
        return int(await self._admin.fetchval(query, [*self._opened]))


class TestAsyncpg(ConnectionPoolContract, level=2):
    """The manager is the reference's, over pools of asyncpg."""

    @pytest.fixture
    async def harness(self, postgres: PostgresServer) -> AsyncIterator[AsyncpgHarness]:
        admin = await asyncpg.connect(postgres.url())
        async with AsyncExitStack() as stack:
            yield AsyncpgHarness(postgres.url(), admin, stack)
        await admin.close()
