"""What stands in ``routing.db``: the table of the contract, and how a part of ours adds tables of its own.

The file belongs to its users. What is added keeps out of their way: the names begin with ``edgeproxy_``,
nothing that exists is altered, and no program needs to know of it.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from edgeproxy.errors import StoreError

COLUMNS: Final = (
    *("id", "app", "region", "country", "wg_ip", "port"),
    *("healthy", "weight", "soft_limit", "hard_limit"),
)
"""Of the contract, in its order, without ``deleted``."""

OPTIONAL_COLUMN: Final = "country"
"""Came with later versions of the original."""

BACKENDS: Final = """
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


def columns_of(connection: sqlite3.Connection, path: Path) -> tuple[str, ...]:
    """The columns of the contract that the table has; all of them, save perhaps the optional one.

    SQL is put together from these names and from those that the registry writes, never from what a user
    typed.

    Raises:
        StoreError: there is no such table, or it lacks a column.
    """
    present = {str(column[1]).lower() for column in connection.execute("PRAGMA table_info(backends)")}
    if not present:
        raise StoreError(
            f"routing database {path} has no table backends; name another file with EDGEPROXY_DB_PATH, "
            "or make a new one with `edgeproxy db init`"
        )
    missing = {*COLUMNS, "deleted"} - {OPTIONAL_COLUMN} - present
    if missing:
        raise StoreError(
            f"routing database {path}: the table backends lacks {', '.join(sorted(missing))}; "
            "add with: ALTER TABLE backends ADD COLUMN …"
        )
    return tuple(column for column in COLUMNS if column in present)
