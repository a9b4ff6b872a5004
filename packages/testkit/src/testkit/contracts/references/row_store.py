"""Rows in a dictionary, and stores of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from testkit.contracts.row_store import COLUMNS, Row

Rows = dict[str, dict[str, object]]
Operation = Callable[[Mapping[str, Row]], Any]


class UnavailableError(Exception):
    """The rows cannot be reached."""


@dataclass(frozen=True, slots=True)
class RowChange:
    """What an operation returns to have values written into a row."""

    id: str
    values: Row


class MemoryHarness:
    """Rows in a dictionary, shared by all stores opened on it."""

    unavailable = UnavailableError

    def __init__(self, kind: type[MemoryStore] | None = None) -> None:
        self.rows: Rows = {}
        self.lock = threading.Lock()
        self.is_cut_off = False
        self._kind = kind or MemoryStore

    def open(self) -> MemoryStore:
        return self._kind(self)

    def change(self, row_id: str, values: Row) -> RowChange:
        return RowChange(row_id, values)

    def put(self, row: Row) -> None:
        with self.lock:
            self.rows[str(row["id"])] = dict(row)

    def erase(self, row_id: str) -> None:
        with self.lock:
            del self.rows[row_id]

    def cut_off(self) -> None:
        self.is_cut_off = True

    def restore(self) -> None:
        self.is_cut_off = False


class MemoryStore:
    """A store as it should be."""

    def __init__(self, harness: MemoryHarness) -> None:
        self.harness = harness
        self.known: list[Row] | None = None

    def poll(self) -> Sequence[Row] | None:
        self.reach()
        with self.harness.lock:
            rows = [self.shown(row) for row in self.harness.rows.values() if self.counts(row)]
        if rows == self.known:
            return None
        self.known = rows
        return rows

    def apply(self, operation: Operation) -> Any:
        self.reach()
        with self.harness.lock:
            decision = operation(self.table())
            if isinstance(decision, RowChange):
                self.write(decision)
            return decision

    def reach(self) -> None:
        if self.harness.is_cut_off:
            raise UnavailableError("cut off")

    def table(self) -> Mapping[str, Row]:
        return {row_id: dict(row) for row_id, row in self.harness.rows.items()}

    def write(self, change: RowChange) -> None:
        empty = dict.fromkeys((*COLUMNS, "deleted"))
        row = self.harness.rows.get(change.id, empty)
        self.harness.rows[change.id] = {**row, "id": change.id, **change.values}

    def counts(self, row: Row) -> bool:
        return not row["deleted"]

    def shown(self, row: Row) -> Row:
        return {column: row[column] for column in COLUMNS}
