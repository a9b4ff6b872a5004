"""The contract of connection pools, held by psycopg's with a real PostgreSQL: idle, it keeps its least."""

from __future__ import annotations

import select
from collections.abc import AsyncIterator, Hashable
from contextlib import AsyncExitStack, suppress
from typing import Any

import psycopg
import psycopg_pool
import pytest

from testkit.contracts.connection_pool import Bounds, ConnectionPoolContract, Statistics
from testkit.contracts.references.connection_pool import PoolManager
from testkit.postgres import PostgresServer
from testkit.wait import wait_until_async

Connection = psycopg.AsyncConnection[Any]
Pool = psycopg_pool.AsyncConnectionPool[Connection]


class PsycopgPool:
    """psycopg's pool under the contract's names."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    async def acquire(self, timeout_s: float | None = None) -> Connection:
        try:
            return await self.pool.getconn(timeout_s)
        except psycopg_pool.PoolTimeout as error:
            raise TimeoutError from error

    async def release(self, connection: Connection) -> None:
        # It says so when what is given back is not lent, and is as it was.
        with suppress(ValueError):
            await self.pool.putconn(connection)

    async def close(self) -> None:
        await self.pool.close()

    def statistics(self) -> Statistics:
        counted = self.pool.get_stats()
        return Statistics(size=counted["pool_size"], idle=counted["pool_available"])


class PsycopgHarness:
    closed = psycopg_pool.PoolClosed
    short_s = 0.15

    def __init__(self, url: str, admin: Connection, stack: AsyncExitStack) -> None:
        self._url = url
        self._admin = admin
        self._stack = stack
        self._opened: dict[int, Connection] = {}

    async def open(self, bounds: Bounds) -> PsycopgPool:
        async def note(connection: Connection) -> None:
            self._opened[connection.info.backend_pid] = connection

        pool = Pool(
            self._url,
            kwargs={"autocommit": True},
            min_size=bounds.least,
            max_size=bounds.most,
            max_idle=bounds.idle_s or 3_600,
            configure=note,
            check=Pool.check_connection,
            open=False,
        )
        self._stack.push_async_callback(pool.close)
        await pool.open(wait=True)
        return PsycopgPool(pool)

    def manager(self) -> PoolManager:
        return PoolManager(self.open)

    def identity(self, connection: Connection) -> Hashable:
        return connection.info.backend_pid

    async def use(self, connection: Connection) -> None:
        cursor = await connection.execute("SELECT 1")
        assert await cursor.fetchone() == (1,)

    async def break_off(self, connection: Connection | int) -> None:
        pid = connection if isinstance(connection, int) else connection.info.backend_pid
        await self._admin.execute("SELECT pg_terminate_backend(%s)", [pid])
        connection = self._opened[pid]
        # Who has not asked anything since does not know, so the pool asks before it lends.
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLRDHUP)
        await wait_until_async(lambda: bool(poll.poll(0)), reason="the end of the connection to arrive")

    def opened(self) -> int:
        return len(self._opened)

    async def alive(self) -> int:
        query = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s)"
        cursor = await self._admin.execute(query, [[*self._opened]])
        row = await cursor.fetchone()
        assert row is not None
        return int(row[0])


class TestPsycopg(ConnectionPoolContract, level=2, lacks={"recycling": "connections end by age, not by use"}):
    """The manager is the reference's, over pools of psycopg."""

    @pytest.fixture
    async def harness(self, postgres: PostgresServer) -> AsyncIterator[PsycopgHarness]:
        async with (
            await psycopg.AsyncConnection.connect(postgres.url(), autocommit=True) as admin,
            AsyncExitStack() as stack,
        ):
            yield PsycopgHarness(postgres.url(), admin, stack)
