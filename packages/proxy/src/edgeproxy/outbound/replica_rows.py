"""Putting into the table what the cells of a row say, as far as the file's owner lets us."""

from __future__ import annotations

import sqlite3
from typing import Final

from edgeproxy.core.replication.images import Image, lease_of, row_of, same
from edgeproxy.core.replication.model import EXPIRED, Dot, Group
from edgeproxy.core.replication.rows import Cells
from edgeproxy.errors import StoreError
from edgeproxy.outbound.change_log_sqlite import PEER, attribute
from edgeproxy.outbound.leases_sqlite import put
from edgeproxy.outbound.store_sqlite import Transaction
from edgeproxy.ports import Lease, RowChange

_STAYS_OPEN: Final = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT)


def put_row(transaction: Transaction, row_id: str, cells: Cells, peer: str, dot: Dot) -> str | None:
    """Make the row and its lease what ``cells`` say; what that changes is logged as the write ``dot``.

    Returns:
        Why the table does not take the row, which is then as it was; ``None`` when it did.

    Raises:
        StoreError: the whole transaction was lost.
    """
    connection = transaction.connection
    connection.execute("SAVEPOINT row")
    try:
        _put(transaction, row_id, cells)
    except (sqlite3.IntegrityError, sqlite3.OperationalError, OverflowError, UnicodeEncodeError) as error:
        # A constraint or a trigger of the file's owner; a number that SQLite cannot hold. Unless the whole
        # transaction is lost, that is the matter of this row alone.
        if isinstance(error, sqlite3.Error) and error.sqlite_errorcode & 0xFF not in _STAYS_OPEN:
            raise
        if not connection.in_transaction:
            raise StoreError(
                f"a rule of the table backends ends whole transactions at backend {row_id!r} ({error}); "
                "nothing can be replicated until it aborts instead: RAISE(ABORT, …), ON CONFLICT ABORT"
            ) from error
        connection.execute("ROLLBACK TO row")
        return str(error)
    finally:
        if connection.in_transaction:
            connection.execute("RELEASE row")
    attribute(connection, row_id, f"{PEER}{peer}", dot.origin, dot.sequence)
    return None


def _put(transaction: Transaction, row_id: str, cells: Cells) -> None:
    connection = transaction.connection
    wanted, current = row_of(cells), transaction.raw(row_id)
    if wanted is None:
        if current is not None:
            connection.execute("DELETE FROM backends WHERE id = ?", (row_id,))
    else:
        wanted = {
            column: value for column, value in wanted.items() if column in (*transaction.columns, "deleted")
        }
        changed = {
            column: value
            for column, value in wanted.items()
            if current is None or not same({column: value}, current)
        }
        if changed or current is None:
            transaction.write(RowChange(row_id, changed))
    _put_lease(connection, row_id, lease_of(cells), cells)


def _put_lease(connection: sqlite3.Connection, row_id: str, wanted: Image, cells: Cells) -> None:
    query = "SELECT owner, registered_at, expired FROM edgeproxy_leases WHERE id = ?"
    current = connection.execute(query, (row_id,)).fetchone()
    if wanted["owner"] is None:
        if current is not None:
            connection.execute("DELETE FROM edgeproxy_leases WHERE id = ?", (row_id,))
        return
    if current == (wanted["owner"], wanted["registered_at"], wanted[EXPIRED]):
        return
    heard_s = cells[Group.LEASE].stamp.wall_ms / 1000
    registered_s = wanted["registered_at"]
    put(
        connection,
        Lease(
            row_id,
            owner=str(wanted["owner"]),
            registered_at_s=float(registered_s) if isinstance(registered_s, int | float) else heard_s,
            # Its owner hears it; here this is a guess that nothing depends on while the owner lives.
            heartbeat_at_s=heard_s,
            expired=bool(wanted[EXPIRED]),
        ),
    )
