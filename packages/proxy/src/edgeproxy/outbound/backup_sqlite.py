"""Copies of ``routing.db``: taken while others write, looked through, and put back as changes of rows.

A backup is restored row by row, in one transaction like any other: the running proxy reads the result as
an edit, an open ``sqlite3`` shell sees it at once, and the change log goes on with what was changed. Only a
file that is missing or damaged is replaced, for nothing could be written into that.
"""

# SQL is put together from names that stand in the schemas of the two files.
# ruff: noqa: S608

from __future__ import annotations

import os
import sqlite3
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from edgeproxy.errors import DamagedStoreError, StoreError
from edgeproxy.outbound.change_log_sqlite import forget_file
from edgeproxy.outbound.integrity_sqlite import damaged, damages_of, look_through
from edgeproxy.outbound.sqlite_file import translated_errors
from edgeproxy.outbound.sqlite_schema import columns_of
from edgeproxy.outbound.store_sqlite import SqliteStore

_COMPANIONS: Final = ("", "-wal", "-shm", "-journal")
"""What SQLite keeps beside a file, and would take for part of the one put in its place."""


class Restored(NamedTuple):
    """What restoring a backup changed."""

    added: int
    changed: int
    removed: int
    damaged: Path | None
    """Where the file that could not be used is kept now."""


def back_up(store: SqliteStore, target: Path) -> None:
    """Copy the database to ``target``, which appears in one step when the copy is complete and sound.

    Others may write meanwhile; the copy is what the database was at one moment.

    Raises:
        StoreError: ``target`` exists, cannot be written, or the database cannot be read.
    """
    if os.path.lexists(target):  # feature: table.backup
        raise _exists(target)
    _copy(store, target, like=store.path)


def _copy(store: SqliteStore, target: Path, like: Path) -> None:
    """Copy with the owner and permissions of ``like``."""
    with (
        store.reading() as source,
        _appearing(target, like) as aside,
        closing(sqlite3.connect(aside, isolation_level=None)) as copy,
    ):
        with translated_errors(aside):
            source.backup(copy)
        if damages := damages_of(copy):
            raise damaged(store, damages[0])
        forget_file(copy, store.path)


@contextmanager
def _appearing(target: Path, like: Path) -> Iterator[Path]:
    """A path beside ``target`` whose file becomes ``target`` at the end, unless that name is taken."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(handle)
        aside = Path(name)
        try:
            yield aside
            status = like.stat()
            aside.chmod(stat.S_IMODE(status.st_mode))
            # Only root gives files away; a copy of somebody else's file is the copier's own.
            with suppress(PermissionError):
                os.chown(aside, status.st_uid, status.st_gid)
            _sync(aside)
            # Unlike a rename, this fails when the name is taken.
            target.hardlink_to(aside)
            _sync(target.parent)
        finally:
            aside.unlink()
    except FileExistsError:
        raise _exists(target) from None
    except OSError as error:
        raise StoreError(f"{target} cannot be written: {error.strerror}") from error


def _exists(target: Path) -> StoreError:
    return StoreError(f"{target} exists already and was left as it is; name another file")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# ---- restoring ---------------------------------------------------------------------------------------

_Rows = Mapping[object, list[tuple[object, ...]]]
"""Rows by their id; in a table without a key several may share one."""


def restore(store: SqliteStore, backup: SqliteStore) -> Restored:
    """Make the rows of ``store`` those of ``backup``, in one transaction.

    A file that is damaged is kept under another name.

    Raises:
        StoreError: ``backup`` cannot be used, or the database cannot be written; it is as it was.
    """
    if not backup.path.exists():
        raise StoreError(f"{backup} does not exist; name a file that `edgeproxy db backup` made")
    if store.path.exists() and store.path.samefile(backup.path):
        raise StoreError(f"{backup} is the routing database itself; name a backup of it")
    damages = look_through(backup).damages
    if damages:
        raise DamagedStoreError(f"{backup} is damaged ({damages[0]}); nothing was restored")
    with backup.reading() as source:
        columns_of(source, backup.path)
        (definition,) = source.execute(
            "SELECT sql FROM sqlite_master WHERE lower(name) = 'backends' AND type IN ('table', 'view')"
        ).fetchone()
        wanted = _Table.read(source)
    if _is_usable(store):
        return _restore_rows(store, definition, wanted)
    # A symbolic link stays; SQLite, too, keeps what it needs beside the file that it leads to.
    place = store.path.resolve()
    kept = _move_aside(place)
    _copy(backup, place, like=kept or backup.path)
    return Restored(wanted.row_count, 0, 0, kept)


def _is_usable(store: SqliteStore) -> bool:
    if not store.path.exists():
        return False
    try:
        with store.reading() as connection:
            return not damages_of(connection)
    except DamagedStoreError:
        return False


def _move_aside(path: Path) -> Path | None:
    """Rename the file, if there is one, and all that SQLite keeps beside it; return the file's new name."""
    kept = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%S')}")
    moved = [each for each in _COMPANIONS if path.with_name(path.name + each).exists()]
    for companion in moved:
        path.with_name(path.name + companion).rename(kept.with_name(kept.name + companion))
    return kept if "" in moved else None


class _Table(NamedTuple):
    """All that a table ``backends`` holds, columns of the user's own included."""

    types: Mapping[str, str]
    """Column, in lower case, to its declared type."""
    rows: _Rows

    @property
    def row_count(self) -> int:
        return sum(map(len, self.rows.values()))

    @classmethod
    def read(cls, connection: sqlite3.Connection) -> _Table:
        types = {
            str(name).lower(): str(declared)
            for _, name, declared, *_ in connection.execute("PRAGMA table_info(backends)")
        }
        return cls(types, _rows(connection, types))


def _rows(connection: sqlite3.Connection, columns: Iterable[str]) -> _Rows:
    rows: dict[object, list[tuple[object, ...]]] = {}
    query = f"SELECT id, {_names(columns)} FROM backends"
    for row_id, *values in connection.execute(query):
        rows.setdefault(row_id, []).append(tuple(values))
    return rows


def _names(columns: Iterable[str]) -> str:
    return ", ".join(f"{_quoted(column)}" for column in columns)


def _quoted(column: str) -> str:
    escaped = column.replace('"', '""')
    return f'"{escaped}"'


def _restore_rows(store: SqliteStore, definition: str, wanted: _Table) -> Restored:
    def complete_schema(connection: sqlite3.Connection) -> None:
        present = {str(column[1]).lower() for column in connection.execute("PRAGMA table_info(backends)")}
        if not present:
            connection.execute(definition)
            return
        for column, declared in wanted.types.items():
            if column not in present:
                connection.execute(f"ALTER TABLE backends ADD COLUMN {_quoted(column)} {declared}")

    with store.transaction(complete_schema) as transaction:
        connection = transaction.connection
        current = _rows(connection, wanted.types)
        added = changed = removed = 0
        for row_id in current.keys() - wanted.rows.keys():
            connection.execute("DELETE FROM backends WHERE id IS ?", (row_id,))
            removed += len(current[row_id])
        update = f"UPDATE backends SET ({_names(wanted.types)}) = ({_places(wanted.types)}) WHERE id IS ?"
        insert = f"INSERT INTO backends ({_names(wanted.types)}) VALUES ({_places(wanted.types)})"
        for row_id, rows in wanted.rows.items():
            before = current.get(row_id, [])
            if before == rows:
                continue
            if len(before) == len(rows) == 1:
                connection.execute(update, (*rows[0], row_id))
                changed += 1
                continue
            connection.execute("DELETE FROM backends WHERE id IS ?", (row_id,))
            connection.executemany(insert, rows)
            added += len(rows)
            removed += len(before)
    return Restored(added, changed, removed, None)


def _places(columns: Mapping[str, str]) -> str:
    return ", ".join("?" * len(columns))
