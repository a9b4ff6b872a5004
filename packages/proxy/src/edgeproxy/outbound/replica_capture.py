"""Making writes of what was done to the table here, by whomever and by whatever means.

The change log has it all, in order, with the numbers of our origin. What it cannot have is what happened
before there was a log that counts: rows of a file that was never replicated, a copy whose last entries belong
to another origin, entries that were dropped while replication was off. There the rows are compared with their
cells. What such a comparison finds has no time of its own; it is stamped as if it was written right after
what it overwrote, or before everything, so that it loses against whatever others wrote later.
"""

# SQL is put together from names that stand here.
# ruff: noqa: S608

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Final

from edgeproxy.core.controlplane.row_text import row_from_text
from edgeproxy.core.replication.clock import Clock
from edgeproxy.core.replication.images import (
    LEASE_COLUMNS,
    NO_LEASE,
    Image,
    after_all,
    differences,
    written_groups,
)
from edgeproxy.core.replication.model import Dot, Group, Stamp, Write
from edgeproxy.core.replication.rows import written
from edgeproxy.outbound.change_log_sqlite import NOW, PEER, position, take_number
from edgeproxy.outbound.leases_sqlite import make_tables
from edgeproxy.outbound.replica_tables import ReplicaTables

_LEASE_TEXT: Final = (
    "'owner=' || quote({0}.owner) || ' registered_at=' || quote({0}.registered_at)"
    " || ' expired=' || quote({0}.expired)"
)
_NO_LEASE_TEXT: Final = "'owner=NULL registered_at=NULL expired=0'"
_OLD, _NEW = _LEASE_TEXT.format("OLD"), _LEASE_TEXT.format("NEW")

_LEASE_TRIGGERS: Final = tuple(
    f"CREATE TRIGGER IF NOT EXISTS edgeproxy_leases_log_{event.lower()} AFTER {event} ON edgeproxy_leases"
    f"{condition} BEGIN INSERT INTO edgeproxy_changes (at, id, old, new) VALUES ({NOW}, {images}); END"
    for event, condition, images in (
        ("INSERT", "", f"NEW.id, {_NO_LEASE_TEXT}, {_NEW}"),
        ("UPDATE", f" WHEN {_OLD} <> {_NEW}", f"NEW.id, {_OLD}, {_NEW}"),
        ("DELETE", "", f"OLD.id, {_OLD}, {_NO_LEASE_TEXT}"),
    )
)
"""A change of owner is a change, a heartbeat is none."""


class Capture:
    """Turns local changes into writes, in one transaction."""

    def __init__(
        self, connection: sqlite3.Connection, tables: ReplicaTables, clock: Clock, node: str, now_ms: int
    ) -> None:
        self._connection = connection
        self._tables = tables
        self._clock = clock
        self._node = node
        self._now_ms = now_ms
        self.writes: list[Write] = []

    def install(self, renew: Callable[[], None], *, is_first: bool) -> None:
        """Add what is missing in the file; ``renew`` begins a new incarnation.

        A file that was never replicated (``is_first``) counts anew, so that every number has a write. One
        that was put in the place of a replicated one has its differences in the log.
        """
        make_tables(self._connection)
        for trigger in _LEASE_TRIGGERS:
            self._connection.execute(trigger)
        if self._tables.exists:
            return
        self._tables.make()
        if is_first:
            renew()
            self._tables.captured = position(self._connection).last_change

    def catch_up(self, renew: Callable[[], None]) -> None:
        """Make writes of all that has happened so far."""
        tables, at = self._tables, position(self._connection)
        is_new = tables.origin != at.origin
        entries = [*self._entries(at.origin)]
        first = tables.known.last(at.origin) + 1
        if [each[2] for each in entries] != [*range(first, at.sequence + 1)]:
            # Some were dropped, or cannot be read: their numbers must not be left without writes.
            renew()
            at, entries, is_new = position(self._connection), [], True
        for row_id, at_ms, sequence, old, new in entries:
            cells = tables.cells(row_id)
            groups = written_groups(old, new, cells) if old is not None or new is not None else {}
            stamp = after_all(self._clock.stamp(min(at_ms, self._now_ms)), cells, groups)
            self._add(Write(Dot(at.origin, sequence), stamp, row_id, groups))
        tables.origin, tables.captured = at.origin, at.last_change
        if is_new:
            self._compare()

    def _entries(self, origin: str) -> Iterator[tuple[str, int, int, Image | None, Image | None]]:
        """Id, time, number and images of each entry that is no write yet, up to the first one amiss."""
        query = (
            "SELECT id, at, sequence, old, new FROM edgeproxy_changes "
            "WHERE change > ? AND origin = ? AND author NOT LIKE ? ORDER BY change"
        )
        for row_id, at, sequence, old, new in self._connection.execute(
            query, (self._tables.captured, origin, f"{PEER}%")
        ).fetchall():
            try:
                at_ms = int(datetime.fromisoformat(at).timestamp() * 1000)
                images = _image(old), _image(new)
            except (TypeError, ValueError, AttributeError):
                return
            if isinstance(row_id, str):
                yield row_id, at_ms, sequence, *images
            else:
                # An id that is no UTF-8 is nobody's but this file's; its number is used up all the same.
                yield row_id.decode(errors="backslashreplace"), at_ms, sequence, None, None

    def _compare(self) -> None:
        rows, leases = self._rows(), self._leases()
        cells_of = {row.id: row for row in self._tables.rows()}
        for row_id in sorted({*rows, *cells_of}):
            known = cells_of.get(row_id)
            if known is not None and known.refused is not None:
                continue
            cells = {} if known is None else known.cells
            missing, differing = differences(rows.get(row_id), leases.get(row_id, NO_LEASE), cells)
            # Later beginnings win against earlier ones, and all else wins against any.
            self._add_found(row_id, Stamp(0, self._now_ms, self._node), missing)
            before = Stamp(0, 0, self._node)
            self._add_found(row_id, after_all(before, cells, differing), differing)

    def reissue(self, origin: str) -> None:
        """Write anew what was written under an origin whose numbers are in use elsewhere."""
        for row in self._tables.rows():
            groups = {group: cell.values for group, cell in row.cells.items() if cell.dot.origin == origin}
            stamp = after_all(Stamp(0, 0, self._node), row.cells, groups)
            self._add_found(row.id, stamp, groups)

    def _add_found(self, row_id: str, stamp: Stamp, groups: Mapping[Group, Image]) -> None:
        if groups:
            dot = Dot(position(self._connection).origin, take_number(self._connection))
            self._add(Write(dot, stamp, row_id, groups))

    def _add(self, write: Write) -> None:
        self._tables.add(write, self._now_ms)
        if write.groups:
            self._clock.saw(write.stamp)
            before = self._tables.row(write.id)
            self._tables.put(write.id, written(before.cells, write), before.refused)
        self.writes.append(write)

    def _rows(self) -> dict[str, Image]:
        query = "SELECT id, image FROM edgeproxy_rows"
        return {
            row_id: image
            for row_id, text in self._connection.execute(query)
            if isinstance(row_id, str) and (image := _image(text)) is not None
        }

    def _leases(self) -> dict[str, Image]:
        query = "SELECT id, owner, registered_at, expired FROM edgeproxy_leases JOIN backends USING (id)"
        return {
            row_id: dict(zip(LEASE_COLUMNS, values, strict=True))
            for row_id, *values in self._connection.execute(query)
        }


def _image(text: str | bytes | None) -> Image | None:
    if text is None:
        return None
    text = text if isinstance(text, str) else text.decode(errors="backslashreplace")
    return row_from_text(text)  # type: ignore[return-value]
