"""Which connections are the oldest, or moved most, as a worker is asked while it serves."""

from __future__ import annotations

from contextlib import ExitStack
from queue import SimpleQueue

import pytest
from msgspec.structs import replace

from edgeproxy.core.dataplane.listening import Listening
from edgeproxy.core.wire.frames import ConnectionOrder, ListConnections, OpenConnection, OpenConnections
from packages.proxy.tests.integration.worker.conftest import StartPlane
from packages.proxy.tests.integration.worker.workers import (
    Backends,
    ThreadedPlane,
    connected,
    row,
    start_frame,
)
from testkit.wait import wait_until


def ask(plane: ThreadedPlane, count: int, order: ConnectionOrder) -> list[OpenConnection]:
    answers: SimpleQueue[OpenConnections] = SimpleQueue()
    plane.call(lambda: plane.plane.list_connections(ListConnections(7, count, order), answers.put))
    answer = answers.get(timeout=10)
    assert answer.number == 7
    return list(answer.connections)


def test_nothing_is_open(start_plane: StartPlane, backend: Backends) -> None:
    assert ask(start_plane(row("a", backend.port)), 5, ConnectionOrder.AGE) == []


def test_first_are_found_over_many_turns(
    start_plane: StartPlane, backend: Backends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeproxy.worker.census.LOOKS_PER_TURN", 3)
    plane = start_plane(row("a", backend.port))
    with ExitStack() as stack:
        for number in range(10):
            client = stack.enter_context(connected(plane.address, f"127.0.5.{number}"))
            server = stack.enter_context(backend.accept())
            client.sendall(b"x" * (10 - number))
            server.recv(100)
        wait_until(lambda: len(ask(plane, 99, ConnectionOrder.AGE)) == 10, reason="all to be open")
        oldest = ask(plane, 4, ConnectionOrder.AGE)
        assert [each.client for each in oldest] == [f"127.0.5.{number}" for number in range(4)]
        assert {(each.backend, each.state, each.app) for each in oldest} == {("a", "open", "*")}
        busiest = ask(plane, 2, ConnectionOrder.BYTES)
        assert [(each.client, each.bytes_received) for each in busiest] == [
            ("127.0.5.0", 10),
            ("127.0.5.1", 9),
        ]


def test_one_that_has_no_backend_yet_says_what_it_waits_for(
    start_plane: StartPlane, backend: Backends
) -> None:
    settings = replace(
        start_frame(),
        listeners=(Listening(proxy_protocol=True),),
        proxy_protocol_trusted=("127.0.0.0/8",),
    )
    plane = start_plane(row("a", backend.port), settings=settings)
    with plane.connect():
        (one,) = wait_until(lambda: ask(plane, 9, ConnectionOrder.AGE), reason="it to be accepted")
    assert (one.client, one.backend, one.state, one.bytes_sent) == ("127.0.0.1", "", "opening", 0)


def test_one_that_ends_while_it_is_asked_about_is_left_out(
    start_plane: StartPlane, backend: Backends
) -> None:
    plane = start_plane(row("a", backend.port))
    answers: SimpleQueue[OpenConnections] = SimpleQueue()
    question = ListConnections(1, 9, ConnectionOrder.AGE)

    def ask_and_end() -> None:
        plane.plane.list_connections(question, answers.put)
        plane.plane.reset_all()

    with plane.connect() as client, backend.accept():
        client.sendall(b"x")
        wait_until(lambda: ask(plane, 9, ConnectionOrder.AGE), reason="it to be open")
        plane.call(ask_and_end)
        assert answers.get(timeout=10).connections == ()
