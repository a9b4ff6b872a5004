"""The routing table in PostgreSQL, for fleets that share one database.

A trigger notifies at every statement that writes, whoever ran it, so an edit with ``psql`` is seen at once.
A poll asks for the number of the last change, which costs less than a millisecond, and reads the table when
that is another one, when it was notified, and every ``reload_s`` in any case.
"""

# SQL is put together from the columns of the contract, never from what a user typed.
# ruff: noqa: S608

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, TypeVar

import asyncpg

from edgeproxy.outbound.postgres_hosts import PostgresSettings
from edgeproxy.outbound.postgres_schema import AUTHOR, COLUMNS, install
from edgeproxy.outbound.postgres_session import Connection, PostgresSession, PostgresTransaction
from edgeproxy.ports import Change, Operation, Row, RowChange

T = TypeVar("T")

_SELECT: Final = (
    f"SELECT {', '.join(COLUMNS[:-1])} FROM backends WHERE deleted IS NULL OR deleted = 0 ORDER BY id"
)
_TIME: Final = """to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"""


class PostgresStore:
    """A :class:`edgeproxy.ports.RowStore` and :class:`edgeproxy.ports.ChangeLog` in a shared database.

    Methods may be called from any thread, :meth:`poll` and :meth:`tend` from one each.
    """

    def __init__(
        self,
        settings: PostgresSettings,
        *,
        author: str,
        max_changes: int,
        max_age_s: float,
        patience_s: float = 0.0,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """Connect, trying again for ``patience_s``.

        ``on_change`` is called in a thread of the store when a poll is worth its while.

        Raises:
            ConfigError: the URL cannot be used.
            StoreError: the database refuses, or cannot be reached in time.
        """
        self._author = author
        self._max_changes = max_changes
        self._max_age_s = max_age_s
        self._reload_s = settings.reload_s
        self._wake = on_change
        self._notified = threading.Event()
        self._changed_since_tended = True
        self._obstacle: str | None = None
        self._rows: list[Row] | None = None
        self._newest_change: int | None = None
        self._next_read_s = 0.0
        self._session = PostgresSession(settings, self._prepare, self._on_change)
        self._session.open(patience_s)

    def __str__(self) -> str:
        return str(self._session.hosts)

    def close(self) -> None:
        """Disconnect."""
        self._session.close()

    def poll(self) -> Sequence[Row] | None:
        """See :meth:`edgeproxy.ports.RowStore.poll`."""
        # Cleared before the rows are read: what is written meanwhile notifies again.
        notified = self._notified.is_set()  # feature: table.postgres
        self._notified.clear()
        try:
            newest_change = self._ask_newest_change()
            is_due = time.monotonic() >= self._next_read_s
            if not (notified or is_due or newest_change != self._newest_change):
                return None
            rows: list[Row] = [dict(record) for record in self._session.fetch(_SELECT)]
        except BaseException:
            self._notified.set()
            raise
        self._newest_change = newest_change
        self._next_read_s = time.monotonic() + self._reload_s
        if rows == self._rows:
            return None
        self._rows = rows
        # Told or not: if the triggers were dropped with the table, this is the only sign.
        self._changed_since_tended = True
        return rows

    def _ask_newest_change(self) -> int | None:
        if self._obstacle is not None:
            return None
        newest_change: int | None
        ((newest_change,),) = self._session.fetch("SELECT max(change) FROM edgeproxy_changes")
        return newest_change

    def apply(self, operation: Operation[T]) -> RowChange | T:
        """See :meth:`edgeproxy.ports.RowStore.apply`. Waits for a lock at most as long as for a query."""
        with self.transaction() as transaction:
            decision = operation(Table(transaction))
            if isinstance(decision, RowChange):
                write_row(transaction, decision)
            return decision

    def fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """Return the rows of one query.

        Raises:
            StoreError: the database is away or says no.
        """
        return self._session.fetch(query, *arguments)

    @contextmanager
    def transaction(self, author: str | None = None) -> Iterator[PostgresTransaction]:
        """A transaction during which nobody else writes rows; what it writes is logged as ``author``'s.

        Raises:
            StoreError: as for :meth:`apply`.
        """
        with self._session.transaction() as transaction:
            transaction.fetch("SELECT set_config($1, $2, true)", AUTHOR, author or self._author)
            # Others may read on, but whoever writes waits for the end of this transaction.
            transaction.execute("LOCK TABLE backends IN SHARE ROW EXCLUSIVE MODE")
            yield transaction

    def tend(self) -> str | None:
        """See :meth:`edgeproxy.ports.ChangeLog.tend`."""
        if self._changed_since_tended:
            self._changed_since_tended = False
            try:
                self._session.ask(self._prepare)
                if self._obstacle is None:
                    self._session.fetch(
                        "DELETE FROM edgeproxy_changes WHERE at < now() - make_interval(secs => $1) "
                        "OR change <= (SELECT max(change) FROM edgeproxy_changes) - $2",
                        self._max_age_s,
                        self._max_changes,
                    )
            except BaseException:
                self._changed_since_tended = True
                raise
        return self._obstacle

    def changes(self, since: str, limit: int) -> Sequence[Change]:
        """See :meth:`edgeproxy.ports.ChangeLog.changes`."""
        if self._obstacle is not None:
            return []
        records = self._session.fetch(
            f"SELECT change, {_TIME}, author, id, old, new FROM edgeproxy_changes "
            "WHERE at >= $1::text::timestamptz ORDER BY change DESC LIMIT $2",
            since or "-infinity",
            limit,
        )
        return [_change(*record.values()) for record in reversed(records)]

    # ---- in the session's thread -----------------------------------------------------------------

    async def _prepare(self, connection: Connection) -> None:
        """Make what is missing; where the role may not, see whether it may at least read."""
        try:
            await install(connection)
            self._obstacle = None
        except asyncpg.InsufficientPrivilegeError as error:
            self._obstacle = f"the role may not make what it takes: {error}"
            await connection.fetch(f"{_SELECT} LIMIT 0")

    def _on_change(self) -> None:
        self._changed_since_tended = True
        self._notified.set()
        self._wake()


class Table(Mapping[str, Row]):
    """Every row by its id, removed ones included, each read when it is asked for."""

    def __init__(self, transaction: PostgresTransaction) -> None:
        self._transaction = transaction

    def __getitem__(self, row_id: str) -> Row:
        rows = self.of((row_id,))
        if not rows:
            raise KeyError(row_id)
        return rows[row_id]

    def of(self, row_ids: Iterable[str]) -> dict[str, Row]:
        """Those that there are, by one query."""
        # Text that PostgreSQL cannot hold is no row's id, and asking for it would end the transaction.
        asked = [each for each in row_ids if is_storable(each)]
        query = f"SELECT {', '.join(COLUMNS)} FROM backends WHERE id = ANY ($1)"
        rows = map(dict, self._transaction.fetch(query, asked))
        return {row["id"]: {**row, "deleted": row["deleted"] or 0} for row in rows}

    def __iter__(self) -> Iterator[str]:
        for (row_id,) in self._transaction.fetch("SELECT id FROM backends"):
            yield row_id

    def __len__(self) -> int:
        return sum(1 for _ in self)


def is_storable(text: str) -> bool:
    """Whether PostgreSQL can hold ``text``."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def write_row(transaction: PostgresTransaction, change: RowChange) -> None:
    """Write one row, as :class:`edgeproxy.ports.RowChange` says."""
    columns, values = list(change.values), list(change.values.values())
    assignments = ", ".join(f"{column} = ${place}" for place, column in enumerate(columns, 2))
    update = f"UPDATE backends SET {assignments} WHERE id = $1"
    if transaction.execute(update, change.id, *values) == "UPDATE 0":
        names = ", ".join(("id", *columns))
        places = ", ".join(f"${place}" for place in range(1, 2 + len(columns)))
        transaction.execute(f"INSERT INTO backends ({names}) VALUES ({places})", change.id, *values)


def _change(number: int, at: str, author: str, row_id: str, old: str | None, new: str | None) -> Change:
    return Change(number, at, author, None, None, row_id, _image(old), _image(new))


def _image(document: str | None) -> Row | None:
    if document is None:
        return None
    row = json.loads(document)
    return {column: row.get(column) for column in COLUMNS[1:]}
