"""Rows and leases in dictionaries, and stores of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from testkit.contracts.references.row_store import RowChange, UnavailableError
from testkit.contracts.row_store import Row

Rows = dict[str, dict[str, object]]


@dataclass(frozen=True, slots=True)
class Lease:
    """That a backend registered itself, and when it was last heard."""

    id: str
    owner: str
    registered_at_s: float
    heartbeat_at_s: float
    expired: bool


@dataclass(frozen=True, slots=True)
class LeaseWrite:
    """What an operation returns to have a row and its lease written."""

    id: str
    row: RowChange | None
    lease: Lease | None


@dataclass(frozen=True, slots=True)
class NotWritten:
    """Stands for an operation whose decision the table refused."""

    why: str


Leases = dict[str, Lease]
LeaseOperation = Callable[[Mapping[str, Row], Any], Any]


class MemoryHarness:
    """Rows and leases in dictionaries, shared by all stores opened on them."""

    unavailable = UnavailableError
    not_written = NotWritten

    def __init__(self, kind: type[MemoryLeases] | None = None) -> None:
        self.rows: Rows = {}
        self.leases: Leases = {}
        self.least_port = 0
        self.is_cut_off = False
        self._kind = kind or MemoryLeases

    def open_leases(self) -> MemoryLeases:
        return self._kind(self)

    def lease(
        self, row_id: str, owner: str, registered_at_s: float, heartbeat_at_s: float, *, expired: bool
    ) -> Lease:
        return Lease(row_id, owner, registered_at_s, heartbeat_at_s, expired)

    def lease_write(self, row_id: str, values: Row | None, lease: Lease | None) -> LeaseWrite:
        return LeaseWrite(row_id, None if values is None else RowChange(row_id, values), lease)

    def put(self, row: Row) -> None:
        self.rows[str(row["id"])] = dict(row)
        self.health_is_written(str(row["id"]))

    def edit(self, row_id: str, values: Row) -> None:
        self.rows[row_id].update(values)
        if "healthy" in values:
            self.health_is_written(row_id)

    def erase(self, row_id: str) -> None:
        del self.rows[row_id]

    def read_row(self, row_id: str) -> Row | None:
        return self.rows.get(row_id)

    def refuse_ports_below(self, port: int) -> None:
        self.least_port = port

    def cut_off(self) -> None:
        self.is_cut_off = True

    def restore(self) -> None:
        self.is_cut_off = False

    def health_is_written(self, row_id: str) -> None:
        if (lease := self.leases.get(row_id)) is not None:
            self.leases[row_id] = Lease(
                row_id, lease.owner, lease.registered_at_s, lease.heartbeat_at_s, expired=False
            )


class MemoryLeases:
    """A store as it should be."""

    def __init__(self, harness: MemoryHarness) -> None:
        self.harness = harness

    def leases(self) -> Sequence[Lease]:
        self.reach()
        return [lease for row_id, lease in self.harness.leases.items() if self.counts(row_id)]

    def apply(self, operations: Sequence[tuple[str, LeaseOperation]]) -> Sequence[Any]:
        self.reach()
        before = deepcopy((self.harness.rows, self.harness.leases))
        try:
            return [self.run(*each) for each in operations]
        except BaseException:
            self.undo(*before)
            raise

    def reach(self) -> None:
        if self.harness.is_cut_off:
            raise UnavailableError("cut off")

    def counts(self, row_id: str) -> bool:
        return not self.harness.rows.get(row_id, {"deleted": 1})["deleted"]

    def undo(self, rows: Rows, leases: Leases) -> None:
        self.harness.rows, self.harness.leases = rows, leases

    def run(self, row_id: str, operation: LeaseOperation) -> Any:
        decision = operation(self.table(), self.harness.leases.get(row_id))
        if not isinstance(decision, LeaseWrite):
            return decision
        before = deepcopy((self.harness.rows, self.harness.leases))
        self.write(decision)
        if any(int(str(each["port"])) < self.harness.least_port for each in self.harness.rows.values()):
            self.undo(*before)
            return NotWritten(f"ports below {self.harness.least_port} are not ours")
        return decision

    def table(self) -> Mapping[str, Row]:
        return self.harness.rows

    def write(self, write: LeaseWrite) -> None:
        if write.row is not None:
            self.harness.rows.setdefault(write.id, {"id": write.id}).update(write.row.values)
        self.write_lease(write)

    def write_lease(self, write: LeaseWrite) -> None:
        if write.lease is not None:
            self.harness.leases[write.id] = write.lease
        else:
            self.harness.leases.pop(write.id, None)
