"""What every relay must do with a connection, as seen from its two ends.

A relay takes part by a factory in ``RELAYS``: given the port of a backend, it gives what connects a client to
a proxy in front of it. The tests are client and backend at once.
"""

from __future__ import annotations

import fcntl
import hashlib
import select
import selectors
import socket
import ssl
import struct
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import NamedTuple, Protocol

import pytest
from msgspec.structs import replace

from edgeproxy.core.wire.frames import RelayMode
from packages.proxy.tests.integration.worker.tls_clients import (
    NAME,
    TlsClient,
    TlsServer,
    backend_tls,
    identity,
    tls_frame,
)
from packages.proxy.tests.integration.worker.workers import (
    TIMEOUT_S,
    Backends,
    ThreadedPlane,
    in_background,
    is_reset,
    need_kernel_relay,
    read_exactly,
    read_to_end,
    reset,
    row,
    start_frame,
    wait_for_reset,
)
from testkit.pki import Pki

MIB = 1 << 20

PROMOTED = replace(start_frame(), relay=RelayMode.KERNEL, promote_after_turns=2)
"""A connection is promoted once there was one word each way."""


class Connect(Protocol):
    """Connects a client to the proxy, with a receive buffer of that size if one is given."""

    def __call__(self, receive_bytes: int | None = None) -> socket.socket: ...


class Ends(NamedTuple):
    """The two ends of a relay."""

    connect: Connect
    serve: Callable[[socket.socket], socket.socket] = lambda sock: sock
    """What the backend makes of a connection that it accepted."""
    talk: bool = False
    """A word goes each way before the test has its pair."""


def _bare_relay(backend_port: int, mode: RelayMode) -> Iterator[Ends]:
    settings = replace(start_frame(), relay=mode)
    with closing(ThreadedPlane(row("b", backend_port), settings=settings)) as plane:
        yield Ends(plane.connect)


@contextmanager
def copy_relay(backend_port: int) -> Iterator[Ends]:
    """The relay by recv and send."""
    yield from _bare_relay(backend_port, RelayMode.COPY)


@contextmanager
def splice_relay(backend_port: int) -> Iterator[Ends]:
    """The relay by splice, as soon as anything was handed on."""
    yield from _bare_relay(backend_port, RelayMode.SPLICE)


@contextmanager
def auto_relay(backend_port: int) -> Iterator[Ends]:
    """The relay that splices when there is much."""
    yield from _bare_relay(backend_port, RelayMode.AUTO)


@contextmanager
def kernel_relay(backend_port: int) -> Iterator[Ends]:
    """The relay in the kernel, as soon as both sides have said something."""
    need_kernel_relay()
    with closing(ThreadedPlane(row("b", backend_port), settings=PROMOTED)) as plane:
        yield Ends(plane.connect)


@contextmanager
def chatty_kernel_relay(backend_port: int) -> Iterator[Ends]:
    """The same after a talk, so that what a test says comes to a connection that is promoted."""
    need_kernel_relay()
    with closing(ThreadedPlane(row("b", backend_port), settings=PROMOTED)) as plane:
        yield Ends(plane.connect, talk=True)


@cache
def _pki() -> Pki:
    return Pki()


def _with_tls(
    backend_port: int, version: ssl.TLSVersion | None = None, *, to_backend: bool = False
) -> Iterator[Ends]:
    """TLS of ``version`` with clients, if one is given, and with the backend if asked for."""
    pki, settings = _pki(), start_frame()
    if version is not None:
        with TemporaryDirectory() as folder:
            settings = tls_frame(identity(pki, Path(folder), NAME))
    if to_backend:
        settings = backend_tls(settings, pki)
    clients, backends = pki.client(version=version), pki.server("127.0.0.1")
    with closing(ThreadedPlane(row("b", backend_port), settings=settings)) as plane:

        def connect(receive_bytes: int | None = None) -> socket.socket:
            sock = plane.connect(receive_bytes)
            return sock if version is None else TlsClient(sock, clients)

        yield Ends(connect, (lambda sock: TlsServer(sock, backends)) if to_backend else lambda sock: sock)


@contextmanager
def tls_1_3(backend_port: int) -> Iterator[Ends]:
    """The same with TLS 1.3 towards the client."""
    yield from _with_tls(backend_port, ssl.TLSVersion.TLSv1_3)


@contextmanager
def tls_1_2(backend_port: int) -> Iterator[Ends]:
    """The same with TLS 1.2."""
    yield from _with_tls(backend_port, ssl.TLSVersion.TLSv1_2)


@contextmanager
def tls_to_backend(backend_port: int) -> Iterator[Ends]:
    """The same with TLS towards the backend alone."""
    yield from _with_tls(backend_port, to_backend=True)


@contextmanager
def tls_on_both_sides(backend_port: int) -> Iterator[Ends]:
    """The same with TLS towards both."""
    yield from _with_tls(backend_port, ssl.TLSVersion.TLSv1_3, to_backend=True)


RELAYS: list[Callable[[int], AbstractContextManager[Ends]]] = [
    copy_relay,
    splice_relay,
    auto_relay,
    kernel_relay,
    chatty_kernel_relay,
    tls_1_3,
    tls_1_2,
    tls_to_backend,
    tls_on_both_sides,
]


class Rig:
    """A proxy between clients and a backend, both played by the test."""

    def __init__(self, ends: Ends, backend: Backends, at_end: ExitStack) -> None:
        self._ends = ends
        self._backend = backend
        self._at_end = at_end

    def connect(self, receive_bytes: int | None = None) -> socket.socket:
        return self._at_end.enter_context(self._ends.connect(receive_bytes))

    def accept(self) -> socket.socket:
        return self._at_end.enter_context(self._ends.serve(self._backend.accept()))

    def pair(self, receive_bytes: int | None = None) -> tuple[socket.socket, socket.socket]:
        """A client and what the backend has of it."""
        client = self.connect(receive_bytes)
        backend = self.accept()
        if self._ends.talk:
            for sender, receiver in ((client, backend), (backend, client)) * 2:
                sender.sendall(b"!")
                read_exactly(receiver, 1)
        return client, backend


@pytest.fixture(params=RELAYS, ids=lambda relay: relay.__name__)
def rig(request: pytest.FixtureRequest, backend: Backends) -> Iterator[Rig]:
    with request.param(backend.port) as ends, ExitStack() as at_end:
        yield Rig(ends, backend, at_end)


def digest(data: bytes) -> str:
    return hashlib.blake2b(data).hexdigest()


def send_until_stuck(sock: socket.socket) -> int:
    """Send until nothing has been taken for a while; return how much was."""
    sock.setblocking(False)
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    sent = 0
    while poll.poll(200):
        try:
            sent += sock.send(bytes(1 << 16))
        except BlockingIOError:
            continue
    sock.settimeout(TIMEOUT_S)
    return sent


def send_all(sock: socket.socket, data: bytes) -> None:
    """Send ``data`` and close."""
    sock.sendall(data)
    sock.close()


def unacknowledged_bytes(sock: socket.socket) -> int:
    """What the kernel at the other end has not got yet of what was sent, an end of the stream included."""
    (count,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
    return int(count)


# ---- bytes ---------------------------------------------------------------------------------------


@pytest.mark.feature("relay.copy")
def test_bytes_go_both_ways(rig: Rig) -> None:
    client, backend = rig.pair()
    client.sendall(b"question")
    assert read_exactly(backend, 8) == b"question"
    backend.sendall(b"answer")
    assert read_exactly(client, 6) == b"answer"


def test_bytes_sent_before_the_backend_takes_the_connection_arrive(rig: Rig) -> None:
    client = rig.connect()
    client.sendall(b"early bird")
    assert read_exactly(rig.accept(), 10) == b"early bird"


def test_bytes_and_end_sent_before_the_backend_takes_the_connection_arrive(rig: Rig) -> None:
    client = rig.connect()
    client.sendall(b"early bird")
    client.shutdown(socket.SHUT_WR)
    backend = rig.accept()
    assert read_to_end(backend) == b"early bird"
    backend.sendall(b"worm")
    backend.close()
    assert read_to_end(client) == b"worm"


def test_single_bytes_arrive_in_order(rig: Rig) -> None:
    client, backend = rig.pair()
    sent = bytes(number % 251 for number in range(2_000))

    def echo() -> None:
        for _ in sent:
            backend.sendall(backend.recv(1))

    with in_background(echo):
        for at in range(len(sent)):
            client.sendall(sent[at : at + 1])
        assert read_exactly(client, len(sent)) == sent


def test_full_duplex_keeps_both_streams_whole(rig: Rig, rng: Random) -> None:
    client, backend = rig.pair()
    upload, download = rng.randbytes(6 * MIB), rng.randbytes(6 * MIB)

    def send(sock: socket.socket, data: bytes, chunks: Random) -> None:
        at = 0
        while at < len(data):
            size = chunks.choice([1, 100, 4_096, 70_000, 1 << 20])
            sock.sendall(data[at : at + size])
            at += size
        sock.shutdown(socket.SHUT_WR)

    received: dict[str, bytes] = {}

    def receive_upload() -> None:
        received["upload"] = read_to_end(backend)

    with (
        in_background(lambda: send(client, upload, Random(rng.random()))),
        in_background(lambda: send(backend, download, Random(rng.random()))),
        in_background(receive_upload),
    ):
        received["download"] = read_to_end(client)
    assert digest(received["upload"]) == digest(upload)
    assert digest(received["download"]) == digest(download)


def test_what_follows_an_urgent_byte_is_not_held_up(rig: Rig) -> None:
    """A read stops short of an urgent byte, although more waits behind it."""
    client, backend = rig.pair()
    client.sendall(b"before")
    assert read_exactly(backend, 6) == b"before"
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    client.send(b"now!", socket.MSG_OOB)
    client.sendall(b"after")
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
    received = b""
    while not received.endswith(b"after"):
        received += backend.recv(100)
    assert received in (b"nowafter", b"now!after")


def test_a_hundred_connections_at_once_are_kept_apart(rig: Rig, backend: Backends, rng: Random) -> None:
    with echo_server(backend.listener, rig.accept):
        clients = [rig.connect() for _ in range(100)]
        messages = [rng.randbytes(rng.randrange(1, 40_000)) for _ in clients]
        for client, message in zip(clients, messages, strict=True):
            client.sendall(message)
            client.shutdown(socket.SHUT_WR)
        answers = [read_to_end(client) for client in clients]
    assert [digest(answer) for answer in answers] == [digest(message) for message in messages]


@contextmanager
def echo_server(listener: socket.socket, accept: Callable[[], socket.socket]) -> Iterator[None]:
    """Send back whatever comes, on any number of connections that ``accept`` takes from ``listener``."""
    stop = threading.Event()

    def serve() -> None:
        unsent: dict[socket.socket, bytearray] = {}
        ended: set[socket.socket] = set()
        with selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            while not stop.is_set() or unsent:
                for key, events in selector.select(0.05):
                    sock = key.fileobj
                    assert isinstance(sock, socket.socket)
                    if sock is listener:
                        connection = accept()
                        connection.setblocking(False)
                        unsent[connection] = bytearray()
                        selector.register(connection, selectors.EVENT_READ)
                        continue
                    if events & selectors.EVENT_READ:
                        with suppress(BlockingIOError):
                            while data := sock.recv(1 << 16):
                                unsent[sock] += data
                            ended.add(sock)
                    if unsent[sock]:
                        with suppress(BlockingIOError):
                            del unsent[sock][: sock.send(unsent[sock])]
                    if unsent[sock]:
                        read = 0 if sock in ended else selectors.EVENT_READ
                        selector.modify(sock, read | selectors.EVENT_WRITE)
                    elif sock in ended:
                        selector.unregister(sock)
                        del unsent[sock]
                        sock.settimeout(TIMEOUT_S)
                        sock.sendall(b"")  # what a TLS connection has kept back
                        sock.close()
                    else:
                        selector.modify(sock, selectors.EVENT_READ)

    with in_background(serve):
        try:
            yield
        finally:
            stop.set()


# ---- ends ----------------------------------------------------------------------------------------


def test_a_client_that_has_sent_all_still_receives(rig: Rig, rng: Random) -> None:
    client, backend = rig.pair()
    answer = rng.randbytes(MIB)
    client.sendall(b"question")
    client.shutdown(socket.SHUT_WR)
    assert read_to_end(backend) == b"question"
    with in_background(lambda: send_all(backend, answer)):
        assert read_to_end(client) == answer


def test_a_backend_that_has_sent_all_still_receives(rig: Rig, rng: Random) -> None:
    client, backend = rig.pair()
    upload = rng.randbytes(MIB)
    backend.sendall(b"greeting")
    backend.shutdown(socket.SHUT_WR)
    assert read_to_end(client) == b"greeting"
    with in_background(lambda: send_all(client, upload)):
        assert read_to_end(backend) == upload


def test_a_banner_arrives_before_the_end(rig: Rig) -> None:
    client, backend = rig.pair()
    backend.sendall(b"busy, come back later\n")
    backend.close()
    assert read_to_end(client) == b"busy, come back later\n"


def test_a_client_that_says_nothing_and_leaves_is_an_end_for_the_backend(rig: Rig) -> None:
    client, backend = rig.pair()
    client.close()
    assert read_to_end(backend) == b""


def test_a_close_with_full_buffers_loses_nothing(rig: Rig, rng: Random) -> None:
    answer = rng.randbytes(8 * MIB)
    client, backend = rig.pair(receive_bytes=16 << 10)
    with in_background(lambda: send_all(backend, answer)):
        received = bytearray()
        while data := client.recv(rng.randrange(1, 16 << 10)):
            received += data
    assert digest(bytes(received)) == digest(answer)


# ---- back-pressure -------------------------------------------------------------------------------


def largest_buffer(direction: str) -> int:
    """Up to which size, in bytes, the kernel lets a socket's buffer of its own accord grow."""
    return int(Path(f"/proc/sys/net/ipv4/tcp_{direction}mem").read_text().split()[2])


HELD_BY_THE_KERNEL = 2 * (largest_buffer("r") + largest_buffer("w"))
"""On the way through two connections."""
HELD_BY_THE_RELAY = 2 * MIB
"""A pipe or a buffer, and what TLS has not written yet."""


@pytest.mark.feature("relay.copy")
def test_a_reader_that_pauses_stops_the_writer_and_loses_nothing(rig: Rig) -> None:
    client, backend = rig.pair()
    taken = send_until_stuck(backend)
    assert 0 < taken < HELD_BY_THE_KERNEL + HELD_BY_THE_RELAY
    backend.close()
    assert len(read_to_end(client)) == taken


def test_a_backend_that_pauses_stops_the_client_and_loses_nothing(rig: Rig) -> None:
    client, backend = rig.pair()
    taken = send_until_stuck(client)
    assert 0 < taken < HELD_BY_THE_KERNEL + HELD_BY_THE_RELAY
    client.shutdown(socket.SHUT_WR)
    assert len(read_to_end(backend)) == taken


def test_a_stuck_direction_does_not_hold_up_the_other(rig: Rig) -> None:
    client, backend = rig.pair()
    send_until_stuck(backend)
    for number in range(50):
        client.sendall(bytes([number]))
        assert read_exactly(backend, 1) == bytes([number])


def test_a_flood_leaves_others_their_turn(rig: Rig) -> None:
    flooded, flooding = rig.pair()
    client, backend = rig.pair()
    enough = threading.Event()

    def flood() -> None:
        while not enough.is_set():
            flooding.sendall(bytes(MIB))
        flooding.close()

    with in_background(flood), in_background(lambda: read_to_end(flooded)):
        try:
            for number in range(30):
                client.sendall(bytes([number]))
                backend.sendall(read_exactly(backend, 1))
                assert read_exactly(client, 1) == bytes([number])
        finally:
            enough.set()


# ---- resets --------------------------------------------------------------------------------------


def test_a_reset_by_the_client_reaches_the_backend(rig: Rig) -> None:
    client, backend = rig.pair()
    reset(client)
    assert is_reset(backend)


def test_a_reset_by_the_backend_reaches_the_client(rig: Rig) -> None:
    client, backend = rig.pair()
    reset(backend)
    assert is_reset(client)


def test_a_reset_after_traffic_is_no_orderly_end(rig: Rig) -> None:
    client, backend = rig.pair()
    for _ in range(3):
        client.sendall(b"question")
        read_exactly(backend, 8)
        backend.sendall(b"answer")
        read_exactly(client, 6)
    reset(backend)
    assert is_reset(client)


def test_bytes_sent_before_a_reset_are_delivered(rig: Rig, rng: Random) -> None:
    client, backend = rig.pair()
    answer = rng.randbytes(16 << 10)
    client.sendall(b"?")
    read_exactly(backend, 1)
    backend.sendall(answer)
    reset(backend)
    assert read_exactly(client, len(answer)) == answer
    assert is_reset(client)


def test_bytes_sent_before_a_reset_are_delivered_to_a_client_that_uploads(rig: Rig) -> None:
    """A server that refuses a large upload: it answers and closes, which its kernel turns into a reset."""
    client, backend = rig.pair()
    send_until_stuck(client)
    backend.sendall(b"too large")
    backend.close()
    assert read_exactly(client, 9) == b"too large"
    wait_for_reset(client)


@pytest.mark.parametrize("first", ["client", "backend"])
def test_a_reset_after_an_end_reaches_the_other_side(rig: Rig, first: str) -> None:
    client, backend = rig.pair()
    ending, other = (client, backend) if first == "client" else (backend, client)
    ending.shutdown(socket.SHUT_WR)
    assert read_to_end(other) == b""
    reset(ending)
    wait_for_reset(other)


@pytest.mark.parametrize("first", ["client", "backend"])
def test_a_reset_of_the_side_that_still_sends_reaches_the_other(rig: Rig, first: str) -> None:
    client, backend = rig.pair()
    ending, other = (client, backend) if first == "client" else (backend, client)
    ending.shutdown(socket.SHUT_WR)
    assert read_to_end(other) == b""
    reset(other)
    assert is_reset(ending)


def test_an_end_and_a_reset_behind_it_arrive_as_a_reset(rig: Rig) -> None:
    """Both reach the proxy while it waits for the backend to read; the end must not hide the reset."""
    client, backend = rig.pair()
    send_until_stuck(client)
    client.shutdown(socket.SHUT_WR)
    while unacknowledged_bytes(client):
        backend.recv(1 << 16)
    reset(client)
    if not is_reset(backend):
        wait_for_reset(backend)  # the end may have gone on before the reset came


def test_a_reset_frees_a_peer_that_is_stuck_both_ways(rig: Rig) -> None:
    """The backend reads nothing before it has written all; its client is gone in the meantime."""
    client, backend = rig.pair()
    send_until_stuck(client)
    send_until_stuck(backend)
    reset(client)
    backend.sendall(bytes(8 * MIB))
    assert is_reset(backend)


def test_a_client_that_closes_while_it_is_sent_to_resets_the_backend(rig: Rig) -> None:
    client, backend = rig.pair()
    backend.sendall(b"unread")
    read_exactly(client, 6)
    client.close()
    assert read_to_end(backend) == b""
    with pytest.raises(OSError, match=r"reset|pipe"):  # noqa: PT012
        while True:
            backend.sendall(bytes(1 << 16))
