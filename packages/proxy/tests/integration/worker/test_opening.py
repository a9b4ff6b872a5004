"""What stands before a client's own bytes: PROXY headers of trusted peers, server names of TLS hellos."""

from __future__ import annotations

import socket
import ssl

import pytest

from edgeproxy.core.dataplane.listening import NO_APP, Listening
from edgeproxy.core.wire.proxy_protocol import encode_v1, encode_v2
from packages.proxy.tests.integration.worker.conftest import StartPlane
from packages.proxy.tests.integration.worker.workers import (
    Backends,
    Countries,
    ThreadedPlane,
    is_reset,
    read_exactly,
    reset,
    row,
    start_frame,
)

BEHIND_BALANCER = start_frame(
    listening=Listening(proxy_protocol=True), proxy_protocol_trusted=("127.0.0.0/8",), opening_timeout_s=0.2
)
BY_NAME = start_frame(
    listening=Listening(app=NO_APP, app_from_sni=True),
    app_by_server_name={"shop.example.com": "shop", "*.blog.example.com": "blog"},
    opening_timeout_s=0.2,
)


def client_hello(server_name: str | None) -> bytes:
    """The first flight of a real TLS client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=server_name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def only_reason(plane: ThreadedPlane) -> str:
    return plane.sessions(1)[0].reason


@pytest.fixture
def balanced(start_plane: StartPlane, backend: Backends) -> ThreadedPlane:
    """A plane whose clients come through a load balancer on this machine."""
    countries = Countries(**{"127.0.0.1": "DE", "203.0.113.7": "US"})
    return start_plane(row("web-1", backend.port), settings=BEHIND_BALANCER, countries=countries)


@pytest.mark.feature("proxy_protocol.in")
@pytest.mark.parametrize(
    "header",
    [
        encode_v1("203.0.113.7", 4711, "198.51.100.1", 443),
        encode_v2("203.0.113.7", 4711, "198.51.100.1", 443),
    ],
)
def test_the_header_of_a_trusted_peer_names_the_client(
    balanced: ThreadedPlane, backend: Backends, header: bytes
) -> None:
    with balanced.connect() as client:
        client.sendall(header + b"question")
        with backend.accept() as server:
            assert read_exactly(server, 8) == b"question"
            server.sendall(b"answer")
            assert read_exactly(client, 6) == b"answer"
    (session,) = balanced.sessions(1)
    assert (session.client, session.country) == ("203.0.113.7", "US")
    assert (session.bytes_received, session.bytes_sent) == (8, 6)


def test_a_header_may_come_byte_by_byte(balanced: ThreadedPlane, backend: Backends) -> None:
    with balanced.connect() as client:
        for byte in encode_v1("203.0.113.7", 4711, "198.51.100.1", 443) + b"q":
            client.send(bytes([byte]))
        with backend.accept() as server:
            assert read_exactly(server, 1) == b"q"
    assert balanced.sessions(1)[0].client == "203.0.113.7"


def test_a_balancer_that_connects_for_itself_is_the_client(
    balanced: ThreadedPlane, backend: Backends
) -> None:
    with balanced.connect() as client:
        client.sendall(b"PROXY UNKNOWN\r\nping")
        with backend.accept() as server:
            assert read_exactly(server, 4) == b"ping"
    assert balanced.sessions(1)[0].client == "127.0.0.1"


def test_a_trusted_peer_without_a_header_is_refused(balanced: ThreadedPlane) -> None:
    with balanced.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert is_reset(client)
    assert only_reason(balanced) == "bad_opening"


def test_a_malformed_header_is_refused(balanced: ThreadedPlane) -> None:
    with balanced.connect() as client:
        client.sendall(b"PROXY TCP4 203.0.113.7 nowhere 1 2\r\n")
        assert is_reset(client)
    assert only_reason(balanced) == "bad_opening"


def test_an_end_within_the_header_is_refused(balanced: ThreadedPlane) -> None:
    with balanced.connect() as client:
        client.sendall(b"PROXY TCP4 203")
        client.shutdown(socket.SHUT_WR)
        assert is_reset(client)
    assert only_reason(balanced) == "bad_opening"


def test_a_peer_that_sends_no_header_is_not_waited_for(balanced: ThreadedPlane) -> None:
    with balanced.connect() as client:
        assert is_reset(client)
    assert only_reason(balanced) == "opening_timeout"


def test_a_reset_ends_an_opening(balanced: ThreadedPlane) -> None:
    client = balanced.connect()
    client.sendall(b"PROXY")
    reset(client)
    assert only_reason(balanced) in {"bad_opening", "client_reset"}


def test_who_is_not_trusted_cannot_pretend(start_plane: StartPlane, backend: Backends) -> None:
    plane = start_plane(
        row("web-1", backend.port),
        settings=start_frame(
            listening=Listening(proxy_protocol=True), proxy_protocol_trusted=("203.0.113.0/24",)
        ),
    )
    header = encode_v1("203.0.113.7", 4711, "198.51.100.1", 443)
    with plane.connect() as client:
        client.sendall(header)
        with backend.accept() as server:
            assert read_exactly(server, len(header)) == header
    assert plane.sessions(1)[0].client == "127.0.0.1"


@pytest.mark.feature("listeners.further")
@pytest.mark.parametrize(("name", "app"), [("shop.example.com", "shop"), ("my.blog.example.com", "blog")])
def test_the_server_name_chooses_the_app_and_the_hello_reaches_it_whole(
    start_plane: StartPlane, backend: Backends, name: str, app: str
) -> None:
    other = "blog" if app == "shop" else "shop"
    plane = start_plane(
        row("wanted", backend.port, app=app), row("other", backend.port, app=other), settings=BY_NAME
    )
    hello = client_hello(name)
    with plane.connect() as client:
        client.sendall(hello[:100])
        client.sendall(hello[100:])
        with backend.accept() as server:
            assert read_exactly(server, len(hello)) == hello
    assert plane.sessions(1)[0].backend == "wanted"


@pytest.mark.parametrize("name", ["unknown.example.com", None])
def test_a_name_that_means_nothing_is_refused(
    start_plane: StartPlane, backend: Backends, name: str | None
) -> None:
    plane = start_plane(row("shop-1", backend.port, app="shop"), settings=BY_NAME)
    with plane.connect() as client:
        client.sendall(client_hello(name))
        assert is_reset(client)
    assert only_reason(plane) == "unknown_name"


def test_a_listener_with_an_app_serves_names_that_mean_nothing(
    start_plane: StartPlane, backend: Backends
) -> None:
    settings = start_frame(
        listening=Listening(app="shop", app_from_sni=True), app_by_server_name={"blog.example.com": "blog"}
    )
    plane = start_plane(row("shop-1", backend.port, app="shop"), settings=settings)
    with plane.connect() as client:
        client.sendall(client_hello("unknown.example.com"))
        backend.accept().close()
    assert plane.sessions(1)[0].backend == "shop-1"


def test_what_is_no_hello_is_refused(start_plane: StartPlane, backend: Backends) -> None:
    plane = start_plane(row("shop-1", backend.port, app="shop"), settings=BY_NAME)
    with plane.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert is_reset(client)
    assert only_reason(plane) == "bad_opening"


def test_a_header_may_stand_before_the_hello(start_plane: StartPlane, backend: Backends) -> None:
    settings = start_frame(
        listening=Listening(app=NO_APP, app_from_sni=True, proxy_protocol=True),
        app_by_server_name={"shop.example.com": "shop"},
        proxy_protocol_trusted=("127.0.0.1/32",),
    )
    plane = start_plane(row("shop-1", backend.port, app="shop"), settings=settings)
    hello = client_hello("shop.example.com")
    with plane.connect() as client:
        client.sendall(encode_v2("203.0.113.7", 4711, "198.51.100.1", 443) + hello)
        with backend.accept() as server:
            assert read_exactly(server, len(hello)) == hello
    (session,) = plane.sessions(1)
    assert (session.client, session.backend) == ("203.0.113.7", "shop-1")
