"""Whether ``routing.db`` is sound: in a moment at start, thoroughly when asked."""

from __future__ import annotations

import sqlite3
import threading
from typing import Final, NamedTuple

from edgeproxy.errors import DamagedStoreError
from edgeproxy.outbound.change_log_sqlite import inconsistencies
from edgeproxy.outbound.sqlite_file import what_to_do_about_damage
from edgeproxy.outbound.store_sqlite import SqliteStore

_MAX_DAMAGES: Final = 20


def check_quickly(store: SqliteStore, limit_s: float) -> None:
    """Look whether the file is sound; one so large that this takes longer than ``limit_s`` passes.

    Raises:
        StoreError: it is damaged, or cannot be read.
    """
    with store.reading() as connection:
        done = threading.Event()

        def interrupt_when_late() -> None:
            # Again and again: an interruption before the check has begun does nothing.
            while not done.wait(limit_s):
                connection.interrupt()

        # Not a progress handler: SQLite before 3.41 calls none during this check.
        watch = threading.Thread(target=interrupt_when_late)
        watch.start()
        try:
            (damage,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.Error as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise
            return
        finally:
            done.set()
            watch.join()
    if damage != "ok":
        raise damaged(store, _one_line(damage))


def damaged(store: SqliteStore, damage: str) -> DamagedStoreError:
    return DamagedStoreError(
        f"routing database {store} is damaged ({damage}); {what_to_do_about_damage(store.path)}"
    )


class Findings(NamedTuple):
    """What is wrong with a file that can be read, one line each."""

    damages: list[str]
    log: list[str]
    """Where the change log does not agree with the rows or with itself."""


def look_through(store: SqliteStore) -> Findings:
    """Check every page of the file, its schema and its change log. Rows are judged by the routing table.

    Raises:
        StoreError: the file cannot be read, or has no table that could be used.
    """
    with store.reading() as connection:
        damages = damages_of(connection)
        return Findings(damages, [] if damages else inconsistencies(connection, store.path))


def damages_of(connection: sqlite3.Connection) -> list[str]:
    found = connection.execute(f"PRAGMA integrity_check({_MAX_DAMAGES})").fetchall()
    return [] if found == [("ok",)] else [_one_line(damage) for (damage,) in found]


def _one_line(text: object) -> str:
    return " ".join(str(text).split())
