"""What becomes of a row's cells."""

from __future__ import annotations

from functools import reduce
from operator import or_

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.replication.model import PRESENT, Cell, Dot, Group, Stamp, Write
from edgeproxy.core.replication.rows import installed, is_garbage, is_present, row_fingerprint, written

pytestmark = pytest.mark.feature("replication.changes")


def cell(number: int, present: int = 1) -> Cell:
    return Cell(Stamp(number, 0, "a"), Dot("a/1", number), {PRESENT: present})


def write(number: int, *groups: Group) -> Write:
    return Write(Dot("a/1", number), Stamp(number, 0, "a"), "x", {group: {PRESENT: 1} for group in groups})


def knows(*numbers: int) -> set[Dot]:
    return {Dot("a/1", number) for number in numbers}


@given(st.permutations([write(1, *Group), write(2, Group.HEALTH), write(3, Group.HEALTH, Group.LIMITS)]))
def test_writes_come_to_the_same_in_any_order_however_often(writes: list[Write]) -> None:
    cells: dict[Group, Cell] = {}
    for each in (*writes, *writes):
        cells = written(cells, each)
    assert {group: each.dot.sequence for group, each in cells.items()} == {
        **dict.fromkeys(Group, 1),
        Group.HEALTH: 3,
        Group.LIMITS: 3,
    }


def test_a_row_is_there_when_its_presence_says_so() -> None:
    assert is_present({Group.PRESENCE: cell(1)})
    assert not is_present({Group.PRESENCE: cell(1, present=0)})
    assert not is_present({Group.HEALTH: cell(1)})


@pytest.mark.parametrize(
    ("mine", "theirs", "i_know", "they_know", "expected"),
    [
        pytest.param(1, 2, knows(1), knows(2), 2, id="theirs is later"),
        pytest.param(2, 1, knows(2), knows(1), 2, id="mine is later"),
        pytest.param(2, 2, knows(2), knows(2), 2, id="they are the same"),
        pytest.param(2, 1, knows(1, 2), knows(1, 2), 1, id="mine was removed there before theirs came"),
        pytest.param(1, 2, knows(1, 2), knows(1, 2), 1, id="theirs was removed here before mine came"),
        pytest.param(1, None, knows(1), knows(1), None, id="they removed it"),
        pytest.param(1, None, knows(1), knows(), 1, id="they have not heard of it"),
        pytest.param(None, 1, knows(1), knows(1), None, id="we removed it"),
        pytest.param(None, 1, knows(), knows(1), 1, id="we have not heard of it"),
    ],
)
def test_of_a_snapshot(
    mine: int | None, theirs: int | None, i_know: set[Dot], they_know: set[Dot], expected: int | None
) -> None:
    cells = installed(
        {} if mine is None else {Group.HEALTH: cell(mine)},
        {} if theirs is None else {Group.HEALTH: cell(theirs)},
        i_know.__contains__,
        they_know.__contains__,
    )
    assert cells == ({} if expected is None else {Group.HEALTH: cell(expected)})


@pytest.mark.parametrize(("mine", "theirs"), [(1, 2), (2, 1)])
def test_what_came_after_its_tombstone_was_collected_makes_no_row(mine: int, theirs: int) -> None:
    row, other = {Group.PRESENCE: cell(mine)}, {Group.PRESENCE: cell(theirs)}
    both = knows(1, 2).__contains__
    assert installed(row, other, both, both) == {}


def test_a_row_that_both_have_stands() -> None:
    row, both = {Group.PRESENCE: cell(1)}, knows(1).__contains__
    assert installed(row, row, both, both) == row


def test_a_tombstone_that_came_late_is_kept() -> None:
    tombstone, row = {Group.PRESENCE: cell(1, present=0)}, {Group.PRESENCE: cell(2)}
    both = knows(1, 2).__contains__
    assert installed(tombstone, row, both, both) == installed(row, tombstone, both, both) == tombstone


def test_a_tombstone_that_one_side_has_collected_stands_against_earlier_writes() -> None:
    tombstone, row = {Group.PRESENCE: cell(2, present=0)}, {Group.PRESENCE: cell(1)}
    for mine, theirs in ((tombstone, row), (row, tombstone)):
        assert installed(mine, theirs, knows(1, 2).__contains__, knows(1, 2).__contains__) == tombstone


def test_what_is_left_of_a_row_is_garbage_when_all_know_all_of_it() -> None:
    left = {Group.PRESENCE: cell(2, present=0), Group.HEALTH: cell(1)}
    assert is_garbage(left, knows(1, 2).__contains__)
    assert not is_garbage(left, knows(2).__contains__)
    assert not is_garbage({Group.PRESENCE: cell(1)}, knows(1).__contains__)


def test_fingerprints_tell_rows_groups_and_writes_apart() -> None:
    dots = [(Group.HEALTH, Dot("a/1", 1)), (Group.LIMITS, Dot("a/1", 2))]
    others = [
        row_fingerprint("y", dots),
        row_fingerprint("x", dots[:1]),
        row_fingerprint("x", [(Group.HEALTH, Dot("a/1", 2)), (Group.LIMITS, Dot("a/1", 1))]),
        row_fingerprint("x", [(Group.HEALTH, Dot("a/2", 1)), (Group.LIMITS, Dot("a/1", 2))]),
    ]
    assert row_fingerprint("x", dots) == row_fingerprint("x", dots[::-1]) not in others
    assert 0 <= row_fingerprint("\ud800", dots) < 1 << 64


def test_a_fingerprint_uses_64_bits() -> None:
    fingerprints = [row_fingerprint(str(number), [(Group.HEALTH, Dot("a/1", 1))]) for number in range(64)]
    assert reduce(or_, fingerprints) == (1 << 64) - 1
    together = row_fingerprint("0", [(Group.HEALTH, Dot("a/1", 1)), (Group.LIMITS, Dot("a/1", 1))])
    limits = row_fingerprint("0", [(Group.LIMITS, Dot("a/1", 1))])
    assert together == (fingerprints[0] + limits) % (1 << 64)
