"""Caps on connections over real sockets: in one plane, and over worker processes that share a segment."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack, closing

import pytest
from msgspec.structs import replace

from edgeproxy.core.dataplane.caps import Caps
from edgeproxy.core.dataplane.listening import Listening
from edgeproxy.core.wire.frames import Ready, Start
from edgeproxy.core.wire.proxy_protocol import encode_v1
from edgeproxy.worker.shared_state import SharedState, create_segment
from packages.proxy.tests.integration.worker.conftest import StartPlane
from packages.proxy.tests.integration.worker.workers import (
    Backends,
    RealWorker,
    ThreadedPlane,
    bound_listener,
    connected,
    is_reset,
    is_turned_away,
    read_exactly,
    row,
    start_frame,
    whole_table,
)
from testkit.wait import wait_until


def capped(connections: int = 0, per_client: int = 0) -> Start:
    return replace(start_frame(), caps=Caps(connections, per_client))


def served(plane: ThreadedPlane, backend: Backends, source: str = "127.0.0.1") -> ExitStack:
    """An open connection; close it with what this returns."""
    at_end = ExitStack()
    client = at_end.enter_context(connected(plane.address, source))
    server = at_end.enter_context(backend.accept())
    server.sendall(b"hello")
    assert read_exactly(client, 5) == b"hello"
    return at_end


def closes(plane: ThreadedPlane) -> dict[str, int]:
    return plane.call(plane.plane.ledger.report).closes


@pytest.mark.feature("admission.caps")
def test_beyond_the_cap_clients_are_reset_and_counted_until_one_leaves(
    start_plane: StartPlane, backend: Backends
) -> None:
    plane = start_plane(row("a", backend.port), settings=capped(connections=2))
    with served(plane, backend, "127.0.0.2"), served(plane, backend, "127.0.0.3"):
        assert is_turned_away(plane.address)
    wait_until(lambda: plane.state.places.connections == 0, reason="both to have left")
    with served(plane, backend):
        assert plane.state.places.connections == 1
    assert closes(plane)["max_connections"] == 1


def test_each_client_has_a_cap_of_its_own(start_plane: StartPlane, backend: Backends) -> None:
    plane = start_plane(row("a", backend.port), settings=capped(per_client=1))
    with served(plane, backend, "127.0.0.2"):
        assert is_turned_away(plane.address, "127.0.0.2")
        with served(plane, backend, "127.0.0.3"):
            assert plane.state.places.connections == 0
    assert closes(plane)["max_connections_per_client"] == 1


def test_without_a_cap_nobody_is_counted(start_plane: StartPlane, backend: Backends) -> None:
    plane = start_plane(row("a", backend.port))
    with served(plane, backend):
        assert plane.state.places.connections == 0


def test_a_cap_changes_while_connections_are_open(start_plane: StartPlane, backend: Backends) -> None:
    plane = start_plane(row("a", backend.port))

    def change(caps: Caps) -> None:
        plane.call(lambda: plane.plane.change_settings(replace(start_frame(), caps=caps)))

    with served(plane, backend):  # accepted before there was a cap
        change(Caps(connections=1, per_client=1))
        with served(plane, backend):
            assert is_turned_away(plane.address)
            change(Caps())
            with served(plane, backend):
                assert plane.state.places.connections == 1
    wait_until(lambda: plane.state.places.connections == 0, reason="the counted one to have left")


def test_behind_a_balancer_each_client_has_a_cap_and_the_balancer_none(
    start_plane: StartPlane, backend: Backends
) -> None:
    settings = replace(
        capped(connections=9, per_client=1),
        listeners=(Listening(proxy_protocol=True),),
        proxy_protocol_trusted=("127.0.0.1/32",),
    )
    plane = start_plane(row("a", backend.port), settings=settings)

    def speak_for(client: socket.socket, source: str) -> None:
        client.sendall(encode_v1(source, 4711, "198.51.100.1", 443))

    with connected(plane.address) as one, connected(plane.address) as other, connected(plane.address) as more:
        speak_for(one, "203.0.113.7")
        with backend.accept():
            speak_for(other, "203.0.113.8")
            with backend.accept():
                assert plane.state.places.connections == 3
                speak_for(more, "203.0.113.7")
                assert is_reset(more)
    wait_until(lambda: plane.state.places.connections == 0, reason="all to have left")
    assert closes(plane)["max_connections_per_client"] == 1


@pytest.mark.parametrize("caps", [Caps(connections=20), Caps(per_client=20)], ids=["all", "client"])
def test_a_cap_is_exact_over_workers_and_a_killed_ones_places_are_free_again(
    caps: Caps, backend: Backends
) -> None:
    with ExitStack() as at_end:
        segment_fd = create_segment(workers=2, affinity_capacity=64)
        at_end.callback(os.close, segment_fd)
        workers = [
            at_end.enter_context(
                closing(RealWorker(listener=at_end.enter_context(bound_listener()), segment_fd=segment_fd))
            )
            for _ in range(2)
        ]
        for number, worker in enumerate(workers):
            settings = replace(start_frame(worker=number), caps=caps)
            worker.send(settings, whole_table(row("a", backend.port)))
        for worker in workers:
            worker.take(Ready)
        clients = [connected(worker.address) for _ in range(30) for worker in workers]
        for client in clients:
            at_end.callback(client.close)
        servers = [at_end.enter_context(backend.accept()) for _ in range(20)]
        for server in servers:
            server.sendall(b"hello")
        outcomes = [outcome(client) for client in clients]
        assert outcomes.count("served") == 20
        assert outcomes.count("reset") == 40

        workers[0].process.kill()
        workers[0].wait_exit()
        open_there = sum(each == "served" for each in outcomes[0::2])
        SharedState(segment_fd).clear_worker(0)
        for _ in range(open_there):
            client = at_end.enter_context(closing(connected(workers[1].address)))
            at_end.enter_context(backend.accept()).sendall(b"hello")
            assert outcome(client) == "served"
        assert is_turned_away(workers[1].address)


def outcome(client: socket.socket) -> str:
    try:
        return "served" if read_exactly(client, 5) == b"hello" else "other"
    except ConnectionResetError:
        return "reset"
