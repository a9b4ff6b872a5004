"""When a worker reports, and how it ends: by a clock and a channel that the test holds."""

from __future__ import annotations

import gc
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, cast

import msgspec
import pytest

from edgeproxy.core.wire.frames import Drained, Ready, Start, TableApplied, TableChanged
from edgeproxy.worker import process as module
from edgeproxy.worker.channel import Channel
from edgeproxy.worker.loop import Loop
from edgeproxy.worker.plane import Plane
from edgeproxy.worker.process import REPORTS_AHEAD, STAGGER_SHARE, WorkerProcess
from edgeproxy.worker.relay_copy import CopyRelay
from packages.proxy.tests.integration.worker.workers import start_frame

TIMEOUT_S = 100.0
SETTINGS: Start = msgspec.structs.replace(start_frame(), shutdown_timeout_s=TIMEOUT_S)


class HeldChannel:
    """What a worker says."""

    def __init__(self) -> None:
        self.sent: list[object] = []
        self.congested = False
        self.finished = 0

    def send(self, frame: object) -> None:
        self.sent.append(frame)

    def is_congested(self) -> bool:
        return self.congested

    def finish(self) -> None:
        self.finished += len(self.sent)


class FullLedger:
    def is_empty(self) -> bool:
        return False

    def report(self) -> str:
        return "report"


class Crowd:
    """A plane of which only the number of its connections matters."""

    def __init__(self, open_connections: int) -> None:
        self.open_connections = open_connections
        self.ledger = FullLedger()
        self.relay = CopyRelay(cast("Loop", None))
        self.drains = 0
        self.steps: list[str] = []

    def change_table(self, _change: object) -> None: ...

    def listen(self, _sockets: object) -> None:
        self.steps.append("listen")

    def drain(self, _on_idle: object) -> None:
        self.drains += 1

    def reset(self, count: int) -> int:
        self.open_connections -= count
        return count

    def reset_all(self) -> int:
        return self.reset(self.open_connections)


class Led:
    """A worker of which each turn is taken by hand."""

    def __init__(self, sock: socket.socket, crowd: Crowd | None) -> None:
        self.worker = WorkerProcess(sock, [], -1, cast("Any", None))
        self.channel = HeldChannel()
        self.worker._channel = cast("Channel", self.channel)
        self.worker._plane = cast("Plane | None", crowd)
        self.worker._settings = None if crowd is None else SETTINGS
        self.worker._loop.now_s = 0.0

    def at(self, after_s: float) -> None:
        """Let so much time have passed since the beginning."""
        self.worker._loop.now_s = after_s
        self.worker._loop._look_at_deadlines()

    @property
    def is_running(self) -> bool:
        return self.worker._loop._running


@pytest.fixture
def at_end() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def led(at_end: ExitStack, crowd: Crowd | None) -> Led:
    ours, theirs = socket.socketpair()
    at_end.enter_context(ours)
    at_end.enter_context(theirs)
    found = Led(theirs, crowd)
    at_end.callback(found.worker._loop._epoll.close)
    found.worker._loop._running = True
    return found


def test_before_the_first_client_there_is_a_table_and_no_collector_any_more(
    at_end: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd = Crowd(0)
    worker = led(at_end, crowd)
    for step in ("collect", "freeze", "disable"):
        monkeypatch.setattr(gc, step, partial(crowd.steps.append, step))
    worker.worker._change_table(TableChanged(1, True, (), ()))
    assert crowd.steps == ["collect", "freeze", "disable", "listen"]
    worker.worker._change_table(TableChanged(2, False, (), (), unfinished=True))
    worker.worker._change_table(TableChanged(2, False, (), ()))
    assert len(crowd.steps) == 4
    assert worker.channel.sent == [Ready(1), TableApplied(2)]


def test_failures_bring_forward_so_many_reports_until_the_next_regular_one(at_end: ExitStack) -> None:
    worker = led(at_end, Crowd(0))
    for _ in range(REPORTS_AHEAD + 5):
        worker.worker._report_soon()
    assert len(worker.channel.sent) == REPORTS_AHEAD
    worker.worker._report()
    assert len(worker.channel.sent) == REPORTS_AHEAD + 1
    for _ in range(REPORTS_AHEAD + 5):
        worker.worker._report_soon()
    assert worker.channel.sent == ["report"] * (2 * REPORTS_AHEAD + 1)


def test_reports_come_at_their_interval(at_end: ExitStack) -> None:
    worker = led(at_end, Crowd(0))
    worker.worker._report()
    worker.at(module.REPORT_INTERVAL_S * 0.9)
    assert len(worker.channel.sent) == 1
    worker.at(module.REPORT_INTERVAL_S)
    worker.at(2 * module.REPORT_INTERVAL_S)
    assert len(worker.channel.sent) == 3


def test_reports_wait_while_the_control_process_is_behind(at_end: ExitStack) -> None:
    worker = led(at_end, Crowd(0))
    worker.channel.congested = True
    worker.worker._report()
    worker.worker._report_soon()
    assert worker.channel.sent == []
    worker.channel.congested = False
    worker.at(module.REPORT_INTERVAL_S)
    assert worker.channel.sent == ["report"]


def test_a_staggered_drain_ends_what_is_left_share_by_share(at_end: ExitStack) -> None:
    crowd = Crowd(17_000)
    worker = led(at_end, crowd)
    worker.worker._drain(staggered=True)
    assert crowd.drains == 1
    first_s = TIMEOUT_S * (1 - STAGGER_SHARE)
    worker.at(first_s - 0.1)
    assert crowd.open_connections == 17_000
    left = []
    for step in range(module.STAGGER_STEPS):
        worker.at(first_s + step * TIMEOUT_S * STAGGER_SHARE / module.STAGGER_STEPS)
        left.append(crowd.open_connections)
    assert left == [1_000 * shares for shares in range(16, 0, -1)]
    worker.at(TIMEOUT_S - 0.1)
    assert crowd.open_connections == 1_000
    worker.at(TIMEOUT_S)
    assert (crowd.open_connections, worker.worker._reset) == (0, 17_000)


def test_a_drain_lets_connections_be_until_it_is_over(at_end: ExitStack) -> None:
    crowd = Crowd(5)
    worker = led(at_end, crowd)
    worker.worker._drain()
    worker.at(TIMEOUT_S - 0.1)
    worker.worker._drain(staggered=True)
    assert crowd.open_connections == 5
    worker.at(TIMEOUT_S)
    assert (crowd.open_connections, worker.worker._reset) == (0, 5)


def test_without_a_control_process_the_drain_begins_after_the_time_of_one(at_end: ExitStack) -> None:
    crowd = Crowd(5)
    worker = led(at_end, crowd)
    worker.worker._on_control_lost()
    worker.at(TIMEOUT_S - 0.1)
    assert crowd.drains == 0
    worker.at(TIMEOUT_S)
    assert crowd.drains == 1
    worker.at(2 * TIMEOUT_S)
    assert crowd.open_connections == 0


def test_a_worker_that_was_never_started_ends_without_a_control_process(at_end: ExitStack) -> None:
    worker = led(at_end, None)
    worker.worker._on_control_lost()
    assert not worker.is_running


class Stop:
    """Ends the loop in its first turn."""

    def __init__(self, led: Led) -> None:
        self._loop = led.worker._loop

    def resume(self) -> None:
        self._loop.stop()


def test_the_last_words_are_what_was_counted_and_how_many_were_reset(
    at_end: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SignalWakeup", lambda *_: None)
    worker = led(at_end, Crowd(0))
    worker.worker._reset = 3
    worker.worker._loop.again(Stop(worker))
    worker.worker.run()
    assert worker.channel.sent[-2:] == ["report", Drained(3)]
    assert worker.channel.finished == len(worker.channel.sent)


def test_a_defect_before_there_is_a_plane_ends_the_worker(at_end: ExitStack) -> None:
    worker = led(at_end, None)
    with pytest.raises(KeyError):
        worker.worker._on_defect(None, KeyError("a defect"))
