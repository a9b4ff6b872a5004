"""What replication keeps in ``routing.db``, as one transaction sees it.

- ``edgeproxy_cells``: for each row, and for what is left of each removed one, its cells; also why the table
  refuses the row, if it does.
- ``edgeproxy_writes``: the replicated log, writes of all origins in the order in which they arrived.
- ``edgeproxy_known``: which numbers of each origin are known, whether or not the log still has them.
- ``edgeproxy_replica``: whose entries of the change log have become writes, up to which; the latest stamp.

Only we read them, so what belongs together is one msgpack value: ten thousand rows are ten thousand
inserts and not fifty thousand.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Final, NamedTuple, TypeVar

import msgspec

from edgeproxy.core.replication.model import Cell, Group, Stamp, Write
from edgeproxy.core.replication.rows import Cells, is_present, row_fingerprint
from edgeproxy.core.replication.vector import Known
from edgeproxy.errors import StoreError

Decoded = TypeVar("Decoded")

_SCHEMA: Final = (
    """
    CREATE TABLE edgeproxy_cells (
        id TEXT PRIMARY KEY, cells BLOB, fingerprint INTEGER, refused TEXT
    )
    """,
    # Few rows are refused and few are tombstones; fingerprints are summed up without reading cells.
    "CREATE INDEX edgeproxy_cells_refused ON edgeproxy_cells (refused)",
    "CREATE INDEX edgeproxy_cells_fingerprint ON edgeproxy_cells (fingerprint)",
    """
    CREATE TABLE edgeproxy_writes (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        origin TEXT, sequence INTEGER, at_ms INTEGER, content BLOB, UNIQUE (origin, sequence)
    )
    """,
    "CREATE TABLE edgeproxy_known (origin TEXT PRIMARY KEY, ranges BLOB)",
    "CREATE TABLE edgeproxy_replica (origin TEXT, captured INTEGER, wall_ms INTEGER)",
)

_CELLS: Final = msgspec.msgpack.Decoder(dict[Group, Cell])
_WRITE: Final = msgspec.msgpack.Decoder(Write)
_RANGES: Final = msgspec.msgpack.Decoder(tuple[tuple[int, int], ...])
_encode: Final = msgspec.msgpack.Encoder().encode

_TABLES: Final = ("edgeproxy_cells", "edgeproxy_writes", "edgeproxy_known", "edgeproxy_replica")


class Row(NamedTuple):
    """One row of ``edgeproxy_cells``."""

    id: str
    cells: dict[Group, Cell]
    refused: str | None
    """Why the table does not take what the cells say."""


class ReplicaTables:
    """The replicated state in a transaction; :meth:`save` writes what it holds in memory."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.exists = has_tables(connection)
        self.origin: str | None = None
        self.captured = 0
        """The last entry of the change log that is a write."""
        self.wall_ms = 0
        """Of the latest stamp."""
        self.known = Known()
        if self.exists:
            state = connection.execute("SELECT origin, captured, wall_ms FROM edgeproxy_replica").fetchone()
            if state is not None:
                self.origin, self.captured, self.wall_ms = state
            self.known = read_known(connection)
        self._as_read = self._memory()

    def make(self) -> None:
        """Add the tables; what is left of some of them says nothing without the others."""
        for table in _TABLES:
            self._connection.execute(f"DROP TABLE IF EXISTS {table}")
        for statement in _SCHEMA:
            self._connection.execute(statement)
        self.exists = True

    def _memory(self) -> tuple[object, ...]:
        return self.origin, self.captured, self.wall_ms, self.known.ranges

    def save(self) -> None:
        """Write what was learnt in memory."""
        memory = self._memory()
        if memory == self._as_read:
            return
        connection = self._connection
        connection.execute("DELETE FROM edgeproxy_replica")
        connection.execute(
            "INSERT INTO edgeproxy_replica VALUES (?, ?, ?)", (self.origin, self.captured, self.wall_ms)
        )
        connection.execute("DELETE FROM edgeproxy_known")
        connection.executemany(
            "INSERT INTO edgeproxy_known VALUES (?, ?)",
            [(origin, _encode(spans)) for origin, spans in self.known.ranges.items()],
        )
        self._as_read = memory

    # ---- cells ---------------------------------------------------------------------------------------

    def cells(self, row_id: str) -> dict[Group, Cell]:
        """The cells of one row; empty for one that nobody knows."""
        return self.row(row_id).cells

    def row(self, row_id: str) -> Row:
        """One row; it has no cells when nobody knows it."""
        query = "SELECT cells, refused FROM edgeproxy_cells WHERE id = ?"
        found = self._connection.execute(query, (row_id,)).fetchone()
        return Row(row_id, {}, None) if found is None else Row(row_id, _decoded(_CELLS, found[0]), found[1])

    def rows(self, condition: str = "1", *values: object, limit: int = -1) -> Iterator[Row]:
        """Rows in the order of their ids, which may be changed meanwhile; ``condition`` is SQL of ours."""
        query = f"SELECT id, cells, refused FROM edgeproxy_cells WHERE {condition} ORDER BY id LIMIT ?"  # noqa: S608
        for row_id, cells, refused in self._connection.execute(query, (*values, limit)).fetchall():
            yield Row(row_id, _decoded(_CELLS, cells), refused)

    def refused(self) -> dict[str, str]:
        """Row to why the table does not take it."""
        query = "SELECT id, refused FROM edgeproxy_cells WHERE refused IS NOT NULL"
        return dict(self._connection.execute(query))

    def put(self, row_id: str, cells: Cells, refused: str | None) -> None:
        """Make these the cells of a row; a row without any is forgotten."""
        if not cells:
            self._connection.execute("DELETE FROM edgeproxy_cells WHERE id = ?", (row_id,))
            return
        fingerprint = None
        if is_present(cells):
            dots = [(group, cell.dot) for group, cell in cells.items()]
            fingerprint = _signed(row_fingerprint(row_id, dots))
        self._connection.execute(
            "REPLACE INTO edgeproxy_cells VALUES (?, ?, ?, ?)", (row_id, _encode(cells), fingerprint, refused)
        )

    # ---- the log -------------------------------------------------------------------------------------

    def add(self, write: Write, at_ms: int) -> None:
        """Put a write that was not known into the log."""
        dot = write.dot
        self._connection.execute(
            "INSERT INTO edgeproxy_writes (origin, sequence, at_ms, content) VALUES (?, ?, ?, ?)",
            (dot.origin, dot.sequence, at_ms, _encode(write)),
        )
        self.known.add(dot)
        self.saw(write.stamp)

    def saw(self, stamp: Stamp) -> None:
        """Remember how far stamps have come."""
        self.wall_ms = max(self.wall_ms, stamp.wall_ms)

    def drop_old(self, max_writes: int, oldest_ms: int) -> None:
        """Drop writes beyond so many, and those that arrived before; of each origin a whole beginning."""
        query = "SELECT min(number), max(number), min(at_ms) FROM edgeproxy_writes"
        first, last, at_ms = self._connection.execute(query).fetchone()
        if first is None or (last - first < max_writes and at_ms >= oldest_ms):
            return
        query = (
            "SELECT origin, max(sequence) FROM edgeproxy_writes "
            "WHERE number <= ? OR at_ms < ? GROUP BY origin"
        )
        for origin, sequence in self._connection.execute(query, (last - max_writes, oldest_ms)).fetchall():
            self._connection.execute(
                "DELETE FROM edgeproxy_writes WHERE origin = ? AND sequence <= ?", (origin, sequence)
            )

    def forget_origin(self, origin: str) -> None:
        """Know nothing of an origin any more: under its numbers others have other writes."""
        self._connection.execute("DELETE FROM edgeproxy_writes WHERE origin = ?", (origin,))
        self.known = Known({each: spans for each, spans in self.known.ranges.items() if each != origin})


def has_tables(connection: sqlite3.Connection) -> bool:
    """Whether this file has been replicated."""
    query = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN (?, ?, ?, ?)"
    (count,) = connection.execute(query, _TABLES).fetchone()
    return bool(count == len(_TABLES))


def read_known(connection: sqlite3.Connection) -> Known:
    """Which writes are known."""
    query = "SELECT origin, ranges FROM edgeproxy_known"
    return Known({origin: _decoded(_RANGES, ranges) for origin, ranges in connection.execute(query)})


def read_fingerprint(connection: sqlite3.Connection) -> int:
    """The fingerprint of all present rows; see :func:`edgeproxy.core.replication.rows.row_fingerprint`."""
    query = "SELECT fingerprint FROM edgeproxy_cells WHERE fingerprint IS NOT NULL"
    return sum(int(each) for (each,) in connection.execute(query)) & _MASK


def read_writes(
    connection: sqlite3.Connection, origin: str, span: tuple[int, int], limit: int
) -> Iterator[Write]:
    """Writes of an origin that the log still has, by their numbers."""
    query = (
        "SELECT content FROM edgeproxy_writes WHERE origin = ? AND sequence BETWEEN ? AND ? "
        "ORDER BY sequence LIMIT ?"
    )
    for (content,) in connection.execute(query, (origin, *span, limit)):
        yield _decoded(_WRITE, content)


def _decoded(decoder: msgspec.msgpack.Decoder[Decoded], content: bytes) -> Decoded:
    try:
        return decoder.decode(content)
    except (msgspec.DecodeError, TypeError) as error:
        raise StoreError(f"what replication keeps in the database was altered: {error}") from error


_MASK: Final = (1 << 64) - 1


def _signed(fingerprint: int) -> int:
    """As the integers of SQLite are."""
    return fingerprint - (1 << 64) if fingerprint >> 63 else fingerprint
