"""First come, first served: exactly within a worker, closely between workers, and nobody overtakes."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import pytest

from edgeproxy.core.dataplane.waiting import HUNG_S, TOLERANCE_S, WaitingLines
from packages.proxy.tests.unit.core.dataplane.queues_contract import (
    APP,
    CHECKS,
    OTHER_APP,
    MakeQueues,
)


class FakePop:
    def __init__(self) -> None:
        self.waiting = 0
        self.views: list[FakeQueues] = []


class FakeQueues:
    """What one worker sees of a :class:`FakePop`."""

    def __init__(self, pop: FakePop) -> None:
        self._pop = pop
        self.since_s: dict[int, float] = {}
        self.looked_s = 0.0
        pop.views.append(self)

    def join(self, most: int) -> bool:
        if self._pop.waiting >= most:
            return False
        self._pop.waiting += 1
        return True

    def leave(self) -> None:
        self._pop.waiting -= 1

    def publish(self, app_key: int, since_s: float | None) -> None:
        if since_s is None:
            del self.since_s[app_key]
        else:
            self.since_s[app_key] = since_s

    def looked(self, now_s: float) -> None:
        self.looked_s = now_s

    def oldest_elsewhere(self, app_key: int, now_s: float) -> float:
        others = (view for view in self._pop.views if view is not self)
        return min(
            (view.since_s.get(app_key, inf) for view in others if now_s - view.looked_s <= HUNG_S),
            default=inf,
        )


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_fake_keeps_the_contract(check: Callable[[MakeQueues], None]) -> None:
    def make_queues(workers: int) -> list[FakeQueues]:
        pop = FakePop()
        return [FakeQueues(pop) for _ in range(workers)]

    check(make_queues)


@pytest.fixture
def workers() -> list[WaitingLines[str]]:
    """Two workers of one POP, in which ten clients may wait."""
    pop = FakePop()
    return [WaitingLines(10, FakeQueues(pop)) for _ in range(2)]


@pytest.fixture
def lines(workers: list[WaitingLines[str]]) -> WaitingLines[str]:
    """One of these workers."""
    return workers[0]


def served(lines: WaitingLines[str], now_s: float, places: int) -> list[str]:
    """Who goes when there are so many places."""
    gone: list[str] = []
    for item in lines.turns(now_s):
        if len(gone) < places:
            lines.leave(item)
            gone.append(item)
    return gone


@pytest.mark.feature("connecting.queue")
def test_they_go_in_the_order_in_which_they_came(lines: WaitingLines[str]) -> None:
    for number, client in enumerate("abc"):
        assert lines.join(client, APP, float(number))
    assert served(lines, 3.0, places=2) == ["a", "b"]
    assert served(lines, 3.0, places=5) == ["c"]
    assert len(lines) == 0


def test_without_a_place_nobody_goes_and_the_order_stays(lines: WaitingLines[str]) -> None:
    for client in "ab":
        lines.join(client, APP, 1.0)
    assert served(lines, 2.0, places=0) == []
    assert served(lines, 2.0, places=1) == ["a"]


def test_leaving_tells_since_when_and_lets_the_next_be_first(workers: list[WaitingLines[str]]) -> None:
    lines, other = workers
    lines.join("a", APP, 1.0)
    lines.join("b", APP, 2.0)
    lines.join("c", APP, 3.0)
    assert lines.leave("b") == 2.0
    assert lines.leave("a") == 1.0
    other.join("x", APP, 2.5)
    assert served(other, 3.0, places=1) == ["x"]
    other.join("y", APP, 3.0 + 2 * TOLERANCE_S)
    assert served(lines, 3.2, places=0) == []
    assert served(other, 3.2, places=1) == []
    assert served(lines, 3.2, places=1) == ["c"]
    assert served(other, 3.2, places=1) == ["y"]


def test_one_apps_line_does_not_hold_up_anothers(lines: WaitingLines[str]) -> None:
    lines.join("a", APP, 1.0)
    lines.join("b", OTHER_APP, 2.0)
    gone = []
    for item in lines.turns(3.0):
        if item == "b":
            lines.leave(item)
            gone.append(item)
    assert gone == ["b"]
    assert len(lines) == 1


def test_only_so_many_wait_in_all_workers_together(workers: list[WaitingLines[str]]) -> None:
    one, other = workers
    assert all(one.join(f"a{number}", APP, 1.0) for number in range(6))
    assert all(other.join(f"b{number}", OTHER_APP, 1.0) for number in range(4))
    assert not one.join("c", APP, 1.0)
    other.leave("b3")
    assert one.join("c", APP, 1.0)
    one.length = 0
    one.leave("c")
    assert not one.join("c", APP, 1.0)


def test_whoever_comes_stands_in_line_behind_those_who_wait(workers: list[WaitingLines[str]]) -> None:
    one, other = workers
    assert not one.must_wait(APP, 1.0)
    one.join("a", APP, 1.0)
    assert one.must_wait(APP, 1.0)
    assert other.must_wait(APP, 1.0)
    assert not other.must_wait(OTHER_APP, 1.0)
    one.leave("a")
    assert not one.must_wait(APP, 1.0)
    assert not other.must_wait(APP, 1.0)


def test_a_worker_lets_those_go_first_who_wait_longer_elsewhere(workers: list[WaitingLines[str]]) -> None:
    one, other = workers
    one.join("first", APP, 1.0)
    other.join("second", APP, 1.0 + 2 * TOLERANCE_S)
    assert served(other, 1.2, places=1) == []
    assert served(one, 1.2, places=1) == ["first"]
    assert served(other, 1.2, places=1) == ["second"]


def test_who_came_at_nearly_the_same_time_need_not_wait_for_each_other(
    workers: list[WaitingLines[str]],
) -> None:
    one, other = workers
    one.join("first", APP, 1.0)
    other.join("second", APP, 1.0 + TOLERANCE_S / 2)
    assert served(other, 1.2, places=1) == ["second"]


def test_a_worker_that_hangs_holds_up_nobody_for_long(workers: list[WaitingLines[str]]) -> None:
    one, other = workers
    one.join("first", APP, 1.0)
    other.join("second", APP, 1.1)
    assert served(other, 1.2, places=1) == []
    assert served(other, 1.1 + HUNG_S, places=1) == ["second"]
