"""A log of who changed which row, beside rows in a dictionary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from testkit.contracts.references.row_store import MemoryHarness, MemoryStore, RowChange
from testkit.contracts.row_store import Row, without_id

_KEPT = 20


@dataclass(frozen=True, slots=True)
class Change:
    """One entry; images are without the id, ``None`` where there was no row."""

    number: int
    at: str
    author: str
    id: str
    old: Row | None
    new: Row | None


class MemoryLog:
    """Numbers and times of its own, a millisecond each."""

    def __init__(self) -> None:
        self.entries: list[Change] = []
        self.noted = 0

    def note(self, author: str, row_id: str, old: Row | None, new: Row | None) -> None:
        if old == new:
            return
        self.noted += 1
        at = f"2026-11-20T10:{self.noted // 1000:02}:00.{self.noted % 1000:03}Z"
        self.entries.append(Change(self.noted, at, author, row_id, image(old), image(new)))

    def trim(self) -> None:
        del self.entries[:-_KEPT]

    def changes(self, since: str, limit: int) -> Sequence[Change]:
        return [entry for entry in self.entries if entry.at >= since][-limit:]


class LoggedStore(MemoryStore):
    """Writes as ``ours``."""

    harness: LoggedHarness

    def write(self, change: RowChange) -> None:
        old = self.harness.rows.get(change.id)
        super().write(change)
        self.harness.log.note("ours", change.id, old, self.harness.rows[change.id])

    def tend(self) -> str | None:
        self.harness.log.trim()
        return None

    def changes(self, since: str, limit: int) -> Sequence[Change]:
        return self.harness.log.changes(since, limit)


class LoggedHarness(MemoryHarness):
    """Rows in a dictionary with a log in memory, or of a class made from it."""

    def __init__(self, log: type[MemoryLog] = MemoryLog) -> None:
        super().__init__(LoggedStore)
        self.log = log()

    def open(self) -> LoggedStore:
        return LoggedStore(self)

    def put(self, row: Row) -> None:
        row_id = str(row["id"])
        old = self.rows.get(row_id)
        super().put(row)
        self.log.note("outside", row_id, old, self.rows[row_id])

    def erase(self, row_id: str) -> None:
        old = self.rows[row_id]
        super().erase(row_id)
        self.log.note("outside", row_id, old, None)


def image(row: Row | None) -> Row | None:
    """What is kept of a row."""
    return None if row is None else without_id(row)
