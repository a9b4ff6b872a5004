"""A node's disk that outlives it: a file of SQLite, in which only what has changed is written."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from examples.log.node import Disk
from examples.log.wire import Entry

_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
CREATE TABLE IF NOT EXISTS vote (
    one INTEGER PRIMARY KEY CHECK (one = 1), term INTEGER NOT NULL, voted_for TEXT
);
CREATE TABLE IF NOT EXISTS entries (number INTEGER PRIMARY KEY, term INTEGER NOT NULL, payload BLOB);
"""


class StoredDisk(Disk):
    """What ``file`` has, and changes that :meth:`save` has still to write into it."""

    def __init__(self, file: Path) -> None:
        """Raises ``sqlite3.Error`` when it cannot be opened, or is no such file."""
        self._database = sqlite3.connect(file)
        try:
            self._database.executescript(_SCHEMA)
            vote = self._database.execute("SELECT term, voted_for FROM vote").fetchone() or (0, None)
            rows = self._database.execute("SELECT term, payload FROM entries ORDER BY number").fetchall()
        except BaseException:
            self._database.close()
            raise
        super().__init__(vote[0], vote[1], [Entry(*row) for row in rows])
        self._vote = self.term, self.voted_for
        self._rows = self._kept = len(rows)
        """How many the file has, and how many of them, from the first on, are those of the log."""

    def cut(self, index: int) -> None:
        super().cut(index)
        self._kept = min(self._kept, index - 1)

    def save(self) -> None:
        """Write down what has changed. A node that dies afterwards knows it when it begins anew."""
        vote = self.term, self.voted_for
        if vote == self._vote and self._rows == self._kept == len(self.entries):
            return
        new = enumerate(self.entries[self._kept :], start=self._kept + 1)
        with self._database:
            self._database.execute("REPLACE INTO vote VALUES (1, ?, ?)", vote)
            self._database.execute("DELETE FROM entries WHERE number > ?", (self._kept,))
            self._database.executemany(
                "INSERT INTO entries VALUES (?, ?, ?)",
                [(number, entry.term, entry.payload) for number, entry in new],
            )
        self._vote, self._rows, self._kept = vote, len(self.entries), len(self.entries)

    def close(self) -> None:
        self._database.close()
