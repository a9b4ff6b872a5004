"""What members that replicate rows must come to, whatever they keep them in.

Each member has rows of its own, which people edit; those that can reach each other exchange changes. Values
are written in groups: who writes one column of a group writes all of it, and each group of a row is the
last one's who wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from testkit.contracts.row_store import Row, row

A_MOMENT_MS = 1_000
RETENTION_S = 3_600.0
"""Whoever is away for longer than this is forgotten."""


class Members(Protocol):
    """The members under test. They are made when first named, empty, and reach all others."""

    def put(self, member: str, row: Row) -> None:
        """Make this the row of its id, as somebody outside would."""
        ...

    def erase(self, member: str, row_id: str) -> None:
        """Delete the row, as somebody outside would."""
        ...

    def rows(self, member: str) -> Mapping[str, Row]:
        """What is in the table, by id."""
        ...

    def tombstones(self, member: str) -> int:
        """How many removed rows it remembers."""
        ...

    def set_clock(self, member: str, ahead_ms: int) -> None:
        """Have its wall clock run ahead of the others', or behind."""
        ...

    def cut_off(self, member: str) -> None:
        """Let it reach nobody."""
        ...

    def reconnect(self, member: str) -> None:
        """Undo :meth:`cut_off`."""
        ...

    def leave(self, member: str) -> None:
        """Let it leave for good."""
        ...

    def back_up(self, member: str) -> None:
        """Copy what it keeps."""
        ...

    def restore(self, member: str) -> None:
        """Put the copy in the place of what it keeps, and start it anew."""
        ...

    def settle(self) -> None:
        """Let those who reach each other exchange until nothing more comes of it."""
        ...

    def pass_time(self, seconds: float) -> None:
        """Let time pass, in which they go on exchanging."""
        ...


class ConvergenceContract:
    """Subclass it, define the fixture ``members``, and pytest runs it."""

    def test_a_row_comes_to_all(self, members: Members) -> None:
        together(members, "a", "b", "c")
        members.put("a", row("x", weight=5))
        members.settle()
        assert [weights(members, each) for each in "abc"] == [{"x": 5}] * 3

    def test_of_two_writers_each_keeps_the_group_it_wrote(self, members: Members) -> None:
        together(members, "a", "b")
        members.put("a", row("x"))
        members.settle()
        members.cut_off("b")
        members.put("a", row("x", weight=9))
        members.put("b", row("x", wg_ip="10.0.0.9"))
        members.reconnect("b")
        members.settle()
        for each in "ab":
            found = members.rows(each)["x"]
            assert (found["weight"], found["wg_ip"]) == (9, "10.0.0.9")

    def test_of_two_writers_of_a_group_the_last_wins(self, members: Members) -> None:
        together(members, "a", "b")
        members.put("a", row("x"))
        members.settle()
        members.cut_off("b")
        members.put("b", row("x", weight=1))
        members.set_clock("a", A_MOMENT_MS)
        members.put("a", row("x", weight=9))
        members.reconnect("b")
        members.settle()
        assert [weights(members, each) for each in "ab"] == [{"x": 9}] * 2

    def test_who_has_seen_a_value_overwrites_it_though_his_clock_is_behind(self, members: Members) -> None:
        together(members, "a", "b")
        members.set_clock("a", 20 * A_MOMENT_MS)
        members.put("a", row("x", weight=1))
        members.settle()
        members.put("b", row("x", weight=9))
        members.settle()
        assert [weights(members, each) for each in "ab"] == [{"x": 9}] * 2

    def test_a_removal_comes_to_all_and_is_forgotten(self, members: Members) -> None:
        together(members, "a", "b", "c")
        members.put("a", row("x"))
        members.settle()
        members.erase("b", "x")
        members.settle()
        assert [weights(members, each) for each in "abc"] == [{}] * 3
        members.pass_time(RETENTION_S / 2)
        assert [members.tombstones(each) for each in "abc"] == [0] * 3

    def test_a_removal_is_remembered_until_all_have_heard_of_it(self, members: Members) -> None:
        together(members, "a", "b", "c")
        members.put("a", row("x"))
        members.settle()
        members.cut_off("c")
        members.erase("a", "x")
        members.pass_time(RETENTION_S / 2)
        assert [members.tombstones(each) for each in "ab"] == [1, 1]
        members.reconnect("c")
        members.pass_time(RETENTION_S / 4)
        assert [weights(members, each) for each in "abc"] == [{}] * 3
        assert [members.tombstones(each) for each in "abc"] == [0] * 3

    def test_who_left_is_not_waited_for(self, members: Members) -> None:
        together(members, "a", "b")
        members.put("a", row("x"))
        members.settle()
        members.leave("b")
        members.erase("a", "x")
        members.pass_time(RETENTION_S / 2)
        assert members.tombstones("a") == 0

    def test_no_row_comes_back_with_one_who_was_away_for_long(self, members: Members) -> None:
        together(members, "a", "b", "c")
        members.put("a", row("x"))
        members.put("a", row("y", weight=3))
        members.settle()
        members.cut_off("c")
        members.erase("a", "x")
        members.pass_time(2 * RETENTION_S)
        assert [members.tombstones(each) for each in "ab"] == [0, 0]
        members.put("c", row("z", weight=4))
        members.reconnect("c")
        members.settle()
        assert [weights(members, each) for each in "abc"] == [{"y": 3, "z": 4}] * 3

    def test_a_removal_stands_against_an_earlier_write_that_comes_late(self, members: Members) -> None:
        together(members, "a", "b", "c")
        members.put("a", row("x", weight=1))
        members.settle()
        members.cut_off("c")
        members.put("c", row("x", weight=5))
        members.erase("a", "x")
        members.pass_time(RETENTION_S / 2)
        members.reconnect("c")
        members.settle()
        assert [weights(members, each) for each in "abc"] == [{}] * 3

    def test_a_row_that_is_made_again_stands(self, members: Members) -> None:
        together(members, "a", "b")
        members.put("a", row("x", weight=1))
        members.settle()
        members.erase("b", "x")
        members.settle()
        members.put("a", row("x", weight=7))
        members.settle()
        assert [weights(members, each) for each in "ab"] == [{"x": 7}] * 2

    def test_a_newcomer_gets_what_there_is_and_not_what_there_was(self, members: Members) -> None:
        together(members, "a", "b")
        for number in range(20):
            members.put("a", row(f"x{number:02}", weight=number))
        members.erase("a", "x07")
        members.pass_time(RETENTION_S / 2)
        together(members, "c")
        assert weights(members, "c") == {f"x{number:02}": number for number in range(20) if number != 7}

    def test_a_restored_member_catches_up_and_its_new_changes_are_taken(self, members: Members) -> None:
        together(members, "a", "b")
        members.put("a", row("x", weight=1))
        members.settle()
        members.back_up("a")
        members.put("a", row("x", weight=2))
        members.put("a", row("y", weight=2))
        members.settle()
        members.restore("a")
        members.put("a", row("z", weight=3))
        members.settle()
        assert [weights(members, each) for each in "ab"] == [{"x": 2, "y": 2, "z": 3}] * 2


def together(members: Members, *names: str) -> None:
    """Have these members, and let them know of each other."""
    for name in names:
        members.reconnect(name)
    members.settle()


def weights(members: Members, member: str) -> dict[str, object]:
    """Id to weight of a member's rows."""
    return {row_id: found["weight"] for row_id, found in members.rows(member).items()}
