"""The routing table in a SQLite file that people edit while the proxy runs.

No connection stays open between two calls. An idle one would cost others dearly: with a write-ahead
log, the last program that closes the file folds the log into it and deletes the log. If that is never
the ``sqlite3`` shell because the proxy holds the file open, the log stays, and after ``mv new.db
routing.db`` SQLite replays the old file's log over the new file and destroys it
(``docs/decisions/watching-routing-db.md`` has the experiment).

So an edit is noticed by the *stamp* of the file and of its write-ahead log: device, inode, size and
time of change. For the file this is ``ctime``, which the kernel sets at every write, whichever way the
edit was made, and which neither ``cp -p`` nor ``rsync -t`` nor ``touch`` can set back. An unchanged file
costs two ``stat`` calls and no lock at all; after a change the whole table is read in one short
transaction.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from edgeproxy.core.replication.model import Value
from edgeproxy.errors import StoreError
from edgeproxy.outbound.change_log_reading import read_changes
from edgeproxy.outbound.change_log_sqlite import LogSettings, SqliteChangeLog
from edgeproxy.outbound.sqlite_file import connect, translated_errors, writing
from edgeproxy.outbound.sqlite_schema import BACKENDS, OPTIONAL_COLUMN, columns_of
from edgeproxy.ports import Change, Operation, Row, RowChange

T = TypeVar("T")

STAMP_GRANULARITY_S: Final = 2.0
"""Two writes this close may bear the same time. On most file systems that is a tick of the kernel, 10 ms
at most; some keep whole seconds, and FAT every second one."""


class SqliteStore:
    """A :class:`edgeproxy.ports.RowStore` and, given settings for it, a :class:`edgeproxy.ports.ChangeLog`.

    It lies in a file whose journal mode stays as it is found. Reading never writes to it.
    :meth:`poll` and :meth:`tend` belong to one thread each; the other methods may be called from any.
    """

    def __init__(self, path: Path, log: LogSettings | None = None) -> None:
        self.path = path.absolute()
        self._named = str(path)
        self._stamp: _Stamp | None = None
        self._rows: list[Row] | None = None
        self._log = SqliteChangeLog(self.path, log) if log is not None else None
        self._tended: _Stamp | None = None
        self._obstacle: str | None = None

    def __str__(self) -> str:
        return self._named

    @staticmethod
    def create(path: Path) -> None:
        """Make a database with an empty table, in write-ahead mode.

        Raises:
            StoreError: there is something at ``path`` already, or nothing can be made there.
        """
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            raise StoreError(f"{path} exists already and was left as it is; name another file") from None
        except FileNotFoundError:
            raise StoreError(f"{path} cannot be made: there is no directory {path.parent}") from None
        except OSError as error:
            raise StoreError(f"{path} cannot be made: {error.strerror}") from error
        try:
            with translated_errors(path), closing(connect(path, "mode=rw")) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute(BACKENDS)
        except StoreError:
            # Empty as it is, the file would only stand in the way of the next attempt.
            path.unlink()
            raise

    def poll(self) -> Sequence[Row] | None:
        """See :meth:`edgeproxy.ports.RowStore.poll`. Waits at most :data:`BUSY_TIMEOUT_S` for a lock."""
        # Before the rows are read: what is written meanwhile then shows at the next call.
        stamp = _Stamp.of(self.path)  # feature: table.sqlite
        if stamp == self._stamp and stamp.is_settled:
            return None
        with self.reading() as connection:
            rows = _select(connection, self.path)
        self._stamp = stamp
        if rows == self._rows:
            return None
        self._rows = rows
        return rows

    def apply(self, operation: Operation[T]) -> RowChange | T:
        """See :meth:`edgeproxy.ports.RowStore.apply`. Waits at most ``BUSY_TIMEOUT_S`` for a lock."""
        with self.transaction() as transaction:
            decision = operation(transaction.rows)
            if isinstance(decision, RowChange):
                transaction.write(decision)
            return decision

    def tend(self) -> str | None:
        """See :meth:`edgeproxy.ports.ChangeLog.tend`; a file that did not change is left alone."""
        assert self._log is not None
        stamp = _Stamp.of(self.path)
        if stamp != self._tended or not stamp.is_settled:
            self._obstacle = self._log.tend()
            self._tended = stamp
        return self._obstacle

    def stamp(self) -> _Stamp:
        """What tells the present state of the file from another; see :class:`_Stamp`."""
        return _Stamp.of(self.path)

    def renew(self, connection: sqlite3.Connection) -> None:
        """Begin a new incarnation of the log in a transaction of this store."""
        assert self._log is not None
        self._log.renew(connection)

    def expect(self, origin: str, sequence: int) -> None:
        """See :meth:`edgeproxy.outbound.change_log_sqlite.SqliteChangeLog.expect`."""
        assert self._log is not None
        self._log.expect(origin, sequence)

    def changes(self, since: str, limit: int) -> Sequence[Change]:
        """See :meth:`edgeproxy.ports.ChangeLog.changes`."""
        with self.reading() as connection:
            return read_changes(connection, self.path, since, limit)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection in a transaction that reads one state of the file.

        Raises:
            StoreError: the file cannot be read.
        """
        stamp = _Stamp.of(self.path)
        with translated_errors(self.path), ExitStack() as stack:
            connection = stack.enter_context(closing(connect(self.path, "mode=rw")))
            try:
                connection.execute("BEGIN")
                connection.execute("SELECT 1 FROM sqlite_master").fetchone()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode not in (
                    sqlite3.SQLITE_CANTOPEN,
                    sqlite3.SQLITE_READONLY_DIRECTORY,
                ):
                    raise
            else:
                yield connection
                return
            # A database in write-ahead mode wants files of its own beside it even for reading, which a
            # read-only directory refuses. Without a log all rows are in the file itself, and `immutable`
            # reads that and nothing else; it also checks nothing, so whether it held still is seen by the
            # stamp.
            if stamp.log:
                raise StoreError(
                    f"routing database {self.path} has edits in {self.path.name}-wal, which cannot be read "
                    "in a read-only directory; where it is writable, run: "
                    f"sqlite3 {self.path.name} 'PRAGMA wal_checkpoint(TRUNCATE)'"
                )
            yield stack.enter_context(closing(connect(self.path, "mode=ro&immutable=1")))
            after = _Stamp.of(self.path)
            if (after.file, after.log) != (stamp.file, stamp.log):
                raise StoreError(f"routing database {self.path} changed while it was read")

    @contextmanager
    def transaction(
        self, prepare: Callable[[sqlite3.Connection], None] = lambda _: None
    ) -> Iterator[Transaction]:
        """A write transaction that ends with the block; after an error in it, the file is as it was.

        ``prepare`` comes first in it, before the schema is looked at.

        Raises:
            StoreError: the file cannot be written.
        """
        # SQLite could not say whether a file it cannot open is missing, a directory or out of reach.
        _Stamp.of(self.path)
        log = self._log
        with log.writing(prepare) if log is not None else writing(self.path, prepare) as connection:
            yield Transaction(connection, columns_of(connection, self.path))


class Transaction:
    """What can be seen and done while no other program writes."""

    def __init__(self, connection: sqlite3.Connection, columns: Sequence[str]) -> None:
        self.connection = connection
        self.rows: Mapping[str, Row] = _Table(connection, columns)
        self.columns = columns
        """Of the table, without ``deleted``."""

    def raw(self, row_id: str) -> Mapping[str, Value] | None:
        """One row with ``deleted`` as it stands there, ``None`` where there is none."""
        names = (*self.columns, "deleted")
        query = f"SELECT {', '.join(names)} FROM backends WHERE id = ?"  # noqa: S608
        values = self.connection.execute(query, (row_id,)).fetchone()
        return None if values is None else dict(zip(names, values, strict=True))

    def write(self, change: RowChange) -> None:
        """Write one row.

        Raises:
            StoreError: the table lacks a column that is to get a value.
        """
        _write(self.connection, change, self.columns)


class _Stamp(NamedTuple):
    """What tells one state of the file from another without reading it."""

    file: tuple[int, ...]
    log: tuple[int, ...]
    """Of the write-ahead log; empty when there is none, or when it holds nothing."""
    is_settled: bool
    """Whether an edit made after this stamp was taken is sure to change it."""

    @classmethod
    def of(cls, path: Path) -> _Stamp:
        """Take the stamp of the database at ``path``.

        Raises:
            StoreError: no file is there, or it cannot be reached.
        """
        now_s = time.time()
        try:
            file = path.stat()
            # SQLite keeps the log beside the file that a symbolic link leads to.
            real = path.resolve()
            try:
                log = real.with_name(f"{real.name}-wal").stat()
            except FileNotFoundError:
                log = None
        except FileNotFoundError:
            raise StoreError(
                f"routing database {path} does not exist; make it with `edgeproxy db init {path}`, "
                "or name another file with EDGEPROXY_DB_PATH"
            ) from None
        except OSError as error:
            raise StoreError(f"routing database {path} cannot be reached: {error.strerror}") from error
        if not stat.S_ISREG(file.st_mode):
            kind = "a directory" if stat.S_ISDIR(file.st_mode) else "not a regular file"
            raise StoreError(
                f"routing database {path} is {kind}; name a database file with EDGEPROXY_DB_PATH"
            )
        if log is not None and not log.st_size:
            log = None
        changed_s = max(file.st_ctime, log.st_mtime if log else 0.0)
        return cls(
            file=_identity(file, file.st_ctime_ns),
            # Whenever root opens a log, SQLite gives it to the owner of the file, and that alone sets its
            # ctime: with it, each read would call for the next.
            log=_identity(log, log.st_mtime_ns) if log else (),
            # A time of change in the future (the clock was set back) is as good as one in the past: what
            # counts is that the next edit bears another.
            is_settled=abs(now_s - changed_s) > STAMP_GRANULARITY_S,
        )


def _identity(status: os.stat_result, changed_ns: int) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, changed_ns


class _Table(Mapping[str, Row]):
    """Every row by its id, removed ones included, each read when it is asked for."""

    def __init__(self, connection: sqlite3.Connection, columns: Sequence[str]) -> None:
        self._connection = connection
        self._columns = columns

    def __getitem__(self, row_id: str) -> Row:
        columns = ", ".join(self._columns)
        query = f"SELECT {columns}, NOT (deleted IS NULL OR deleted = 0) FROM backends WHERE id = ?"  # noqa: S608
        try:
            values = self._connection.execute(query, (row_id,)).fetchone()
        except UnicodeEncodeError:
            raise KeyError(row_id) from None
        if values is None:
            raise KeyError(row_id)
        return dict(zip((*self._columns, "deleted"), values, strict=True))

    def __iter__(self) -> Iterator[str]:
        for (row_id,) in self._connection.execute("SELECT id FROM backends"):
            if isinstance(row_id, str):
                yield row_id

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _write(connection: sqlite3.Connection, change: RowChange, columns: Sequence[str]) -> None:
    values = dict(change.values)
    if OPTIONAL_COLUMN not in columns and values.pop(OPTIONAL_COLUMN, None) is not None:
        raise StoreError(
            "the table backends has no column country; "
            "add it with: ALTER TABLE backends ADD COLUMN country TEXT"
        )
    assignments = ", ".join(f"{column} = ?" for column in values)
    update = f"UPDATE backends SET {assignments} WHERE id = ?"  # noqa: S608
    if connection.execute(update, (*values.values(), change.id)).rowcount == 0:
        names, places = ", ".join(("id", *values)), ", ".join("?" * (1 + len(values)))
        insert = f"INSERT INTO backends ({names}) VALUES ({places})"  # noqa: S608
        connection.execute(insert, (change.id, *values.values()))


def _select(connection: sqlite3.Connection, path: Path) -> list[Row]:
    columns = columns_of(connection, path)
    names = ", ".join(columns)
    query = f"SELECT {names} FROM backends WHERE deleted IS NULL OR deleted = 0"  # noqa: S608
    return [dict(zip(columns, values, strict=True)) for values in connection.execute(query)]
