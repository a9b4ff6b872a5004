"""The contracts of stores and change logs, held by a file and a database that others edit, too."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from edgeproxy.errors import StoreError
from edgeproxy.outbound.change_log_sqlite import LogSettings
from edgeproxy.outbound.postgres_hosts import PostgresSettings
from edgeproxy.outbound.store_postgres import PostgresStore
from edgeproxy.outbound.store_sqlite import SqliteStore
from edgeproxy.ports import Row, RowChange
from testkit.contracts.change_log import ChangeLogContract
from testkit.contracts.row_store import RowStoreContract
from testkit.postgres import PostgresServer

MAX_CHANGES = 20


class SqliteHarness:
    """A file; whoever edits it opens it anew each time, as the ``sqlite3`` shell does."""

    unavailable = StoreError

    def __init__(self, path: Path) -> None:
        self._path = path
        SqliteStore.create(path)

    def open(self) -> SqliteStore:
        return SqliteStore(self._path, LogSettings("ours", "pop-1", MAX_CHANGES, max_age_s=3600.0))

    def change(self, row_id: str, values: Row) -> RowChange:
        return RowChange(row_id, values)

    def put(self, row: Row) -> None:
        names, places = ", ".join(row), ", ".join("?" * len(row))
        self._execute(f"INSERT OR REPLACE INTO backends ({names}) VALUES ({places})", *row.values())

    def erase(self, row_id: str) -> None:
        self._execute("DELETE FROM backends WHERE id = ?", row_id)

    def cut_off(self) -> None:
        self._path.rename(self._path.with_suffix(".away"))

    def restore(self) -> None:
        self._path.with_suffix(".away").rename(self._path)

    def _execute(self, sql: str, *values: object) -> None:
        with closing(sqlite3.connect(self._path)) as connection, connection:
            connection.execute(sql, values)


class PostgresHarness:
    """A database; whoever edits it uses ``psql``."""

    unavailable = StoreError

    def __init__(self, server: PostgresServer, stack: ExitStack) -> None:
        self._server = server
        self._database = server.create_database()
        self._stack = stack
        self.open()

    def open(self) -> PostgresStore:
        settings = PostgresSettings(
            self._server.url(self._database),
            min_connections=1,
            max_connections=5,
            connect_timeout_s=5.0,
            query_timeout_s=10.0,
            # Every change must be told by the database itself.
            reload_s=3600.0,
        )
        store = PostgresStore(settings, author="ours", max_changes=MAX_CHANGES, max_age_s=3600.0)
        self._stack.callback(store.close)
        return store

    def change(self, row_id: str, values: Row) -> RowChange:
        return RowChange(row_id, values)

    def put(self, row: Row) -> None:
        names, values = ", ".join(row), ", ".join(map(_literal, row.values()))
        updates = ", ".join(f"{column} = EXCLUDED.{column}" for column in row)
        self._execute(
            f"INSERT INTO backends ({names}) VALUES ({values}) ON CONFLICT (id) DO UPDATE SET {updates}"
        )

    def erase(self, row_id: str) -> None:
        self._execute(f"DELETE FROM backends WHERE id = {_literal(row_id)}")

    def cut_off(self) -> None:
        self._server.kill()

    def restore(self) -> None:
        self._server.start()

    def _execute(self, sql: str) -> None:
        self._server.execute(sql, self._database)


def _literal(value: object) -> str:
    if isinstance(value, str):
        escaped = value.replace("'", "''")
        return f"'{escaped}'"
    return "NULL" if value is None else str(value)


@pytest.fixture(params=["delete", "wal"])
def sqlite_harness(tmp_path: Path, request: pytest.FixtureRequest) -> SqliteHarness:
    harness = SqliteHarness(tmp_path / "routing.db")
    harness._execute(f"PRAGMA journal_mode = {request.param}")
    return harness


@pytest.fixture
def postgres_harness(postgres: PostgresServer) -> Iterator[PostgresHarness]:
    with ExitStack() as stack:
        yield PostgresHarness(postgres, stack)
        if not postgres.running:
            postgres.start()


class TestSqliteStore(RowStoreContract):
    @pytest.fixture
    def harness(self, sqlite_harness: SqliteHarness) -> SqliteHarness:
        return sqlite_harness


class TestPostgresStore(RowStoreContract):
    @pytest.fixture
    def harness(self, postgres_harness: PostgresHarness) -> PostgresHarness:
        return postgres_harness


class TestSqliteChangeLog(ChangeLogContract):
    @pytest.fixture
    def harness(self, sqlite_harness: SqliteHarness) -> SqliteHarness:
        return sqlite_harness


class TestPostgresChangeLog(ChangeLogContract):
    @pytest.fixture
    def harness(self, postgres_harness: PostgresHarness) -> PostgresHarness:
        return postgres_harness
