"""What differs between two images of a row says what was written, and cells say what the image must be."""

from __future__ import annotations

from edgeproxy.core.replication.images import (
    NO_LEASE,
    after_all,
    differences,
    is_lease,
    lease_of,
    row_of,
    same,
    written_groups,
)
from edgeproxy.core.replication.model import EXPIRED, PRESENT, Cell, Dot, Group, Stamp, Value

ROW: dict[str, Value] = {
    "app": "test", "region": "eu", "country": "DE", "wg_ip": "10.0.0.1", "port": 1,
    "healthy": 1, "weight": 2, "soft_limit": 3, "hard_limit": 4, "deleted": 0,
}  # fmt: skip
LEASE: dict[str, Value] = {"owner": "pop-1", "registered_at": 10.5, EXPIRED: 0}
EARLY, LATE = Stamp(1, 0, "a"), Stamp(2, 5, "b")


def cells_of(row: dict[str, Value], **more: dict[str, Value]) -> dict[Group, Cell]:
    groups = written_groups(None, row, {}) | {Group(name): values for name, values in more.items()}
    return {group: Cell(EARLY, Dot("a/1", 1), values) for group, values in groups.items()}


def test_new_row_writes_every_group_of_the_row() -> None:
    assert written_groups(None, ROW, {}) == {
        Group.PRESENCE: {PRESENT: 1, "deleted": 0},
        Group.IDENTITY: {"app": "test", "region": "eu", "country": "DE", "wg_ip": "10.0.0.1", "port": 1},
        Group.LIMITS: {"weight": 2, "soft_limit": 3, "hard_limit": 4},
        Group.HEALTH: {"healthy": 1, EXPIRED: 0},
    }


def test_change_writes_the_whole_group_and_no_other() -> None:
    assert written_groups(ROW, {**ROW, "port": 2}, {}) == {
        Group.IDENTITY: {"app": "test", "region": "eu", "country": "DE", "wg_ip": "10.0.0.1", "port": 2}
    }
    assert written_groups(ROW, {**ROW, "deleted": 1}, {}) == {Group.PRESENCE: {PRESENT: 1, "deleted": 1}}
    assert written_groups(ROW, ROW, {}) == {}


def test_value_of_another_type_is_another_value() -> None:
    assert set(written_groups(ROW, {**ROW, "weight": "2"}, {})) == {Group.LIMITS}
    assert not same({"weight": 2.0}, {"weight": 2})
    assert not same({"weight": 2}, {})
    assert not same({"weight": 2}, None)


def test_removal_writes_a_tombstone() -> None:
    assert written_groups(ROW, None, cells_of(ROW)) == {Group.PRESENCE: {PRESENT: 0, "deleted": None}}


def test_column_that_our_table_lacks_keeps_its_value() -> None:
    without = {column: value for column, value in ROW.items() if column != "country"}
    written = written_groups(without, {**without, "port": 2}, cells_of(ROW))
    assert written[Group.IDENTITY]["country"] == "DE"


def test_lease_writes_its_owner_and_its_claim_apart() -> None:
    cells = cells_of({**ROW, "healthy": 0})
    assert is_lease(LEASE)
    assert not is_lease(ROW)
    assert not is_lease(None)
    assert written_groups(NO_LEASE, LEASE, cells) == {Group.LEASE: {"owner": "pop-1", "registered_at": 10.5}}
    assert written_groups(LEASE, {**LEASE, EXPIRED: 1}, cells) == {Group.HEALTH: {"healthy": 0, EXPIRED: 1}}
    assert written_groups(LEASE, {**LEASE, EXPIRED: 1}, {}) == {}


def test_row_and_lease_are_what_the_cells_say() -> None:
    cells = cells_of(ROW, lease={"owner": "pop-1", "registered_at": 10.5}, health={"healthy": 0, EXPIRED: 1})
    assert row_of(cells) == {**ROW, "healthy": 0}
    assert lease_of(cells) == {**LEASE, EXPIRED: 1}
    assert lease_of(cells_of(ROW)) == NO_LEASE
    assert lease_of(cells_of(ROW, lease={"owner": None, "registered_at": None})) == NO_LEASE


def test_row_of_which_a_group_is_missing_or_that_was_removed_is_none() -> None:
    cells = cells_of(ROW, lease={"owner": "pop-1", "registered_at": 10.5})
    removed = {**cells, Group.PRESENCE: Cell(LATE, Dot("a/1", 2), {PRESENT: 0, "deleted": None})}
    partial: dict[Group, Cell] = {group: cell for group, cell in cells.items() if group is not Group.HEALTH}
    incomplete: list[dict[Group, Cell]] = [removed, partial, {}]
    for each in incomplete:
        assert row_of(each) is None
        assert lease_of(each) == NO_LEASE


def test_differences_tell_what_is_missing_from_what_is_otherwise() -> None:
    cells = cells_of(ROW)
    assert differences(ROW, NO_LEASE, cells) == ({}, {})
    missing, differing = differences({**ROW, "weight": 9}, LEASE, cells)
    assert missing == {Group.LEASE: {"owner": "pop-1", "registered_at": 10.5}}
    assert differing == {Group.LIMITS: {"weight": 9, "soft_limit": 3, "hard_limit": 4}}
    missing, differing = differences(ROW, NO_LEASE, {})
    assert set(missing) == {Group.PRESENCE, Group.IDENTITY, Group.LIMITS, Group.HEALTH}
    assert differing == {}


def test_row_that_is_gone_differs_only_from_one_that_is_present() -> None:
    removed = {Group.PRESENCE: {PRESENT: 0, "deleted": None}}
    assert differences(None, NO_LEASE, cells_of(ROW)) == ({}, removed)
    assert differences(None, NO_LEASE, {}) == ({}, {})


def test_lease_that_ended_differs_from_its_cell() -> None:
    cells = cells_of(ROW, lease={"owner": "pop-1", "registered_at": 10.5})
    assert differences(ROW, NO_LEASE, cells)[1] == {Group.LEASE: {"owner": None, "registered_at": None}}


def test_stamp_of_a_write_is_greater_than_those_that_it_overwrites() -> None:
    cells = {Group.LIMITS: Cell(LATE, Dot("b/1", 1), {})}
    assert after_all(EARLY, cells, {Group.LIMITS: {}}) == Stamp(2, 6, "a")
    assert after_all(EARLY, cells, {Group.HEALTH: {}}) == EARLY
    assert after_all(Stamp(3, 0, "a"), cells, {Group.LIMITS: {}}) == Stamp(3, 0, "a")
