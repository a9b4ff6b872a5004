"""What caps rely on in whoever implements ``Places``: runs on the fake and on the shared segment alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgeproxy.core.dataplane.caps import Places

MakePlaces = Callable[[int], Sequence[Places]]
"""Makes the views of so many workers on one new POP."""


def check_all_are_counted_over_all_workers(make_places: MakePlaces) -> None:
    one, other = make_places(2)
    assert one.enter(2)
    assert other.enter(2)
    assert not one.enter(2)
    assert not other.enter(2)
    other.leave()
    assert one.enter(2)
    assert not other.enter(2)


def check_each_client_is_counted_over_all_workers(make_places: MakePlaces) -> None:
    one, other = make_places(2)
    mine = one.enter_client(7, 2)
    assert mine is not None
    assert other.enter_client(7, 2) is not None
    assert one.enter_client(7, 2) is None
    assert other.enter_client(8, 2) is not None
    one.leave_client(mine)
    assert other.enter_client(7, 2) is not None
    assert one.enter_client(7, 2) is None


def check_a_lower_cap_holds_for_the_next_one(make_places: MakePlaces) -> None:
    (view,) = make_places(1)
    entries = [view.enter_client(7, 3) for _ in range(3)]
    assert view.enter_client(7, 2) is None
    for entry in entries[:2]:
        assert entry is not None
        view.leave_client(entry)
    assert view.enter_client(7, 2) is not None


CHECKS = (
    check_all_are_counted_over_all_workers,
    check_each_client_is_counted_over_all_workers,
    check_a_lower_cap_holds_for_the_next_one,
)
