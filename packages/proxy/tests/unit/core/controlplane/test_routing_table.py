from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edgeproxy.core.controlplane.routing_table import PlacedBackend, RoutingTable, TableChange
from edgeproxy.core.geography import Geography
from edgeproxy.core.model import GOOD, Verdict

GEOGRAPHY = Geography.built_in()


def row(backend_id: object = "a", **changes: object) -> dict[str, object]:
    return {
        "id": backend_id,
        "app": "test",
        "region": "eu",
        "wg_ip": "127.0.0.1",
        "port": 9001,
        "healthy": 1,
        "weight": 2,
        "soft_limit": 100,
        "hard_limit": 150,
        **changes,
    }


def slots(placed: tuple[PlacedBackend, ...]) -> dict[str, int]:
    return {each.backend.id: each.slot for each in placed}


def test_new_table_is_empty_at_version_0() -> None:
    table = RoutingTable(GEOGRAPHY)
    assert (table.version, table.snapshot(), table.issues, table.removed_slots) == (0, (), (), ())


def test_first_rows_are_all_upserts_with_slots_from_0() -> None:
    table = RoutingTable(GEOGRAPHY)
    change = table.replace([row("a"), row("b")])
    assert change.version == table.version == 1
    assert slots(change.upserts) == {"a": 0, "b": 1}
    assert change.upserts == table.snapshot()
    assert change.alters_routing


def test_unchanged_rows_give_no_new_version() -> None:
    table = RoutingTable(GEOGRAPHY)
    table.replace([row("a"), row("b")])
    change = table.replace([row("b"), row("a")])
    assert change == TableChange(1, (), (), (), ())
    assert not change.alters_routing


def test_changed_row_keeps_its_slot() -> None:
    table = RoutingTable(GEOGRAPHY)
    table.replace([row("a"), row("b")])
    change = table.replace([row("a"), row("b", healthy=0)])
    assert change.version == 2
    (upsert,) = change.upserts
    assert (upsert.slot, upsert.backend.id, upsert.backend.healthy) == (1, "b", False)


def test_row_that_is_written_differently_but_means_the_same_is_no_change() -> None:
    table = RoutingTable(GEOGRAPHY)
    table.replace([row("a")])
    assert not table.replace([row("a", region="EU", country="de")]).alters_routing


def test_backend_is_found_by_its_id() -> None:
    table = RoutingTable(GEOGRAPHY)
    table.replace([row("a"), row("bad", port=0)])
    assert table.get("a") == table.snapshot()[0]
    assert table.get("bad") is None
    table.replace([])
    assert table.get("a") is None


def test_removed_backend_is_told_with_its_slot() -> None:
    table = RoutingTable(GEOGRAPHY)
    (placed,) = table.replace([row("a")]).upserts
    change = table.replace([])
    assert change == TableChange(2, (), (placed,), (), ())
    assert change.alters_routing
    assert table.snapshot() == ()


def test_slot_of_a_removed_backend_is_not_given_away_before_its_release() -> None:
    table = RoutingTable(GEOGRAPHY)
    table.replace([row("a")])
    table.replace([row("b")])
    assert slots(table.snapshot()) == {"b": 1}
    assert [*table.removed_slots] == [0]
    table.release(0)
    assert [*table.removed_slots] == []
    table.replace([row("b"), row("c")])
    assert slots(table.snapshot()) == {"b": 1, "c": 0}


def test_lowest_free_slot_is_given_first() -> None:
    table = RoutingTable(GEOGRAPHY)
    table.replace([row("a"), row("b"), row("c")])
    table.replace([row("c")])
    table.release(1)
    table.release(0)
    table.replace([row("c"), row("d")])
    assert slots(table.snapshot()) == {"c": 2, "d": 0}


def test_id_that_returns_before_its_release_gets_its_old_slot() -> None:
    table = RoutingTable(GEOGRAPHY)
    table.replace([row("a"), row("b")])
    table.replace([row("b")])
    change = table.replace([row("b"), row("a")])
    assert slots(change.upserts) == {"a": 0}
    assert table.removed_slots == ()


def test_backend_that_takes_over_an_id_in_the_same_change_keeps_the_slot() -> None:
    table = RoutingTable(GEOGRAPHY)
    table.replace([row("a", wg_ip="10.0.0.1")])
    change = table.replace([row("a", wg_ip="10.0.0.2")])
    assert (slots(change.upserts), change.removed) == ({"a": 0}, ())


def test_bad_row_is_skipped_and_named_once() -> None:
    table = RoutingTable(GEOGRAPHY)
    rows = [row("a"), row("b", port=None)]
    change = table.replace(rows)
    assert slots(change.upserts) == {"a": 0}
    (issue,) = change.issues
    assert (issue.row, issue.column) == ("backend 'b'", "port")
    assert table.replace(rows) == TableChange(1, (), (), (), ())
    assert table.issues == (issue,)


def test_mended_row_resolves_its_issue() -> None:
    table = RoutingTable(GEOGRAPHY)
    (issue,) = table.replace([row("b", port=None)]).issues
    change = table.replace([row("b")])
    assert (change.issues, change.resolved, table.issues) == ((), (issue,), ())
    assert slots(change.upserts) == {"b": 0}


def test_row_that_turns_bad_leaves_the_table() -> None:
    table = RoutingTable(GEOGRAPHY)
    table.replace([row("a")])
    change = table.replace([row("a", weight=256)])
    assert [placed.backend.id for placed in change.removed] == ["a"]
    assert len(change.issues) == 1


def test_second_row_of_an_id_is_an_issue_and_the_first_counts() -> None:
    table = RoutingTable(GEOGRAPHY)
    rows = [row("a"), row("a", port=9002)]
    (issue,) = table.replace(rows).issues
    assert str(issue) == "backend 'a': id 'a' belongs to an earlier row"
    assert [placed.backend.port for placed in table.snapshot()] == [9001]
    assert table.replace(rows) == TableChange(1, (), (), (), ())


def test_valid_row_counts_when_an_earlier_one_of_its_id_is_bad() -> None:
    table = RoutingTable(GEOGRAPHY)
    change = table.replace([row("a", port=None), row("a")])
    assert slots(change.upserts) == {"a": 0}
    assert [issue.column for issue in change.issues] == ["port"]


def test_row_without_a_usable_id_is_named_by_its_place() -> None:
    change = RoutingTable(GEOGRAPHY).replace([row("a"), row(None), row(b"x")])
    assert [issue.row for issue in change.issues] == ["row 2", "row 3"]


def test_rows_beyond_the_last_slot_are_issues() -> None:
    table = RoutingTable(GEOGRAPHY, max_slots=2)
    change = table.replace([row("a"), row("b"), row("c"), row("d")])
    assert slots(change.upserts) == {"a": 0, "b": 1}
    assert [str(issue) for issue in change.issues] == [
        "backend 'c': id 'c' comes after 2 others, which is as many as the table can hold",
        "backend 'd': id 'd' comes after 2 others, which is as many as the table can hold",
    ]


def test_row_without_a_slot_gets_one_when_one_is_released() -> None:
    table = RoutingTable(GEOGRAPHY, max_slots=1)
    table.replace([row("a"), row("b")])
    assert table.replace([row("b")]).upserts == ()
    table.release(0)
    change = table.replace([row("b")])
    assert slots(change.upserts) == {"b": 0}
    assert len(change.resolved) == 1


def test_placed_backend_survives_msgpack() -> None:
    placed = RoutingTable(GEOGRAPHY).replace([row("a")]).upserts
    wire = msgspec.msgpack.encode(placed)
    assert msgspec.msgpack.decode(wire, type=tuple[PlacedBackend, ...]) == placed


def test_a_successor_keeps_the_cells_of_its_predecessor() -> None:
    former = RoutingTable(GEOGRAPHY)
    former.replace([row("a"), row("b"), row("c"), row("d")])
    former.replace([row("b"), row("c")])
    former.release(0)
    assert former.slots == {"b": 1, "c": 2, "d": 3}
    table = RoutingTable(GEOGRAPHY, slots=former.slots)
    table.replace([row("x"), row("c"), row("y")])
    assert {placed.backend.id: placed.slot for placed in table.snapshot()} == {"x": 0, "c": 2, "y": 4}
    assert set(table.removed_slots) == {1, 3}, "connections may be counted there"


def test_what_the_operator_takes_out_is_told_once() -> None:
    table = RoutingTable(GEOGRAPHY)
    assert table.replace([row("a"), row("b", healthy=0)]).drained == ()
    change = table.replace([row("a", healthy=0), row("b", healthy=0)])
    assert change.drained == change.upserts
    assert table.replace([row("a", healthy=0, weight=9)]).drained == ()
    assert table.replace([row("a")]).drained == ()


OUT = Verdict(is_good=False)


def test_a_verdict_is_a_new_version_of_its_backend() -> None:
    table = RoutingTable(GEOGRAPHY)
    table.replace([row("a"), row("b")])
    change = table.judge({"b": OUT})
    assert change.version == table.version == 2
    assert [(placed.slot, placed.backend.id, placed.verdict) for placed in change.upserts] == [(1, "b", OUT)]
    assert (change.removed, change.issues, change.resolved) == ((), (), ())
    assert [placed.verdict for placed in table.snapshot()] == [GOOD, OUT]


def test_the_same_verdict_again_is_no_change() -> None:
    table = RoutingTable(GEOGRAPHY)
    table.replace([row("a")])
    table.judge({"a": OUT})
    assert not table.judge({"a": OUT, "unknown": OUT}).alters_routing
    assert table.version == 2


def test_a_verdict_outlasts_a_change_of_the_row_but_not_the_row() -> None:
    table = RoutingTable(GEOGRAPHY)
    table.replace([row("a")])
    table.judge({"a": OUT})
    table.replace([row("a", weight=9)])
    assert [(placed.backend.weight, placed.verdict) for placed in table.snapshot()] == [(9, OUT)]
    table.replace([])
    table.replace([row("a")])
    assert [placed.verdict for placed in table.snapshot()] == [GOOD]


IDS = st.sampled_from(["a", "b", "c", "d", "e", None])
ROWS = st.lists(
    st.builds(row, IDS, port=st.sampled_from([1, 2, 0, None]), healthy=st.sampled_from([0, 1])), max_size=8
)


class FollowedTable(RuleBasedStateMachine):
    """A worker's copy follows the changes of a table with few slots."""

    def __init__(self) -> None:
        super().__init__()
        self.table = RoutingTable(GEOGRAPHY, max_slots=3)
        self.copy: dict[int, PlacedBackend] = {}
        self.version = 0
        self.known_issues: set[Any] = set()
        self.slot_by_id: dict[str, int] = {}

    @rule(rows=ROWS)
    def replace(self, rows: list[dict[str, object]]) -> None:
        change = self.table.replace(rows)
        for placed in change.removed:
            assert self.copy.pop(placed.slot) == placed
        for placed in change.upserts:
            assert self.slot_by_id.setdefault(placed.backend.id, placed.slot) == placed.slot
            self.copy[placed.slot] = placed
        assert change.version == self.version + change.alters_routing
        self.version = change.version
        assert self.known_issues.isdisjoint(change.issues)
        assert self.known_issues.issuperset(change.resolved)
        self.known_issues = (self.known_issues | set(change.issues)) - set(change.resolved)

    @rule(
        verdicts=st.dictionaries(
            st.sampled_from("abcdef"), st.sampled_from([GOOD, OUT, Verdict(weight_factor=0.5)])
        )
    )
    def judge(self, verdicts: dict[str, Verdict]) -> None:
        change = self.table.judge(verdicts)
        for placed in change.upserts:
            assert self.copy[placed.slot].backend == placed.backend
            self.copy[placed.slot] = placed
        assert change.version == self.version + change.alters_routing
        self.version = change.version

    @rule(data=st.data())
    def release_one(self, data: st.DataObject) -> None:
        if self.table.removed_slots:
            slot = data.draw(st.sampled_from(self.table.removed_slots))
            self.table.release(slot)
            self.slot_by_id = {known: other for known, other in self.slot_by_id.items() if other != slot}

    @invariant()
    def copy_equals_snapshot(self) -> None:
        assert sorted(self.copy.values(), key=lambda placed: placed.slot) == sorted(
            self.table.snapshot(), key=lambda placed: placed.slot
        )

    @invariant()
    def slots_are_unique_and_within_bounds(self) -> None:
        taken = [*self.copy, *self.table.removed_slots]
        assert len(set(taken)) == len(taken)
        assert all(0 <= slot < 3 for slot in taken)

    @invariant()
    def issues_told_are_the_issues_there_are(self) -> None:
        assert self.known_issues == set(self.table.issues)


FollowedTable.TestCase.settings = settings(deadline=None, max_examples=50)
test_changes_reproduce_the_table = FollowedTable.TestCase
