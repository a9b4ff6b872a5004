"""One connection from its accept to its account: backends that fail, clients that leave, what is counted."""

from __future__ import annotations

import errno
import gc
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from edgeproxy.core.dataplane.dispatch import Lease
from edgeproxy.core.wire.frames import TableChanged, Traffic
from edgeproxy.worker.connection import MAX_TRIES, Connection
from edgeproxy.worker.relay_copy import Side
from packages.proxy.tests.integration.worker.conftest import StartPlane
from packages.proxy.tests.integration.worker.workers import (
    TIMEOUT_S,
    Backends,
    Countries,
    ThreadedPlane,
    connected,
    is_turned_away,
    read_exactly,
    read_to_end,
    reset,
    row,
    start_frame,
    wait_for_reset,
)
from testkit.faults.listeners import refusing_port, unanswering_port
from testkit.wait import wait_until


@contextmanager
def paused(plane: ThreadedPlane) -> Iterator[None]:
    """Hold the loop still while the block runs, so that what happens meanwhile arrives in one turn."""
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        go_on.wait(TIMEOUT_S)

    caller = threading.Thread(target=plane.call, args=(hold,))
    caller.start()
    assert held.wait(TIMEOUT_S)
    try:
        yield
    finally:
        go_on.set()
        caller.join()


def exchange(client: socket.socket, backend: socket.socket) -> None:
    """One question, one answer."""
    client.sendall(b"question")
    assert read_exactly(backend, 8) == b"question"
    backend.sendall(b"answer")
    assert read_exactly(client, 6) == b"answer"


# ---- accounts ------------------------------------------------------------------------------------


def test_a_session_is_accounted_for_to_the_byte(start_plane: StartPlane, backend: Backends) -> None:
    plane = start_plane(row("eu-1", backend.port), countries=Countries(**{"127.0.0.1": "FR"}))
    with plane.connect() as client, backend.accept() as served:
        client.sendall(bytes(300_000))
        assert len(read_exactly(served, 300_000)) == 300_000
        served.sendall(bytes(1_234_567))
        assert len(read_exactly(client, 1_234_567)) == 1_234_567
        client.shutdown(socket.SHUT_WR)
        served.close()
        assert read_to_end(client) == b""
    report = plane.report(1)
    assert report.traffic == (Traffic("FR", "eu-1", 1, 1, 100.0, 300_000, 1_234_567),)
    assert report.closes == {"complete": 1}
    (session,) = report.sessions
    assert (session.client, session.country, session.backend) == ("127.0.0.1", "FR", "eu-1")
    assert (session.score, session.from_affinity, session.tries) == (100.0, False, 1)
    assert (session.bytes_received, session.bytes_sent) == (300_000, 1_234_567)
    assert 0 < session.duration_s < TIMEOUT_S


def test_how_long_the_connect_took_is_accounted_for(start_plane: StartPlane, backend: Backends) -> None:
    plane = start_plane(row("a", backend.port))
    with plane.connect(), backend.accept():
        pass
    connects = plane.report(1).connects["a"]
    assert connects.count == 1
    assert 0 < connects.seconds_sum < TIMEOUT_S


def test_a_place_is_held_from_the_connect_to_the_end(start_plane: StartPlane, backend: Backends) -> None:
    plane = start_plane(row("a", backend.port))
    with plane.connect(), backend.accept():
        wait_until(lambda: plane.state.connections(0) == 1, reason="the place to be taken")
    wait_until(lambda: plane.state.connections(0) == 0, reason="the place to be given back")


def test_connections_leave_nothing_for_the_garbage_collector(
    start_plane: StartPlane, backend: Backends
) -> None:
    """Workers run without one."""
    plane = start_plane(row("a", backend.port))
    gc.collect()
    others = {id(each) for each in gc.get_objects()}
    gc.disable()
    try:
        for number in range(30):
            client, served = plane.connect(), backend.accept()
            exchange(client, served)
            if number % 3 == 0:
                client.close()
                served.close()
            elif number % 3 == 1:
                reset(client)
                served.close()
            else:
                reset(served)
                client.close()
        plane.report(30)
        made = [each for each in gc.get_objects() if id(each) not in others]
        left = [each for each in made if isinstance(each, Connection | Side)]
        assert left == []
    finally:
        gc.enable()


# ---- backends that cannot be reached -------------------------------------------------------------


def test_a_backend_that_refuses_is_replaced_by_another(start_plane: StartPlane, backend: Backends) -> None:
    with refusing_port() as dead:
        plane = start_plane(row("dead", dead), row("alive", backend.port, country="FR"))
        for tries in (2, 1):
            with plane.connect() as client, backend.accept() as served:
                exchange(client, served)
            report = plane.report(1)
            assert report.sessions[0].backend == "alive"
            assert report.sessions[0].tries == tries
            assert report.sessions[0].from_affinity is (tries == 1)
            assert report.connect_errors == ({"dead": 1} if tries == 2 else {})
    assert plane.state.connections(0) == 0


def test_early_bytes_survive_a_change_of_backend(start_plane: StartPlane, backend: Backends) -> None:
    with refusing_port() as dead:
        plane = start_plane(row("dead", dead), row("alive", backend.port, country="FR"))
        with plane.connect() as client:
            client.sendall(b"early")
            with backend.accept() as served:
                assert read_exactly(served, 5) == b"early"


def test_a_connection_is_given_up_after_so_many_backends(start_plane: StartPlane) -> None:
    with ExitStack() as at_end:
        dead = [at_end.enter_context(refusing_port()) for _ in range(MAX_TRIES + 1)]
        plane = start_plane(*(row(f"dead-{port}", port) for port in dead))
        assert is_turned_away(plane.address)
        report = plane.report(1)
    assert report.closes == {"unreachable": 1}
    assert sum(report.connect_errors.values()) == MAX_TRIES
    assert len(report.connect_errors) == MAX_TRIES
    assert report.traffic == ()
    assert (report.sessions[0].backend, report.sessions[0].tries) == ("", MAX_TRIES)


def test_a_connection_is_given_up_when_no_other_backend_is_left(start_plane: StartPlane) -> None:
    with refusing_port() as dead:
        plane = start_plane(row("dead", dead))
        assert is_turned_away(plane.address)
        assert plane.report(1).closes == {"unreachable": 1}


def test_a_backend_that_does_not_answer_in_time_is_replaced(
    start_plane: StartPlane, backend: Backends
) -> None:
    with unanswering_port() as silent:
        plane = start_plane(
            row("silent", silent),
            row("alive", backend.port, country="FR"),
            settings=start_frame(connect_timeout_s=0.2),
        )
        with plane.connect() as client, backend.accept() as served:
            exchange(client, served)
        report = plane.report(1)
    assert report.connect_errors == {"silent": 1}
    assert report.sessions[0].duration_s >= 0.2


def test_an_address_without_a_route_is_a_failed_connect(start_plane: StartPlane, backend: Backends) -> None:
    plane = start_plane(row("nowhere", 9, host="255.255.255.255"), row("alive", backend.port, country="FR"))
    with plane.connect() as client, backend.accept() as served:
        exchange(client, served)
    assert plane.report(1).connect_errors == {"nowhere": 1}


def test_a_backend_that_resets_at_once_is_replaced(start_plane: StartPlane, backend: Backends) -> None:
    rude = Backends()
    plane = start_plane(row("rude", rude.port), row("alive", backend.port, country="FR"))
    original = plane.plane.connects.add

    def reset_before_the_loop_sees_it(connection: Connection, now_s: float) -> None:
        original(connection, now_s)
        if plane.state.connections(0):
            reset(rude.accept())

    plane.call(lambda: setattr(plane.plane.connects, "add", reset_before_the_loop_sees_it))
    with plane.connect() as client, backend.accept() as served:
        exchange(client, served)
    assert plane.report(1).connect_errors == {"rude": 1}
    rude.close()


def test_a_missing_address_family_is_a_failed_connect(start_plane: StartPlane, backend: Backends) -> None:
    plane = start_plane(row("odd", 9, host="::1"), row("alive", backend.port, country="FR"))
    no_family = 4_000
    plane.plane.targets._numeric["::1", 9] = (no_family, ("::1", 9))
    with plane.connect() as client, backend.accept() as served:
        exchange(client, served)
    assert plane.report(1).connect_errors == {"odd": 1}


def test_without_descriptors_for_backends_clients_are_reset_and_it_is_said_once(
    start_plane: StartPlane, backend: Backends, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(family: int, kind: int) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    plane = start_plane(row("a", backend.port))
    with monkeypatch.context() as patched:
        patched.setattr("edgeproxy.worker.connection.StreamSocket", exhausted)
        for _ in range(5):
            assert is_turned_away(plane.address)
    report = plane.report(5)
    assert report.closes == {"overload": 5}
    assert [notice.level for notice in plane.notices] == ["error"]
    assert "out of file descriptors" in plane.notices[0].event
    with plane.connect() as client, backend.accept() as served:
        exchange(client, served)


# ---- no backend at all ---------------------------------------------------------------------------


def test_without_a_healthy_row_clients_are_reset(start_plane: StartPlane) -> None:
    plane = start_plane(row("sick", 9, healthy=False))
    assert is_turned_away(plane.address)
    report = plane.report(1)
    assert report.closes == {"no_backend": 1}
    assert (report.sessions[0].backend, report.sessions[0].tries) == ("", 0)


def test_beyond_all_hard_limits_clients_are_reset(start_plane: StartPlane, backend: Backends) -> None:
    plane = start_plane(row("a", backend.port, hard_limit=2))
    with plane.connect() as one, backend.accept() as served, plane.connect(), backend.accept():
        assert is_turned_away(plane.address)
        assert plane.report(1).closes == {"at_limit": 1}
        one.close()
        served.close()
        plane.report(1)
        with plane.connect() as fourth, backend.accept() as served_fourth:
            exchange(fourth, served_fourth)


# ---- clients that leave --------------------------------------------------------------------------


def test_a_client_that_resets_while_its_backend_is_connected_to_gives_back_its_place(
    start_plane: StartPlane,
) -> None:
    with unanswering_port() as silent:
        plane = start_plane(row("silent", silent))
        client = plane.connect()
        wait_until(lambda: plane.state.connections(0) == 1, reason="the connect to begin")
        reset(client)
        report = plane.report(1)
    assert report.closes == {"client_reset": 1}
    assert report.connect_errors == {}
    assert plane.state.connections(0) == 0


def test_only_the_end_of_a_connect_ends_it(start_plane: StartPlane) -> None:
    with unanswering_port() as silent:
        plane = start_plane(row("silent", silent))
        client = plane.connect()
        wait_until(lambda: plane.state.connections(0) == 1, reason="the connect to begin")
        (connection,) = plane.plane._connections
        plane.call(lambda: connection.ready(select.EPOLLIN))
        assert plane.state.connections(0) == 1
        reset(client)
        plane.report(1)


def test_clients_that_reset_at_once_leave_nothing_behind(start_plane: StartPlane, backend: Backends) -> None:
    plane = start_plane(row("a", backend.port))
    for _ in range(50):
        reset(plane.connect())
    report = plane.report(50)
    assert set(report.closes) <= {"client_reset", "backend_reset", "unreachable"}
    assert plane.state.connections(0) == 0


def test_a_client_that_resets_as_its_backend_answers_resets_the_backend(
    start_plane: StartPlane, backend: Backends
) -> None:
    plane = start_plane(row("a", backend.port))
    with paused(plane):
        client = plane.connect()
    with backend.accept() as served:
        reset(client)
        wait_for_reset(served)


def test_a_client_that_sends_nothing_is_served_when_it_does(
    start_plane: StartPlane, backend: Backends
) -> None:
    plane = start_plane(row("a", backend.port))
    with plane.connect() as silent, backend.accept() as served_silent:
        with plane.connect() as client, backend.accept() as served:
            exchange(client, served)
        exchange(silent, served_silent)


def test_what_follows_an_urgent_byte_in_one_turn_is_not_held_up(
    start_plane: StartPlane, backend: Backends
) -> None:
    """A read stops short of an urgent byte, which must not be taken for an empty socket."""
    plane = start_plane(row("a", backend.port))
    with plane.connect() as client, backend.accept() as served:
        exchange(client, served)
        with paused(plane):
            client.send(b"now!", socket.MSG_OOB)
            client.sendall(b"after")
        assert read_exactly(served, 8) == b"nowafter"


# ---- host names, addresses, affinity -------------------------------------------------------------


def test_a_backend_by_name_is_connected_to_at_its_addresses_in_turn(start_plane: StartPlane) -> None:
    backend = Backends("::")
    plane = start_plane(row("named", backend.port, host="backend.example"))
    plane.call(lambda: plane.plane.targets.resolve("backend.example", ("127.0.0.1", "127.0.0.2", "::1")))
    seen = []
    for _ in range(6):
        with plane.connect(), backend.accept() as served:
            seen.append(served.getsockname()[0])
    backend.close()
    assert seen == ["::ffff:127.0.0.1", "::ffff:127.0.0.2", "::1"] * 2


def test_a_backend_by_a_name_that_does_not_resolve_is_a_failed_connect(start_plane: StartPlane) -> None:
    plane = start_plane(row("named", 9, host="backend.example"))
    assert is_turned_away(plane.address)
    assert plane.report(1).connect_errors == {"named": 1}


@pytest.mark.parametrize(
    ("to", "client_address"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1")], ids=["IPv4-mapped", "IPv6"]
)
def test_clients_of_a_dual_stack_listener_are_known_by_their_own_address(
    to: str, client_address: str, start_plane: StartPlane, backend: Backends
) -> None:
    countries = Countries(**{client_address: "DE"})
    plane = start_plane(row("a", backend.port), countries=countries, host="::")
    with connected((to, plane.address[1])) as client, backend.accept() as served:
        exchange(client, served)
    (session,) = plane.sessions(1)
    assert (session.client, session.country, session.score) == (client_address, "DE", 0.0)
    assert countries.asked == [client_address]


def test_an_open_connection_keeps_its_client_bound(start_plane: StartPlane, backend: Backends) -> None:
    plane = start_plane(
        row("a", backend.port), row("b", backend.port), settings=start_frame(binding_ttl_s=0.3)
    )
    leases: list[Lease] = []
    original = plane.plane.dispatcher.renew

    def renew(lease: Lease, now_s: float) -> None:
        leases.append(lease)
        original(lease, now_s)

    plane.call(lambda: setattr(plane.plane.dispatcher, "renew", renew))
    with plane.connect(), backend.accept():
        wait_until(lambda: len(leases) >= 6, reason="twice the time to live to pass")
        with plane.connect(), backend.accept():
            pass
        (session,) = plane.sessions(1)
    assert session.from_affinity


def test_a_row_that_moves_is_connected_to_at_its_new_address(
    start_plane: StartPlane, backend: Backends
) -> None:
    with refusing_port() as dead:
        plane = start_plane(row("a", dead))
        assert is_turned_away(plane.address)
        plane.report(1)
        placed = plane.plane._backends[0]
        moved = type(placed)(0, row("a", backend.port))
        plane.call(lambda: plane.plane.change_table(TableChanged(2, False, (moved,), ())))
        with plane.connect() as client, backend.accept() as served:
            exchange(client, served)
        assert list(plane.plane.targets._numeric) == [("127.0.0.1", backend.port)]
