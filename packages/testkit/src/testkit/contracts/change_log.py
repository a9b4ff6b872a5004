"""What every store with a change log must do, whoever changes its rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from testkit.contracts.contract import Contract
from testkit.contracts.row_store import Row, RowStore, RowStoreHarness, row, without_id


class Change(Protocol):
    """One entry, as :class:`edgeproxy.ports.Change` has it."""

    @property
    def number(self) -> int: ...
    @property
    def at(self) -> str: ...
    @property
    def author(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def old(self) -> Row | None: ...
    @property
    def new(self) -> Row | None: ...


class LoggedStore(RowStore, Protocol):
    """The store under test; what is written through it is logged as the author ``ours``."""

    def tend(self) -> str | None: ...

    def changes(self, since: str, limit: int) -> Sequence[Change]: ...


class LoggedStoreHarness(RowStoreHarness, Protocol):
    """As for :class:`~testkit.contracts.row_store.RowStoreContract`."""

    def open(self) -> LoggedStore:
        """A store that keeps its last 20 changes and writes as ``ours``."""
        ...


class ChangeLogContract(Contract, contract="change_log"):
    """Subclass it, define the fixture ``harness``, and pytest runs it."""

    def test_changes_of_both_sides_are_told_apart_in_order(self, harness: LoggedStoreHarness) -> None:
        store = tended(harness)
        harness.put(row("a"))
        store.apply(lambda _: harness.change("a", {"weight": 9}))
        harness.put(row("a", weight=10))
        harness.erase("a")
        entries = store.changes("", 100)
        assert [each.author == "ours" for each in entries] == [False, True, False, False]
        assert all(each.author.startswith("outside") for each in entries if each.author != "ours")
        assert [each.id for each in entries] == ["a"] * 4
        assert [(_weight(each.old), _weight(each.new)) for each in entries] == [
            *((None, 2), (2, 9), (9, 10), (10, None)),
        ]

    def test_images_hold_every_column_but_the_id(self, harness: LoggedStoreHarness) -> None:
        store = tended(harness)
        harness.put(row("a", app="it's", country=None))
        (entry,) = store.changes("", 100)
        assert entry.old is None
        assert entry.new == without_id(row("a", app="it's", country=None))

    def test_numbers_and_times_rise(self, harness: LoggedStoreHarness) -> None:
        store = tended(harness)
        for weight in range(4):
            harness.put(row("a", weight=weight))
        entries = store.changes("", 100)
        assert [each.number for each in entries] == sorted({each.number for each in entries})
        assert [each.at for each in entries] == sorted(each.at for each in entries)
        assert all(len(each.at) == len("2026-11-20T10:13:24.123Z") for each in entries)

    def test_the_same_values_again_are_no_change(self, harness: LoggedStoreHarness) -> None:
        store = tended(harness)
        harness.put(row("a"))
        before = len(store.changes("", 100))
        harness.put(row("a"))
        store.apply(lambda _: harness.change("a", {"weight": 2}))
        assert len(store.changes("", 100)) == before

    def test_operation_that_writes_nothing_logs_nothing(self, harness: LoggedStoreHarness) -> None:
        store = tended(harness)
        store.apply(lambda _: None)
        assert [*store.changes("", 100)] == []

    def test_changes_are_told_since_a_time_and_at_most_so_many(self, harness: LoggedStoreHarness) -> None:
        store = tended(harness)
        for weight in range(5):
            harness.put(row("a", weight=weight))
        entries = store.changes("", 100)
        assert [each.number for each in store.changes("", 2)] == [each.number for each in entries[-2:]]
        since = entries[3].at
        told = store.changes(since, 100)
        assert [each.number for each in told] == [each.number for each in entries if each.at >= since]
        assert [*store.changes("9999-01-01T00:00:00.000Z", 100)] == []

    def test_log_is_bounded(self, harness: LoggedStoreHarness) -> None:
        store = tended(harness)
        for weight in range(30):
            harness.put(row("a", weight=weight))
        assert store.tend() is None
        entries = store.changes("", 100)
        assert len(entries) <= 20
        assert _weight(entries[-1].new) == 29

    def test_own_change_is_logged_without_anybody_tending(self, harness: LoggedStoreHarness) -> None:
        store = harness.open()
        store.apply(lambda _: harness.change("new", without_id(row("new"))))
        (entry,) = store.changes("", 100)
        assert (entry.author, entry.id) == ("ours", "new")


def tended(harness: LoggedStoreHarness) -> LoggedStore:
    store = harness.open()
    assert store.tend() is None
    return store


def _weight(image: Row | None) -> object:
    return None if image is None else image["weight"]
