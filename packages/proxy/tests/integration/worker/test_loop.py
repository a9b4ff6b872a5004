"""The loop on real sockets: turns, what is closed, and what callees raise."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from edgeproxy.worker import loop as loop_module
from edgeproxy.worker.loop import EDGE, LEVEL_READ, Deadlines, Loop
from packages.proxy.tests.integration.worker.workers import bound_listener


class Recorder:
    """A handler that does what it is told, once for each event."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.events: list[int] = []
        self._work = work

    def ready(self, events: int) -> None:
        self.events.append(events)
        self._work()

    def resume(self) -> None:
        self.events.append(-1)
        self._work()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


@pytest.fixture(name="loop")
def a_loop() -> Iterator[Loop]:
    loop = Loop()
    with closing(loop._epoll):
        yield loop


def test_a_handler_hears_of_its_socket_until_the_loop_is_stopped(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    theirs.send(b"!")
    handler = Recorder(loop.stop)
    loop.register(ours, handler)
    loop.run()
    assert handler.events == [select.EPOLLIN | select.EPOLLOUT]


def test_another_handler_can_take_a_socket_over(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, _ = pair
    first, second = Recorder(loop.stop), Recorder(loop.stop)
    loop.register(ours, first, LEVEL_READ | select.EPOLLOUT)
    loop.hand_over(ours, second)
    loop.run()
    assert (first.events, second.events) == ([], [select.EPOLLOUT])


def test_a_socket_closed_in_a_turn_keeps_its_number_to_the_end_of_it(loop: Loop) -> None:
    (first, first_peer), (second, second_peer) = socket.socketpair(), socket.socketpair()
    numbers: list[int] = []

    def close_both() -> None:
        for sock in (first, second):
            loop.close(sock)
        with socket.socket() as newcomer:
            numbers.append(newcomer.fileno())
        loop.stop()

    handlers = Recorder(close_both), Recorder(close_both)
    old = {first.fileno(), second.fileno()}
    for sock, handler in zip((first, second), handlers, strict=True):
        loop.register(sock, handler)
    loop.run()
    assert sorted(len(handler.events) for handler in handlers) == [0, 1], (
        "the other was closed before its turn"
    )
    assert old.isdisjoint(numbers)
    assert first.fileno() == second.fileno() == -1
    first_peer.close()
    second_peer.close()


def test_who_asks_to_be_called_again_is_called_after_the_others(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    order: list[str] = []

    class Busy:
        def ready(self, events: int) -> None:
            order.append("busy")
            loop.again(self)

        def resume(self) -> None:
            order.append("busy again")
            loop.stop()

    loop.register(pair[0], Busy())
    loop.register(pair[1], Recorder(lambda: order.append("other")))
    loop.run()
    assert sorted(order[:2]) == ["busy", "other"]
    assert order[2] == "busy again"


def test_being_called_again_needs_no_event(loop: Loop) -> None:
    turns: list[int] = []

    class Patient:
        def resume(self) -> None:
            turns.append(1)
            if len(turns) < 3:
                loop.again(self)
            else:
                loop.stop()

    loop.again(Patient())
    loop.run()
    assert len(turns) == 3


def test_the_loop_wakes_for_the_earliest_deadline(loop: Loop) -> None:
    due: list[str] = []

    def on_due(item: str) -> None:
        due.append(item)
        loop.stop()

    loop.deadlines(60.0, on_due).add("late", loop.now_s)
    loop.deadlines(0.02, on_due).add("early", loop.now_s)
    loop.deadlines(1.0, on_due)
    loop.run()
    assert due == ["early"]


def test_a_deadline_that_was_brought_forward_is_found(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "_LONGEST_LOOK_S", 0.05)
    patient: Deadlines[str] = loop.deadlines(60.0, lambda _item: loop.stop())
    patient.add("item", loop.now_s)
    hasty: Deadlines[str] = loop.deadlines(0.01, lambda _item: setattr(patient, "duration_s", 0.0))
    hasty.add("change", loop.now_s)
    loop.run()
    assert patient.next_at() is None


def test_a_shared_socket_is_reported_no_more_once_it_is_closed(loop: Loop) -> None:
    """The control process keeps a duplicate of each listener, and clients go on to arrive there."""
    listener = bound_listener()
    handler = Recorder(lambda: None)
    loop.register(listener, handler, LEVEL_READ)
    with listener.dup() as kept, socket.create_connection(kept.getsockname()[:2]):
        assert loop._epoll.poll(10)
        loop.close_shared(listener)
        loop._close_doomed()
        assert loop._epoll.poll(0) == []


def test_closing_what_is_not_watched_closes_it(loop: Loop) -> None:
    sock = socket.socket()
    loop.close(sock)
    loop._close_doomed()
    assert sock.fileno() == -1


def failing() -> None:
    raise RuntimeError("a defect")


def test_what_a_callee_raises_is_handed_on_with_the_callee(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    defects: list[object] = []

    def on_defect(culprit: object, error: Exception) -> None:
        assert str(error) == "a defect"
        defects.append(culprit)
        if culprit == "deadline":
            loop.stop()

    def on_due(_item: str) -> None:
        failing()

    loop = Loop(on_defect)
    with closing(loop._epoll):
        handler, again = Recorder(failing), Recorder(failing)
        loop.register(pair[0], handler, EDGE)
        loop.again(again)
        loop.deadlines(0.0, on_due).add("deadline", loop.now_s)
        loop.run()
    assert defects == [handler, again, "deadline"]


def test_without_anybody_to_take_it_a_defect_ends_the_loop(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    loop.register(pair[0], Recorder(failing))
    with pytest.raises(RuntimeError, match="a defect"):
        loop.run()
