"""Leases in PostgreSQL, written in one transaction with the rows they belong to.

Whoever writes the column ``healthy`` takes it from the lease: a trigger of
:mod:`edgeproxy.outbound.postgres_schema` clears the mark, and the lease's own write sets it after the row.
Heartbeats touch no row, so nobody is notified of them and the change log knows nothing of them.

A batch of requests costs few questions: the rows and leases that it is about are read at once, and leases
that are only renewed are written at once, at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeVar

import asyncpg

from edgeproxy.outbound.postgres_hosts import explained
from edgeproxy.outbound.postgres_session import PostgresTransaction
from edgeproxy.outbound.store_postgres import PostgresStore, Table, is_storable, write_row
from edgeproxy.ports import Lease, LeaseOperation, LeaseWrite, NotWritten, Row

T = TypeVar("T")

_SELECT: Final = (
    "SELECT leases.id, leases.owner, leases.registered_at, leases.heartbeat_at, leases.expired "
    "FROM edgeproxy_leases AS leases"
)
_UPSERT: Final = (
    "INSERT INTO edgeproxy_leases (id, owner, registered_at, heartbeat_at, expired) "
    "SELECT * FROM unnest($1::text[], $2::text[], $3::float8[], $4::float8[], $5::boolean[]) "
    "ON CONFLICT (id) DO UPDATE SET owner = EXCLUDED.owner, registered_at = EXCLUDED.registered_at, "
    "heartbeat_at = EXCLUDED.heartbeat_at, expired = EXCLUDED.expired"
)

_REFUSALS: Final = (
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.RaiseError,
    asyncpg.DataError,
    # What the driver says of a value that does not fit the type of its column.
    ValueError,
)
"""A constraint, trigger or type of the table's owner refuses one row; the others may pass."""


class PostgresLeases:
    """A :class:`edgeproxy.ports.LeaseStore` in the database of ``store``."""

    def __init__(self, store: PostgresStore, author: str) -> None:
        """What leases change in rows is logged as ``author``'s."""
        self._store = store
        self._author = author

    def leases(self) -> Sequence[Lease]:
        """See :meth:`edgeproxy.ports.LeaseStore.leases`."""
        query = f"{_SELECT} JOIN backends USING (id) WHERE deleted IS NULL OR deleted = 0"
        return [_lease(record) for record in self._store.fetch(query)]

    def apply(
        self, operations: Sequence[tuple[str, LeaseOperation[T]]]
    ) -> Sequence[LeaseWrite | T | NotWritten]:
        """See :meth:`edgeproxy.ports.LeaseStore.apply`."""
        with self._store.transaction(self._author) as transaction:
            batch = _Batch(transaction, [row_id for row_id, _ in operations])
            outcomes = [batch.run(*each) for each in operations]
            batch.write_renewals()
            return outcomes


class _Batch:
    """What operations of one transaction see and write."""

    def __init__(self, transaction: PostgresTransaction, ids: Sequence[str]) -> None:
        self._transaction = transaction
        self._rows = _Rows(Table(transaction), ids)
        query = f"{_SELECT} WHERE id = ANY ($1)"
        found = map(_lease, transaction.fetch(query, [each for each in ids if is_storable(each)]))
        self._leases = {lease.id: lease for lease in found}
        self._renewed: dict[str, Lease] = {}

    def run(self, backend_id: str, operation: LeaseOperation[T]) -> LeaseWrite | T | NotWritten:
        decision = operation(self._rows, self._leases.get(backend_id))
        if not isinstance(decision, LeaseWrite):
            return decision
        if decision.row is None and decision.lease is not None:
            self._renewed[decision.id] = self._leases[decision.id] = decision.lease
            return decision
        self._transaction.execute("SAVEPOINT operation")
        try:
            self._write(decision)
        except _REFUSALS as error:
            self._transaction.execute("ROLLBACK TO operation")
            return NotWritten(explained(error))
        self._transaction.execute("RELEASE operation")
        return decision

    def write_renewals(self) -> None:
        """Write the leases of which the rows stay as they are."""
        if self._renewed:
            _store(self._transaction, list(self._renewed.values()))

    def _write(self, write: LeaseWrite) -> None:
        if write.row is not None:
            write_row(self._transaction, write.row)
        if write.lease is not None:
            _store(self._transaction, [write.lease])
            self._leases[write.id] = write.lease
        else:
            self._transaction.execute("DELETE FROM edgeproxy_leases WHERE id = $1", write.id)
            self._leases.pop(write.id, None)
        self._renewed.pop(write.id, None)
        self._rows.forget(write.id)


class _Rows(Mapping[str, Row]):
    """Every row by its id; those that were asked for in advance cost nothing more."""

    def __init__(self, table: Table, ids: Sequence[str]) -> None:
        self._table = table
        self._known: dict[str, Row | None] = {**dict.fromkeys(ids), **table.of(ids)}

    def forget(self, row_id: str) -> None:
        """Ask for it anew: what was written may not be what the owner's triggers made of it."""
        self._known.pop(row_id, None)

    def __getitem__(self, row_id: str) -> Row:
        if row_id not in self._known:
            return self._table[row_id]
        row = self._known[row_id]
        if row is None:
            raise KeyError(row_id)
        return row

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)


def _store(transaction: PostgresTransaction, leases: Sequence[Lease]) -> None:
    transaction.execute(
        _UPSERT,
        [each.id for each in leases],
        [each.owner for each in leases],
        [each.registered_at_s for each in leases],
        [each.heartbeat_at_s for each in leases],
        [each.expired for each in leases],
    )


def _lease(record: asyncpg.Record) -> Lease:
    return Lease(*record.values())
