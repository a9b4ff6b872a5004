"""What every store of rows must do: fakes, files and databases alike.

A store is polled for all rows that are not removed, and changed by *operations*: callables that are shown
every row by its id and return a change, or anything else for "write nothing". It shares its rows with others,
who edit them by means of their own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from testkit.contracts.checking import assert_raises
from testkit.contracts.contract import Contract
from testkit.wait import wait_until

Row = Mapping[str, object]

COLUMNS = (
    *("id", "app", "region", "country", "wg_ip", "port"),
    *("healthy", "weight", "soft_limit", "hard_limit"),
)
"""What a polled row has; a row put from outside may have ``deleted``, too."""

RECOVERY_TIMEOUT_S = 30.0
_OVERLAP_S = 0.2
"""How long a test waits for something that must not happen."""


class RowStore(Protocol):
    """The store under test, as :class:`edgeproxy.ports.RowStore` has it."""

    def poll(self) -> Sequence[Row] | None: ...

    def apply(self, operation: Callable[[Mapping[str, Row]], Any]) -> Any: ...


class RowStoreHarness(Protocol):
    """What a test must know of an implementation. Begins without rows."""

    @property
    def unavailable(self) -> type[Exception]:
        """What the store raises when its rows cannot be reached."""
        ...

    def open(self) -> RowStore:
        """A store of these rows, independent of those opened before."""
        ...

    def change(self, row_id: str, values: Row) -> object:
        """What an operation returns to have ``values`` written into the row, or a row made of them."""
        ...

    def put(self, row: Row) -> None:
        """Make this the row of its id, as somebody outside would."""
        ...

    def erase(self, row_id: str) -> None:
        """Delete the row, as somebody outside would."""
        ...

    def cut_off(self) -> None:
        """Put the rows out of reach of all stores."""
        ...

    def restore(self) -> None:
        """Undo :meth:`cut_off`; no row is lost."""
        ...


def row(row_id: str, **values: object) -> dict[str, object]:
    """A row without a fault, but for what ``values`` say."""
    return {
        "id": row_id,
        "app": "test",
        "region": "eu",
        "country": "DE",
        "wg_ip": "127.0.0.1",
        "port": 9001,
        "healthy": 1,
        "weight": 2,
        "soft_limit": 100,
        "hard_limit": 150,
        "deleted": 0,
        **values,
    }


def polled(store: RowStore) -> dict[object, dict[str, object]]:
    """The rows by id, of which the store must say that they are new."""
    rows = store.poll()
    assert rows is not None, "there is something new, and poll says that there is not"
    assert len({each["id"] for each in rows}) == len(rows), f"a row is there twice: {rows}"
    return {each["id"]: dict(each) for each in rows}


def without_deleted(values: Row) -> dict[str, object]:
    return {column: value for column, value in values.items() if column != "deleted"}


class RowStoreContract(Contract, contract="row_store"):
    """Subclass it, define the fixture ``harness``, and pytest runs it."""

    # ---- reading -----------------------------------------------------------------------------------

    def test_first_poll_of_an_empty_store_returns_no_rows(self, harness: RowStoreHarness) -> None:
        assert polled(harness.open()) == {}

    def test_first_poll_returns_every_row_with_its_columns(self, harness: RowStoreHarness) -> None:
        harness.put(row("a"))
        harness.put(row("b", region="us", country=None, port=9002))
        rows = polled(harness.open())
        assert rows == {
            "a": without_deleted(row("a")),
            "b": without_deleted(row("b", region="us", country=None, port=9002)),
        }
        assert set(rows["a"]) == {*COLUMNS}

    def test_poll_without_a_change_returns_none(self, harness: RowStoreHarness) -> None:
        harness.put(row("a"))
        store = harness.open()
        store.poll()
        assert store.poll() is None
        harness.put(row("a"))
        assert store.poll() is None, "the same row written again is no change"

    def test_edit_from_outside_is_seen_at_the_next_poll(self, harness: RowStoreHarness) -> None:
        store = harness.open()
        store.poll()
        harness.put(row("a"))
        assert set(polled(store)) == {"a"}
        harness.put(row("a", weight=9))
        assert polled(store)["a"]["weight"] == 9
        harness.put(row("b"))
        harness.erase("a")
        assert set(polled(store)) == {"b"}
        assert store.poll() is None

    def test_removed_rows_are_left_out(self, harness: RowStoreHarness) -> None:
        for row_id, deleted in (("kept", 0), ("unknown", None), ("removed", 1), ("other", 2)):
            harness.put(row(row_id, deleted=deleted))
        store = harness.open()
        assert set(polled(store)) == {"kept", "unknown"}
        harness.put(row("kept", deleted=1))
        assert set(polled(store)) == {"unknown"}
        harness.put(row("kept"))
        assert set(polled(store)) == {"unknown", "kept"}

    def test_bad_rows_pass_through_as_they_are(self, harness: RowStoreHarness) -> None:
        bad = {column: None for column in COLUMNS if column != "id"}
        harness.put({**bad, "id": "nothing", "deleted": None})
        harness.put(row("wild", port=99999, weight=-1, region="mars", wg_ip="", hard_limit=2**40))
        harness.put(row("good"))
        rows = polled(harness.open())
        assert set(rows) == {"nothing", "wild", "good"}
        assert rows["nothing"] == {**bad, "id": "nothing"}
        assert rows["wild"] == without_deleted(
            row("wild", port=99999, weight=-1, region="mars", wg_ip="", hard_limit=2**40)
        )
        assert rows["good"] == without_deleted(row("good"))

    def test_text_comes_back_as_it_was_written(self, harness: RowStoreHarness) -> None:
        for text in ('O\'Brien "x" \\ %s $1 ?', "größe 東京 🙂", "two\nlines\t", " "):
            harness.put(row("a", app=text))
            assert polled(harness.open())["a"]["app"] == text

    # ---- writing -----------------------------------------------------------------------------------

    def test_operation_sees_every_row_by_its_id(self, harness: RowStoreHarness) -> None:
        harness.put(row("a", weight=7))
        harness.put(row("gone", deleted=1))
        seen: dict[str, object] = {}

        def look(table: Mapping[str, Row]) -> str:
            seen["ids"], seen["count"] = sorted(table), len(table)
            seen["a"] = {column: table["a"][column] for column in COLUMNS}
            seen["removed"] = [bool(each["deleted"]) for _, each in sorted(table.items())]
            seen["others"] = [table.get(row_id) for row_id in ("nobody", "", "a\0", "\udcff")]
            return "seen"

        assert harness.open().apply(look) == "seen"
        assert seen == {
            "ids": ["a", "gone"],
            "count": 2,
            "a": without_deleted(row("a", weight=7)),
            "removed": [False, True],
            "others": [None] * 4,
        }

    def test_change_is_written_and_returned(self, harness: RowStoreHarness) -> None:
        harness.put(row("a"))
        harness.put(row("b"))
        store, other = harness.open(), harness.open()
        other.poll()
        change = harness.change("a", {"weight": 9, "healthy": 0})
        assert store.apply(lambda _: change) is change
        expected = {"a": without_deleted(row("a", weight=9, healthy=0)), "b": without_deleted(row("b"))}
        assert polled(store) == expected, "other columns and rows stay as they are"
        assert polled(other) == expected, "others see it, too"

    def test_change_of_an_unknown_id_makes_a_row(self, harness: RowStoreHarness) -> None:
        store = harness.open()
        store.poll()
        store.apply(lambda _: harness.change("new", without_id(row("new"))))
        assert polled(store) == {"new": without_deleted(row("new"))}

    def test_removed_row_can_be_written(self, harness: RowStoreHarness) -> None:
        harness.put(row("a", deleted=1))
        store = harness.open()
        store.apply(lambda _: harness.change("a", {"deleted": 0, "weight": 9}))
        assert polled(store) == {"a": without_deleted(row("a", weight=9))}
        store.apply(lambda _: harness.change("a", {"deleted": 1}))
        assert polled(store) == {}

    def test_anything_but_a_change_writes_nothing_and_is_returned(self, harness: RowStoreHarness) -> None:
        harness.put(row("a"))
        store = harness.open()
        store.poll()
        refusal = object()
        assert store.apply(lambda _: refusal) is refusal
        assert store.apply(lambda _: None) is None
        assert store.poll() is None

    def test_operation_that_raises_writes_nothing(self, harness: RowStoreHarness) -> None:
        harness.put(row("a"))
        store = harness.open()
        store.poll()

        def fail(table: Mapping[str, Row]) -> object:
            assert table["a"]["weight"] == 2
            raise ZeroDivisionError("on purpose")

        try:
            store.apply(fail)
        except ZeroDivisionError:
            pass
        else:
            raise AssertionError("the operation's own error must reach the caller")
        assert store.poll() is None
        store.apply(lambda _: harness.change("a", {"weight": 3}))
        assert polled(store)["a"]["weight"] == 3

    def test_no_operation_runs_between_what_another_sees_and_writes(self, harness: RowStoreHarness) -> None:
        harness.put(row("a", weight=0))
        store, other = harness.open(), harness.open()
        second_saw: list[object] = []
        has_looked = threading.Event()

        def add_one(table: Mapping[str, Row]) -> object:
            second_saw.append(table["a"]["weight"])
            has_looked.set()
            return harness.change("a", {"weight": _number(table["a"]["weight"]) + 1})

        second = threading.Thread(target=lambda: other.apply(add_one))

        def add_ten(table: Mapping[str, Row]) -> object:
            weight = _number(table["a"]["weight"])
            second.start()
            assert not has_looked.wait(_OVERLAP_S), "another operation sees what is about to change"
            return harness.change("a", {"weight": weight + 10})

        store.apply(add_ten)
        second.join()
        assert second_saw == [10]
        assert polled(store)["a"]["weight"] == 11

    def test_operations_of_many_threads_all_count(self, harness: RowStoreHarness) -> None:
        harness.put(row("a", weight=0))
        store = harness.open()

        def add_five() -> None:
            for _ in range(5):
                store.apply(lambda table: harness.change("a", {"weight": _number(table["a"]["weight"]) + 1}))

        threads = [threading.Thread(target=add_five) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert polled(store)["a"]["weight"] == 20

    # ---- out of reach ------------------------------------------------------------------------------

    def test_store_that_cannot_be_read_says_so_each_time(self, harness: RowStoreHarness) -> None:
        harness.put(row("a"))
        store = harness.open()
        store.poll()
        harness.cut_off()
        for _ in range(2):
            assert_raises(harness.unavailable, store.poll)

    def test_store_that_cannot_be_written_stays_as_it_was(self, harness: RowStoreHarness) -> None:
        harness.put(row("a"))
        store = harness.open()
        harness.cut_off()
        assert_raises(harness.unavailable, lambda: store.apply(lambda _: harness.change("a", {"weight": 9})))
        harness.restore()
        assert polled(harness.open()) == {"a": without_deleted(row("a"))}

    def test_store_recovers_by_itself(self, harness: RowStoreHarness) -> None:
        harness.put(row("a"))
        store = harness.open()
        store.poll()
        harness.cut_off()
        assert_raises(harness.unavailable, store.poll)
        harness.restore()
        answers: list[Sequence[Row] | None] = []

        def answered() -> bool:
            answers.append(store.poll())
            return True

        wait_until(
            answered,
            reason="the store to be read again",
            timeout_s=RECOVERY_TIMEOUT_S,
            swallow=(harness.unavailable,),
        )
        assert answers == [None], "nothing has changed in between"
        harness.put(row("b"))
        assert set(polled(store)) == {"a", "b"}
        store.apply(lambda _: harness.change("a", {"weight": 9}))
        assert polled(store)["a"]["weight"] == 9


def without_id(values: Row) -> dict[str, object]:
    return {column: value for column, value in values.items() if column != "id"}


def _number(value: object) -> int:
    assert isinstance(value, int)
    return value
