"""Changes lead from rows to rows, forth and back, or say where they do not fit."""

from __future__ import annotations

import pytest

from edgeproxy.core.controlplane.history import (
    HistoryError,
    RowDifference,
    in_sequence,
    replayed,
    row_differences,
    undone,
)
from edgeproxy.ports import Change, Row


def change(number: int, row_id: str, old: Row | None, new: Row | None) -> Change:
    return Change(number, "2026-11-20T10:00:00.000Z", "cli", None, None, row_id, old, new)


CHANGES = [
    change(1, "a", None, {"port": 1}),
    change(2, "b", None, {"port": 2}),
    change(3, "a", {"port": 1}, {"port": 3}),
    change(4, "a", {"owner": None}, {"owner": "pop-1"}),
    change(5, "b", {"port": 2}, None),
]


@pytest.mark.feature("recovery.point_in_time")
def test_changes_lead_forth_and_back() -> None:
    after = {"a": {"port": 3}}
    assert replayed({}, CHANGES) == after
    assert undone(after, CHANGES) == {}
    assert undone(after, CHANGES[2:]) == {"a": {"port": 1}, "b": {"port": 2}}
    assert replayed(after, []) == undone(after, []) == after


@pytest.mark.parametrize("number", [0, 2])
def test_change_that_does_not_fit_is_named(number: int) -> None:
    fitting = [each for place, each in enumerate(CHANGES) if place != number]
    with pytest.raises(HistoryError, match="entry 3, of backend 'a', does not fit those beside it"):
        replayed({}, fitting if number == 0 else [CHANGES[0], CHANGES[2], CHANGES[2]])
    with pytest.raises(HistoryError, match="entry 5, of backend 'b', does not fit those beside it"):
        undone({"a": {"port": 3}, "b": {}}, CHANGES)


def test_gap_is_named() -> None:
    assert [*in_sequence(CHANGES, 1)] == CHANGES
    with pytest.raises(HistoryError, match="the entries 3 to 3 are missing"):
        [*in_sequence([*CHANGES[:2], *CHANGES[3:]], 1)]


def test_differences_are_of_the_columns_that_were_there() -> None:
    current: dict[str, Row] = {"same": {"port": 1, "country": None}, "moved": {"port": 1}, "new": {"port": 1}}
    wanted: dict[str, Row] = {"same": {"port": 1}, "moved": {"port": 2}, "lost": {"port": 3}}
    assert row_differences(current, wanted) == [
        RowDifference("lost", None, {"port": 3}),
        RowDifference("moved", {"port": 1}, {"port": 2}),
        RowDifference("new", {"port": 1}, None),
    ]
