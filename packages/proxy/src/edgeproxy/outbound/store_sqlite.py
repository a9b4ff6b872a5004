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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from edgeproxy.errors import StoreError
from edgeproxy.ports import Operation, Row, RowChange

T = TypeVar("T")

BUSY_TIMEOUT_S: Final = 2.0
"""How long a call waits for another program's transaction."""

STAMP_GRANULARITY_S: Final = 2.0
"""Two writes this close may bear the same time. On most file systems that is a tick of the kernel, 10 ms
at most; some keep whole seconds, and FAT every second one."""

_COLUMNS: Final = (
    *("id", "app", "region", "country", "wg_ip", "port"),
    *("healthy", "weight", "soft_limit", "hard_limit"),
)
_OPTIONAL_COLUMN: Final = "country"
"""Came with later versions of the original."""

_SCHEMA: Final = """
CREATE TABLE backends (
    id TEXT PRIMARY KEY,
    app TEXT,
    region TEXT,
    country TEXT,
    wg_ip TEXT,
    port INTEGER,
    healthy INTEGER,
    weight INTEGER,
    soft_limit INTEGER,
    hard_limit INTEGER,
    deleted INTEGER DEFAULT 0
)
"""


class SqliteStore:
    """A :class:`edgeproxy.ports.RowStore` on a file, whose journal mode stays as it is found.

    :meth:`poll` belongs to one thread; :meth:`apply` may be called from any.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._stamp: _Stamp | None = None
        self._rows: list[Row] | None = None

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
            with _translated_errors(path), closing(_connect(path, "mode=rw")) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute(_SCHEMA)
        except StoreError:
            # Empty as it is, the file would only stand in the way of the next attempt.
            path.unlink()
            raise

    def poll(self) -> Sequence[Row] | None:
        """See :meth:`edgeproxy.ports.RowStore.poll`. Waits at most :data:`BUSY_TIMEOUT_S` for a lock."""
        # Before the rows are read: what is written meanwhile then shows at the next call.
        stamp = _Stamp.of(self._path)
        if stamp == self._stamp and stamp.is_settled:
            return None
        with _translated_errors(self._path):
            rows = self._read(stamp)
        self._stamp = stamp
        if rows == self._rows:
            return None
        self._rows = rows
        return rows

    def _read(self, stamp: _Stamp) -> list[Row]:
        try:
            return _select(self._path, "mode=rw")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY_DIRECTORY):
                raise
        # A database in write-ahead mode wants files of its own beside it even for reading, which a
        # read-only directory refuses. Without a log all rows are in the file itself, and `immutable` reads
        # that and nothing else; it also checks nothing, so whether it held still is seen by the stamp.
        if stamp.log:
            raise StoreError(
                f"routing database {self._path} has edits in {self._path.name}-wal that cannot be read in a "
                "read-only directory; where it is writable, run: "
                f"sqlite3 {self._path.name} 'PRAGMA wal_checkpoint(TRUNCATE)'"
            )
        rows = _select(self._path, "mode=ro&immutable=1")
        after = _Stamp.of(self._path)
        if (after.file, after.log) != (stamp.file, stamp.log):
            raise StoreError(f"routing database {self._path} changed while it was read")
        return rows

    def apply(self, operation: Operation[T]) -> RowChange | T:
        """See :meth:`edgeproxy.ports.RowStore.apply`. Waits at most :data:`BUSY_TIMEOUT_S` for a lock."""
        # SQLite could not say whether a file it cannot open is missing, a directory or out of reach.
        _Stamp.of(self._path)
        with _translated_errors(self._path), closing(_connect(self._path, "mode=rw")) as connection:
            connection.execute("BEGIN IMMEDIATE")
            columns = _columns(connection, self._path)
            decision = operation(_Table(connection, columns))
            if isinstance(decision, RowChange):
                _write(connection, decision, columns)
                connection.execute("COMMIT")
            return decision


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
        changed_s = max(file.st_ctime, log.st_mtime if log else 0.0)
        return cls(
            file=_identity(file, file.st_ctime_ns),
            # Whenever root opens a log, SQLite gives it to the owner of the file, and that alone sets its
            # ctime: with it, each read would call for the next.
            log=_identity(log, log.st_mtime_ns) if log and log.st_size else (),
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
    if _OPTIONAL_COLUMN not in columns and values.pop(_OPTIONAL_COLUMN, None) is not None:
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


def _select(path: Path, parameters: str) -> list[Row]:
    with closing(_connect(path, parameters)) as connection:
        connection.execute("BEGIN")
        columns = _columns(connection, path)
        names = ", ".join(columns)
        query = f"SELECT {names} FROM backends WHERE deleted IS NULL OR deleted = 0"  # noqa: S608
        rows = connection.execute(query).fetchall()
    return [dict(zip(columns, values, strict=True)) for values in rows]


def _columns(connection: sqlite3.Connection, path: Path) -> tuple[str, ...]:
    """The columns of the contract that the table has; all of them, save perhaps the optional one.

    SQL in this module is put together from these names and from those that the registry writes, never
    from what a user typed.
    """
    present = {str(column[1]).lower() for column in connection.execute("PRAGMA table_info(backends)")}
    if not present:
        raise StoreError(
            f"routing database {path} has no table backends; name another file with EDGEPROXY_DB_PATH, "
            "or make a new one with `edgeproxy db init`"
        )
    missing = {*_COLUMNS, "deleted"} - {_OPTIONAL_COLUMN} - present
    if missing:
        raise StoreError(
            f"routing database {path}: the table backends lacks {', '.join(sorted(missing))}; "
            "add with: ALTER TABLE backends ADD COLUMN …"
        )
    return tuple(column for column in _COLUMNS if column in present)


def _connect(path: Path, parameters: str) -> sqlite3.Connection:
    # A URI, because only its `mode` keeps SQLite from making a file that is missing. With mode=rw a file
    # that may not be written is opened for reading.
    uri = f"{path.absolute().as_uri()}?{parameters}"
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    connection.text_factory = _text_or_bytes
    return connection


def _text_or_bytes(encoded: bytes) -> str | bytes:
    """Decode a TEXT value, or leave it as bytes: one that is no UTF-8 must not fail the other rows."""
    try:
        return encoded.decode()
    except UnicodeDecodeError:
        return encoded


@contextmanager
def _translated_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite says into what happened to the file and what to do about it."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"routing database {path} {_explained(error, path)}") from error


def _explained(error: sqlite3.Error, path: Path) -> str:
    # Errors that the Python module raises by itself have no code.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    if code == sqlite3.SQLITE_READONLY_ROLLBACK:
        return (
            "holds an interrupted write, and undoing it needs write access; "
            "open it once with sqlite3 as a user who has it"
        )
    match code & 0xFF:
        case sqlite3.SQLITE_BUSY:
            return (
                f"is locked by another program, for more than {BUSY_TIMEOUT_S:g} s now; end the transaction "
                "that is open there (COMMIT or ROLLBACK in a sqlite3 shell)"
            )
        case sqlite3.SQLITE_NOTADB:
            return (
                "is not a SQLite database; name another file with EDGEPROXY_DB_PATH, "
                "or make a new one with `edgeproxy db init`"
            )
        case sqlite3.SQLITE_CORRUPT:
            return f"is damaged; restore a copy, or save what can be read with: sqlite3 {path.name} .recover"
        case sqlite3.SQLITE_CANTOPEN if not os.access(path, os.R_OK, effective_ids=True):
            return "may not be read by this user; give it read permission with chmod or chown"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN if not _is_writable(path):
            return "is read-only for this process; change it where file and directory can be written"
    return f"cannot be used: {error}"


def _is_writable(path: Path) -> bool:
    return all(os.access(each, os.W_OK, effective_ids=True) for each in (path, path.parent))
