"""How many connections clients may have open: taken when they come, given back when they go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from edgeproxy.core.dataplane.caps import Caps, Door, Place
from edgeproxy.core.dataplane.session import CloseReason, Event
from packages.proxy.tests.unit.core.dataplane.places_contract import CHECKS, MakePlaces


class FakePlaces:
    """Counts in a dictionary; an entry is the client's tag."""

    def __init__(self) -> None:
        self.connections = 0
        self.by_client: Counter[int] = Counter()

    def enter(self, most: int) -> bool:
        if self.connections >= most:
            return False
        self.connections += 1
        return True

    def leave(self) -> None:
        self.connections -= 1

    def enter_client(self, tag: int, most: int) -> int | None:
        if self.by_client[tag] >= most:
            return None
        self.by_client[tag] += 1
        return tag

    def leave_client(self, entry: int) -> None:
        self.by_client[entry] -= 1


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_fake_keeps_the_contract(check: Callable[[MakePlaces], None]) -> None:
    check(lambda workers: [FakePlaces()] * workers)


def entered(door: Door, network: int | None) -> Place:
    place = door.enter(network)
    assert isinstance(place, Place)
    return place


@pytest.fixture
def places() -> FakePlaces:
    return FakePlaces()


@pytest.mark.feature("admission.caps")
def test_clients_come_in_until_all_have_as_many_as_they_may(places: FakePlaces) -> None:
    door = Door(Caps(connections=2), places, secret=1)
    first = entered(door, 10)
    entered(door, 10)
    assert door.enter(11) is CloseReason.MAX_CONNECTIONS
    door.leave(first)
    entered(door, 11)
    assert door.enter(10) is CloseReason.MAX_CONNECTIONS


def test_each_client_has_a_cap_of_its_own(places: FakePlaces) -> None:
    door = Door(Caps(per_client=1), places, secret=1)
    first = entered(door, 10)
    assert door.enter(10) is CloseReason.MAX_CONNECTIONS_PER_CLIENT
    entered(door, 11)
    door.leave(first)
    entered(door, 10)
    assert places.connections == 0


def test_whom_the_cap_on_all_refuses_keeps_nothing(places: FakePlaces) -> None:
    door = Door(Caps(connections=1, per_client=5), places, secret=1)
    first = entered(door, 10)
    assert door.enter(11) is CloseReason.MAX_CONNECTIONS
    door.leave(first)
    assert not places.connections
    assert not +places.by_client


def test_whom_its_own_cap_refuses_is_not_counted_among_all(places: FakePlaces) -> None:
    door = Door(Caps(connections=5, per_client=1), places, secret=1)
    entered(door, 10)
    assert door.enter(10) is CloseReason.MAX_CONNECTIONS_PER_CLIENT
    assert places.connections == 1


def test_who_is_identified_later_counts_from_then_on(places: FakePlaces) -> None:
    door = Door(Caps(connections=9, per_client=1), places, secret=1)
    one, other = entered(door, None), entered(door, None)
    assert places.connections == 2
    assert door.identify(one, 10) is None
    assert door.identify(other, 10) is Event.MAX_CONNECTIONS_PER_CLIENT
    door.leave(other)
    door.leave(one)
    assert not places.connections
    assert not +places.by_client


def test_a_cap_switched_off_lets_everybody_in_and_what_was_counted_is_given_back(places: FakePlaces) -> None:
    door = Door(Caps(connections=1, per_client=1), places, secret=1)
    counted = entered(door, 10)
    door.caps = Caps()
    uncounted = entered(door, 10)
    assert door.identify(uncounted, 10) is None
    door.leave(uncounted)
    assert places.connections == 1
    door.leave(counted)
    assert not places.connections
    assert not +places.by_client


@pytest.mark.parametrize(
    ("caps", "is_empty"), [(Caps(), True), (Caps(connections=1), False), (Caps(per_client=1), False)]
)
def test_without_a_number_there_is_no_cap(caps: Caps, is_empty: bool) -> None:
    assert caps.is_empty is is_empty
