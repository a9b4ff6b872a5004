"""Real worker processes, led through their channel as the control process leads them."""

from __future__ import annotations

import hashlib
import signal
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest

from edgeproxy.core.controlplane.routing_table import PlacedBackend
from edgeproxy.core.wire.frames import (
    Drain,
    Drained,
    GeoDatabaseChanged,
    HostAddresses,
    Notice,
    Ready,
    Reset,
    TableApplied,
    TableChanged,
)
from edgeproxy.worker.process import REPORT_INTERVAL_S
from packages.proxy.tests.integration.worker.conftest import StartWorker
from packages.proxy.tests.integration.worker.workers import (
    Backends,
    RealWorker,
    connected,
    in_background,
    is_reset,
    is_turned_away,
    read_exactly,
    read_to_end,
    row,
    start_frame,
    totals,
    whole_table,
)
from testkit.geo import write_country_database
from testkit.wait import wait_until

MIB = 1 << 20


def exchange(client: socket.socket, backend: socket.socket) -> None:
    """One question, one answer."""
    client.sendall(b"question")
    assert read_exactly(backend, 8) == b"question"
    backend.sendall(b"answer")
    assert read_exactly(client, 6) == b"answer"


def serves(worker: RealWorker, backend: Backends) -> None:
    """Check that a new client reaches ``backend``."""
    with connected(worker.address) as client, backend.accept() as served:
        exchange(client, served)


# ---- from start to end ---------------------------------------------------------------------------


@pytest.mark.new_interpreters
def test_a_worker_serves_reports_and_drains(start_worker: StartWorker, backend: Backends) -> None:
    worker = start_worker(row("a", backend.port))
    sizes = [(1, 200_000), (70_000, 5), (1_000_000, 1_000_000)]
    for question, answer in sizes:
        with connected(worker.address) as client, backend.accept() as served:
            with in_background(lambda size=question: client.sendall(bytes(size))):  # type: ignore[misc]
                read_exactly(served, question)
            with in_background(lambda size=answer: served.sendall(bytes(size))):  # type: ignore[misc]
                read_exactly(client, answer)
    reports = worker.reports(ended=3)
    traffic = totals(reports)
    assert (traffic.backend, traffic.opened, traffic.closed) == ("a", 3, 3)
    assert traffic.bytes_received == sum(question for question, _ in sizes)
    assert traffic.bytes_sent == sum(answer for _, answer in sizes)
    assert sum(len(report.sessions) for report in reports) == 3
    worker.send(Drain())
    assert worker.take(Drained) == Drained(0)
    assert worker.wait_exit() == 0
    assert worker.state.connections(0) == 0


def test_a_worker_that_is_told_to_end_drains(start_worker: StartWorker, backend: Backends) -> None:
    worker = start_worker(row("a", backend.port))
    with connected(worker.address) as client, backend.accept() as served:
        worker.terminate()
        worker.terminate()
        exchange(client, served)
    assert worker.take(Drained) == Drained(0)
    assert worker.wait_exit() == 0


def test_the_interrupt_key_is_left_to_the_control_process(
    start_worker: StartWorker, backend: Backends
) -> None:
    worker = start_worker(row("a", backend.port))
    worker.process.send_signal(signal.SIGINT)
    serves(worker, backend)


def test_a_worker_that_was_told_nothing_yet_ends_at_once(boot_worker: StartWorker) -> None:
    for end in (Drain(), Reset(), None):
        worker = boot_worker()
        if end is not None:
            worker.send(end)
            assert worker.take(Drained) == Drained(0)
        else:
            worker.lose_control()
        assert worker.wait_exit() == 0


def test_a_worker_told_to_drain_before_it_was_ready_ends(boot_worker: StartWorker) -> None:
    worker = boot_worker()
    worker.send(start_frame(), Drain())
    assert worker.take(Drained) == Drained(0)
    assert worker.wait_exit() == 0


def test_a_worker_that_hears_what_is_no_frame_ends_with_an_error(boot_worker: StartWorker) -> None:
    for started in (False, True):
        worker = boot_worker()
        if started:
            worker.send(start_frame(), whole_table())
            worker.take(Ready)
        worker.send_bytes(b"\x00\x00\x00\x01\xc1")
        assert worker.wait_exit() == 1
        assert "FrameError: an undecodable frame" in worker.stderr


# ---- drains --------------------------------------------------------------------------------------


def test_a_connection_in_a_drain_is_completed(
    start_worker: StartWorker, backend: Backends, rng: Random
) -> None:
    worker = start_worker(row("a", backend.port))
    answer = rng.randbytes(4 * MIB)
    with connected(worker.address) as client, backend.accept() as served:
        exchange(client, served)
        worker.send(Drain())
        with in_background(lambda: served.sendall(answer)):
            received = read_exactly(client, len(answer))
    assert hashlib.blake2b(received).digest() == hashlib.blake2b(answer).digest()
    assert worker.take(Drained) == Drained(0)
    assert worker.wait_exit() == 0


def test_what_is_open_when_the_drain_is_over_is_reset(start_worker: StartWorker, backend: Backends) -> None:
    worker = start_worker(row("a", backend.port), settings=start_frame(shutdown_timeout_s=0.1))
    with connected(worker.address) as client, backend.accept() as served:
        exchange(client, served)
        worker.send(Drain())
        assert is_reset(client)
        assert is_reset(served)
    assert worker.take(Drained) == Drained(1)
    assert worker.reports(ended=1)[-1].closes == {"shutdown": 1}
    assert worker.wait_exit() == 0
    assert worker.state.connections(0) == 0


def test_a_worker_told_to_reset_ends_at_once(start_worker: StartWorker, backend: Backends) -> None:
    worker = start_worker(row("a", backend.port))
    with connected(worker.address) as client, backend.accept() as served:
        exchange(client, served)
        worker.send(Drain(), Reset())
        assert is_reset(client)
        assert is_reset(served)
    assert worker.take(Drained) == Drained(1)
    assert worker.wait_exit() == 0


def test_a_draining_worker_rests_while_clients_wait_for_its_successor(
    start_worker: StartWorker, backend: Backends
) -> None:
    """The listener stays open in the control process, so they go on to arrive there."""
    worker = start_worker(row("a", backend.port))
    with connected(worker.address) as client, backend.accept() as served:
        exchange(client, served)
        listening = len(worker.descriptors())
        worker.send(Drain())
        wait_until(lambda: len(worker.descriptors()) < listening, reason="the listener to be closed")
        with connected(worker.address) as waiting:
            before_s, began_s = worker.cpu_s(), time.monotonic()

            def exchanged_long_enough() -> bool:
                exchange(client, served)
                return time.monotonic() - began_s > 0.3

            wait_until(exchanged_long_enough, reason="a while of little work", interval_s=0.01)
            assert worker.cpu_s() - before_s < 0.2
            worker.listener.close()
            del waiting


# ---- the control process is gone -----------------------------------------------------------------


def test_without_a_control_process_a_worker_serves_on_and_then_drains(
    start_worker: StartWorker, backend: Backends
) -> None:
    worker = start_worker(row("a", backend.port), settings=start_frame(shutdown_timeout_s=0.4))
    worker.lose_control()
    with connected(worker.address) as client, backend.accept() as served:
        exchange(client, served)
        serves(worker, backend)
        assert is_reset(client), "the grace and then the time to drain are over"
    assert worker.wait_exit() == 0
    assert worker.state.connections(0) == 0


def test_a_drain_goes_on_when_the_control_process_dies(start_worker: StartWorker, backend: Backends) -> None:
    worker = start_worker(row("a", backend.port))
    with connected(worker.address) as client, backend.accept() as served:
        exchange(client, served)
        listening = len(worker.descriptors())
        worker.send(Drain())
        wait_until(lambda: len(worker.descriptors()) < listening, reason="the drain to begin")
        worker.lose_control()
        for _ in range(3):
            exchange(client, served)
        client.close()
        assert read_to_end(served) == b""
    assert worker.wait_exit() == 0


# ---- what changes while it runs ------------------------------------------------------------------


def test_tables_are_applied_and_acknowledged(start_worker: StartWorker, backend: Backends) -> None:
    other = Backends()
    worker = start_worker(row("a", backend.port))
    worker.send(whole_table(row("b", other.port), version=2))
    assert worker.take(TableApplied) == TableApplied(2)
    serves(worker, other)
    sick = PlacedBackend(0, row("b", other.port, healthy=False))
    added = PlacedBackend(5, row("a", backend.port))
    worker.send(TableChanged(3, whole=False, upserts=(sick, added), removed_slots=()))
    assert worker.take(TableApplied) == TableApplied(3)
    serves(worker, backend)
    worker.send(TableChanged(4, whole=False, upserts=(), removed_slots=(5,)))
    assert worker.take(TableApplied) == TableApplied(4)
    assert is_turned_away(worker.address)
    other.close()


def test_names_are_resolved_by_the_control_process(start_worker: StartWorker, backend: Backends) -> None:
    worker = start_worker(row("a", backend.port, host="backend.example"))
    assert is_turned_away(worker.address)
    worker.send(HostAddresses("backend.example", ("127.0.0.1",)), whole_table(version=2))
    worker.send(whole_table(row("a", backend.port, host="backend.example"), version=3))
    worker.take(TableApplied, lambda applied: applied.version == 3)
    serves(worker, backend)


def country_seen(worker: RealWorker, backend: Backends) -> str:
    serves(worker, backend)
    (report,) = worker.reports(ended=1)
    return report.sessions[0].country


def test_a_country_database_is_opened_again_when_it_changes(
    start_worker: StartWorker, backend: Backends, tmp_path: Path
) -> None:
    path = tmp_path / "country.mmdb"
    write_country_database(path, {"127.0.0.0/8": "FR"})
    worker = start_worker(row("a", backend.port), settings=start_frame(geoip_path=path))
    assert country_seen(worker, backend) == "FR"
    write_country_database(path, {"127.0.0.0/8": "US"})
    worker.send(GeoDatabaseChanged(), whole_table(row("a", backend.port), version=2))
    worker.take(TableApplied)
    assert country_seen(worker, backend) == "US"
    path.rename(tmp_path / "gone.mmdb")
    worker.send(GeoDatabaseChanged())
    notice = worker.take(Notice)
    assert (notice.level, notice.event) == ("warning", "keeping the country database in use")
    assert str(path) in str(notice.fields["why"])
    assert country_seen(worker, backend) == "US"


def test_a_worker_started_with_an_unusable_country_database_takes_the_embedded_one(
    start_worker: StartWorker, backend: Backends, tmp_path: Path
) -> None:
    path = tmp_path / "missing.mmdb"
    worker = start_worker(row("a", backend.port), settings=start_frame(geoip_path=path))
    notice = worker.take(Notice)
    assert (notice.level, notice.event) == ("error", "using the embedded country database")
    assert str(path) in str(notice.fields["why"])
    serves(worker, backend)


# ---- limits of the machine -----------------------------------------------------------------------


def test_a_flood_beyond_the_descriptors_is_survived(start_worker: StartWorker, backend: Backends) -> None:
    limit = 64
    worker = start_worker(row("a", backend.port), descriptors=limit)
    free = limit - sum(number < limit for number in worker.descriptors())
    with ExitStack() as at_end:
        # Each takes two descriptors.
        clients = [at_end.enter_context(connected(worker.address)) for _ in range(free // 2)]
        served = [at_end.enter_context(backend.accept()) for _ in clients]
        assert all(is_turned_away(worker.address) for _ in range(100))
        for pair in zip(clients, served, strict=True):
            exchange(*pair)
        notice = worker.take(Notice)
        assert (notice.level, notice.event[:23]) == ("error", "out of file descriptors")
    reports = worker.reports(ended=free // 2 + 100)
    assert sum(report.closes.get("overload", 0) for report in reports) == 100
    for _ in range(3):
        serves(worker, backend)
    worker.reports(ended=3)
    assert not [frame for frame in worker.frames if isinstance(frame, Notice)], "it was said once"
    assert worker.state.connections(0) == 0


def test_connections_leave_neither_descriptors_nor_places(
    start_worker: StartWorker, backend: Backends
) -> None:
    worker = start_worker(row("a", backend.port))
    serves(worker, backend)
    worker.reports(ended=1)
    before = worker.descriptors()
    for number in range(150):
        client, served = connected(worker.address), backend.accept()
        if number % 2:
            exchange(client, served)
        for sock in (client, served) if number % 3 else (served, client):
            sock.close()
    worker.reports(ended=150)
    wait_until(lambda: worker.descriptors() == before, reason="all descriptors to be closed")
    assert worker.state.connections(0) == 0


def test_slow_readers_cost_little_memory(start_worker: StartWorker, backend: Backends, rng: Random) -> None:
    worker = start_worker(row("a", backend.port))
    piece = rng.randbytes(MIB)
    sent, received = hashlib.blake2b(), hashlib.blake2b()
    with connected(worker.address) as client, backend.accept() as served:
        exchange(client, served)
        before = most = worker.resident_bytes()

        def send() -> None:
            for _ in range(64):
                served.sendall(piece)
                sent.update(piece)
            served.close()

        with in_background(send):
            while data := client.recv(128 << 10):
                received.update(data)
                most = max(most, worker.resident_bytes())
    assert received.digest() == sent.digest()
    assert most - before < 8 * MIB


def test_a_control_process_that_is_busy_loses_no_count(start_worker: StartWorker, backend: Backends) -> None:
    """Nobody reads the reports, which a backend with a long name makes large."""
    name = "b" * 100_000
    worker = start_worker(row(name, backend.port))
    sessions, began_s = 0, time.monotonic()

    def served_long_enough() -> bool:
        nonlocal sessions
        serves(worker, backend)
        sessions += 1
        return sessions >= 20 and time.monotonic() - began_s > 8 * REPORT_INTERVAL_S

    wait_until(served_long_enough, reason="several intervals of reports", interval_s=0.01)
    reports = worker.reports(ended=sessions)
    traffic = totals(reports)
    assert (traffic.opened, traffic.closed, traffic.bytes_sent) == (sessions, sessions, 6 * sessions)
    assert len(reports) < 8, "they waited, and added up"


def test_a_worker_killed_outright_leaves_its_places_to_be_cleared(
    start_worker: StartWorker, backend: Backends
) -> None:
    worker = start_worker(row("a", backend.port))
    with connected(worker.address) as client, backend.accept() as served:
        exchange(client, served)
        worker.process.kill()
        assert worker.wait_exit() == -signal.SIGKILL
        assert worker.state.connections(0) == 1
        worker.state.clear_worker(0)
        assert worker.state.connections(0) == 0


@pytest.mark.parametrize("every", [0, 3])
def test_the_access_log_gets_each_nth_session(
    every: int, start_worker: StartWorker, backend: Backends
) -> None:
    worker = start_worker(row("a", backend.port), settings=start_frame(access_log_every=every))
    for _ in range(7):
        serves(worker, backend)
    reports = worker.reports(ended=7)
    assert sum(len(report.sessions) for report in reports) == (7 // every if every else 0)
