"""The contracts of stores, change logs and leases, held by a file and a database that others edit, too."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from edgeproxy.core.replication.clock import Clock
from edgeproxy.errors import StoreError
from edgeproxy.outbound.change_log_sqlite import LogSettings
from edgeproxy.outbound.leases_postgres import PostgresLeases
from edgeproxy.outbound.leases_sqlite import SqliteLeases
from edgeproxy.outbound.postgres_hosts import PostgresSettings
from edgeproxy.outbound.replica_sqlite import ReplicaSettings, SqliteReplica
from edgeproxy.outbound.store_postgres import PostgresStore
from edgeproxy.outbound.store_sqlite import SqliteStore
from edgeproxy.ports import Lease, LeaseWrite, NotWritten, Row, RowChange
from testkit.contracts.change_log import ChangeLogContract
from testkit.contracts.lease_store import LeaseStoreContract
from testkit.contracts.row_store import RowStoreContract
from testkit.postgres import PostgresServer

MAX_CHANGES = 20


class Words:
    """How both stores say it."""

    unavailable = StoreError
    not_written = NotWritten

    def change(self, row_id: str, values: Row) -> RowChange:
        return RowChange(row_id, values)

    def lease(
        self, row_id: str, owner: str, registered_at_s: float, heartbeat_at_s: float, *, expired: bool
    ) -> Lease:
        return Lease(row_id, owner, registered_at_s, heartbeat_at_s, expired)

    def lease_write(self, row_id: str, values: Row | None, lease: Lease | None) -> LeaseWrite:
        return LeaseWrite(row_id, None if values is None else RowChange(row_id, values), lease)


class SqliteHarness(Words):
    """A file; whoever edits it opens it anew each time, as the ``sqlite3`` shell does."""

    def __init__(self, path: Path) -> None:
        self._path = path
        SqliteStore.create(path)

    def open(self) -> SqliteStore:
        return SqliteStore(self._path, LogSettings("ours", "pop-1", MAX_CHANGES, max_age_s=3600.0))

    def open_leases(self) -> SqliteLeases:
        return SqliteLeases(self.open())

    def put(self, row: Row) -> None:
        names, places = ", ".join(row), ", ".join("?" * len(row))
        self._execute(f"INSERT OR REPLACE INTO backends ({names}) VALUES ({places})", *row.values())

    def edit(self, row_id: str, values: Row) -> None:
        assignments = ", ".join(f"{column} = ?" for column in values)
        self._execute(f"UPDATE backends SET {assignments} WHERE id = ?", *values.values(), row_id)

    def erase(self, row_id: str) -> None:
        self._execute("DELETE FROM backends WHERE id = ?", row_id)

    def read_row(self, row_id: str) -> Row | None:
        with closing(sqlite3.connect(self._path)) as connection:
            connection.row_factory = sqlite3.Row
            found = connection.execute("SELECT * FROM backends WHERE id = ?", (row_id,)).fetchone()
        return None if found is None else dict(found)

    def refuse_ports_below(self, port: int) -> None:
        for event in ("INSERT", "UPDATE"):
            self._execute(
                f"CREATE TRIGGER rule_{event} BEFORE {event} ON backends WHEN NEW.port < {port}"
                f" BEGIN SELECT RAISE(ABORT, 'ports below {port} are not ours'); END"
            )

    def cut_off(self) -> None:
        self._path.rename(self._path.with_suffix(".away"))

    def restore(self) -> None:
        self._path.with_suffix(".away").rename(self._path)

    def _execute(self, sql: str, *values: object) -> None:
        with closing(sqlite3.connect(self._path)) as connection, connection:
            connection.execute(sql, values)


class ReplicatedStore(SqliteStore):
    """A store beside a replica, which has made writes of all changes before the log is tended."""

    def __init__(self, path: Path, log: LogSettings) -> None:
        super().__init__(path, log._replace(replicated=True))
        settings = ReplicaSettings(log.node, log.max_changes, log.max_age_s)
        self.replica = SqliteReplica(self, Clock(log.node), settings)

    def tend(self) -> str | None:
        if (obstacle := super().tend()) is None:
            self.replica.capture()
            super().tend()
        return obstacle


class ReplicatedHarness(SqliteHarness):
    """A file that is replicated."""

    def open(self) -> SqliteStore:
        store = ReplicatedStore(self._path, LogSettings("ours", "pop-1", MAX_CHANGES, max_age_s=3600.0))
        store.replica.capture()
        return store


class PostgresHarness(Words):
    """A database; whoever edits it uses ``psql``."""

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

    def open_leases(self) -> PostgresLeases:
        return PostgresLeases(self.open(), "ours")

    def put(self, row: Row) -> None:
        names, values = ", ".join(row), ", ".join(map(_literal, row.values()))
        updates = ", ".join(f"{column} = EXCLUDED.{column}" for column in row)
        self._execute(
            f"INSERT INTO backends ({names}) VALUES ({values}) ON CONFLICT (id) DO UPDATE SET {updates}"
        )

    def edit(self, row_id: str, values: Row) -> None:
        assignments = ", ".join(f"{column} = {_literal(value)}" for column, value in values.items())
        self._execute(f"UPDATE backends SET {assignments} WHERE id = {_literal(row_id)}")

    def erase(self, row_id: str) -> None:
        self._execute(f"DELETE FROM backends WHERE id = {_literal(row_id)}")

    def read_row(self, row_id: str) -> Row | None:
        query = f"SELECT to_jsonb(backends) FROM backends WHERE id = {_literal(row_id)}"
        text = self._server.execute(query, self._database)
        found: Row | None = json.loads(text) if text else None
        return found

    def refuse_ports_below(self, port: int) -> None:
        self._execute(
            "CREATE FUNCTION rule() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"IF NEW.port < {port} THEN RAISE EXCEPTION 'ports below {port} are not ours'; END IF; "
            "RETURN NEW; END $$; "
            "CREATE TRIGGER rule BEFORE INSERT OR UPDATE ON backends FOR EACH ROW EXECUTE FUNCTION rule()"
        )

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


@pytest.fixture(params=["delete", "wal", "replicated"])
def sqlite_harness(tmp_path: Path, request: pytest.FixtureRequest) -> SqliteHarness:
    path = tmp_path / "routing.db"
    if request.param == "replicated":
        return ReplicatedHarness(path)
    harness = SqliteHarness(path)
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


class TestSqliteLeases(LeaseStoreContract):
    @pytest.fixture
    def harness(self, sqlite_harness: SqliteHarness) -> SqliteHarness:
        return sqlite_harness


class TestPostgresLeases(LeaseStoreContract):
    @pytest.fixture
    def harness(self, postgres_harness: PostgresHarness) -> PostgresHarness:
        return postgres_harness
