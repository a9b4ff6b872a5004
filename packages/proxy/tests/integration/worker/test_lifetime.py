"""Connections that are silent, half-closed or old are reset, and only those."""

from __future__ import annotations

import socket
from time import monotonic

import msgspec
import pytest

from edgeproxy.core.dataplane.lifetime import Lifetimes
from packages.proxy.tests.integration.worker.conftest import StartPlane
from packages.proxy.tests.integration.worker.workers import (
    Backends,
    ThreadedPlane,
    is_reset,
    read_exactly,
    row,
    start_frame,
    wait_for_reset,
)
from testkit.wait import wait_until

LIMIT_S = 0.2


def started(start_plane: StartPlane, backend: Backends, lifetimes: Lifetimes) -> ThreadedPlane:
    settings = msgspec.structs.replace(start_frame(), lifetimes=lifetimes)
    return start_plane(row("web-1", backend.port), settings=settings)


def exchange_until(client: socket.socket, server: socket.socket, end_s: float) -> float:
    """Go on sending bytes, one way and then the other; return when the last one was sent."""
    while (now_s := monotonic()) < end_s:
        client.sendall(b"q")
        assert read_exactly(server, 1) == b"q"
        server.sendall(b"a")
        assert read_exactly(client, 1) == b"a"
    return now_s


@pytest.mark.feature("relay.lifetimes")
def test_a_silent_connection_is_reset_both_ways(start_plane: StartPlane, backend: Backends) -> None:
    plane = started(start_plane, backend, Lifetimes(idle_s=LIMIT_S))
    with plane.connect() as client, backend.accept() as server:
        last_byte_s = exchange_until(client, server, monotonic() + 2 * LIMIT_S)
        wait_for_reset(client)
        assert monotonic() - last_byte_s >= LIMIT_S
        wait_for_reset(server)
    (session,) = plane.sessions(1)
    assert session.reason == "idle_timeout"
    assert session.duration_s >= 3 * LIMIT_S


def test_bytes_in_one_direction_keep_a_connection(start_plane: StartPlane, backend: Backends) -> None:
    plane = started(start_plane, backend, Lifetimes(idle_s=LIMIT_S))
    with plane.connect() as client, backend.accept() as server:
        end_s = monotonic() + 3 * LIMIT_S
        while monotonic() < end_s:
            server.sendall(b"a")
            assert read_exactly(client, 1) == b"a"
    (session,) = plane.sessions(1)
    assert session.reason == "complete"


@pytest.mark.parametrize("first", ["client", "backend"])
def test_half_a_connection_is_reset_when_the_other_half_is_silent(
    start_plane: StartPlane, backend: Backends, first: str
) -> None:
    plane = started(start_plane, backend, Lifetimes(half_close_s=LIMIT_S))
    with plane.connect() as client, backend.accept() as server:
        ends, waits = (client, server) if first == "client" else (server, client)
        # As long as both directions are open, silence is no concern of this limit.
        opened_s = monotonic()
        wait_until(lambda: monotonic() - opened_s > 1.5 * LIMIT_S, reason="some silence")
        ends.shutdown(socket.SHUT_WR)
        assert waits.recv(1) == b""
        ended_s = monotonic()
        waits.sendall(b"still here")
        assert read_exactly(ends, 10) == b"still here"
        wait_for_reset(waits)
        assert monotonic() - ended_s >= 0.9 * LIMIT_S
        assert is_reset(ends)
    (session,) = plane.sessions(1)
    assert session.reason == "half_close_timeout"


def test_a_busy_connection_ends_at_its_age(start_plane: StartPlane, backend: Backends) -> None:
    plane = started(start_plane, backend, Lifetimes(max_age_s=2 * LIMIT_S))
    ended = pytest.raises((ConnectionResetError, BrokenPipeError))
    with plane.connect() as client, backend.accept() as server, ended:
        exchange_until(client, server, monotonic() + 1000 * LIMIT_S)
    (session,) = plane.sessions(1)
    assert session.reason == "max_age"
    assert session.duration_s >= 2 * LIMIT_S


def test_without_limits_nothing_is_ended(start_plane: StartPlane, backend: Backends) -> None:
    plane = started(start_plane, backend, Lifetimes(0.0, 0.0, 0.0))
    plane.plane.looks.duration_s = LIMIT_S / 10
    with plane.connect() as client, backend.accept() as server:
        client.shutdown(socket.SHUT_WR)
        assert server.recv(1) == b""
    (session,) = plane.sessions(1)
    assert session.reason == "complete"


def test_an_ended_connection_is_not_looked_at(start_plane: StartPlane, backend: Backends) -> None:
    plane = started(start_plane, backend, Lifetimes(idle_s=LIMIT_S))
    with plane.connect() as client, backend.accept() as server:
        exchange_until(client, server, monotonic() + LIMIT_S / 10)
    plane.sessions(1)
    assert plane.call(plane.plane.looks.next_at) is None
