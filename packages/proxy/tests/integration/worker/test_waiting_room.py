"""Clients that wait for a place on a backend: over real sockets, in one plane and over worker processes."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from time import monotonic

import pytest
from msgspec.structs import replace

from edgeproxy.core.controlplane.routing_table import PlacedBackend
from edgeproxy.core.dataplane.waiting import TOLERANCE_S, QueueTerms
from edgeproxy.core.wire.frames import Ready, Report, Start, TableChanged
from edgeproxy.worker import waiting_room
from edgeproxy.worker.shared_state import SharedState, create_segment
from packages.proxy.tests.integration.worker.conftest import StartPlane
from packages.proxy.tests.integration.worker.tls_clients import NAME, identity, tls_client, tls_frame
from packages.proxy.tests.integration.worker.workers import (
    Backends,
    RealWorker,
    ThreadedPlane,
    bound_listener,
    connected,
    is_reset,
    is_turned_away,
    read_exactly,
    read_to_end,
    reset,
    row,
    start_frame,
    whole_table,
)
from testkit.pki import Pki
from testkit.wait import wait_until


def queueing(length: int = 10, timeout_s: float = 30.0) -> Start:
    return replace(start_frame(), queue=QueueTerms(length, timeout_s))


@pytest.fixture
def plane(start_plane: StartPlane, backend: Backends) -> ThreadedPlane:
    """A plane with one place, on one backend."""
    return start_plane(row("a", backend.port, hard_limit=1), settings=queueing())


def wait_for_queue(state: SharedState, length: int) -> None:
    wait_until(lambda: state.queue.waiting == length, reason=f"{length} to wait")


def queued(plane: ThreadedPlane, length: int, source: str = "127.0.0.1") -> socket.socket:
    """One more client, when so many wait with it."""
    client = connected(plane.address, source)
    wait_for_queue(plane.state, length)
    return client


def poll_for_room(sock: socket.socket) -> bool:
    """Whether ``sock`` takes bytes, or comes to do so in a moment."""
    return bool(select.select([], [sock], [], 0.05)[1])


def later_than(seconds: float) -> Callable[[], bool]:
    """Whether so many seconds have passed since now."""
    now_s = monotonic()
    return lambda: monotonic() > now_s + seconds


def test_a_client_waits_and_is_served_when_a_place_is_free(plane: ThreadedPlane, backend: Backends) -> None:
    with connected(plane.address) as first, backend.accept() as server, queued(plane, 1) as second:
        second.sendall(b"early")
        first.close()
        server.close()
        with backend.accept() as next_server:
            assert read_exactly(next_server, 5) == b"early"
            next_server.sendall(b"answer")
            assert read_exactly(second, 6) == b"answer"
            assert plane.state.queue.waiting == 0
    report = plane.report(2)
    assert report.waits is not None
    assert report.waits.count == 1
    assert set(report.closes) == {"complete"}


@pytest.mark.feature("connecting.queue")
def test_clients_are_served_in_the_order_in_which_they_came(plane: ThreadedPlane, backend: Backends) -> None:
    with ExitStack() as at_end:
        open_now = at_end.enter_context(connected(plane.address)), backend.accept()
        clients = []
        for number in range(4):
            client = at_end.enter_context(queued(plane, number + 1))
            client.sendall(str(number).encode())
            clients.append(client)
        for number, client in enumerate(clients):
            for sock in open_now:
                sock.close()
            open_now = client, backend.accept()
            assert read_exactly(open_now[1], 1) == str(number).encode()
        open_now[1].close()


def test_nobody_overtakes_those_who_wait(plane: ThreadedPlane, backend: Backends) -> None:
    """A place stays free while the one who waits for it is in another worker, which has not looked."""
    elsewhere = SharedState(plane._segment_fd, worker=1).queue
    app_key = plane.plane.waiting_room._key_of("*")
    elsewhere.looked(plane.loop.now_s + 60)
    elsewhere.publish(app_key, plane.loop.now_s - 60)
    with queued(plane, 1) as client:
        client.sendall(b"x")
        elsewhere.publish(app_key, None)
        with backend.accept() as server:
            assert read_exactly(server, 1) == b"x"


def test_a_full_queue_turns_clients_away(start_plane: StartPlane, backend: Backends) -> None:
    plane = start_plane(row("a", backend.port, hard_limit=1), settings=queueing(length=1))
    with connected(plane.address), backend.accept(), queued(plane, 1):
        assert is_turned_away(plane.address)
        assert plane.report(1).closes == {"queue_full": 1}


def test_a_client_waits_only_so_long(start_plane: StartPlane, backend: Backends) -> None:
    plane = start_plane(row("a", backend.port, hard_limit=1), settings=queueing(timeout_s=0.05))
    with connected(plane.address), backend.accept(), connected(plane.address) as second:
        assert is_reset(second)
        assert plane.state.queue.waiting == 0
        report = plane.report(1)
        assert report.closes == {"queue_timeout": 1}
        assert report.waits is None


@pytest.mark.parametrize("leaves", ["ends", "resets"])
def test_a_client_that_goes_away_leaves_the_queue_at_once(
    plane: ThreadedPlane, backend: Backends, leaves: str
) -> None:
    with connected(plane.address), backend.accept():
        client = queued(plane, 1)
        if leaves == "ends":
            client.close()
        else:
            reset(client)
        wait_for_queue(plane.state, 0)
        reason = "queue_left" if leaves == "ends" else "client_reset"
        assert plane.report(1).closes == {reason: 1}


def test_a_client_that_has_left_before_it_stands_in_line_does_not_stay(
    start_plane: StartPlane, backend: Backends
) -> None:
    plane = start_plane(row("a", backend.port, hard_limit=1), settings=queueing())
    with connected(plane.address), backend.accept():

        def come_and_go() -> None:
            connected(plane.address).close()  # while the loop is busy with this, so both are there at once

        plane.call(come_and_go)
        assert plane.report(1).closes == {"queue_left": 1}


def test_a_client_that_only_ended_its_side_is_answered(plane: ThreadedPlane, backend: Backends) -> None:
    with connected(plane.address) as first, backend.accept() as server, connected(plane.address) as second:
        second.sendall(b"question")
        second.shutdown(socket.SHUT_WR)
        wait_for_queue(plane.state, 1)
        first.close()
        server.close()
        with backend.accept() as next_server:
            assert read_to_end(next_server) == b"question"
            next_server.sendall(b"answer")
            next_server.close()
            assert read_to_end(second) == b"answer"


def test_nothing_is_read_from_a_client_that_waits(plane: ThreadedPlane, backend: Backends) -> None:
    with connected(plane.address), backend.accept(), queued(plane, 1) as client:
        client.setblocking(False)
        while poll_for_room(client):
            client.send(bytes(1 << 16))
        assert plane.state.queue.waiting == 1


def test_a_client_in_tls_waits_after_its_handshake(
    start_plane: StartPlane, backend: Backends, tmp_path: Path
) -> None:
    pki = Pki()
    settings = replace(tls_frame(identity(pki, tmp_path, NAME)), queue=QueueTerms(10, 30.0))
    plane = start_plane(row("a", backend.port, hard_limit=1), settings=settings)
    with (
        tls_client(plane.address, pki.client()) as first,
        backend.accept() as server,
        tls_client(plane.address, pki.client()) as second,
    ):
        wait_for_queue(plane.state, 1)
        second.sendall(b"early")
        first.close()
        server.close()
        with backend.accept() as next_server:
            assert read_exactly(next_server, 5) == b"early"
            next_server.sendall(b"answer")
            assert read_exactly(second, 6) == b"answer"


def test_a_defect_in_watching_a_client_costs_that_client_alone(
    plane: ThreadedPlane, backend: Backends, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connected(plane.address), backend.accept(), queued(plane, 1) as second:
        monkeypatch.setattr(waiting_room.Seat, "look", lambda _seat: 1 // 0)
        second.shutdown(socket.SHUT_WR)
        assert is_reset(second)
        assert plane.report(1).closes == {"internal": 1}
        assert plane.state.queue.waiting == 0


def test_a_change_of_the_table_makes_places(plane: ThreadedPlane, backend: Backends) -> None:
    with connected(plane.address), backend.accept(), queued(plane, 1) as second:
        roomy = (PlacedBackend(0, row("a", backend.port, hard_limit=2)),)
        plane.call(lambda: plane.plane.change_table(TableChanged(2, False, roomy, ())))
        with backend.accept() as server:
            server.sendall(b"!")
            assert read_exactly(second, 1) == b"!"


def test_when_there_is_no_backend_left_waiting_is_over(plane: ThreadedPlane, backend: Backends) -> None:
    with connected(plane.address), backend.accept(), queued(plane, 1) as second:
        plane.call(lambda: plane.plane.change_table(TableChanged(2, False, (), (0,))))
        assert is_reset(second)
        assert plane.report(1).closes == {"no_backend": 1}


def test_a_drain_lets_those_who_wait_wait_and_its_end_resets_them(
    plane: ThreadedPlane, backend: Backends
) -> None:
    with connected(plane.address), backend.accept(), queued(plane, 1) as second:
        plane.call(lambda: plane.plane.drain(lambda: None))
        assert plane.state.queue.waiting == 1
        plane.call(plane.plane.reset_all)
        assert is_reset(second)
        assert plane.state.queue.waiting == 0


def test_the_terms_change_while_clients_wait(plane: ThreadedPlane, backend: Backends) -> None:
    with connected(plane.address), backend.accept(), queued(plane, 1) as second:
        plane.call(lambda: plane.plane.change_settings(queueing(length=0)))
        assert is_turned_away(plane.address)
        assert plane.report(1).closes == {"at_limit": 1}
        assert plane.state.queue.waiting == 1
        plane.call(lambda: plane.plane.change_settings(queueing(length=1, timeout_s=0.01)))
        assert is_reset(second)


def test_a_defect_costs_only_the_client_whose_turn_it_is(
    plane: ThreadedPlane, backend: Backends, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatch = plane.plane.dispatcher.dispatch

    def broken(app: str, *arguments: object) -> object:
        monkeypatch.setattr(plane.plane.dispatcher, "dispatch", dispatch)
        raise ZeroDivisionError

    with (
        connected(plane.address) as first,
        backend.accept() as server,
        queued(plane, 1) as second,
        queued(plane, 2) as third,
    ):
        monkeypatch.setattr(plane.plane.dispatcher, "dispatch", broken)
        assert is_reset(second)
        first.close()
        server.close()
        with backend.accept() as next_server:
            next_server.sendall(b"!")
            assert read_exactly(third, 1) == b"!"
    assert plane.report(3).closes["internal"] == 1


def test_places_pass_between_workers_first_come_first_served(backend: Backends) -> None:
    with ExitStack() as at_end:
        segment_fd = create_segment(workers=2, affinity_capacity=64)
        at_end.callback(os.close, segment_fd)
        state = SharedState(segment_fd)
        workers = []
        for number in range(2):
            listener = at_end.enter_context(bound_listener())
            worker = at_end.enter_context(closing(RealWorker(listener=listener, segment_fd=segment_fd)))
            settings = replace(queueing(length=3), worker=number)
            worker.send(settings, whole_table(row("a", backend.port, hard_limit=1)))
            workers.append(worker)
        for worker in workers:
            worker.take(Ready)
        first = at_end.enter_context(connected(workers[0].address)), backend.accept()
        clients = []
        for number, worker in enumerate((workers[1], workers[0], workers[1])):
            client = at_end.enter_context(connected(worker.address))
            client.sendall(str(number).encode())
            wait_for_queue(state, number + 1)
            clients.append(client)
            wait_until(later_than(2 * TOLERANCE_S), reason="the next to come clearly later")
        assert is_turned_away(workers[0].address)
        open_now = first
        for number, client in enumerate(clients):
            for sock in open_now:
                sock.close()
            open_now = client, backend.accept()
            assert read_exactly(open_now[1], 1) == str(number).encode()
        for sock in open_now:
            sock.close()
        waits = [report.waits for report in workers[1].reports(ended=2)]
        assert sum(each.count for each in waits if each is not None) == 2
        workers[0].take(Report, lambda report: "queue_full" in report.closes)
