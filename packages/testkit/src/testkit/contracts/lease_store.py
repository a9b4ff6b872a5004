"""What every store of leases must do: one in memory, in a file and in a database alike.

A lease says that a backend registered itself, and when it was last heard. It stands beside a row of the
routing table that others edit by means of their own, and both are changed by *operations*: callables that
are shown every row by its id and the lease that they are about, and return what to write, or anything else
for "write nothing". A store runs many of them in one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from testkit.contracts.checking import assert_raises
from testkit.contracts.contract import Contract
from testkit.contracts.row_store import Row, row, without_id
from testkit.wait import wait_until

RECOVERY_TIMEOUT_S = 30.0

Operation = Callable[[Mapping[str, Row], Any], Any]


class LeaseStore(Protocol):
    """The store under test, as :class:`edgeproxy.ports.LeaseStore` has it."""

    def leases(self) -> Sequence[Any]: ...

    def apply(self, operations: Sequence[tuple[str, Operation]]) -> Sequence[Any]: ...


class LeaseStoreHarness(Protocol):
    """What a test must know of an implementation. Begins without rows and leases."""

    @property
    def unavailable(self) -> type[Exception]:
        """What the store raises when it cannot be reached."""
        ...

    @property
    def not_written(self) -> type:
        """What stands for an operation whose decision the store refused."""
        ...

    def open_leases(self) -> LeaseStore:
        """A store of these leases, independent of those opened before."""
        ...

    def lease(
        self, row_id: str, owner: str, registered_at_s: float, heartbeat_at_s: float, *, expired: bool
    ) -> object:
        """A lease; two of the same values are equal."""
        ...

    def lease_write(self, row_id: str, values: Row | None, lease: Any) -> object:
        """What an operation returns to have ``values`` written into the row, ``None`` for leaving it as it
        is, and the lease replaced, ``None`` for ending it."""
        ...

    def put(self, row: Row) -> None:
        """Make this the row of its id, as somebody outside would: an old one is replaced as a whole."""
        ...

    def edit(self, row_id: str, values: Row) -> None:
        """Write some columns of the row, as somebody outside would."""
        ...

    def erase(self, row_id: str) -> None:
        """Delete the row, as somebody outside would."""
        ...

    def read_row(self, row_id: str) -> Row | None:
        """The row as somebody outside reads it."""
        ...

    def refuse_ports_below(self, port: int) -> None:
        """Have the table refuse such rows, by a rule of its owner."""
        ...

    def cut_off(self) -> None:
        """Put everything out of reach of all stores."""
        ...

    def restore(self) -> None:
        """Undo :meth:`cut_off`; nothing is lost."""
        ...


class LeaseStoreContract(Contract, contract="lease_store"):
    """Subclass it, define the fixture ``harness``, and pytest runs it."""

    # ---- reading and writing -----------------------------------------------------------------------

    def test_store_begins_without_leases(self, harness: LeaseStoreHarness) -> None:
        store = harness.open_leases()
        assert list(store.leases()) == []
        assert _seen(store, "a") == (None, None)

    def test_row_and_lease_are_written_together(self, harness: LeaseStoreHarness) -> None:
        store = harness.open_leases()
        write = _registration(harness, "a")
        assert _apply(store, "a", lambda _table, _lease: write) is write
        expected = _lease(harness, "a")
        for each in (store, harness.open_leases()):
            assert list(each.leases()) == [expected]
            seen, lease = _seen(each, "a")
            assert seen is not None
            assert {**seen} == row("a")
            assert lease == expected

    def test_renewal_leaves_the_row_as_it_is(self, harness: LeaseStoreHarness) -> None:
        store = harness.open_leases()
        _register(harness, store, "a")
        harness.edit("a", {"weight": 9})
        later = harness.lease("a", "pop-2", 10.5, 99.75, expired=False)
        write = harness.lease_write("a", None, later)
        assert _apply(store, "a", lambda _table, _lease: write) is write
        seen, lease = _seen(store, "a")
        assert seen is not None
        assert seen["weight"] == 9
        assert lease == later

    def test_lease_ends_with_its_row(self, harness: LeaseStoreHarness) -> None:
        store = harness.open_leases()
        for row_id in ("a", "b"):
            _register(harness, store, row_id)
        _apply(store, "a", lambda _table, _lease: harness.lease_write("a", {"deleted": 1}, None))
        assert _seen(store, "a")[1] is None
        assert list(store.leases()) == [_lease(harness, "b")]
        _apply(store, "b", lambda _table, _lease: harness.lease_write("b", None, None))
        assert list(store.leases()) == []
        assert harness.read_row("b") is not None

    def test_anything_but_a_write_writes_nothing_and_is_returned(self, harness: LeaseStoreHarness) -> None:
        store = harness.open_leases()
        _register(harness, store, "a")
        refusal = object()
        assert _apply(store, "a", lambda _table, _lease: refusal) is refusal
        assert _seen(store, "a") == ({**row("a")}, _lease(harness, "a"))

    def test_operation_sees_every_row_by_its_id(self, harness: LeaseStoreHarness) -> None:
        harness.put(row("a"))
        harness.put(row("gone", deleted=1))
        seen: list[object] = []

        def look(table: Mapping[str, Row], lease: object) -> None:
            seen.append(lease)
            seen.append((sorted(table), len(table), table["a"]["port"], bool(table["gone"]["deleted"])))
            seen.append([table.get(each) for each in ("nobody", "", "a\0", "\udcff")])

        _apply(harness.open_leases(), "nobody", look)
        assert seen == [None, (["a", "gone"], 2, 9001, True), [None] * 4]

    def test_operations_of_one_call_see_what_others_wrote(self, harness: LeaseStoreHarness) -> None:
        store = harness.open_leases()
        seen: list[tuple[object, object]] = []

        def count(table: Mapping[str, Row], lease: object) -> object:
            seen.append((table["a"]["weight"], lease))
            return harness.lease_write("a", {"weight": len(seen)}, _lease(harness, "a", len(seen)))

        def renew(table: Mapping[str, Row], lease: object) -> object:
            seen.append((table["a"]["weight"], lease))
            return harness.lease_write("a", None, _lease(harness, "a", 50))

        store.apply([("a", lambda _t, _l: _registration(harness, "a", weight=-1))])
        store.apply(
            [
                ("a", lambda _t, _l: _registration(harness, "a", weight=0)),
                *(("a", each) for each in (count, renew, count)),
            ]
        )
        assert seen == [
            (0, _lease(harness, "a")),
            (1, _lease(harness, "a", 1)),
            (1, _lease(harness, "a", 50)),
        ]
        assert list(harness.open_leases().leases()) == [_lease(harness, "a", 3)]

    def test_many_renewals_are_all_written(self, harness: LeaseStoreHarness) -> None:
        store = harness.open_leases()
        ids = [f"b{number:02}" for number in range(40)]
        for row_id in ids:
            _register(harness, store, row_id)

        def renewal(row_id: str) -> Operation:
            return lambda _t, _l: harness.lease_write(row_id, None, _lease(harness, row_id, 77))

        store.apply([(row_id, renewal(row_id)) for row_id in ids])
        stored = sorted(harness.open_leases().leases(), key=lambda each: str(each.id))
        assert stored == [_lease(harness, row_id, 77) for row_id in ids]

    # ---- what others do ----------------------------------------------------------------------------

    def test_lease_of_a_row_that_somebody_removed_is_not_shown(self, harness: LeaseStoreHarness) -> None:
        store = harness.open_leases()
        for row_id in ("kept", "removed", "erased"):
            _register(harness, store, row_id)
        harness.edit("removed", {"deleted": 1})
        harness.erase("erased")
        assert list(store.leases()) == [_lease(harness, "kept")]

    def test_whoever_writes_health_takes_it_from_the_lease(self, harness: LeaseStoreHarness) -> None:
        store = harness.open_leases()
        edits: tuple[Callable[[], None], ...] = (
            lambda: harness.edit("a", {"healthy": 0}),
            lambda: harness.edit("a", {"healthy": 1, "weight": 3}),
            lambda: harness.put(row("a", healthy=0)),
        )
        for edit in edits:
            _expire(harness, store, "a")
            assert _seen(store, "a")[1] == _lease(harness, "a", expired=True)
            edit()
            assert _seen(store, "a")[1] == _lease(harness, "a")

    def test_edits_of_other_columns_and_rows_leave_it_with_the_lease(
        self, harness: LeaseStoreHarness
    ) -> None:
        store = harness.open_leases()
        _register(harness, store, "b")
        _expire(harness, store, "a")
        harness.edit("a", {"weight": 9})
        harness.edit("b", {"healthy": 0})
        assert _seen(store, "a")[1] == _lease(harness, "a", expired=True)

    # ---- what goes wrong ---------------------------------------------------------------------------

    def test_operation_that_the_table_refuses_is_undone_and_the_others_are_not(
        self, harness: LeaseStoreHarness
    ) -> None:
        harness.refuse_ports_below(1024)
        store = harness.open_leases()
        _register(harness, store, "late")
        writes = {
            "a": _registration(harness, "a"),
            "b": _registration(harness, "b", port=80),
            "c": _registration(harness, "c"),
            "late": harness.lease_write("late", {"port": 81}, _lease(harness, "late", 60)),
        }

        def operation(write: object) -> Operation:
            return lambda _table, _lease: write

        outcomes = store.apply([(row_id, operation(write)) for row_id, write in writes.items()])
        assert [outcomes[0], outcomes[2]] == [writes["a"], writes["c"]]
        for refused in (outcomes[1], outcomes[3]):
            assert isinstance(refused, harness.not_written)
            assert "ports below 1024 are not ours" in str(refused)
        assert sorted(each.id for each in store.leases()) == ["a", "c", "late"]
        assert harness.read_row("b") is None
        seen, lease = _seen(store, "late")
        assert seen is not None
        assert (seen["port"], lease) == (9001, _lease(harness, "late"))

    def test_operation_that_raises_undoes_the_whole_call(self, harness: LeaseStoreHarness) -> None:
        store = harness.open_leases()
        _register(harness, store, "a")

        def fail(_table: Mapping[str, Row], _lease: object) -> object:
            raise ZeroDivisionError("on purpose")

        renewed = harness.lease_write("a", None, _lease(harness, "a", 90))
        new = _registration(harness, "b")
        operations: list[tuple[str, Operation]] = [
            ("a", lambda _table, _lease: renewed),
            ("b", lambda _table, _lease: new),
            ("c", fail),
        ]
        assert_raises(ZeroDivisionError, lambda: store.apply(operations))
        assert list(store.leases()) == [_lease(harness, "a")]

    def test_store_that_is_out_of_reach_says_so_and_recovers_by_itself(
        self, harness: LeaseStoreHarness
    ) -> None:
        store = harness.open_leases()
        _register(harness, store, "a")
        harness.cut_off()
        write = _registration(harness, "b")
        for _ in range(2):
            assert_raises(harness.unavailable, store.leases)
            assert_raises(harness.unavailable, lambda: _apply(store, "b", lambda _table, _lease: write))
        harness.restore()
        found = wait_until(
            lambda: [store.leases()],
            reason="the store to be reached again",
            timeout_s=RECOVERY_TIMEOUT_S,
            swallow=(harness.unavailable,),
        )
        assert list(found[0]) == [_lease(harness, "a")]


def _lease(
    harness: LeaseStoreHarness, row_id: str, heartbeat_at_s: float = 20.25, *, expired: bool = False
) -> object:
    return harness.lease(row_id, "pop", 10.5, heartbeat_at_s, expired=expired)


def _registration(harness: LeaseStoreHarness, row_id: str, **values: object) -> object:
    return harness.lease_write(row_id, without_id(row(row_id, **values)), _lease(harness, row_id))


def _register(harness: LeaseStoreHarness, store: LeaseStore, row_id: str) -> None:
    write = _registration(harness, row_id)
    _apply(store, row_id, lambda _table, _lease: write)


def _expire(harness: LeaseStoreHarness, store: LeaseStore, row_id: str) -> None:
    values = without_id(row(row_id, healthy=0))
    write = harness.lease_write(row_id, values, _lease(harness, row_id, expired=True))
    _apply(store, row_id, lambda _table, _lease: write)


def _apply(store: LeaseStore, row_id: str, operation: Operation) -> object:
    (outcome,) = store.apply([(row_id, operation)])
    return outcome


def _seen(store: LeaseStore, row_id: str) -> tuple[Row | None, object]:
    found: list[tuple[Row | None, object]] = []

    def look(table: Mapping[str, Row], lease: object) -> None:
        seen = table.get(row_id)
        found.append((None if seen is None else dict(seen), lease))

    _apply(store, row_id, look)
    return found[0]
