"""What dispatching relies on in whoever implements ``Bindings`` and ``Leases``.

Each check takes a factory and runs on the fake of the unit tests and on the shared segment alike, so
that what the unit tests show of dispatching holds for the real thing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from edgeproxy.core.dataplane.affinity import Binding
from edgeproxy.core.dataplane.dispatch import Bindings, Leases


class State(Bindings, Leases, Protocol):
    """One worker's view, which is also able to do what the control process does."""

    def grant_trial(self, slot: int, connections: int) -> None:
        """Let so many connections be taken with ``acquire_trial``, in place of those that were left."""
        ...


MakeViews = Callable[[int], Sequence[State]]
"""Makes the views of so many workers on one new POP. Its bindings have room for eight in all."""


def check_connections_are_counted_over_all_workers(make_views: MakeViews) -> None:
    one, other = make_views(2)
    assert one.connections(3) == 0
    assert one.acquire(3, 0)
    assert other.acquire(3, 0)
    assert other.acquire(3, 0)
    assert one.connections(3) == other.connections(3) == 3
    other.release(3)
    assert one.connections(3) == other.connections(3) == 2
    assert one.connections(4) == 0


def check_a_limit_holds_over_all_workers(make_views: MakeViews) -> None:
    one, other = make_views(2)
    assert one.acquire(0, 2)
    assert other.acquire(0, 2)
    assert not one.acquire(0, 2)
    assert not other.acquire(0, 2)
    assert one.connections(0) == 2
    other.release(0)
    assert one.acquire(0, 2)
    assert not other.acquire(0, 2)


def check_zero_is_no_limit(make_views: MakeViews) -> None:
    (view,) = make_views(1)
    assert all(view.acquire(0, 0) for _ in range(1_000))
    assert view.connections(0) == 1_000
    assert not view.acquire(0, 1_000)


def check_a_worker_learns_once_what_others_changed(make_views: MakeViews) -> None:
    one, other, third = make_views(3)
    one.acquire(5, 0)
    third.acquire(6, 1)
    third.release(6)
    assert set(other.changed_slots() or ()) == {5, 6}
    assert other.changed_slots() == set()
    assert set(one.changed_slots() or ()) == {6}
    other.release(7)
    assert set(one.changed_slots() or ()) == {7}


def check_a_refused_place_changes_nothing(make_views: MakeViews) -> None:
    one, other = make_views(2)
    one.acquire(0, 1)
    other.changed_slots()
    assert not one.acquire(0, 1)
    assert other.changed_slots() == set()


def check_a_trial_lets_so_many_through_over_all_workers(make_views: MakeViews) -> None:
    one, other = make_views(2)
    assert not one.acquire_trial(3, 0)
    one.grant_trial(3, 2)
    assert one.acquire_trial(3, 0)
    assert other.acquire_trial(3, 0)
    assert not one.acquire_trial(3, 0)
    assert not other.acquire_trial(3, 0)
    other.release(3)
    assert not one.acquire_trial(3, 0), "an ended connection gives nothing back"
    assert one.connections(3) == 1


def check_a_trial_is_of_one_slot_and_a_new_one_replaces_it(make_views: MakeViews) -> None:
    (view,) = make_views(1)
    view.grant_trial(3, 5)
    assert not view.acquire_trial(4, 0)
    view.grant_trial(3, 1)
    assert view.acquire_trial(3, 0)
    assert not view.acquire_trial(3, 0)


def check_a_limit_holds_on_trial_too(make_views: MakeViews) -> None:
    one, other = make_views(2)
    one.grant_trial(0, 9)
    assert other.acquire(0, 2)
    assert one.acquire_trial(0, 2)
    assert not one.acquire_trial(0, 2)
    other.release(0)
    assert other.acquire_trial(0, 2)


def check_a_binding_is_seen_by_all_workers(make_views: MakeViews) -> None:
    one, other = make_views(2)
    binding = Binding(backend_key=2**64 - 1, country_code=17_477, last_use_s=1.5)
    one.lock(2**64 - 1)
    assert one.get(2**64 - 1) is None
    one.put(2**64 - 1, binding)
    one.unlock(2**64 - 1)
    other.lock(2**64 - 1)
    assert other.get(2**64 - 1) == binding
    other.unlock(2**64 - 1)


def check_a_later_binding_replaces_the_earlier(make_views: MakeViews) -> None:
    (view,) = make_views(1)
    view.lock(9)
    view.put(8, Binding(1, 1, 1.0))
    view.put(9, Binding(2, 2, 2.0))
    view.put(9, Binding(3, 3, 3.0))
    assert view.get(9) == Binding(3, 3, 3.0)
    assert view.get(8) == Binding(1, 1, 1.0)
    view.unlock(9)


def check_a_discarded_binding_is_gone(make_views: MakeViews) -> None:
    (view,) = make_views(1)
    view.lock(9)
    view.put(8, Binding(1, 1, 1.0))
    view.put(9, Binding(2, 2, 2.0))
    view.discard(9)
    view.discard(9)
    assert view.get(9) is None
    assert view.get(8) == Binding(1, 1, 1.0)
    view.unlock(9)


def check_without_room_the_least_recently_used_goes(make_views: MakeViews) -> None:
    (view,) = make_views(1)
    view.lock(1)
    for tag in range(1, 9):
        view.put(tag, Binding(tag, 0, 100.0 - tag))
    view.put(8, Binding(8, 0, 200.0))
    view.put(9, Binding(9, 0, 150.0))
    left = {tag for tag in range(1, 10) if view.get(tag) is not None}
    assert left == {1, 2, 3, 4, 5, 6, 8, 9}
    view.unlock(1)


CHECKS: list[Callable[[MakeViews], None]] = [
    check for name, check in list(globals().items()) if name.startswith("check_") and callable(check)
]
