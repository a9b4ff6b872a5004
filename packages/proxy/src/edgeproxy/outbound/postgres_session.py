"""Staying connected to PostgreSQL: a thread of its own, a pool, and one connection that listens.

The driver lives on an event loop. It runs in a thread here, so that those who use the store may block, as
with every other store, and so that a slow database never delays the loop of the control process.

The *listener* is the connection that decides whether the database is there. While it stands, a pool serves
the queries. When it breaks, queries fail at once, and it alone tries again: with pauses that double and are
drawn at random, so that a fleet does not fall upon a database that has just come back.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast

import asyncpg

from edgeproxy.errors import ConfigError, EdgeproxyError, StoreError
from edgeproxy.outbound.postgres_hosts import (
    DRIVER_ERRORS,
    PostgresHosts,
    PostgresSettings,
    RefusedError,
    explained,
)
from edgeproxy.outbound.postgres_schema import CHANNEL

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

T = TypeVar("T")

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0
CLOSING_S: Final = 2.0
"""How long the connections may take to say goodbye."""


Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"


class PostgresSession:
    """A connection to a database that comes and goes. Its methods block and may be called from any thread."""

    def __init__(
        self,
        settings: PostgresSettings,
        prepare: Callable[[Connection], Awaitable[None]],
        on_change: Callable[[], None],
    ) -> None:
        """``prepare`` is done at each reconnection, before anything else.

        ``on_change`` is called in the thread of the session at each notification, and whenever the database
        goes or comes.

        Raises:
            ConfigError: the URL cannot be used.
        """
        self.hosts = PostgresHosts(settings)
        self._settings = settings
        self._prepare = prepare
        self._on_change = on_change
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="postgres", daemon=True)
        self._pool: asyncpg.Pool | None = None
        self._away = f"{self.hosts} is not connected yet"
        self._staying: asyncio.Task[None] | None = None
        self._closing = threading.Lock()
        self._closed = False

    def open(self, patience_s: float) -> None:
        """Connect, trying again for ``patience_s``; from then on the session stays connected by itself.

        Raises:
            ConfigError: the URL cannot be used.
            StoreError: the database refuses, or cannot be reached in time.
        """
        # The pool, too, notices that the database is away, and would print a stack for each attempt.
        logging.getLogger("asyncpg").addHandler(logging.NullHandler())
        self._thread.start()
        try:
            self.run(self._open(patience_s))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Disconnect. Who waits for an answer gets an error instead, and so does who asks later."""
        with self._closing:
            self._closed = True
        self._away = f"{self.hosts} is disconnected"
        asyncio.run_coroutine_threadsafe(self._disconnect(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do ``work`` in the session's thread and return its outcome.

        Raises:
            StoreError: the session is closed.
        """
        with self._closing:
            if self._closed:
                work.close()
                raise StoreError(self._away)
            outcome = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return outcome.result()
        except CancelledError:
            raise StoreError(self._away) from None

    def fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """Return the rows of one query.

        Raises:
            StoreError: the database is away or says no.
        """
        return self.ask(lambda connection: connection.fetch(query, *arguments))

    def ask(self, question: Callable[[Connection], Awaitable[T]]) -> T:
        """Return what ``question``, asked on a connection of the pool, is answered.

        Raises:
            StoreError: the database is away or says no.
        """

        async def answer() -> T:
            async with self._usable_pool().acquire(timeout=self._patience_s()) as connection:
                return await question(connection)

        with self._translated_errors():
            return self.run(answer())

    @contextmanager
    def transaction(self) -> Iterator[PostgresTransaction]:
        """A transaction that is committed when the block ends, unless by an error.

        Raises:
            StoreError: the database is away or says no. Nothing is written, unless the text says that the
                connection was lost during the commit.
        """
        with self._translated_errors():
            pool = self._usable_pool()
            connection = self.run(_awaited(pool.acquire(timeout=self._patience_s())))
            try:
                transaction = PostgresTransaction(self, connection)
                transaction.execute("BEGIN")
                yield transaction
                self._commit(transaction)
            finally:
                # Resetting the connection rolls back what is open.
                with suppress(StoreError, *DRIVER_ERRORS):
                    self.run(_awaited(pool.release(connection)))

    def _commit(self, transaction: PostgresTransaction) -> None:
        try:
            transaction.execute("COMMIT")
        except (OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError) as error:
            raise StoreError(
                f"{self.hosts}: the connection was lost during the commit, which may have succeeded; "
                "`edgeproxy backends list` shows it"
            ) from error

    def _patience_s(self) -> float:
        return self._settings.connect_timeout_s + self._settings.query_timeout_s

    def _usable_pool(self) -> asyncpg.Pool:
        if self._pool is None:
            raise StoreError(self._away)
        return self._pool

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except DRIVER_ERRORS as error:
            # When the listener was lost first, what the driver says is about its own bookkeeping.
            raise StoreError(
                self._away if self._pool is None else f"{self.hosts}: {explained(error)}"
            ) from error

    # ---- in the session's thread -----------------------------------------------------------------

    async def _open(self, patience_s: float) -> None:
        deadline_s = time.monotonic() + patience_s
        try:
            listener = await self._connect_at_last(deadline_s)
        except RefusedError:
            raise
        except StoreError as error:
            raise StoreError(
                f"{error}; gave up after {patience_s:g} s" if patience_s else str(error)
            ) from error
        self._staying = asyncio.create_task(self._stay(listener))

    async def _connect_at_last(self, deadline_s: float | None = None) -> asyncpg.Connection:
        """Try until it succeeds; with a deadline, until then, and not again where that is of no use."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return await self._connect()
            except EdgeproxyError as error:
                is_final = isinstance(error, RefusedError | ConfigError)
                if deadline_s is not None and (is_final or time.monotonic() >= deadline_s):
                    raise
                self._away = str(error)
            await asyncio.sleep(pause_s * random.random())
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _stay(self, listener: asyncpg.Connection) -> None:
        """Serve until the connection breaks, connect again, and so on until cancelled."""
        while True:
            await self._watch(listener)
            pool = self._usable_pool()
            self._pool = None
            pool.terminate()
            self._away = f"{self.hosts}: the connection was lost"
            self._on_change()
            listener = await self._connect_at_last()
            self._on_change()

    async def _watch(self, listener: asyncpg.Connection) -> None:
        """Return when the connection is broken. One that only seems to stand is found out by asking."""
        lost = asyncio.Event()
        listener.add_termination_listener(lambda _: lost.set())
        try:
            while not lost.is_set():
                await listener.execute("SELECT 1")
                with suppress(TimeoutError):
                    await asyncio.wait_for(lost.wait(), self._settings.reload_s)
        except DRIVER_ERRORS:
            return
        finally:
            listener.terminate()

    async def _connect(self) -> asyncpg.Connection:
        """Make the listener and the pool."""
        listener = await self.hosts.connect()
        try:
            await self._prepare(listener)
            await listener.add_listener(CHANNEL, lambda *_: self._on_change())
            self._pool = await asyncpg.create_pool(
                min_size=self._settings.min_connections,
                max_size=self._settings.max_connections,
                connect=cast(Any, self._connect_for_pool),
            )
        except BaseException as error:
            listener.terminate()
            if not isinstance(error, DRIVER_ERRORS):
                raise
            final = isinstance(error, asyncpg.InsufficientPrivilegeError)
            raise (RefusedError if final else StoreError)(f"{self.hosts}: {explained(error)}") from error
        return listener

    async def _connect_for_pool(self, *_: object, **__: object) -> asyncpg.Connection:
        return await self.hosts.connect()

    async def _disconnect(self) -> None:
        pending = asyncio.all_tasks() - {asyncio.current_task()}
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        if self._pool is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._pool.close(), CLOSING_S)
            self._pool.terminate()


async def _awaited(work: Awaitable[T]) -> T:
    return await work


class PostgresTransaction:
    """What can be asked while the transaction is open, from the thread that opened it."""

    def __init__(self, session: PostgresSession, connection: PoolConnectionProxy[asyncpg.Record]) -> None:
        self._session = session
        self._connection = connection

    def execute(self, query: str, *arguments: object) -> str:
        """Return the command tag: ``UPDATE 1``."""
        return self._session.run(self._connection.execute(query, *arguments))

    def fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """Return the rows of one query."""
        return self._session.run(self._connection.fetch(query, *arguments))
