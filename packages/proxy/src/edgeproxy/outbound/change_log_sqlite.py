"""The change log inside ``routing.db``: who changed which row, when, from what to what.

Edits come from everywhere, most from the ``sqlite3`` shell, so the log is written by *triggers*: they
travel with the file and run in whatever program writes it, and so may use nothing that an old or small
build of SQLite lacks (no JSON, no UPSERT, no partial index).

Three tables:

- ``edgeproxy_rows``: every row of ``backends`` as text, as the log has it. Triggers on ``backends`` keep it
  equal. It is what REPLACE needs, which fires no delete trigger for the row it removes, and what tells the
  difference when triggers did not run at all: after DROP and CREATE, in a shell with triggers switched
  off, when a unique key of the user's own removed a row.
- ``edgeproxy_changes``: the log. Triggers on ``edgeproxy_rows`` write it, so what has changed has one
  definition, however it came about. A new entry is *pending*: it has no author.
- ``edgeproxy_log``: one row with the origin, its last sequence number, the last entry that has an author,
  and the file's identity.

Each of our transactions first gives the pending entries to ``outside`` and logs differences as ``found``,
then does its work, then gives what that left to its own author. Together with the author an entry gets
the next number of the *origin*, which is this node and an incarnation of the file. Numbers of one origin
have no gaps and are never given twice: a file that is a copy, or that went back to an earlier state, starts
a new incarnation.
"""

# SQL is put together from names that stand in this package, never from what a user typed.
# ruff: noqa: S608

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from edgeproxy.core.controlplane.row_text import row_text_sql
from edgeproxy.errors import StoreError
from edgeproxy.outbound.change_log_reading import OUTSIDE, text_of
from edgeproxy.outbound.sqlite_file import connect, is_writable, translated_errors, writing
from edgeproxy.outbound.sqlite_schema import columns_of

FOUND: Final = "found"
"""Author of a difference that no trigger saw arise; its time is when it was found."""

PEER: Final = "peer "
"""Before the name of the POP whose change it was, as author of what came by replication."""

NOW: Final = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"

_TABLES: Final = {
    "edgeproxy_rows": "CREATE TABLE edgeproxy_rows (id TEXT PRIMARY KEY, image TEXT)",
    "edgeproxy_changes": (
        "CREATE TABLE edgeproxy_changes (change INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT, id TEXT, "
        "old TEXT, new TEXT, author TEXT, origin TEXT, sequence INTEGER)"
    ),
    "edgeproxy_log": (
        "CREATE TABLE edgeproxy_log (origin TEXT, sequence INTEGER, last_change INTEGER, inode INTEGER)"
    ),
}

_HORIZON: Final = "CREATE TABLE IF NOT EXISTS edgeproxy_horizon (at TEXT)"
"""When the youngest entry was made that has been dropped: since then, every change is in the log."""

_ROWS_TRIGGERS: Final = {
    f"edgeproxy_rows_{event}": (
        f"CREATE TRIGGER edgeproxy_rows_{event} AFTER {event.upper()} ON edgeproxy_rows{condition} BEGIN "
        f"INSERT INTO edgeproxy_changes (at, id, old, new) VALUES ({NOW}, {images}); END"
    )
    for event, condition, images in (
        ("insert", "", "NEW.id, NULL, NEW.image"),
        ("update", " WHEN OLD.image <> NEW.image", "NEW.id, OLD.image, NEW.image"),
        ("delete", "", "OLD.id, OLD.image, NULL"),
    )
}

_TRIGGERS: Final = {
    f"edgeproxy_{table}_{event}" for table in ("backends", "rows") for event in ("insert", "update", "delete")
}


class LogSettings(NamedTuple):
    """How a process takes part in the log."""

    author: str
    """Whose the changes are that this process makes."""
    node: str
    """The name of this POP among the others."""
    max_changes: int
    max_age_s: float
    """Older entries are dropped, and so are those beyond ``max_changes``."""
    replicated: bool = False
    """Whether entries are kept until the replica has made writes of them."""


class SqliteChangeLog:
    """The log of one file, as one process sees it. Its methods block and belong to one thread at a time."""

    def __init__(self, path: Path, settings: LogSettings) -> None:
        self._path = path
        self._settings = settings
        self._known: _State | None = None
        self._remembered: _State | None = None
        self._rows: Mapping[str | bytes, str | bytes] | None = None
        """``edgeproxy_rows`` as remembered: what a file put in the place of this one is compared with."""

    @contextmanager
    def writing(
        self, prepare: Callable[[sqlite3.Connection], None] = lambda _: None
    ) -> Iterator[sqlite3.Connection]:
        """A connection in a write transaction of ours, which ends with the block unless an error passes.

        ``prepare`` comes first in it, before the log is compared with the table.

        Raises:
            StoreError: the database cannot be written; it is as it was.
        """
        with writing(self._path, prepare) as connection:
            is_logged = obstacle(connection, self._path) is None
            if is_logged:
                self._begin(connection)
            yield connection
            # The block may have taken numbers, too.
            state = _State.read(connection) if is_logged else None
            if state is not None:
                state = _assign(connection, state, self._settings.author)
        self._known = state

    def expect(self, origin: str, sequence: int) -> None:
        """Know that this origin came to ``sequence``: a file with less went back to an earlier state."""
        self._known = _State(origin, sequence, 0, None)

    def renew(self, connection: sqlite3.Connection) -> None:
        """Begin a new incarnation in a transaction of :meth:`writing`."""
        self._new_incarnation(connection)

    def tend(self) -> str | None:
        """Install what is missing, give pending entries their author, log differences, drop old entries.

        Returns:
            Why no log can be kept, ``None`` when one is.

        Raises:
            StoreError: the database cannot be written now.
        """
        if not is_writable(self._path):
            return "the database is read-only for this process"
        # Comparing takes long when there are many rows, so it is not done while others are kept from writing.
        with self._reading() as connection:
            if (why := obstacle(connection, self._path)) is not None:
                return why
            found = _Found.by(connection, self._path)
            compare = found.has_all_tables and any(_unseen(connection, found.columns))
            if not compare and self._is_complete(found) and not self._has_old(connection, found):
                self._remember(connection)
                return None
        with writing(self._path) as connection:
            state = self._begin(connection, compare=compare)
            self._drop_old(connection, state)
        self._known = state
        with self._reading() as connection:
            self._remember(connection)
        return None

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with translated_errors(self._path), closing(connect(self._path, "mode=rw")) as connection:
            connection.execute("BEGIN")
            yield connection

    def _is_complete(self, found: _Found) -> bool:
        """Whether there is nothing to install and no entry without an author."""
        state = found.state
        return (
            state is not None
            and self._continues(state)
            and found.triggers == _triggers(found.columns)
            and found.newest_change in (None, state.last_change)
        )

    def _remember(self, connection: sqlite3.Connection) -> None:
        state = _State.read(connection)
        if state != self._remembered:
            self._rows = dict(connection.execute("SELECT id, image FROM edgeproxy_rows"))
            self._remembered = state

    def _begin(self, connection: sqlite3.Connection, *, compare: bool = False) -> _State:
        """Bring the log up to the moment before this transaction's own work."""
        found = _Found.by(connection, self._path)
        triggers = _triggers(found.columns)
        for table, definition in _TABLES.items():
            if table not in found.tables:
                connection.execute(definition)
        state = found.state if found.state is not None and self._continues(found.state) else None
        is_intact = found.triggers == triggers
        if state is None or not is_intact:
            for name in found.triggers:
                connection.execute(f"DROP TRIGGER IF EXISTS {name}")
            if state is None and self._rows is not None:
                connection.execute("DELETE FROM edgeproxy_rows")
                connection.executemany(
                    "INSERT INTO edgeproxy_rows VALUES (CAST(? AS TEXT), CAST(? AS TEXT))", self._rows.items()
                )
            for definition in triggers.values():
                connection.execute(definition)
        compare = compare or state is None or not is_intact
        if state is None:
            state = self._new_incarnation(connection)
        state = _assign(connection, state, OUTSIDE)
        if compare:
            _log_differences(connection, found.columns)
            state = _assign(connection, state, FOUND)
        return state

    def _continues(self, state: _State) -> bool:
        """Whether the file is the one whose numbers ``state`` counts, and no earlier state of it."""
        if state.inode != self._inode() or state.origin.rpartition("/")[0] != self._settings.node:
            return False
        known = self._known
        return known is None or known.origin != state.origin or known.sequence <= state.sequence

    def _new_incarnation(self, connection: sqlite3.Connection) -> _State:
        query = "SELECT coalesce(max(change), 0) FROM edgeproxy_changes WHERE author IS NOT NULL"
        (last_change,) = connection.execute(query).fetchone()
        origin = f"{self._settings.node}/{os.urandom(8).hex()}"
        state = _State(origin, 0, last_change, self._inode())
        connection.execute("DELETE FROM edgeproxy_log")
        connection.execute("INSERT INTO edgeproxy_log VALUES (?, ?, ?, ?)", state)
        return state

    def _inode(self) -> int:
        try:
            return self._path.stat().st_ino
        except OSError as error:
            # Gone since it was opened, so what is written now would be, too.
            raise StoreError(f"routing database {self._path} cannot be reached: {error.strerror}") from error

    def _has_old(self, connection: sqlite3.Connection, found: _Found) -> bool:
        """Whether there are entries to drop: those that our own processes made call for nothing else."""
        assert found.state is not None
        query = "SELECT change, at FROM edgeproxy_changes ORDER BY change LIMIT 1"
        first = connection.execute(query).fetchone()
        if first is None:
            return False
        change, at = first
        return change <= found.state.last_change - self._settings.max_changes or text_of(at) < self._oldest()

    def _oldest(self) -> str:
        """What was logged before is too old."""
        return _written(datetime.now(UTC) - timedelta(seconds=self._settings.max_age_s))

    def _drop_old(self, connection: sqlite3.Connection, state: _State) -> None:
        query = "SELECT min(change) FROM edgeproxy_changes WHERE at >= ?"
        (first_young,) = connection.execute(query, (self._oldest(),)).fetchone()
        # Whole beginnings are dropped, so that numbers stay without gaps even when a clock was set back.
        drop_up_to = max(
            state.last_change if first_young is None else first_young - 1,
            state.last_change - self._settings.max_changes,
        )
        if self._settings.replicated:
            drop_up_to = min(drop_up_to, captured_up_to(connection))
        query = "SELECT at FROM edgeproxy_changes WHERE change = ?"
        if (dropped := connection.execute(query, (drop_up_to,)).fetchone()) is not None:
            connection.execute(_HORIZON)
            connection.execute("DELETE FROM edgeproxy_horizon")
            connection.execute("INSERT INTO edgeproxy_horizon VALUES (?)", dropped)
        connection.execute("DELETE FROM edgeproxy_changes WHERE change <= ?", (drop_up_to,))


class _State(NamedTuple):
    """The row of ``edgeproxy_log``."""

    origin: str
    """``NODE/INCARNATION``."""
    sequence: int
    """The last number given."""
    last_change: int
    """The last entry that has an author."""
    inode: int | None
    """Of the file when this origin began, which a copy has not; ``None`` in a backup."""

    @classmethod
    def read(cls, connection: sqlite3.Connection) -> _State | None:
        row = connection.execute("SELECT origin, sequence, last_change, inode FROM edgeproxy_log").fetchone()
        return None if row is None else cls(*row)


class _Found(NamedTuple):
    """What of the log there is."""

    columns: tuple[str, ...]
    """Of ``backends``."""
    tables: frozenset[str]
    triggers: Mapping[str, str]
    """Name to definition."""
    state: _State | None
    """``None`` also when the entries are gone that it counted."""
    newest_change: int | None

    @classmethod
    def by(cls, connection: sqlite3.Connection, path: Path) -> _Found:
        query = "SELECT type, name, sql FROM sqlite_master WHERE type IN ('table', 'trigger')"
        ours = [each for each in connection.execute(query) if each[1] in _TABLES or each[1] in _TRIGGERS]
        tables = frozenset(name for kind, name, _ in ours if kind == "table")
        state = newest_change = None
        if "edgeproxy_changes" in tables:
            (newest_change,) = connection.execute("SELECT max(change) FROM edgeproxy_changes").fetchone()
            state = _State.read(connection) if "edgeproxy_log" in tables else None
        triggers = {name: definition for kind, name, definition in ours if kind == "trigger"}
        return cls((*columns_of(connection, path), "deleted"), tables, triggers, state, newest_change)

    @property
    def has_all_tables(self) -> bool:
        return self.tables >= _TABLES.keys()


def _triggers(columns: tuple[str, ...]) -> dict[str, str]:
    """Name to definition, for a table with these columns, ``id`` first."""
    return {**_backends_triggers(columns), **_ROWS_TRIGGERS}


def _backends_triggers(columns: tuple[str, ...]) -> dict[str, str]:
    text = row_text_sql(columns[1:], "NEW")
    # An inner OR REPLACE would be worth nothing: the conflict clause of the user's statement overrides it.
    put = (
        f"UPDATE edgeproxy_rows SET image = {text} WHERE id = NEW.id AND typeof(NEW.id) = 'text'; "
        f"INSERT INTO edgeproxy_rows SELECT NEW.id, {text} WHERE typeof(NEW.id) = 'text' "
        "AND NOT EXISTS (SELECT 1 FROM edgeproxy_rows WHERE id = NEW.id);"
    )
    take = "DELETE FROM edgeproxy_rows WHERE id = OLD.id"
    bodies = {
        "INSERT": put,
        f"UPDATE OF {', '.join(columns)}": f"{take} AND OLD.id IS NOT NEW.id; {put}",
        "DELETE": f"{take};",
    }
    triggers = {}
    for event, body in bodies.items():
        name = f"edgeproxy_backends_{event.partition(' ')[0].lower()}"
        triggers[name] = f"CREATE TRIGGER {name} AFTER {event} ON backends BEGIN {body} END"
    return triggers


def _unseen(connection: sqlite3.Connection, columns: tuple[str, ...]) -> Iterator[str]:
    """The ids of the rows that differ from what the log has."""
    text = row_text_sql(columns[1:], "backends")
    query = f"""
        SELECT id FROM edgeproxy_rows
        WHERE image IS NOT (SELECT {text} FROM backends WHERE edgeproxy_rows.id = backends.id)
        UNION ALL SELECT id FROM backends
        WHERE typeof(id) = 'text' AND id NOT IN (SELECT id FROM edgeproxy_rows)
    """
    return (text_of(row_id) for (row_id,) in connection.execute(query))


def _log_differences(connection: sqlite3.Connection, columns: tuple[str, ...]) -> None:
    """Make ``edgeproxy_rows`` equal to the table; its triggers log what that takes."""
    text = row_text_sql(columns[1:], "backends")
    current = f"(SELECT {text} FROM backends WHERE edgeproxy_rows.id = backends.id)"
    connection.execute(
        "DELETE FROM edgeproxy_rows WHERE id NOT IN (SELECT id FROM backends WHERE id IS NOT NULL)"
    )
    connection.execute(f"UPDATE edgeproxy_rows SET image = {current} WHERE image <> {current}")
    connection.execute(
        f"INSERT INTO edgeproxy_rows SELECT id, {text} FROM backends "
        "WHERE typeof(id) = 'text' AND id NOT IN (SELECT id FROM edgeproxy_rows)"
    )


def _assign(connection: sqlite3.Connection, state: _State, author: str) -> _State:
    """Give the pending entries an author and the origin's next numbers."""
    query = "SELECT change FROM edgeproxy_changes WHERE change > ? ORDER BY change"
    pending = [change for (change,) in connection.execute(query, (state.last_change,))]
    if not pending:
        return state
    connection.executemany(
        "UPDATE edgeproxy_changes SET author = ?, origin = ?, sequence = ? WHERE change = ?",
        (
            (author, state.origin, sequence, change)
            for sequence, change in enumerate(pending, state.sequence + 1)
        ),
    )
    state = state._replace(sequence=state.sequence + len(pending), last_change=pending[-1])
    connection.execute(
        "UPDATE edgeproxy_log SET sequence = ?, last_change = ?", (state.sequence, state.last_change)
    )
    return state


class Position(NamedTuple):
    """How far the log goes."""

    origin: str
    sequence: int
    """The last number of ``origin``."""
    last_change: int
    """The last entry that has an author."""


def position(connection: sqlite3.Connection) -> Position:
    """Where the log stands, in a transaction of :meth:`SqliteChangeLog.writing`."""
    state = _State.read(connection)
    assert state is not None
    return Position(state.origin, state.sequence, state.last_change)


def take_number(connection: sqlite3.Connection) -> int:
    """Give the next number of the origin to something that is no entry."""
    connection.execute("UPDATE edgeproxy_log SET sequence = sequence + 1")
    return position(connection).sequence


def attribute(connection: sqlite3.Connection, row_id: str, author: str, origin: str, sequence: int) -> None:
    """Give the pending entries, those of one row, to somebody else's change of that row.

    What a trigger of the file's owner did to other rows is given to the outside.
    """
    state = _State.read(connection)
    assert state is not None
    connection.execute(
        "UPDATE edgeproxy_changes SET author = ?, origin = ?, sequence = ? WHERE change > ? AND id = ?",
        (author, origin, sequence, state.last_change, row_id),
    )
    query = "SELECT change FROM edgeproxy_changes WHERE change > ? AND author IS NULL ORDER BY change"
    others = connection.execute(query, (state.last_change,)).fetchall()
    for number, (change,) in enumerate(others, state.sequence + 1):
        connection.execute(
            "UPDATE edgeproxy_changes SET author = ?, origin = ?, sequence = ? WHERE change = ?",
            (OUTSIDE, state.origin, number, change),
        )
    connection.execute(
        "UPDATE edgeproxy_log SET sequence = sequence + ?, "
        "last_change = max(last_change, (SELECT coalesce(max(change), 0) FROM edgeproxy_changes))",
        (len(others),),
    )


def captured_up_to(connection: sqlite3.Connection) -> int:
    """The last entry of which the replica has made a write, 0 before the first."""
    query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'edgeproxy_replica'"
    if connection.execute(query).fetchone() is None:
        return 0
    row = connection.execute("SELECT captured FROM edgeproxy_replica").fetchone()
    return 0 if row is None else int(row[0])


def obstacle(connection: sqlite3.Connection, path: Path) -> str | None:
    """Return what keeps the table from having a change log, or ``None``."""
    columns_of(connection, path)
    query = "SELECT type FROM sqlite_master WHERE lower(name) = 'backends' AND type IN ('table', 'view')"
    if connection.execute(query).fetchone() == ("view",):
        return "backends is a view, not a table"
    for _, index, is_unique, _, is_partial in connection.execute("PRAGMA index_list(backends)").fetchall():
        keys = [
            (str(name).lower(), collation)
            for _, _, name, _, collation, is_key in connection.execute(
                f"PRAGMA index_xinfo({_quoted(index)})"
            )
            if is_key
        ]
        if is_unique and not is_partial and keys == [("id", "BINARY")]:
            return None
    return (
        "the ids of the table backends may repeat; "
        "keep them apart with: CREATE UNIQUE INDEX backends_id ON backends (id)"
    )


def forget_file(connection: sqlite3.Connection, path: Path) -> None:
    """Have the next writer begin a new incarnation: this copy may be put in the place of another file."""
    if "edgeproxy_log" in _Found.by(connection, path).tables:
        connection.execute("UPDATE edgeproxy_log SET inode = NULL")


def inconsistencies(connection: sqlite3.Connection, path: Path) -> list[str]:
    """Return what is wrong with the log, one line each; nothing when there is no log yet."""
    found = _Found.by(connection, path)
    if not found.tables:
        return []
    if not found.has_all_tables:
        return [f"the table {table} is missing" for table in _TABLES if table not in found.tables]
    if found.state is None:
        return ["edgeproxy_log is empty"]
    problems = []
    for name, definition in sorted(_triggers(found.columns).items()):
        if found.triggers.get(name) != definition:
            what = "differs from ours" if name in found.triggers else "is missing"
            problems.append(f"the trigger {name} {what}; edits are noticed only by comparing rows")
    problems += [
        f"backend {row_id!r} changed unseen by the log" for row_id in _unseen(connection, found.columns)
    ]
    query = """
        SELECT origin, min(sequence), max(sequence), count(DISTINCT sequence), count(*)
        FROM edgeproxy_changes WHERE change <= ? AND author NOT LIKE ? GROUP BY origin
    """
    has_replica = captured_up_to(connection) > 0
    for origin, first, last, distinct, count in connection.execute(
        query, (found.state.last_change, f"{PEER}%")
    ):
        if has_replica and origin is not None:
            # Numbers are given to rows that were there before, too, which are no changes of the table.
            continue
        if origin is None or not last - first + 1 == distinct == count:
            problems.append(f"the numbers of origin {origin} have gaps or repeat")
        elif origin == found.state.origin and last != found.state.sequence:
            problems.append(f"the last number of origin {origin} is {last}, not {found.state.sequence}")
    return problems


def _quoted(name: object) -> str:
    escaped = str(name).replace('"', '""')
    return f'"{escaped}"'


def _written(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"
