"""Which handshakes get a step in a turn of the loop, by a clock that the test holds."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import cast

import pytest

from edgeproxy.worker import tls_handshakes as module
from edgeproxy.worker.loop import Deadlines, Loop
from edgeproxy.worker.tls_handshakes import STEPS_PER_TURN, Handshakes
from edgeproxy.worker.tls_side import TlsSide

TIMEOUT_S = 10.0


class HeldLoop:
    """A loop whose turns the test takes."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.asked = 0
        self.handlers: list[object] = []

    def deadlines(self, duration_s: float, due: Callable[[str], None]) -> Deadlines[str]:
        self.watched = Deadlines(duration_s, due)
        return self.watched

    def hand_over(self, sock: socket.socket, handler: object) -> None:
        self.handlers.append(handler)

    def again(self, item: object) -> None:
        self.asked += 1


class Side:
    """One end of a handshake that is over after so many steps."""

    def __init__(self, steps: int = 1) -> None:
        self.left = steps
        self.error: Exception | None = None
        self.said_hello = self.detached = False

    def say_hello(self) -> None:
        self.said_hello = True

    def shake_hands(self) -> bool:
        clock.now_s += clock.step_s
        if self.error is not None:
            raise self.error
        self.left -= 1
        return self.left == 0

    def detach(self) -> None:
        self.detached = True


class Clock:
    now_s = 0.0
    step_s = 0.0


clock = Clock()


class Table:
    """Handshakes that speak first, and what became of each."""

    def __init__(self, limit: int | None = None) -> None:
        self.loop = HeldLoop()
        self.secured: list[str] = []
        self.failed: list[tuple[str, Exception]] = []
        self.timed_out: list[str] = []
        self.sides: dict[str, Side] = {}
        self.handshakes: Handshakes[str] = Handshakes(
            cast("Loop", self.loop),
            secured=lambda owner, _side: self.secured.append(owner),
            failed=lambda owner, error: self.failed.append((owner, error)),
            timed_out=self.timed_out.append,
            timeout_s=TIMEOUT_S,
            limit=limit,
            on_defect=lambda culprit, error: pytest.fail(f"{culprit}: {error}"),
        )

    def begin(self, *owners: str, steps: int = 1) -> list[bool]:
        sock = cast("socket.socket", None)
        begun = []
        for owner in owners:
            side = self.sides[owner] = Side(steps)
            begun.append(
                self.handshakes.begin(owner, sock, lambda side=side: cast("TlsSide", side), speaks_first=True)  # type: ignore[misc]
            )
        return begun


@pytest.fixture(autouse=True)
def held_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock.now_s, clock.step_s = 0.0, 0.0
    monkeypatch.setattr(module, "monotonic", lambda: clock.now_s)


def test_a_turn_takes_a_few_and_asks_for_another_while_some_are_left() -> None:
    table = Table()
    owners = [str(number) for number in range(2 * STEPS_PER_TURN + 1)]
    table.begin(*owners)
    assert table.loop.asked == 1
    table.handshakes.resume()
    assert table.secured == owners[:STEPS_PER_TURN]
    assert table.loop.asked == 2
    table.handshakes.resume()
    table.handshakes.resume()
    assert table.secured == owners
    assert table.loop.asked == 3


def test_after_a_long_step_no_other_is_begun() -> None:
    table = Table()
    table.begin("a", "b")
    clock.step_s = module._TURN_S * 1.5
    table.handshakes.resume()
    assert table.secured == ["a"]
    table.handshakes.resume()
    assert table.secured == ["a", "b"]


def test_short_steps_share_a_turn() -> None:
    table = Table()
    table.begin("a", "b", "c")
    clock.step_s = module._TURN_S * 0.4
    table.handshakes.resume()
    assert table.secured == ["a", "b", "c"]


def test_one_that_needs_more_steps_waits_for_its_peer() -> None:
    table = Table()
    table.begin("a", steps=2)
    table.handshakes.resume()
    table.handshakes.resume()
    assert (table.secured, table.loop.asked) == ([], 1)
    (handshake,) = table.loop.handlers
    handshake.ready(1)  # type: ignore[attr-defined]
    assert table.loop.asked == 2
    table.handshakes.resume()
    assert table.secured == ["a"]
    assert table.sides["a"].said_hello


def test_no_more_than_the_limit_are_under_way() -> None:
    table = Table(limit=2)
    assert table.begin("a", "b", "c") == [True, True, False]
    table.handshakes.resume()
    assert table.begin("d") == [True]
    table.handshakes.change_limits(TIMEOUT_S, None)
    assert table.begin("e", "f", "g") == [True, True, True]


def test_one_that_takes_too_long_is_ended() -> None:
    table = Table(limit=1)
    table.begin("a", steps=2)
    table.handshakes.resume()
    table.loop.watched.expire(100.0 + TIMEOUT_S - 0.1)
    assert table.timed_out == []
    table.handshakes.change_limits(TIMEOUT_S / 2, 1)
    table.loop.watched.expire(100.0 + TIMEOUT_S / 2)
    assert table.timed_out == ["a"]
    assert table.sides["a"].detached
    assert table.begin("b") == [True]


def test_a_discarded_one_gets_no_step() -> None:
    table = Table()
    table.begin("a", "b")
    table.handshakes.discard("a")
    table.handshakes.discard("unknown")
    table.handshakes.resume()
    assert table.secured == ["b"]
    table.loop.watched.expire(1000.0)
    assert table.timed_out == []


@pytest.mark.parametrize("error", [ConnectionResetError(), ValueError("no such name")])
def test_one_that_fails_is_over(error: Exception) -> None:
    table = Table(limit=1)
    table.begin("a")
    table.sides["a"].error = error
    table.handshakes.resume()
    assert (table.failed, table.secured) == ([("a", error)], [])
    assert table.sides["a"].detached
    table.loop.watched.expire(table.loop.now_s + TIMEOUT_S)
    assert table.timed_out == []
    assert table.begin("b") == [True]
