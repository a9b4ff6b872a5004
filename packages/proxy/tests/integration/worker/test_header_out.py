"""Backends that are told who the client is, with a PROXY header ahead of the client's bytes."""

from __future__ import annotations

import queue
import socket
from contextlib import closing

import msgspec
import pytest

from edgeproxy.core.dataplane.backend_rules import BackendRule, ProxyVersion
from edgeproxy.core.dataplane.listening import Listening
from edgeproxy.core.wire.frames import Start
from edgeproxy.core.wire.proxy_protocol import Header, TlvType, encode_v1, encode_v2, read_header
from packages.proxy.tests.integration.worker.conftest import StartPlane
from packages.proxy.tests.integration.worker.workers import (
    Backends,
    Countries,
    ThreadedPlane,
    read_exactly,
    read_to_end,
    reset,
    row,
    start_frame,
)

V1, V2 = ProxyVersion.V1, ProxyVersion.V2


def settings(version: ProxyVersion, match: str = "told*", listening: Listening | None = None) -> Start:
    return msgspec.structs.replace(
        start_frame(listening=listening, proxy_protocol_trusted=("127.0.0.0/8",)),
        backend_rules=(BackendRule(version, match=match),),
    )


def received_header(server: socket.socket) -> Header:
    """The header that ``server`` gets first, taken from its stream."""
    peeked = server.recv(4096, socket.MSG_PEEK)
    header = read_header(peeked)
    assert isinstance(header, Header)
    read_exactly(server, header.length)
    return header


def own_addresses(client: socket.socket) -> tuple[str, int, str, int]:
    """Source and destination of ``client`` as a header tells them."""
    return (*client.getsockname(), *client.getpeername())


def told(header: Header) -> tuple[str | None, int, str | None, int]:
    return (header.source, header.source_port, header.destination, header.destination_port)


@pytest.mark.parametrize(
    ("version", "tlvs"), [(V1, ()), (V2, ((TlvType.APP, b"web"), (TlvType.COUNTRY, b"DE")))]
)
def test_the_header_comes_before_the_client_s_bytes_and_is_not_counted(
    start_plane: StartPlane, backend: Backends, version: ProxyVersion, tlvs: tuple[object, ...]
) -> None:
    plane = start_plane(row("told-1", backend.port), settings=settings(version))
    with plane.connect() as client, backend.accept() as server:
        header = received_header(server)
        assert told(header) == own_addresses(client)
        assert header.tlvs == tlvs
        client.sendall(b"question")
        assert read_exactly(server, 8) == b"question"
        server.sendall(b"answer")
        assert read_exactly(client, 6) == b"answer"
    (session,) = plane.sessions(1)
    assert (session.bytes_received, session.bytes_sent) == (8, 6)


def test_a_client_that_ends_at_once_is_still_told_of(start_plane: StartPlane, backend: Backends) -> None:
    plane = start_plane(row("told-1", backend.port), settings=settings(V1))
    with plane.connect() as client:
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        with backend.accept() as server:
            received = read_to_end(server)
            assert received == encode_v1(*own_addresses(client)) + b"question"


def test_a_backend_without_a_rule_gets_the_client_s_bytes_alone(
    start_plane: StartPlane, backend: Backends
) -> None:
    plane = start_plane(row("other", backend.port), settings=settings(V2))
    with plane.connect() as client, backend.accept() as server:
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(server) == b"question"


def test_a_header_that_came_in_goes_out(start_plane: StartPlane, backend: Backends) -> None:
    plane = start_plane(
        row("told-1", backend.port, app="shop"),
        settings=settings(V2, listening=Listening(app="shop", proxy_protocol=True)),
        countries=Countries(**{"2001:db8::7": "US"}),
    )
    with plane.connect() as client:
        client.sendall(encode_v2("2001:db8::7", 4711, "2001:db8::1", 443) + b"question")
        with backend.accept() as server:
            header = received_header(server)
            assert read_exactly(server, 8) == b"question"
    assert told(header) == ("2001:db8::7", 4711, "2001:db8::1", 443)
    assert header.tlvs == ((TlvType.APP, b"shop"), (TlvType.COUNTRY, b"US"))


def test_a_balancer_s_own_connection_is_told_with_its_own_addresses(
    start_plane: StartPlane, backend: Backends
) -> None:
    plane = start_plane(
        row("told-1", backend.port), settings=settings(V1, listening=Listening(proxy_protocol=True))
    )
    with plane.connect() as client:
        client.sendall(b"PROXY UNKNOWN\r\n")
        with backend.accept() as server:
            assert told(received_header(server)) == own_addresses(client)


def test_each_backend_that_is_tried_gets_one_header(start_plane: StartPlane, backend: Backends) -> None:
    with closing(Backends()) as rude:
        plane = start_plane(
            row("told-rude", rude.port),
            row("told-alive", backend.port, country="FR"),
            settings=settings(V1),
        )
        with plane.connect() as client:
            header = encode_v1(*own_addresses(client))
            with rude.accept() as served_rudely:
                assert read_exactly(served_rudely, len(header)) == header
                reset(served_rudely)
            with backend.accept() as server:
                client.sendall(b"question")
                client.shutdown(socket.SHUT_WR)
                assert read_to_end(server) == header + b"question"
        (session,) = plane.sessions(1)
    assert (session.backend, session.tries, session.bytes_received) == ("told-alive", 2, 8)


def test_a_client_that_has_gone_is_told_to_nobody(
    start_plane: StartPlane, backend: Backends, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane: ThreadedPlane = start_plane(row("told-1", backend.port), settings=settings(V1))
    original = plane.plane.connects.discard
    clients: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()

    def reset_before_the_relay(connection: object) -> None:
        original(connection)  # type: ignore[arg-type]
        reset(clients.get(timeout=5))

    monkeypatch.setattr(plane.plane.connects, "discard", reset_before_the_relay)
    clients.put(plane.connect())
    with backend.accept() as server, pytest.raises(ConnectionResetError):
        server.recv(1)
    assert plane.report(1).closes == {"client_reset": 1}
