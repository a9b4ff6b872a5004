"""The supervisor with workers that behave as no real one should: programs of a few lines."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import msgspec
import pytest

from edgeproxy.core.controlplane.routing_table import PlacedBackend
from edgeproxy.core.dataplane.identities import Identity
from edgeproxy.core.model import Backend
from edgeproxy.core.wire.frames import (
    PIECE_ROWS,
    ConnectionOrder,
    GeoDatabaseChanged,
    HostAddresses,
    Notice,
    Report,
    Start,
    TableChanged,
    TlsSettings,
)
from edgeproxy.errors import EdgeproxyError
from edgeproxy.runtime import supervisor as supervisor_module
from edgeproxy.runtime import worker_process
from edgeproxy.runtime.boot import boot_all
from edgeproxy.runtime.supervisor import Supervisor
from testkit.wait import wait_until_async

# The programs are part of the tests.
pytestmark = pytest.mark.usefixtures("unmeasured")

ROWS = (3, 5)
"""Of the segment, by place."""

SETTINGS = Start(
    worker=0,
    pop_region="eu",
    region_by_country={},
    geoip_path=None,
    binding_ttl_s=600.0,
    connect_timeout_s=5.0,
    shutdown_timeout_s=1.0,
    access_log_every=0,
)

PROLOGUE = """
import os, signal, socket, sys, time
from edgeproxy.core.wire.frames import *
from edgeproxy.core.wire.frames import FrameReader, FromWorker, ToWorker, encode
channel = socket.socket(fileno=int(sys.argv[-3]))
reader = FrameReader(ToWorker)
def frames():
    while data := channel.recv(65536):
        yield from reader.feed(data)
def say(frame):
    channel.sendall(encode(frame))
"""

OBEDIENT = """
for frame in frames():
    match frame:
        case Start():
            number = frame.worker
        case HostAddresses(host, addresses):
            say(Notice("info", "host", {"host": host, "addresses": ",".join(addresses)}))
        case TableChanged():
            if frame.whole:
                say(Ready(frame.version))
            say(TableApplied(frame.version))
            say(Notice("info", "table", {"version": frame.version, "rows": len(frame.upserts)}))
        case Ping():
            say(Notice("info", "ping", {}))
            say(Pong())
        case Drain():
            say(Drained(2))
            break
"""


ORDER = "case HostAddresses"
"""Where a program is told what to do on `GeoDatabaseChanged`, which serves these tests as a signal."""


def on_order(what: str) -> str:
    """An obedient worker that does ``what`` when it gets a `GeoDatabaseChanged`."""
    return OBEDIENT.replace(ORDER, f"case GeoDatabaseChanged(): {what}\n        {ORDER}")


def program(body: str) -> Sequence[str]:
    return (sys.executable, "-c", PROLOGUE + body)


class Observer:
    """Remembers what it hears."""

    def __init__(self) -> None:
        self.reports: list[tuple[int, Report]] = []
        self.notices: list[tuple[int, Notice]] = []
        self.deaths: list[tuple[int, int, int]] = []
        self.garbage: list[tuple[int, str]] = []
        self.refusals: list[tuple[int, str]] = []
        self.lags: list[int] = []
        self.hangs: list[tuple[int, int]] = []
        self.cleared: list[int] = []

    def reported(self, worker: int, report: Report) -> None:
        self.reports.append((worker, report))

    def noticed(self, worker: int, notice: Notice) -> None:
        self.notices.append((worker, notice))

    def died(self, worker: int, pid: int, exit_code: int) -> None:
        self.deaths.append((worker, pid, exit_code))

    def undecodable(self, worker: int, why: str) -> None:
        self.garbage.append((worker, why))

    def not_started(self, worker: int, why: str) -> None:
        self.refusals.append((worker, why))

    def lagged(self, worker: int) -> None:
        self.lags.append(worker)

    def hung(self, worker: int, pid: int) -> None:
        self.hangs.append((worker, pid))

    def clear_worker(self, worker: int) -> None:
        self.cleared.append(worker)

    def told(self, event: str) -> list[dict[str, str | int | float]]:
        return [notice.fields for _, notice in self.notices if notice.event == event]


class Table:
    """One row; and one name, when it is given addresses."""

    def __init__(self) -> None:
        self.version = 1
        self.hosts: list[HostAddresses] = []

    def whole_table(self) -> TableChanged:
        backend = Backend("one", "test", "eu", "DE", "10.0.0.1", 9001, True, 1, 100, 0)
        return TableChanged(self.version, True, (PlacedBackend(0, backend),), ())

    def resolved_hosts(self) -> Sequence[HostAddresses]:
        return self.hosts


class World:
    """Supervisors that are stopped at the end, and what they were given."""

    def __init__(self, listeners: Sequence[Sequence[socket.socket]], segment_fd: int) -> None:
        self.observer = Observer()
        self.table = Table()
        self.supervisors: list[Supervisor] = []
        self.listeners = listeners
        self._segment_fd = segment_fd

    def supervise(self, body: str) -> Supervisor:
        supervisor = Supervisor(
            program(body),
            self.listeners,
            self._segment_fd,
            counts=self.observer,
            observer=self.observer,
            rows=ROWS[: len(self.listeners)],
            booted=boot_all(program(body), self.listeners, self._segment_fd),
        )
        self.supervisors.append(supervisor)
        return supervisor

    async def start(self, body: str) -> Supervisor:
        supervisor = self.supervise(body)
        await asyncio.wait_for(supervisor.start(SETTINGS, self.table), 20)
        return supervisor


@pytest.fixture
def listeners() -> Iterator[list[list[socket.socket]]]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    yield [[sock] for sock in sockets]
    for sock in sockets:
        sock.close()


@pytest.fixture
async def world(listeners: list[list[socket.socket]]) -> AsyncIterator[World]:
    made = World(listeners, listeners[0][0].fileno())
    yield made
    for supervisor in made.supervisors:
        supervisor.kill()
        await supervisor.stop(0)
        assert supervisor.pids() == []


async def test_workers_are_given_settings_names_and_table_and_told_of_changes(world: World) -> None:
    world.table.hosts = [HostAddresses("one.test", ("10.0.0.1", "10.0.0.2"))]
    supervisor = await world.start(OBEDIENT)
    assert len(supervisor.pids()) == 2
    await wait_until_async(lambda: supervisor.applied_version() == 1, reason="the table to be applied")
    supervisor.publish(TableChanged(2, False, (), (0,)))
    await wait_until_async(lambda: supervisor.applied_version() == 2, reason="the change to be applied")
    assert world.observer.told("host") == [{"host": "one.test", "addresses": "10.0.0.1,10.0.0.2"}] * 2
    assert sorted(fields["version"] for fields in world.observer.told("table")) == [1, 1, 2, 2]
    assert await supervisor.stop(10) == 4
    assert world.observer.deaths == []
    assert sorted(world.observer.cleared) == [3, 5]


async def test_a_change_of_many_rows_comes_in_pieces(world: World) -> None:
    supervisor = await world.start(OBEDIENT)
    backend = Backend("a", "test", "eu", "DE", "10.0.0.1", 9001, True, 1, 100, 0)
    rows = tuple(PlacedBackend(slot, backend) for slot in range(2 * PIECE_ROWS + 1))
    supervisor.publish(TableChanged(2, False, rows, ()))
    told = [{"version": 2, "rows": count} for count in (PIECE_ROWS, PIECE_ROWS, 1) for _ in range(2)]

    def has_come() -> bool:
        return sorted(world.observer.told("table"), key=str)[2:] == sorted(told, key=str)

    await wait_until_async(has_come, reason="both workers to have the pieces")


async def test_each_worker_hears_the_number_of_its_row(world: World) -> None:
    await world.start(
        OBEDIENT.replace("number = frame.worker", "say(Notice('info', 'place', {'number': frame.worker}))")
    )
    assert sorted(
        (place, notice.fields["number"])
        for place, notice in world.observer.notices
        if notice.event == "place"
    ) == [(0, 3), (1, 5)]


async def test_what_workers_count_reaches_the_observer(world: World) -> None:
    counts = "say(Report((Traffic('BR', 'one', 1, 0, 0.5, 0, 0),), {'complete': 3}, {}, (), 0)); say(Ready("
    await world.start(OBEDIENT.replace("say(Ready(", counts))
    assert sorted(place for place, _ in world.observer.reports) == [0, 1]
    assert all(report.closes == {"complete": 3} for _, report in world.observer.reports)


@pytest.mark.feature("workers.replaced")
async def test_a_worker_that_dies_is_replaced_and_its_leases_are_given_back(world: World) -> None:
    supervisor = await world.start(OBEDIENT)
    await wait_until_async(lambda: len(world.observer.told("table")) == 2, reason="both to be done")
    first, second = supervisor.pids()
    os.kill(second, signal.SIGKILL)
    await wait_until_async(lambda: supervisor.restarts == 1, reason="the replacement")
    assert world.observer.deaths == [(1, second, -signal.SIGKILL)]
    assert world.observer.cleared == [5]
    await wait_until_async(lambda: len(world.observer.told("table")) == 3, reason="its table")
    assert supervisor.pids()[0] == first
    assert second not in supervisor.pids()


async def test_one_that_dies_young_is_replaced_after_a_pause_that_grows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = await world.start(OBEDIENT + "os.kill(os.getpid(), signal.SIGKILL)")
    pauses: list[float] = []
    stops_within = supervisor._stops_within

    async def remember(pause_s: float) -> bool:
        pauses.append(pause_s)
        return await stops_within(0.0)

    monkeypatch.setattr(supervisor, "_stops_within", remember)
    for deaths in range(1, 9):
        os.kill(supervisor.pids()[0], signal.SIGKILL)
        await wait_until_async(lambda: supervisor.restarts == deaths, reason="the next")  # noqa: B023
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


async def test_one_that_lived_long_is_replaced_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "_STABLE_S", 0.0)
    monkeypatch.setattr(supervisor_module, "_FIRST_PAUSE_S", 1e6)
    supervisor = await world.start(OBEDIENT)
    os.kill(supervisor.pids()[0], signal.SIGKILL)
    await wait_until_async(lambda: supervisor.restarts == 1, reason="the replacement")


async def test_what_is_no_frame_ends_the_worker(world: World) -> None:
    supervisor = await world.start(on_order("channel.sendall(bytes([255] * 8))"))
    pids = supervisor.pids()
    supervisor.publish(GeoDatabaseChanged())
    await wait_until_async(lambda: supervisor.restarts == 2, reason="both to be replaced")
    assert sorted(place for place, _ in world.observer.garbage) == [0, 1]
    assert "a frame of 4294967295 bytes" in world.observer.garbage[0][1]
    assert supervisor.troubles.undecodable == 2
    assert sorted(world.observer.deaths) == [(place, pids[place], -signal.SIGKILL) for place in (0, 1)]


async def test_a_worker_that_closes_its_channel_and_stays_is_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "_EXIT_TIMEOUT_S", 0.05)
    supervisor = await world.start(on_order("channel.close(); signal.pause()"))
    supervisor.publish(GeoDatabaseChanged())
    await wait_until_async(lambda: supervisor.restarts == 2, reason="both to be replaced")
    assert {exit_code for _, _, exit_code in world.observer.deaths} == {-signal.SIGKILL}


# ---- a start that fails --------------------------------------------------------------------------


async def test_workers_that_keep_dying_before_they_are_ready_end_the_start(world: World) -> None:
    with pytest.raises(EdgeproxyError, match=r"workers end before they are ready \(exit code 7\)"):
        await world.start("sys.exit(7)")
    assert {exit_code for _, _, exit_code in world.observer.deaths} == {7}


async def test_one_place_whose_workers_keep_dying_ends_the_start_although_the_other_is_fine(
    world: World,
) -> None:
    with pytest.raises(EdgeproxyError, match=r"exit code 7"):
        await world.start(OBEDIENT.replace("number = frame.worker", "if frame.worker == 5: sys.exit(7)"))
    assert {place for place, *_ in world.observer.deaths} == {1}


async def test_a_system_that_refuses_a_replacement_is_asked_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = await world.start(OBEDIENT)
    refusals = 2

    def refuse_at_first(*arguments: Any) -> worker_process.Worker:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return worker_process.spawn(*arguments)

    monkeypatch.setattr(supervisor_module, "spawn", refuse_at_first)
    os.kill(supervisor.pids()[0], signal.SIGKILL)
    await wait_until_async(lambda: supervisor.restarts == 1, reason="the replacement")
    assert world.observer.refusals == [(0, "Resource temporarily unavailable")] * 2


async def test_a_defect_in_who_listens_is_raised_and_ends_the_worker(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = await world.start(OBEDIENT)
    pids = supervisor.pids()

    def fail(_worker: int, _notice: Notice) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(world.observer, "noticed", fail)
    supervisor.publish(TableChanged(2, False, (), ()))
    with pytest.raises(RuntimeError, match="a defect"):
        await asyncio.wait_for(supervisor.watch(), 20)
    await wait_until_async(lambda: not set(pids) & set(supervisor.pids()), reason="both to be ended")


# ---- the end -------------------------------------------------------------------------------------


async def test_a_worker_that_ignores_the_order_to_drain_is_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "_KILL_AFTER_S", 0.05)
    supervisor = await world.start(OBEDIENT.replace("break", "signal.pause()"))
    assert await supervisor.stop(0.0) == 4
    assert supervisor.pids() == []
    assert world.observer.deaths == []


async def test_nobody_is_replaced_after_the_order_to_stop(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "_FIRST_PAUSE_S", 1e6)
    supervisor = await world.start(OBEDIENT)
    os.kill(supervisor.pids()[0], signal.SIGKILL)
    await wait_until_async(lambda: world.observer.deaths, reason="the death to be noticed")
    # The replacement waits for its time, which will not come.
    assert await asyncio.wait_for(supervisor.stop(10), 20) == 2
    assert supervisor.restarts == 0


async def test_the_order_to_stop_reaches_workers_that_are_not_ready_yet(world: World) -> None:
    supervisor = world.supervise(OBEDIENT)
    supervisor.retire()
    await asyncio.wait_for(supervisor.start(SETTINGS, world.table), 20)
    assert await supervisor.stop(10) == 4


async def test_being_ended_at_once_ends_a_start_that_would_wait_for_ever(world: World) -> None:
    supervisor = world.supervise("signal.pause()")
    starting = asyncio.create_task(supervisor.start(SETTINGS, world.table))
    await asyncio.sleep(0)
    supervisor.kill()
    await asyncio.wait_for(starting, 20)
    assert world.observer.deaths == []


async def test_sessions_are_reset_before_workers_end_at_once(world: World) -> None:
    supervisor = await world.start(
        OBEDIENT.replace("say(Drained(2))\n            break", "pass")
        + "        case Reset():\n            say(Drained(9))\n            break"
    )
    stopping = asyncio.create_task(supervisor.stop(1e6))
    await asyncio.sleep(0)
    supervisor.reset()
    assert await asyncio.wait_for(stopping, 20) == 18


async def test_a_worker_that_ignores_the_order_to_reset_is_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "_KILL_AFTER_S", 0.05)
    supervisor = await world.start(OBEDIENT.replace("break", "signal.pause()"))
    stopping = asyncio.create_task(supervisor.stop(1e6))
    await asyncio.sleep(0)
    supervisor.reset()
    await asyncio.wait_for(stopping, 20)
    assert supervisor.pids() == []


# ---- a worker that lags or hangs ------------------------------------------------------------------

READS_LATE = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1]); late = []" + on_order(
    "late or late.append(signal.sigwait([signal.SIGUSR1]))"
)
"""Reads nothing from the first `GeoDatabaseChanged` on until SIGUSR1, which may have come before."""

TELLS_MORE = """case SettingsChanged(settings):
            identities = len(settings.tls.identities)
            say(Notice("info", "settings", {"every": settings.access_log_every, "identities": identities}))
        case HostAddresses"""

LARGE = Backend("x" * (1 << 20), "test", "eu", "DE", "10.0.0.1", 9001, True, 1, 100, 0)


def change(version: int) -> TableChanged:
    """One of a megabyte."""
    return TableChanged(version, False, (PlacedBackend(1, LARGE),), ())


async def test_a_worker_that_lags_gets_the_whole_state_when_it_reads_again(world: World) -> None:
    supervisor = world.supervise(READS_LATE.replace(ORDER, TELLS_MORE))
    identity = Identity(("one.test",), ())
    settings = msgspec.structs.replace(SETTINGS, tls=TlsSettings(identities=(identity,)))
    await asyncio.wait_for(supervisor.start(settings, world.table), 20)
    await wait_until_async(lambda: len(world.observer.told("table")) == 2, reason="both to be done")
    world.observer.notices.clear()

    supervisor.publish(GeoDatabaseChanged())
    for version in range(2, 12):
        supervisor.publish(change(version))
    assert sorted(world.observer.lags) == [0, 1]
    assert supervisor.troubles.lags == 2
    # None of this is sent to them one by one.
    world.table.version = 12
    world.table.hosts = [HostAddresses("one.test", ("10.0.0.1",))]
    supervisor.publish(world.table.hosts[0])
    supervisor.change_settings(msgspec.structs.replace(settings, access_log_every=7))
    supervisor.change_tls(TlsSettings(identities=(identity, identity)))
    supervisor.catch_up()  # too early: they have not read yet
    for pid in supervisor.pids():
        os.kill(pid, signal.SIGUSR1)

    def both_caught_up() -> bool:
        supervisor.catch_up()
        return supervisor.applied_version() == 12

    await wait_until_async(both_caught_up, reason="both to have the whole table")
    versions = [int(fields["version"]) for fields in world.observer.told("table")]
    # What was sent before they lagged is applied, what was published while they did is not sent.
    assert 2 in versions
    assert 11 not in versions
    assert versions.count(12) == 2
    assert world.observer.told("settings") == [{"every": 7, "identities": 2}] * 2
    assert world.observer.told("host") == [{"host": "one.test", "addresses": "10.0.0.1"}] * 2


async def test_what_waits_for_a_worker_that_stands_still_is_bounded(world: World) -> None:
    supervisor = await world.start(OBEDIENT)
    stopped, other = supervisor.pids()
    os.kill(stopped, signal.SIGSTOP)
    for version in range(2, 40):
        supervisor.publish(change(version))
        # The other one is not held up.
        await wait_until_async(
            lambda: {"version": version, "rows": 1} in world.observer.told("table"),  # noqa: B023
            reason="the other worker to apply the change",
        )
    waiting = {worker.pid: worker.unsent_bytes() for worker in supervisor._workers.values()}
    assert waiting[other] == 0
    assert 4 << 20 < waiting[stopped] < 6 << 20
    assert world.observer.lags == [0]
    os.kill(stopped, signal.SIGCONT)


async def test_workers_that_answer_are_left_alone(world: World) -> None:
    supervisor = await world.start(OBEDIENT)
    for looks in range(1, 25):
        supervisor.look_for_hangs()
        await wait_until_async(
            lambda: len(world.observer.told("ping")) == 2 * looks,  # noqa: B023
            reason="both to answer",
            interval_s=0.001,
        )
    assert world.observer.hangs == []


@pytest.mark.feature("workers.hung")
async def test_a_worker_that_answers_nothing_is_replaced(world: World) -> None:
    supervisor = await world.start(OBEDIENT)
    stopped, other = supervisor.pids()
    os.kill(stopped, signal.SIGSTOP)
    looks = 0
    while not world.observer.hangs:
        looks += 1
        supervisor.look_for_hangs()
        await wait_until_async(
            lambda: len(world.observer.told("ping")) == looks,  # noqa: B023
            reason="the other one to answer",
            interval_s=0.001,
        )
    assert world.observer.hangs == [(0, stopped)]
    # What it said before it was stopped may be heard after the first look.
    assert 11 <= looks <= 12
    await wait_until_async(lambda: supervisor.restarts == 1, reason="the replacement")
    assert world.observer.deaths == [(0, stopped, -signal.SIGKILL)]
    assert supervisor.troubles.hangs == 1
    assert other in supervisor.pids()


async def test_a_worker_that_is_not_ready_yet_is_not_asked(world: World) -> None:
    supervisor = world.supervise("signal.pause()")
    starting = asyncio.create_task(supervisor.start(SETTINGS, world.table))
    await asyncio.sleep(0)
    for _ in range(20):
        supervisor.look_for_hangs()
    assert world.observer.hangs == []
    supervisor.kill()
    await asyncio.wait_for(starting, 20)


# ---- asking for connections --------------------------------------------------------------------------


def on_question(what: str) -> str:
    """An obedient worker that does ``what`` when it is asked for its connections."""
    return OBEDIENT.replace(ORDER, f"case ListConnections(asked, count, order): {what}\n        {ORDER}")


ANSWER = "OpenConnections(asked, (OpenConnection(str(number), 'DE', '*', 'one', 'open', 1.0, count, 0),))"


async def test_connections_of_all_workers_are_collected(world: World) -> None:
    supervisor = await world.start(on_question(f"say({ANSWER})"))
    found, silent = await supervisor.open_connections(7, ConnectionOrder.BYTES)
    assert sorted((each.client, each.bytes_received) for each in found) == [("3", 7), ("5", 7)]
    assert silent == 0


async def test_workers_that_do_not_answer_in_time_are_counted_and_their_late_answers_ignored(
    world: World,
) -> None:
    # Each is asked twice, and answers the first question together with the second.
    supervisor = await world.start(
        on_question(f"'late' in dir() and (say(late), say({ANSWER})); late = {ANSWER}")
    )
    assert await supervisor.open_connections(1, ConnectionOrder.AGE, timeout_s=0.05) == ([], 2)
    found, silent = await supervisor.open_connections(2, ConnectionOrder.AGE)
    assert [each.bytes_received for each in found] == [2, 2]
    assert silent == 0


async def test_worker_that_dies_of_the_question_is_not_waited_for(world: World) -> None:
    supervisor = await world.start(on_question("os._exit(9)"))
    async with asyncio.timeout(20):
        assert await supervisor.open_connections(1, ConnectionOrder.AGE, timeout_s=600) == ([], 0)


async def test_workers_that_are_not_ready_are_not_asked(world: World) -> None:
    supervisor = await world.start(OBEDIENT)
    await supervisor.stop(10)
    assert await supervisor.open_connections(1, ConnectionOrder.AGE) == ([], 0)
