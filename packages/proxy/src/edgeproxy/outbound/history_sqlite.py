"""The past of ``routing.db``: what its rows were at a time, and making them so again by new changes."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from edgeproxy.core.controlplane.history import (
    HistoryError,
    RowDifference,
    Rows,
    in_sequence,
    row_differences,
    undone,
)
from edgeproxy.errors import StoreError
from edgeproxy.outbound.change_log_reading import (
    find_change_at,
    read_changes_after,
    read_horizon,
    read_logged_rows,
)
from edgeproxy.outbound.sqlite_schema import columns_of
from edgeproxy.outbound.store_sqlite import SqliteStore
from edgeproxy.ports import RowChange


def rows_at(store: SqliteStore, at: str) -> Rows:
    """Return every row as it was at ``at``, a time as in :attr:`edgeproxy.ports.Change.at`.

    Raises:
        StoreError: the log does not go back so far, or has gaps.
    """
    with store.reading() as connection:
        return _rows_at(store, connection, at)


def _rows_at(store: SqliteStore, connection: sqlite3.Connection, at: str) -> Rows:
    horizon = read_horizon(connection, store.path)
    if horizon is None:
        raise StoreError(f"routing database {store} has no change log: `edgeproxy run` begins one")
    if at < horizon:
        raise StoreError(f"the change log of {store} begins at {horizon}; what was at {at} is not known")
    last = find_change_at(connection, at)
    try:
        changes = [*in_sequence(read_changes_after(connection, last), last + 1)]
        return undone(read_logged_rows(connection, store.path), changes)  # feature: recovery.point_in_time
    except HistoryError as error:
        raise StoreError(f"the change log of {store} cannot be followed back to {at}: {error}") from error


def plan(store: SqliteStore, wanted: Rows) -> list[RowDifference]:
    """Return what :func:`restore_rows` would do.

    Raises:
        StoreError: the database cannot be read.
    """
    with store.reading() as connection:
        return row_differences(_current(store, connection), wanted)


def restore_rows(store: SqliteStore, wanted: Rows) -> Sequence[RowDifference]:
    """Make the rows ``wanted``, in one transaction; return what was changed.

    These are changes like any other: they are logged, and replicated to other POPs. Columns of the file's
    owner stay as they are.

    Raises:
        StoreError: that cannot be written; nothing was.
    """
    with store.transaction() as transaction:
        connection = transaction.connection
        differences = row_differences(_current(store, connection), wanted)
        for row_id, old, new in differences:
            if new is None:
                connection.execute("DELETE FROM backends WHERE id = ?", (row_id,))
                continue
            values = new
            if old is not None:
                values = {column: value for column, value in new.items() if old.get(column) != value}
            transaction.write(RowChange(row_id, values))
    return differences


def _current(store: SqliteStore, connection: sqlite3.Connection) -> Rows:
    """The rows as they are, seen by the log or not."""
    columns = (*columns_of(connection, store.path), "deleted")
    names = ", ".join(columns)
    query = f"SELECT id, {names} FROM backends WHERE typeof(id) = 'text'"  # noqa: S608
    return {
        row_id: {column: value for column, value in zip(columns, values, strict=True) if column != "id"}
        for row_id, *values in connection.execute(query)
        if isinstance(row_id, str)
    }
