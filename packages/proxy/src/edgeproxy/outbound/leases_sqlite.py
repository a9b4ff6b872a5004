"""Leases in the routing database, written in one transaction with the rows they belong to.

Who made a row unhealthy, the operator or an expired lease, can be told only by watching the writes of
everybody, the ``sqlite3`` shell included, and even those that leave the value as it is. So a trigger clears
the mark of the lease whenever the column is written; the lease's own write sets the mark after the row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final, TypeVar

from edgeproxy.errors import StoreError
from edgeproxy.outbound.store_sqlite import SqliteStore, Transaction
from edgeproxy.ports import Lease, LeaseOperation, LeaseWrite, NotWritten

T = TypeVar("T")

_SCHEMA: Final = (
    """
    CREATE TABLE IF NOT EXISTS edgeproxy_leases (
        id TEXT PRIMARY KEY,
        owner TEXT NOT NULL,
        registered_at REAL NOT NULL,
        heartbeat_at REAL NOT NULL,
        expired INTEGER NOT NULL
    )
    """,
    """
    CREATE TRIGGER IF NOT EXISTS edgeproxy_leases_update AFTER UPDATE OF healthy ON backends
    BEGIN
        UPDATE edgeproxy_leases SET expired = 0 WHERE id = NEW.id;
    END
    """,
    # INSERT OR REPLACE is no update.
    """
    CREATE TRIGGER IF NOT EXISTS edgeproxy_leases_insert AFTER INSERT ON backends
    BEGIN
        UPDATE edgeproxy_leases SET expired = 0 WHERE id = NEW.id;
    END
    """,
)

_SELECT: Final = "SELECT id, owner, registered_at, heartbeat_at, expired FROM edgeproxy_leases"


class SqliteLeases:
    """A :class:`edgeproxy.ports.LeaseStore` in the file of ``store``; adds its table with the first lease."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    def leases(self) -> Sequence[Lease]:
        """See :meth:`edgeproxy.ports.LeaseStore.leases`."""
        with self._store.reading() as connection:
            if not _has_table(connection):
                return []
            query = f"{_SELECT} JOIN backends USING (id) WHERE deleted IS NULL OR deleted = 0"
            return [_lease(values) for values in connection.execute(query)]

    def apply(
        self, operations: Sequence[tuple[str, LeaseOperation[T]]]
    ) -> Sequence[LeaseWrite | T | NotWritten]:
        """See :meth:`edgeproxy.ports.LeaseStore.apply`."""
        with self._store.transaction() as transaction:
            return [_run(transaction, *each) for each in operations]


def _run(
    transaction: Transaction, backend_id: str, operation: LeaseOperation[T]
) -> LeaseWrite | T | NotWritten:
    connection = transaction.connection
    decision = operation(transaction.rows, _stored(connection, backend_id))
    if not isinstance(decision, LeaseWrite):
        return decision
    connection.execute("SAVEPOINT operation")
    try:
        _write(transaction, decision)
    except (StoreError, sqlite3.IntegrityError) as error:
        # A constraint or trigger of the file's owner refuses the row: that is the matter of this row alone.
        connection.execute("ROLLBACK TO operation")
        return NotWritten(str(error))
    finally:
        connection.execute("RELEASE operation")
    return decision


def _write(transaction: Transaction, write: LeaseWrite) -> None:
    connection = transaction.connection
    if write.row is not None:
        transaction.write(write.row)
    lease = write.lease
    if lease is not None:
        make_tables(connection)
        put(connection, lease)
    elif _has_table(connection):
        connection.execute("DELETE FROM edgeproxy_leases WHERE id = ?", (write.id,))


def make_tables(connection: sqlite3.Connection) -> None:
    """Add what leases need, as far as it is not there."""
    for statement in _SCHEMA:
        connection.execute(statement)


def put(connection: sqlite3.Connection, lease: Lease) -> None:
    """Make this the lease of its row."""
    # Not REPLACE, which would tell triggers neither of the lease that was nor that it was one.
    values = (lease.owner, lease.registered_at_s, lease.heartbeat_at_s, int(lease.expired), lease.id)
    update = (
        "UPDATE edgeproxy_leases SET owner = ?, registered_at = ?, heartbeat_at = ?, expired = ? WHERE id = ?"
    )
    if connection.execute(update, values).rowcount == 0:
        connection.execute(
            "INSERT INTO edgeproxy_leases (owner, registered_at, heartbeat_at, expired, id)"
            " VALUES (?, ?, ?, ?, ?)",
            values,
        )


def _stored(connection: sqlite3.Connection, backend_id: str) -> Lease | None:
    if not _has_table(connection):
        return None
    values = connection.execute(f"{_SELECT} WHERE id = ?", (backend_id,)).fetchone()
    return None if values is None else _lease(values)


def _lease(values: tuple[str, str, float, float, int]) -> Lease:
    backend_id, owner, registered_at_s, heartbeat_at_s, expired = values
    return Lease(backend_id, owner, registered_at_s, heartbeat_at_s, bool(expired))


def _has_table(connection: sqlite3.Connection) -> bool:
    query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'edgeproxy_leases'"
    return connection.execute(query).fetchone() is not None
