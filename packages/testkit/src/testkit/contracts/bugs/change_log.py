"""Logs of changes with a known bug."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from testkit.contracts.change_log import ChangeLogContract
from testkit.contracts.planted import PlantedBugs, Suite
from testkit.contracts.references.change_log import Change, LoggedHarness, MemoryLog
from testkit.contracts.row_store import Row

Contract = ChangeLogContract
BUGS = PlantedBugs(Contract, LoggedHarness)


@BUGS.caught_by(Contract.test_changes_of_both_sides_are_told_apart_in_order)
class TakesAllForOurs(MemoryLog):
    def note(self, author: str, row_id: str, old: Row | None, new: Row | None) -> None:
        super().note("ours", row_id, old, new)


@BUGS.caught_by(Contract.test_changes_of_both_sides_are_told_apart_in_order)
class LogsNoRemovals(MemoryLog):
    def note(self, author: str, row_id: str, old: Row | None, new: Row | None) -> None:
        if new is not None:
            super().note(author, row_id, old, new)


@BUGS.caught_by(Contract.test_images_hold_every_column_but_the_id)
class LeavesOutWhatIsUnknown(MemoryLog):
    def note(self, author: str, row_id: str, old: Row | None, new: Row | None) -> None:
        known = new and {column: value for column, value in new.items() if value is not None}
        super().note(author, row_id, old, known)


@BUGS.caught_by(Contract.test_numbers_and_times_rise)
class NumbersEachRow(MemoryLog):
    def note(self, author: str, row_id: str, old: Row | None, new: Row | None) -> None:
        super().note(author, row_id, old, new)
        self.entries[-1] = replace(self.entries[-1], number=1)


@BUGS.caught_by(Contract.test_the_same_values_again_are_no_change)
class LogsEveryWrite(MemoryLog):
    def note(self, author: str, row_id: str, old: Row | None, new: Row | None) -> None:
        super().note(author, row_id, None if old == new else old, new)


@BUGS.caught_by(Contract.test_changes_are_told_since_a_time_and_at_most_so_many)
class TellsTheOldestFirst(MemoryLog):
    def changes(self, since: str, limit: int) -> Sequence[Change]:
        return [entry for entry in self.entries if entry.at >= since][:limit]


@BUGS.caught_by(Contract.test_changes_are_told_since_a_time_and_at_most_so_many)
class TellsWhateverTheTime(MemoryLog):
    def changes(self, since: str, limit: int) -> Sequence[Change]:
        return super().changes("", limit)


@BUGS.caught_by(Contract.test_log_is_bounded)
class KeepsEverything(MemoryLog):
    def trim(self) -> None: ...


@BUGS.caught_by(Contract.test_own_change_is_logged_without_anybody_tending)
class ForgetsOurs(MemoryLog):
    def note(self, author: str, row_id: str, old: Row | None, new: Row | None) -> None:
        if author != "ours":
            super().note(author, row_id, old, new)


SUITE = Suite(
    Contract,
    "testkit.contracts.references.change_log:LoggedHarness",
    BUGS,
    mutate=(MemoryLog.__name__,),
)
