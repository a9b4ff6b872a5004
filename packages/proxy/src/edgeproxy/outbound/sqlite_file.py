"""Opening a SQLite file that belongs to others, and saying in their terms why that fails."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final

from edgeproxy.errors import DamagedStoreError, StoreError

BUSY_TIMEOUT_S: Final = 2.0
"""How long a call waits for another program's transaction."""


def connect(path: Path, parameters: str) -> sqlite3.Connection:
    """Open ``path`` in autocommit mode; ``parameters`` are those of the URI: ``mode=rw``.

    TEXT that is no UTF-8 is read as bytes.
    """
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
def writing(
    path: Path, prepare: Callable[[sqlite3.Connection], None] = lambda _: None
) -> Iterator[sqlite3.Connection]:
    """A connection in a write transaction that ends with the block; after an error, nothing is written.

    ``prepare`` comes first in it.

    Raises:
        StoreError: the file cannot be written.
    """
    real = path.resolve()
    opened = _inode(real)
    with (
        translated_errors(path),
        ExitStack() as when_closed,
        closing(connect(path, "mode=rw")) as connection,
    ):
        connection.execute("BEGIN IMMEDIATE")
        log = real.with_name(f"{real.name}-wal")
        when_closed.callback(_leave_no_log_to_another, real, opened, log, _inode(log))
        prepare(connection)
        yield connection
        connection.execute("COMMIT")


def _leave_no_log_to_another(real: Path, opened: int | None, log: Path, own_log: int | None) -> None:
    """Remove our write-ahead log if another file has taken the place of the one that was opened.

    SQLite leaves the log of a file that was moved where it is, under the name of the file that is there
    now, and whoever opens that next replays the old pages over the new ones.
    """
    if _inode(real) != opened and own_log is not None and _inode(log) == own_log:
        log.unlink()
        real.with_name(f"{real.name}-shm").unlink(missing_ok=True)


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


@contextmanager
def translated_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite says into what happened to the file and what to do about it."""
    try:
        yield
    except sqlite3.Error as error:
        damaged = _code(error) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
        raise (DamagedStoreError if damaged else StoreError)(
            f"routing database {path} {_explained(error, path)}"
        ) from error


def _code(error: sqlite3.Error) -> int:
    # Errors that the Python module raises by itself have no code.
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)


def _explained(error: sqlite3.Error, path: Path) -> str:
    code = _code(error)
    if code == sqlite3.SQLITE_READONLY_ROLLBACK:
        return (
            "holds an interrupted write, and undoing it needs write access; "
            "open it once with sqlite3 as a user who has it"
        )
    if code == sqlite3.SQLITE_READONLY_DBMOVED and path.exists():
        return "was replaced by another file while it was in use; nothing was written, try again"
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
            return f"is damaged; {what_to_do_about_damage(path)}"
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_IOERR if not path.exists():
            return "was removed while it was in use"
        case sqlite3.SQLITE_CANTOPEN if not os.access(path, os.R_OK, effective_ids=True):
            return "may not be read by this user; give it read permission with chmod or chown"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN if not is_writable(path):
            return "is read-only for this process; change it where file and directory can be written"
    return f"cannot be used: {error}"


def what_to_do_about_damage(path: Path) -> str:
    """The remedy, for the end of a message."""
    return (
        "`edgeproxy db verify` says where, `edgeproxy db restore BACKUP` mends it, and "
        f"`sqlite3 {path.name} .recover` prints what can still be read"
    )


def is_writable(path: Path) -> bool:
    """Whether this process may write the database; SQLite needs the directory for its journal, too."""
    path = path.resolve()
    return all(os.access(each, os.W_OK, effective_ids=True) for each in (path, path.parent))
