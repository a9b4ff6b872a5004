"""Who waits, for how long, and when somebody is looked after: by a clock that the test holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from edgeproxy.core.dataplane.waiting import LOOK_INTERVAL_S, QueueTerms
from edgeproxy.worker.loop import Loop
from edgeproxy.worker.waiting_room import WaitingRoom
from packages.proxy.tests.unit.core.dataplane.test_waiting import FakePop, FakeQueues

TIMEOUT_S = 5.0


class Visitor:
    """Somebody who waits, and is told things."""

    def __init__(self) -> None:
        self.turns = 0
        self.too_long = 0

    def take_turn(self) -> None:
        self.turns += 1

    def waited_too_long(self) -> None:
        self.too_long += 1

    def left_the_queue(self) -> None: ...


@pytest.fixture
def loop() -> Iterator[Loop]:
    with ExitStack() as at_end:
        made = Loop()
        at_end.callback(made._epoll.close)
        made.now_s = 100.0
        yield made


@pytest.fixture
def room(loop: Loop) -> WaitingRoom:
    def fail(culprit: object, error: Exception) -> None:
        pytest.fail(f"{culprit}: {error}")

    return WaitingRoom(loop, QueueTerms(2, TIMEOUT_S), FakeQueues(FakePop()), fail)


def at(loop: Loop, now_s: float) -> None:
    loop.now_s = now_s
    loop._look_at_deadlines()


def test_who_leaves_is_told_for_how_long_he_waited_and_nothing_later(room: WaitingRoom, loop: Loop) -> None:
    stays, leaves = Visitor(), Visitor()
    assert room.join(stays, "web")
    assert room.join(leaves, "web")
    assert not room.join(Visitor(), "web")
    loop.now_s = 103.0
    assert room.leave(leaves) == 3.0
    at(loop, 100.0 + TIMEOUT_S - 0.1)
    assert (stays.too_long, leaves.too_long) == (0, 0)
    at(loop, 100.0 + TIMEOUT_S)
    assert (stays.too_long, leaves.too_long) == (1, 0)


def test_somebody_is_looked_after_as_long_as_he_waits(room: WaitingRoom, loop: Loop) -> None:
    visitor = Visitor()
    room.join(visitor, "web")
    for look in (1, 2, 3):
        at(loop, loop.now_s + LOOK_INTERVAL_S)
        assert visitor.turns == look
    room.leave(visitor)
    at(loop, loop.now_s + LOOK_INTERVAL_S)
    at(loop, loop.now_s + LOOK_INTERVAL_S)
    assert visitor.turns == 3
    assert loop._look_at_s == float("inf")


def test_a_free_place_is_offered_in_the_next_turn_if_somebody_waits(room: WaitingRoom, loop: Loop) -> None:
    room.place_is_free()
    assert loop._again == {}
    visitor = Visitor()
    room.join(visitor, "web")
    room.place_is_free()
    assert list(loop._again) == [room]
    room.resume()
    assert visitor.turns == 1


def test_other_terms_hold_for_those_who_wait_already(room: WaitingRoom, loop: Loop) -> None:
    visitor = Visitor()
    room.join(visitor, "web")
    room.change_terms(QueueTerms(1, TIMEOUT_S / 2))
    assert not room.join(Visitor(), "web")
    at(loop, 100.0 + TIMEOUT_S / 2)
    assert visitor.too_long == 1
    room.change_terms(QueueTerms())
    assert not room.is_open
