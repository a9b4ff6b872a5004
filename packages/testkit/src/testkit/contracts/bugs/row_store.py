"""Stores of rows with a known bug."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from testkit.contracts.planted import PlantedBugs, Suite
from testkit.contracts.references.row_store import MemoryHarness, MemoryStore, Operation, RowChange
from testkit.contracts.row_store import Row, RowStoreContract

Contract = RowStoreContract
BUGS = PlantedBugs(Contract, MemoryHarness)


@BUGS.caught_by(Contract.test_poll_without_a_change_returns_none)
class ReturnsTheSameRowsAgain(MemoryStore):
    def poll(self) -> Sequence[Row] | None:
        self.known = None
        return super().poll()


@BUGS.caught_by(Contract.test_edit_from_outside_is_seen_at_the_next_poll)
class LooksOnlyOnce(MemoryStore):
    def poll(self) -> Sequence[Row] | None:
        return super().poll() if self.known is None else None


@BUGS.caught_by(Contract.test_edit_from_outside_is_seen_at_the_next_poll)
class NoticesOnlyHowManyRowsThereAre(MemoryStore):
    def poll(self) -> Sequence[Row] | None:
        if self.known is not None and len(self.known) == len(self.harness.rows):
            return None
        return super().poll()


@BUGS.caught_by(Contract.test_removed_rows_are_left_out)
class ShowsRemovedRows(MemoryStore):
    def counts(self, row: Row) -> bool:
        return True


@BUGS.caught_by(Contract.test_removed_rows_are_left_out)
class TakesAnUnknownForRemoved(MemoryStore):
    def counts(self, row: Row) -> bool:
        return row["deleted"] == 0


@BUGS.caught_by(Contract.test_bad_rows_pass_through_as_they_are)
class LeavesBadRowsOut(MemoryStore):
    def counts(self, row: Row) -> bool:
        return super().counts(row) and row["port"] is not None


@BUGS.caught_by(Contract.test_text_comes_back_as_it_was_written)
class MendsValues(MemoryStore):
    def shown(self, row: Row) -> Row:
        return {**super().shown(row), "app": str(row["app"]).strip()}


@BUGS.caught_by(Contract.test_operation_sees_every_row_by_its_id)
class HidesRemovedRowsFromOperations(MemoryStore):
    def table(self) -> Mapping[str, Row]:
        return {row_id: row for row_id, row in super().table().items() if not row["deleted"]}


@BUGS.caught_by(Contract.test_change_is_written_and_returned)
class ForgetsTheOtherColumns(MemoryStore):
    def write(self, change: RowChange) -> None:
        self.harness.rows.pop(change.id, None)
        super().write(change)


@BUGS.caught_by(Contract.test_change_of_an_unknown_id_makes_a_row)
class ChangesOnlyWhatIsThere(MemoryStore):
    def write(self, change: RowChange) -> None:
        if change.id in self.harness.rows:
            super().write(change)


@BUGS.caught_by(Contract.test_anything_but_a_change_writes_nothing_and_is_returned)
class ShowsItsOwnRowsToOperations(MemoryStore):
    """What an operation does to them before it fails would stay."""

    def apply(self, operation: Operation) -> Any:
        self.reach()
        with self.harness.lock:
            for row in self.harness.rows.values():
                row["weight"] = (row["weight"] or 0) + 1  # type: ignore[operator]
            decision = operation(self.table())
            if isinstance(decision, RowChange):
                self.write(decision)
            return decision


@BUGS.caught_by(Contract.test_operation_that_raises_writes_nothing)
class SwallowsErrorsOfOperations(MemoryStore):
    def apply(self, operation: Operation) -> Any:
        try:
            return super().apply(operation)
        except ZeroDivisionError:
            return None


@BUGS.caught_by(Contract.test_no_operation_runs_between_what_another_sees_and_writes)
class LetsOperationsOverlap(MemoryStore):
    def apply(self, operation: Operation) -> Any:
        self.reach()
        decision = operation(self.table())
        if isinstance(decision, RowChange):
            self.write(decision)
        return decision


@BUGS.caught_by(Contract.test_store_that_cannot_be_read_says_so_each_time)
class KeepsQuietWhenCutOff(MemoryStore):
    def poll(self) -> Sequence[Row] | None:
        return None if self.harness.is_cut_off else super().poll()


@BUGS.caught_by(Contract.test_store_that_cannot_be_read_says_so_each_time)
class SaysOnlyOnceThatItIsCutOff(MemoryStore):
    said = False

    def reach(self) -> None:
        if self.harness.is_cut_off and not self.said:
            self.said = True
            super().reach()


@BUGS.caught_by(Contract.test_store_that_cannot_be_written_stays_as_it_was)
class WritesAndSaysThatItCannot(MemoryStore):
    def apply(self, operation: Operation) -> Any:
        decision = operation(self.table())
        self.write(decision)
        self.reach()
        return decision


@BUGS.caught_by(Contract.test_store_recovers_by_itself)
class TakesAllRowsForNewAfterAnError(MemoryStore):
    def reach(self) -> None:
        if self.harness.is_cut_off:
            self.known = None
        super().reach()


@BUGS.caught_by(Contract.test_store_recovers_by_itself)
class LooksNoMoreAfterAnError(MemoryStore):
    broken = False

    def poll(self) -> Sequence[Row] | None:
        self.broken = self.broken or self.harness.is_cut_off
        self.reach()
        return None if self.broken else super().poll()


SUITE = Suite(
    Contract,
    "testkit.contracts.references.row_store:MemoryHarness",
    BUGS,
    mutate=(MemoryStore.__name__,),
)
