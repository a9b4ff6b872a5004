"""Reading the change log of ``routing.db``, and the rows as it has them. Writes nothing."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from edgeproxy.core.controlplane.row_text import row_from_text
from edgeproxy.errors import StoreError
from edgeproxy.outbound.sqlite_schema import columns_of
from edgeproxy.ports import Change, Row

OUTSIDE: Final = "outside"
"""Author of what a trigger saw some other program do."""

_TABLES: Final = ("edgeproxy_rows", "edgeproxy_changes", "edgeproxy_log")


def read_changes(connection: sqlite3.Connection, path: Path, since: str, limit: int) -> list[Change]:
    """Return the last ``limit`` changes at or after ``since``, oldest first; see :class:`Change`.

    Raises:
        StoreError: somebody wrote into the log what no trigger writes.
    """
    if not _has_log(connection, path):  # feature: table.change_log
        return []
    query = (
        "SELECT change, at, author, origin, sequence, id, old, new FROM edgeproxy_changes "
        "WHERE at >= ? ORDER BY change DESC LIMIT ?"
    )
    return [_change(*row) for row in reversed(connection.execute(query, (since, limit)).fetchall())]


def read_changes_after(connection: sqlite3.Connection, number: int, limit: int = -1) -> list[Change]:
    """Return the changes whose number is greater, oldest first, at most ``limit``.

    Raises:
        StoreError: somebody wrote into the log what no trigger writes.
    """
    query = (
        "SELECT change, at, author, origin, sequence, id, old, new FROM edgeproxy_changes "
        "WHERE change > ? ORDER BY change LIMIT ?"
    )
    return [_change(*row) for row in connection.execute(query, (number, limit))]


def find_change_at(connection: sqlite3.Connection, at: str) -> int:
    """Return the number of the last change that was made by ``at``, or that before the first one."""
    query = "SELECT max(change) FROM edgeproxy_changes WHERE at <= ?"
    (last,) = connection.execute(query, (at,)).fetchone()
    if last is None:
        query = "SELECT coalesce(min(change) - 1, 0) FROM edgeproxy_changes"
        (last,) = connection.execute(query).fetchone()
    return int(last)


def read_horizon(connection: sqlite3.Connection, path: Path) -> str | None:
    """Return since when every change is in the log, ``None`` when there is none."""
    if not _has_log(connection, path):
        return None
    query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'edgeproxy_horizon'"
    if connection.execute(query).fetchone() is not None:
        row = connection.execute("SELECT at FROM edgeproxy_horizon").fetchone()
    else:
        row = connection.execute("SELECT at FROM edgeproxy_changes ORDER BY change LIMIT 1").fetchone()
    return None if row is None else text_of(row[0])


def read_logged_rows(connection: sqlite3.Connection, path: Path) -> dict[str, Row]:
    """Return every row as the log has it, by its id.

    Raises:
        StoreError: somebody wrote there what no trigger writes.
    """
    if not _has_log(connection, path):
        return {}
    rows: dict[str, Row] = {}
    for row_id, image in connection.execute("SELECT id, image FROM edgeproxy_rows"):
        try:
            rows[text_of(row_id)] = row_from_text(text_of(image))
        except ValueError as error:
            raise StoreError(f"the row {text_of(row_id)!r} of the change log was altered: {error}") from error
    return rows


def _has_log(connection: sqlite3.Connection, path: Path) -> bool:
    columns_of(connection, path)
    query = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN (?, ?, ?)"
    (count,) = connection.execute(query, _TABLES).fetchone()
    return bool(count == len(_TABLES))


def _change(
    number: int,
    at: object,
    author: object,
    origin: str | None,
    sequence: int | None,
    row_id: object,
    old: object,
    new: object,
) -> Change:
    try:
        return Change(
            number=number,
            at=text_of(at),
            author=OUTSIDE if author is None else text_of(author),
            origin=origin,
            sequence=sequence,
            id=text_of(row_id),
            old=None if old is None else row_from_text(text_of(old)),
            new=None if new is None else row_from_text(text_of(new)),
        )
    except ValueError as error:
        raise StoreError(f"entry {number} of the change log was altered: {error}") from error


def text_of(value: object) -> str:
    """A TEXT value, which is bytes here where it is no UTF-8."""
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)
