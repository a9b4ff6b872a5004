"""A pool of whatever can be connected to, a manager of pools, and a server in memory to connect to."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Generic, Protocol, TypeVar

from testkit.contracts.connection_pool import Bounds, Pool, Statistics


class Connection(Protocol):
    """What a pool must know of a connection."""

    @property
    def is_closed(self) -> bool: ...

    def close(self) -> None: ...


C = TypeVar("C", bound=Connection)


class PoolClosedError(Exception):
    """The pool lends nothing any more."""


class MemoryPool(Generic[C]):
    """Lends the connection that was given back last; who waits is served in order."""

    def __init__(self, connect: Callable[[], Awaitable[C]], bounds: Bounds) -> None:
        self.check(bounds)
        self._connect = connect
        self._bounds = bounds
        self._idle: list[C] = []
        self._lent: set[C] = set()
        self._uses: dict[C, int] = {}
        self._opening = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timers: dict[C, asyncio.TimerHandle] = {}
        self._is_closed = False

    def check(self, bounds: Bounds) -> None:
        if bounds.most < 1 or bounds.least > bounds.most:
            raise ValueError(f"no pool can have {bounds.least} to {bounds.most} connections")

    async def start(self) -> None:
        """Open the least."""
        while self.size < self._bounds.least:
            self._rest(await self._open())

    @property
    def size(self) -> int:
        return len(self._idle) + len(self._lent) + self._opening

    async def acquire(self, timeout_s: float | None = None) -> C:
        async with asyncio.timeout(timeout_s):
            while True:
                if self._is_closed:
                    raise PoolClosedError
                connection = await self._take()
                if connection is not None:
                    self._lent.add(connection)
                    return connection
                await self._wait()

    async def release(self, connection: C) -> None:
        if connection not in self._lent:
            return
        self._lent.remove(connection)
        self._uses[connection] += 1
        if self.is_worn(connection) or self._is_closed:
            connection.close()
        if not connection.is_closed:
            self._rest(connection)
        self._wake()

    async def close(self) -> None:
        self._is_closed = True
        while self._idle:
            self._close_idle(self._idle[-1])
        while self._waiting:
            self._wake()

    def statistics(self) -> Statistics:
        return Statistics(size=self.size, idle=len(self._idle))

    def is_worn(self, connection: C) -> bool:
        """Whether it has been lent often enough."""
        return self._bounds.uses is not None and self._uses[connection] >= self._bounds.uses

    async def _take(self) -> C | None:
        """An idle connection that works, else a new one; ``None`` when there may be no more."""
        while self._idle:
            connection = self._idle.pop()
            self._stop_timer(connection)
            if not connection.is_closed:
                return connection
        return await self._open() if self.size < self._bounds.most else None

    async def _open(self) -> C:
        self._opening += 1
        try:
            connection = await self._connect()
        finally:
            self._opening -= 1
        self._uses[connection] = 0
        return connection

    async def _wait(self) -> None:
        """Return when it is worth looking again."""
        woken = asyncio.get_running_loop().create_future()
        self._waiting.append(woken)
        try:
            await woken
        except asyncio.CancelledError:
            if woken.done() and not woken.cancelled():
                self._wake()  # somebody else's turn, then
            elif woken in self._waiting:
                self._waiting.remove(woken)
            raise

    def _wake(self) -> None:
        while self._waiting:
            woken = self._waiting.popleft()
            if not woken.done():
                woken.set_result(None)
                return

    def _rest(self, connection: C) -> None:
        self._idle.append(connection)
        if self._bounds.idle_s is not None:
            later = asyncio.get_running_loop().call_later
            self._timers[connection] = later(self._bounds.idle_s, self._close_if_idle, connection)

    def _close_if_idle(self, connection: C) -> None:
        if self.size > self._bounds.least:
            self._close_idle(connection)

    def _close_idle(self, connection: C) -> None:
        self._idle.remove(connection)
        self._stop_timer(connection)
        connection.close()

    def _stop_timer(self, connection: C) -> None:
        if (timer := self._timers.pop(connection, None)) is not None:
            timer.cancel()


class PoolManager:
    """Pools by name, each made by ``open_pool``."""

    def __init__(self, open_pool: Callable[[Bounds], Awaitable[Pool]]) -> None:
        self._open_pool = open_pool
        self._pools: dict[str, Pool] = {}

    async def add(self, name: str, bounds: Bounds) -> Pool:
        if name in self._pools:
            raise ValueError(f"there is a pool {name!r}")
        pool = self._pools[name] = await self._open_pool(bounds)
        return pool

    def pool(self, name: str) -> Pool:
        return self._pools[name]

    async def remove(self, name: str) -> None:
        await self._pools.pop(name).close()

    async def close(self) -> None:
        for name in [*self._pools]:
            await self.remove(name)

    def statistics(self) -> dict[str, Statistics]:
        return {name: pool.statistics() for name, pool in self._pools.items()}


class MemoryConnection:
    """One connection to a :class:`MemoryServer`."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True


class MemoryHarness:
    """Pools of connections to a server in memory, or of a class made from :class:`MemoryPool`."""

    closed = PoolClosedError
    short_s = 0.05

    def __init__(
        self,
        kind: type[MemoryPool[MemoryConnection]] = MemoryPool,
        manager_kind: type[PoolManager] = PoolManager,
    ) -> None:
        self._kind = kind
        self._manager_kind = manager_kind
        self._connections: list[MemoryConnection] = []

    async def open(self, bounds: Bounds) -> MemoryPool[MemoryConnection]:
        pool = self._kind(self._connect, bounds)
        await pool.start()
        return pool

    def manager(self) -> PoolManager:
        return self._manager_kind(self.open)

    def identity(self, connection: MemoryConnection) -> Hashable:
        return connection.number

    async def use(self, connection: MemoryConnection) -> None:
        await asyncio.sleep(0)
        if connection.is_closed:
            raise ConnectionError("closed")

    async def break_off(self, connection: Any) -> None:
        number = connection if isinstance(connection, int) else connection.number
        self._connections[number].close()

    def opened(self) -> int:
        return len(self._connections)

    async def alive(self) -> int:
        return sum(not each.is_closed for each in self._connections)

    async def _connect(self) -> MemoryConnection:
        connection = MemoryConnection(len(self._connections))
        self._connections.append(connection)
        await asyncio.sleep(0)
        return connection
