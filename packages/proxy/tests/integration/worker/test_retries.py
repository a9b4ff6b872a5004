"""Backends that take a connection only to reset it, and how many connections may go elsewhere at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import msgspec
import pytest

from edgeproxy.core.dataplane.retry_budget import LEAST_RETRIES
from packages.proxy.tests.integration.worker.conftest import StartPlane
from packages.proxy.tests.integration.worker.workers import (
    TIMEOUT_S,
    Backends,
    Countries,
    ThreadedPlane,
    connected,
    is_reset,
    is_turned_away,
    read_exactly,
    reset,
    row,
    start_frame,
)
from testkit.faults.listeners import refusing_port, unanswering_port
from testkit.wait import wait_until


@pytest.fixture
def rude(at_end: ExitStack) -> Backends:
    """A backend that the test resets connections of."""
    return at_end.enter_context(closing(Backends()))


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


def wait_until_relayed(plane: ThreadedPlane) -> None:
    """Wait until a connection has begun to be relayed."""
    wait_until(lambda: plane.call(lambda: bool(plane.plane.ledger._rows)), reason="a backend")


def test_a_reset_before_anything_was_sent_is_a_failed_connect(
    start_plane: StartPlane, backend: Backends, rude: Backends
) -> None:
    plane = start_plane(row("rude", rude.port), row("alive", backend.port, country="FR"))
    with plane.connect() as client:
        served_rudely = rude.accept()
        wait_until_relayed(plane)
        reset(served_rudely)
        with backend.accept() as served:
            client.sendall(b"question")
            assert read_exactly(served, 8) == b"question"
            served.sendall(b"answer")
            assert read_exactly(client, 6) == b"answer"
    report = plane.report(1)
    (session,) = report.sessions
    assert (session.backend, session.tries, session.reason) == ("alive", 2, "complete")
    assert (session.bytes_received, session.bytes_sent) == (8, 6)
    assert report.connect_errors == {"rude": 1}
    by_backend = {traffic.backend: (traffic.opened, traffic.closed) for traffic in report.traffic}
    assert by_backend == {"rude": (1, 1), "alive": (1, 1)}
    assert plane.state.connections(0) == 0


def test_what_a_client_said_to_nobody_is_said_to_the_next_backend(
    start_plane: StartPlane, backend: Backends, rude: Backends
) -> None:
    plane = start_plane(row("rude", rude.port), row("alive", backend.port, country="FR"))
    with plane.connect() as client:
        served_rudely = rude.accept()
        wait_until_relayed(plane)
        with paused(plane):
            client.sendall(b"question")
            reset(served_rudely)
        with backend.accept() as served:
            assert read_exactly(served, 8) == b"question"
            client.sendall(b", another")
            assert read_exactly(served, 9) == b", another"
    (session,) = plane.sessions(1)
    assert (session.backend, session.bytes_received) == ("alive", 17)


def test_a_reset_after_a_byte_was_sent_is_passed_on(
    start_plane: StartPlane, backend: Backends, rude: Backends
) -> None:
    plane = start_plane(row("rude", rude.port), row("alive", backend.port, country="FR"))
    with plane.connect() as client:
        served_rudely = rude.accept()
        client.sendall(b"q")
        assert read_exactly(served_rudely, 1) == b"q"
        reset(served_rudely)
        assert is_reset(client)
    with plane.connect() as client:
        served_rudely = rude.accept()
        served_rudely.sendall(b"a")
        assert read_exactly(client, 1) == b"a"
        reset(served_rudely)
        assert is_reset(client)
    report = plane.report(2)
    assert report.closes == {"backend_reset": 2}
    assert report.connect_errors == {}


def test_a_reset_after_the_client_s_end_is_passed_on(start_plane: StartPlane, rude: Backends) -> None:
    plane = start_plane(row("rude", rude.port))
    with plane.connect() as client:
        served_rudely = rude.accept()
        client.shutdown(1)
        assert served_rudely.recv(1) == b""
        reset(served_rudely)
        assert is_reset(client)
    assert plane.report(1).closes == {"backend_reset": 1}


def test_without_another_backend_the_client_is_reset(start_plane: StartPlane, rude: Backends) -> None:
    plane = start_plane(row("rude", rude.port))
    with plane.connect() as client:
        reset(rude.accept())
        assert is_reset(client)
    report = plane.report(1)
    assert report.closes == {"unreachable": 1}
    assert report.connect_errors == {"rude": 1}


@pytest.mark.feature("connecting.elsewhere")
def test_beyond_the_budget_clients_are_reset_instead_of_going_elsewhere(
    start_plane: StartPlane, backend: Backends, at_end: ExitStack
) -> None:
    sources = [f"127.0.0.{number}" for number in range(2, 3 + LEAST_RETRIES)]
    settings = msgspec.structs.replace(start_frame(), retry_budget_percent=0)
    with refusing_port() as refusing, unanswering_port() as silent:
        plane = start_plane(
            row("dead", refusing),
            row("silent", silent, country="FR"),
            settings=settings,
            countries=Countries(**dict.fromkeys(sources, "DE")),
        )
        *retrying, beyond = sources
        clients = [at_end.enter_context(connected(plane.address, source)) for source in retrying]
        wait_until(lambda: plane.state.connections(1) == len(clients), reason="all to go to the silent one")
        assert is_turned_away(plane.address, beyond)
        assert plane.report(1).closes == {"retry_budget": 1}
        reset(clients.pop())
        assert plane.report(1).closes == {"client_reset": 1}
        at_end.enter_context(connected(plane.address, beyond))
        wait_until(lambda: plane.state.connections(1) == LEAST_RETRIES, reason="another to take its place")
