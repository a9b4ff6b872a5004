"""The contract of leases, held by a store in memory, and not held by stores with known bugs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import pytest

from edgeproxy.errors import StoreError
from edgeproxy.ports import Lease, LeaseOperation, LeaseWrite, NotWritten, Row, RowChange
from testkit.contracts.lease_store import LeaseStoreContract

Rows = dict[str, dict[str, object]]
Leases = dict[str, Lease]


class MemoryHarness:
    """Rows and leases in dictionaries, shared by all stores opened on them."""

    unavailable = StoreError
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

    def apply(self, operations: Sequence[tuple[str, LeaseOperation[Any]]]) -> Sequence[Any]:
        self.reach()
        before = deepcopy((self.harness.rows, self.harness.leases))
        try:
            return [self.run(*each) for each in operations]
        except BaseException:
            self.undo(*before)
            raise

    def reach(self) -> None:
        if self.harness.is_cut_off:
            raise StoreError("cut off")

    def counts(self, row_id: str) -> bool:
        return not self.harness.rows.get(row_id, {"deleted": 1})["deleted"]

    def undo(self, rows: Rows, leases: Leases) -> None:
        self.harness.rows, self.harness.leases = rows, leases

    def run(self, row_id: str, operation: LeaseOperation[Any]) -> Any:
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


class TestMemoryLeases(LeaseStoreContract):
    @pytest.fixture
    def harness(self) -> MemoryHarness:
        return MemoryHarness()


# ---- stores with known bugs --------------------------------------------------------------------------


class ShowsLeasesOfRemovedRows(MemoryLeases):
    def counts(self, row_id: str) -> bool:
        return row_id in self.harness.rows


class ShowsLeasesOfErasedRows(MemoryLeases):
    def counts(self, row_id: str) -> bool:
        return row_id not in self.harness.rows or super().counts(row_id)


class KeepsTheFirstLease(MemoryLeases):
    def write_lease(self, write: LeaseWrite) -> None:
        if write.id not in self.harness.leases or write.lease is None:
            super().write_lease(write)


class EndsNoLease(MemoryLeases):
    def write_lease(self, write: LeaseWrite) -> None:
        if write.lease is not None:
            super().write_lease(write)


class RemovesTheRowWithItsLease(MemoryLeases):
    def write_lease(self, write: LeaseWrite) -> None:
        super().write_lease(write)
        if write.lease is None:
            self.harness.rows.pop(write.id, None)


class ForgetsTheMark(MemoryLeases):
    def write_lease(self, write: LeaseWrite) -> None:
        super().write_lease(write)
        self.harness.health_is_written(write.id)


class ShowsEachOperationTheRowsOfTheBeginning(MemoryLeases):
    def apply(self, operations: Sequence[tuple[str, LeaseOperation[Any]]]) -> Sequence[Any]:
        self.beginning = deepcopy(self.harness.rows)
        return super().apply(operations)

    def table(self) -> Mapping[str, Row]:
        return {**self.harness.rows, **self.beginning}


class UndoesNothing(MemoryLeases):
    def undo(self, rows: Rows, leases: Leases) -> None: ...


class GivesUpAtTheFirstRefusal(MemoryLeases):
    def run(self, row_id: str, operation: LeaseOperation[Any]) -> Any:
        outcome = super().run(row_id, operation)
        if isinstance(outcome, NotWritten):
            raise StoreError(outcome.why)
        return outcome


class WritesOnlyTheLastOfMany(MemoryLeases):
    def apply(self, operations: Sequence[tuple[str, LeaseOperation[Any]]]) -> Sequence[Any]:
        return [*[None] * (len(operations) - 1), *super().apply(operations[-1:])]


class KeepsQuietWhenCutOff(MemoryLeases):
    def leases(self) -> Sequence[Lease]:
        return [] if self.harness.is_cut_off else super().leases()


Contract = LeaseStoreContract


@pytest.mark.parametrize(
    ("kind", "caught_by"),
    [
        (ShowsLeasesOfRemovedRows, Contract.test_lease_of_a_row_that_somebody_removed_is_not_shown),
        (ShowsLeasesOfErasedRows, Contract.test_lease_of_a_row_that_somebody_removed_is_not_shown),
        (KeepsTheFirstLease, Contract.test_renewal_leaves_the_row_as_it_is),
        (EndsNoLease, Contract.test_lease_ends_with_its_row),
        (RemovesTheRowWithItsLease, Contract.test_lease_ends_with_its_row),
        (ForgetsTheMark, Contract.test_whoever_writes_health_takes_it_from_the_lease),
        (ForgetsTheMark, Contract.test_edits_of_other_columns_and_rows_leave_it_with_the_lease),
        (ShowsEachOperationTheRowsOfTheBeginning, Contract.test_operations_of_one_call_see_what_others_wrote),
        (UndoesNothing, Contract.test_operation_that_raises_undoes_the_whole_call),
        (UndoesNothing, Contract.test_operation_that_the_table_refuses_is_undone_and_the_others_are_not),
        (WritesOnlyTheLastOfMany, Contract.test_many_renewals_are_all_written),
        (KeepsQuietWhenCutOff, Contract.test_store_that_is_out_of_reach_says_so_and_recovers_by_itself),
    ],
)  # fmt: skip
def test_bug_is_caught(
    kind: type[MemoryLeases], caught_by: Callable[[LeaseStoreContract, MemoryHarness], None]
) -> None:
    with pytest.raises(AssertionError):
        caught_by(LeaseStoreContract(), MemoryHarness(kind))


def test_refusal_that_ends_the_call_is_caught() -> None:
    fact = LeaseStoreContract.test_operation_that_the_table_refuses_is_undone_and_the_others_are_not
    with pytest.raises(StoreError, match="are not ours"):
        fact(LeaseStoreContract(), MemoryHarness(GivesUpAtTheFirstRefusal))
