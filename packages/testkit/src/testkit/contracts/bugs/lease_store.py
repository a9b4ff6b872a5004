"""Stores of leases with a known bug."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from testkit.contracts.lease_store import LeaseStoreContract
from testkit.contracts.planted import PlantedBugs, Suite
from testkit.contracts.references.lease_store import (
    Lease,
    LeaseOperation,
    Leases,
    LeaseWrite,
    MemoryHarness,
    MemoryLeases,
    NotWritten,
    Rows,
)
from testkit.contracts.references.row_store import UnavailableError
from testkit.contracts.row_store import Row

Contract = LeaseStoreContract
BUGS = PlantedBugs(Contract, MemoryHarness)


@BUGS.caught_by(Contract.test_lease_of_a_row_that_somebody_removed_is_not_shown)
class ShowsLeasesOfRemovedRows(MemoryLeases):
    def counts(self, row_id: str) -> bool:
        return row_id in self.harness.rows


@BUGS.caught_by(Contract.test_lease_of_a_row_that_somebody_removed_is_not_shown)
class ShowsLeasesOfErasedRows(MemoryLeases):
    def counts(self, row_id: str) -> bool:
        return row_id not in self.harness.rows or super().counts(row_id)


@BUGS.caught_by(Contract.test_renewal_leaves_the_row_as_it_is)
class KeepsTheFirstLease(MemoryLeases):
    def write_lease(self, write: LeaseWrite) -> None:
        if write.id not in self.harness.leases or write.lease is None:
            super().write_lease(write)


@BUGS.caught_by(Contract.test_lease_ends_with_its_row)
class EndsNoLease(MemoryLeases):
    def write_lease(self, write: LeaseWrite) -> None:
        if write.lease is not None:
            super().write_lease(write)


@BUGS.caught_by(Contract.test_lease_ends_with_its_row)
class RemovesTheRowWithItsLease(MemoryLeases):
    def write_lease(self, write: LeaseWrite) -> None:
        super().write_lease(write)
        if write.lease is None:
            self.harness.rows.pop(write.id, None)


@BUGS.caught_by(
    Contract.test_whoever_writes_health_takes_it_from_the_lease,
    Contract.test_edits_of_other_columns_and_rows_leave_it_with_the_lease,
)
class ForgetsTheMark(MemoryLeases):
    def write_lease(self, write: LeaseWrite) -> None:
        super().write_lease(write)
        self.harness.health_is_written(write.id)


@BUGS.caught_by(Contract.test_operations_of_one_call_see_what_others_wrote)
class ShowsEachOperationTheRowsOfTheBeginning(MemoryLeases):
    def apply(self, operations: Sequence[tuple[str, LeaseOperation]]) -> Sequence[Any]:
        self.beginning = deepcopy(self.harness.rows)
        return super().apply(operations)

    def table(self) -> Mapping[str, Row]:
        return {**self.harness.rows, **self.beginning}


@BUGS.caught_by(
    Contract.test_operation_that_raises_undoes_the_whole_call,
    Contract.test_operation_that_the_table_refuses_is_undone_and_the_others_are_not,
)
class UndoesNothing(MemoryLeases):
    def undo(self, rows: Rows, leases: Leases) -> None: ...


@BUGS.caught_by(Contract.test_operation_that_the_table_refuses_is_undone_and_the_others_are_not)
class GivesUpAtTheFirstRefusal(MemoryLeases):
    def run(self, row_id: str, operation: LeaseOperation) -> Any:
        outcome = super().run(row_id, operation)
        if isinstance(outcome, NotWritten):
            raise UnavailableError(outcome.why)
        return outcome


@BUGS.caught_by(Contract.test_many_renewals_are_all_written)
class WritesOnlyTheLastOfMany(MemoryLeases):
    def apply(self, operations: Sequence[tuple[str, LeaseOperation]]) -> Sequence[Any]:
        return [*[None] * (len(operations) - 1), *super().apply(operations[-1:])]


@BUGS.caught_by(Contract.test_store_that_is_out_of_reach_says_so_and_recovers_by_itself)
class KeepsQuietWhenCutOff(MemoryLeases):
    def leases(self) -> Sequence[Lease]:
        return [] if self.harness.is_cut_off else super().leases()


SUITE = Suite(
    Contract,
    "testkit.contracts.references.lease_store:MemoryHarness",
    BUGS,
    mutate=(MemoryLeases.__name__,),
)
