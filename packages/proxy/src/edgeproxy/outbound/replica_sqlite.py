"""The replicated state inside ``routing.db``: what the shell of a replica carries commands out with.

Everything is one transaction of the store: first what was done to the table here becomes writes, then the
command does its work, so a write from elsewhere never meets an edit that nobody knows of. Row, entry of
the change log, cells, replicated log and vector change together or not at all.

The cells decide what is merged; the table follows them. Where the file's owner forbids a row (a constraint, a
trigger), the cells know it all the same, so that others get it from here; it is named, and tried again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

from edgeproxy.core.replication.clock import Clock
from edgeproxy.core.replication.messages import (
    MAX_BYTES,
    MAX_ROWS,
    MAX_WRITES,
    Ranges,
    row_bytes,
    write_bytes,
)
from edgeproxy.core.replication.model import Dot, RowState, Stamp, Write
from edgeproxy.core.replication.rows import Cells, installed, is_garbage, written
from edgeproxy.core.replication.vector import Known, common, lacking
from edgeproxy.errors import StoreError
from edgeproxy.outbound.change_log_sqlite import obstacle, position
from edgeproxy.outbound.replica_capture import Capture
from edgeproxy.outbound.replica_rows import put_row
from edgeproxy.outbound.replica_tables import (
    ReplicaTables,
    has_tables,
    read_fingerprint,
    read_known,
    read_writes,
)
from edgeproxy.outbound.store_sqlite import SqliteStore, Transaction
from edgeproxy.ports import Captured, LogRead, RowsRead

TEND_INTERVAL_S: Final = 5.0
"""Remembering reads all rows, which takes 10 ms when there are 10,000; it need not follow every edit."""
RETRIES: Final = 100
"""Of refused rows, in one transaction."""


class ReplicaSettings(NamedTuple):
    """How a node replicates."""

    node: str
    max_writes: int
    max_age_s: float
    """Older writes are dropped from the log, and so are those beyond ``max_writes``."""


def _wall_ms() -> int:
    return int(time.time() * 1000)


class SqliteReplica:
    """A :class:`edgeproxy.ports.ReplicaStore` in the file of ``store``.

    Its methods block and may be called from any thread. ``keep`` writes down a new high-water mark of
    ``clock`` before a stamp beyond the old one is used, and how far the numbers of which origin have come.
    """

    def __init__(
        self,
        store: SqliteStore,
        clock: Clock,
        settings: ReplicaSettings,
        *,
        keep: Callable[[int, str, int], None] = lambda *_: None,
        wall_ms: Callable[[], int] = _wall_ms,
    ) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._keep = keep
        self._wall_ms = wall_ms
        self._lock = threading.Lock()
        self._seen: object = None
        self._origin: str | None = None
        self._told: str | None = None
        """The origin that the last :meth:`capture` told."""
        self._new: list[Write] = []
        self._has_replicated = False
        self._refused: Mapping[str, str] = {}
        self._tend_from_s = 0.0
        self._retried = ""
        """Up to which id refused rows were tried again last."""

    @property
    def refused(self) -> Mapping[str, str]:
        """Row to why the table does not take it, as of the last transaction."""
        return self._refused

    # ---- what happens here -----------------------------------------------------------------------------

    def capture(self) -> Captured:
        """See :meth:`edgeproxy.ports.ReplicaStore.capture`; a file that did not change is left alone."""
        stamp = self._store.stamp()
        if self._origin is None or stamp != self._seen or not stamp.is_settled:
            with self._writing():
                pass
            if time.monotonic() >= self._tend_from_s:
                # So that the store remembers the rows: if another file takes the place of this one, what it
                # lacks was removed.
                self._store.tend()
                self._tend_from_s = time.monotonic() + TEND_INTERVAL_S
            self._seen = stamp
        assert self._origin is not None
        with self._lock:
            writes, self._new = self._new, []
            is_new, self._told = self._told != self._origin, self._origin
        return Captured(self._origin, tuple(writes), is_new)

    def renew(self, origin: str) -> str:
        """See :meth:`edgeproxy.ports.ReplicaStore.renew`."""
        with self._writing() as work:
            if work.tables.origin == origin:
                self._renew(work)
                work.tables.origin = position(work.connection).origin
                work.tables.forget_origin(origin)
                work.capture.reissue(origin)
        assert self._origin is not None
        return self._origin

    # ---- what happened elsewhere -----------------------------------------------------------------------

    def apply(self, writes: Iterable[Write]) -> int:
        """See :meth:`edgeproxy.ports.ReplicaStore.apply`."""
        count = 0
        with self._writing() as work:
            for write in writes:
                if work.tables.known.has(write.dot):
                    continue
                count += 1
                self._clock.saw(write.stamp)
                work.tables.add(write, work.now_ms)
                before = work.tables.cells(write.id)
                after = written(before, write)
                if after != before:
                    work.put(write.id, after, write.dot)
        return count

    def install(
        self, after: str | None, until: str | None, known: Ranges, rows: Sequence[RowState], *, learn: bool
    ) -> None:
        """See :meth:`edgeproxy.ports.ReplicaStore.install`."""
        theirs = {row.id: row.cells for row in rows}
        they_know = Known(known)
        with self._writing() as work:
            mine = {row.id: row.cells for row in work.tables.rows(*_between(after, until))}
            for row_id in sorted({*mine, *theirs}):
                before = mine.get(row_id, {})
                other = theirs.get(row_id, {})
                now = installed(before, other, work.tables.known.has, they_know.has)
                for cell in other.values():
                    work.tables.known.add(cell.dot)
                if now == before:
                    continue
                for cell in now.values():
                    self._clock.saw(cell.stamp)
                    work.tables.saw(cell.stamp)
                work.put(row_id, now, _latest(now or before))
            if learn:
                work.tables.known.learn(known)

    def collect(self, stable: Ranges) -> int:
        """See :meth:`edgeproxy.ports.ReplicaStore.collect`."""
        is_stable = Known(stable).has
        count = 0
        with self._writing() as work:
            for row in work.tables.rows("fingerprint IS NULL"):
                if is_garbage(row.cells, is_stable):
                    work.tables.put(row.id, {}, None)
                    count += 1
        return count

    # ---- what others ask for ---------------------------------------------------------------------------

    def known(self) -> Ranges:
        """See :meth:`edgeproxy.ports.ReplicaStore.known`."""
        with self._store.reading() as connection:
            return read_known(connection).ranges if has_tables(connection) else {}

    def read_log(self, ranges: Ranges) -> LogRead:
        """See :meth:`edgeproxy.ports.ReplicaStore.read_log`."""
        found: list[Write] = []
        size = 0
        with self._store.reading() as connection:
            known = read_known(connection).ranges if has_tables(connection) else {}
            for origin, span in ((origin, span) for origin, spans in ranges.items() for span in spans):
                first, last = span
                read = Known()
                for write in read_writes(connection, origin, span, MAX_WRITES + 1) if known else ():
                    size += write_bytes(write)
                    if found and (len(found) == MAX_WRITES or size > MAX_BYTES):
                        last = write.dot.sequence - 1
                        break
                    found.append(write)
                    read.add(write.dot)
                # What is known of this, and not in the log any more.
                if first <= last and common([lacking({origin: ((first, last),)}, read.ranges), known]):
                    return LogRead(tuple(found), gone=True)
                if last < span[1]:
                    break
        return LogRead(tuple(found), gone=False)

    def read_rows(self, after: str | None) -> RowsRead:
        """See :meth:`edgeproxy.ports.ReplicaStore.read_rows`."""
        rows: list[RowState] = []
        size = 0
        with self._store.reading() as connection:
            if not has_tables(connection):
                return RowsRead((), None, {})
            tables = ReplicaTables(connection)
            more = False
            for row in tables.rows(*_between(after, None), limit=MAX_ROWS + 1):
                state = RowState(row.id, row.cells)
                size += row_bytes(state)
                if rows and (len(rows) == MAX_ROWS or size > MAX_BYTES):
                    more = True
                    break
                rows.append(state)
            return RowsRead(tuple(rows), rows[-1].id if more else None, tables.known.ranges)

    def fingerprint(self) -> tuple[Ranges, int]:
        """See :meth:`edgeproxy.ports.ReplicaStore.fingerprint`."""
        with self._store.reading() as connection:
            if not has_tables(connection):
                return {}, 0
            return read_known(connection).ranges, read_fingerprint(connection)

    # ---- every transaction -------------------------------------------------------------------------------

    @contextmanager
    def _writing(self) -> Iterator[_Work]:
        with self._lock:
            with self._store.transaction() as transaction:
                connection = transaction.connection
                if (why := obstacle(connection, self._store.path)) is not None:
                    raise StoreError(f"routing database {self._store} cannot be replicated: {why}")
                tables = ReplicaTables(connection)
                # What is in the file outlasts the loss of the clock's own mark.
                self._clock.saw(Stamp(tables.wall_ms, 0, self._settings.node))
                now_ms = self._wall_ms()
                capture = Capture(connection, tables, self._clock, self._settings.node, now_ms)
                work = _Work(transaction, tables, capture, now_ms)
                capture.install(lambda: self._renew(work), is_first=not self._has_replicated)
                capture.catch_up(lambda: self._renew(work))
                yield work
                self._retry(work)
                oldest_ms = now_ms - int(self._settings.max_age_s * 1000)
                tables.drop_old(self._settings.max_writes, oldest_ms)
                tables.save()
                refused = tables.refused()
                # Stamps are used from the end of the transaction on.
                if self._clock.rises():
                    at = position(connection)
                    self._keep(self._clock.high_water_ms, at.origin, at.sequence)
            self._refused = refused
            self._origin = tables.origin
            self._has_replicated = True
            self._new += capture.writes

    def _retry(self, work: _Work) -> None:
        """Try again what the table refused: its owner may have changed its mind.

        Some of it each time: a rule that forbids all rows must not make every transaction a long one.
        """
        condition = "refused IS NOT NULL AND id > ?"
        rows = [*work.tables.rows(condition, self._retried, limit=RETRIES)]
        for row in rows:
            work.put(row.id, row.cells, _latest(row.cells))
        self._retried = rows[-1].id if len(rows) == RETRIES else ""

    def _renew(self, work: _Work) -> None:
        self._store.renew(work.connection)


class _Work:
    """One transaction of the replica."""

    def __init__(
        self, transaction: Transaction, tables: ReplicaTables, capture: Capture, now_ms: int
    ) -> None:
        self._transaction = transaction
        self.connection = transaction.connection
        self.tables = tables
        self.capture = capture
        self.now_ms = now_ms

    def put(self, row_id: str, cells: Cells, dot: Dot) -> None:
        """Make these the cells of a row, and the table what they say."""
        why = put_row(self._transaction, row_id, cells, _node(dot.origin), dot)
        self.tables.put(row_id, cells, why)


def _between(after: str | None, until: str | None) -> tuple[str, ...]:
    """The SQL for ids greater than ``after`` and not greater than ``until``, and its values."""
    bounds = [(sql, value) for sql, value in (("id > ?", after), ("id <= ?", until)) if value is not None]
    return " AND ".join(("1", *(sql for sql, _ in bounds))), *(value for _, value in bounds)


def _latest(cells: Cells) -> Dot:
    """Which write a row owes its latest change to."""
    return max(cells.values(), key=lambda cell: cell.stamp).dot


def _node(origin: str) -> str:
    return origin.rpartition("/")[0]
