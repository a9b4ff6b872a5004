"""The contract of stores, held by a store in memory, and not held by stores with known bugs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from edgeproxy.errors import StoreError
from edgeproxy.ports import Operation, Row, RowChange
from testkit.contracts.row_store import COLUMNS, RowStoreContract

Rows = dict[str, dict[str, object]]


class MemoryHarness:
    """Rows in a dictionary, shared by all stores opened on it."""

    unavailable = StoreError

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

    def apply(self, operation: Operation[Any]) -> Any:
        self.reach()
        with self.harness.lock:
            decision = operation(self.table())
            if isinstance(decision, RowChange):
                self.write(decision)
            return decision

    def reach(self) -> None:
        if self.harness.is_cut_off:
            raise StoreError("cut off")

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


class TestMemoryStore(RowStoreContract):
    @pytest.fixture
    def harness(self) -> MemoryHarness:
        return MemoryHarness()


# ---- stores with known bugs --------------------------------------------------------------------------


class ReturnsTheSameRowsAgain(MemoryStore):
    def poll(self) -> Sequence[Row] | None:
        self.known = None
        return super().poll()


class LooksOnlyOnce(MemoryStore):
    def poll(self) -> Sequence[Row] | None:
        return super().poll() if self.known is None else None


class NoticesOnlyHowManyRowsThereAre(MemoryStore):
    def poll(self) -> Sequence[Row] | None:
        if self.known is not None and len(self.known) == len(self.harness.rows):
            return None
        return super().poll()


class ShowsRemovedRows(MemoryStore):
    def counts(self, row: Row) -> bool:
        return True


class TakesAnUnknownForRemoved(MemoryStore):
    def counts(self, row: Row) -> bool:
        return row["deleted"] == 0


class LeavesBadRowsOut(MemoryStore):
    def counts(self, row: Row) -> bool:
        return super().counts(row) and row["port"] is not None


class MendsValues(MemoryStore):
    def shown(self, row: Row) -> Row:
        return {**super().shown(row), "app": str(row["app"]).strip()}


class HidesRemovedRowsFromOperations(MemoryStore):
    def table(self) -> Mapping[str, Row]:
        return {row_id: row for row_id, row in super().table().items() if not row["deleted"]}


class ForgetsTheOtherColumns(MemoryStore):
    def write(self, change: RowChange) -> None:
        self.harness.rows.pop(change.id, None)
        super().write(change)


class ChangesOnlyWhatIsThere(MemoryStore):
    def write(self, change: RowChange) -> None:
        if change.id in self.harness.rows:
            super().write(change)


class ShowsItsOwnRowsToOperations(MemoryStore):
    """What an operation does to them before it fails would stay."""

    def apply(self, operation: Operation[Any]) -> Any:
        self.reach()
        with self.harness.lock:
            for row in self.harness.rows.values():
                row["weight"] = (row["weight"] or 0) + 1  # type: ignore[operator]
            decision = operation(self.table())
            if isinstance(decision, RowChange):
                self.write(decision)
            return decision


class SwallowsErrorsOfOperations(MemoryStore):
    def apply(self, operation: Operation[Any]) -> Any:
        try:
            return super().apply(operation)
        except ZeroDivisionError:
            return None


class LetsOperationsOverlap(MemoryStore):
    def apply(self, operation: Operation[Any]) -> Any:
        self.reach()
        decision = operation(self.table())
        if isinstance(decision, RowChange):
            self.write(decision)
        return decision


class KeepsQuietWhenCutOff(MemoryStore):
    def poll(self) -> Sequence[Row] | None:
        return None if self.harness.is_cut_off else super().poll()


class SaysOnlyOnceThatItIsCutOff(MemoryStore):
    said = False

    def reach(self) -> None:
        if self.harness.is_cut_off and not self.said:
            self.said = True
            super().reach()


class WritesAndSaysThatItCannot(MemoryStore):
    def apply(self, operation: Operation[Any]) -> Any:
        decision = operation(self.table())
        self.write(decision)
        self.reach()
        return decision


class TakesAllRowsForNewAfterAnError(MemoryStore):
    def reach(self) -> None:
        if self.harness.is_cut_off:
            self.known = None
        super().reach()


class LooksNoMoreAfterAnError(MemoryStore):
    broken = False

    def poll(self) -> Sequence[Row] | None:
        self.broken = self.broken or self.harness.is_cut_off
        self.reach()
        return None if self.broken else super().poll()


Contract = RowStoreContract


@pytest.mark.parametrize(
    ("kind", "caught_by"),
    [
        (ReturnsTheSameRowsAgain, Contract.test_poll_without_a_change_returns_none),
        (LooksOnlyOnce, Contract.test_edit_from_outside_is_seen_at_the_next_poll),
        (NoticesOnlyHowManyRowsThereAre, Contract.test_edit_from_outside_is_seen_at_the_next_poll),
        (ShowsRemovedRows, Contract.test_removed_rows_are_left_out),
        (TakesAnUnknownForRemoved, Contract.test_removed_rows_are_left_out),
        (LeavesBadRowsOut, Contract.test_bad_rows_pass_through_as_they_are),
        (MendsValues, Contract.test_text_comes_back_as_it_was_written),
        (HidesRemovedRowsFromOperations, Contract.test_operation_sees_every_row_by_its_id),
        (ForgetsTheOtherColumns, Contract.test_change_is_written_and_returned),
        (ChangesOnlyWhatIsThere, Contract.test_change_of_an_unknown_id_makes_a_row),
        (ShowsItsOwnRowsToOperations, Contract.test_anything_but_a_change_writes_nothing_and_is_returned),
        (SwallowsErrorsOfOperations, Contract.test_operation_that_raises_writes_nothing),
        (LetsOperationsOverlap, Contract.test_no_operation_runs_between_what_another_sees_and_writes),
        (KeepsQuietWhenCutOff, Contract.test_store_that_cannot_be_read_says_so_each_time),
        (SaysOnlyOnceThatItIsCutOff, Contract.test_store_that_cannot_be_read_says_so_each_time),
        (WritesAndSaysThatItCannot, Contract.test_store_that_cannot_be_written_stays_as_it_was),
        (TakesAllRowsForNewAfterAnError, Contract.test_store_recovers_by_itself),
        (LooksNoMoreAfterAnError, Contract.test_store_recovers_by_itself),
    ],
)  # fmt: skip
def test_bug_is_caught(
    kind: type[MemoryStore], caught_by: Callable[[RowStoreContract, MemoryHarness], None]
) -> None:
    with pytest.raises(AssertionError):
        caught_by(RowStoreContract(), MemoryHarness(kind))
