"""Every relay holds testkit's contract of byte streams, and does besides what only TCP asks of it.

A relay takes part by a factory in ``RELAYS``: given a backend, it gives the ends of connections through a
proxy in front of it.
"""

from __future__ import annotations

import fcntl
import select
import socket
import ssl
import struct
import termios
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

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
    is_reset,
    need_kernel_relay,
    read_exactly,
    reset,
    row,
    start_frame,
    wait_for_reset,
)
from testkit.contracts.byte_stream import ByteStreamContract
from testkit.contracts.socket_ends import SMALL_BYTES, SocketEnd, SocketStreams
from testkit.pki import Pki

PROMOTED = replace(start_frame(), relay=RelayMode.KERNEL, promote_after_turns=2)
"""A connection is promoted once there was one word each way."""
_ESTABLISHED = 1

HELD_BY_THE_RELAY = 2 << 20
"""A pipe or a buffer, and what TLS has not written yet."""


def _bare_relay(backend: Backends, mode: RelayMode) -> Iterator[SocketStreams]:
    settings = replace(start_frame(), relay=mode)
    with (
        closing(ThreadedPlane(row("b", backend.port), settings=settings)) as plane,
        SocketStreams(
            lambda small: plane.connect(SMALL_BYTES if small else None),
            backend.listener,
            held_bytes=HELD_BY_THE_RELAY,
        ) as streams,
    ):
        yield streams


@contextmanager
def copy_relay(backend: Backends) -> Iterator[SocketStreams]:
    """The relay by recv and send."""
    yield from _bare_relay(backend, RelayMode.COPY)


@contextmanager
def splice_relay(backend: Backends) -> Iterator[SocketStreams]:
    """The relay by splice, as soon as anything was handed on."""
    yield from _bare_relay(backend, RelayMode.SPLICE)


@contextmanager
def auto_relay(backend: Backends) -> Iterator[SocketStreams]:
    """The relay that splices when there is much."""
    yield from _bare_relay(backend, RelayMode.AUTO)


@contextmanager
def kernel_relay(backend: Backends) -> Iterator[SocketStreams]:
    """The relay in the kernel, as soon as both sides have said something."""
    yield from _promoting_relay(backend, SocketStreams)


@contextmanager
def chatty_kernel_relay(backend: Backends) -> Iterator[SocketStreams]:
    """The same after a talk, so that what a test says comes to a connection that is promoted."""
    yield from _promoting_relay(backend, TalkedStreams)


class TalkedStreams(SocketStreams):
    """Has words go each way when both ends of a connection are there and nothing has been said before."""

    def __init__(
        self, connect: Callable[[bool], socket.socket], listener: socket.socket, *, held_bytes: int
    ) -> None:
        super().__init__(connect, listener, held_bytes=held_bytes)
        self._waiting: list[SocketEnd] = []

    async def connect(self, *, small: bool = False) -> SocketEnd:
        self._waiting.append(await super().connect(small=small))
        return self._waiting[-1]

    async def accept(self) -> SocketEnd:
        far = await super().accept()
        waiting, self._waiting = self._waiting, []
        if len(waiting) == 1 and not has_said_anything(waiting[0].sock):
            (near,) = waiting
            for sender, receiver in ((near, far), (far, near)) * 2:
                await sender.send(b"!")
                assert await receiver.receive(1) == b"!"
        return far


def has_said_anything(sock: socket.socket) -> bool:
    """Whether bytes, or the end of its stream, were sent on a connection."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 208)
    state, (sent_bytes,) = info[0], struct.unpack_from("=Q", info, 200)
    return state != _ESTABLISHED or sent_bytes > 0


def _promoting_relay(backend: Backends, kind: type[SocketStreams]) -> Iterator[SocketStreams]:
    need_kernel_relay()
    with (
        closing(ThreadedPlane(row("b", backend.port), settings=PROMOTED)) as plane,
        kind(
            lambda small: plane.connect(SMALL_BYTES if small else None),
            backend.listener,
            held_bytes=HELD_BY_THE_RELAY,
        ) as streams,
    ):
        yield streams


@cache
def _pki() -> Pki:
    return Pki()


def _with_tls(
    backend: Backends, version: ssl.TLSVersion | None = None, *, to_backend: bool = False
) -> Iterator[SocketStreams]:
    """TLS of ``version`` with clients, if one is given, and with the backend if asked for."""
    pki, settings = _pki(), start_frame()
    if version is not None:
        with TemporaryDirectory() as folder:
            settings = tls_frame(identity(pki, Path(folder), NAME))
    if to_backend:
        settings = backend_tls(settings, pki)
    clients, backends = pki.client(version=version), pki.server("127.0.0.1")
    with closing(ThreadedPlane(row("b", backend.port), settings=settings)) as plane:

        def connect(small: bool) -> socket.socket:
            sock = plane.connect(SMALL_BYTES if small else None)
            return sock if version is None else TlsClient(sock, clients)

        def serve(sock: socket.socket) -> socket.socket:
            return TlsServer(sock, backends) if to_backend else sock

        with SocketStreams(connect, backend.listener, serve=serve, held_bytes=HELD_BY_THE_RELAY) as streams:
            yield streams


@contextmanager
def tls_1_3(backend: Backends) -> Iterator[SocketStreams]:
    """The same with TLS 1.3 towards the client."""
    yield from _with_tls(backend, ssl.TLSVersion.TLSv1_3)


@contextmanager
def tls_1_2(backend: Backends) -> Iterator[SocketStreams]:
    """The same with TLS 1.2."""
    yield from _with_tls(backend, ssl.TLSVersion.TLSv1_2)


@contextmanager
def tls_to_backend(backend: Backends) -> Iterator[SocketStreams]:
    """The same with TLS towards the backend alone."""
    yield from _with_tls(backend, to_backend=True)


@contextmanager
def tls_on_both_sides(backend: Backends) -> Iterator[SocketStreams]:
    """The same with TLS towards both."""
    yield from _with_tls(backend, ssl.TLSVersion.TLSv1_3, to_backend=True)


RELAYS: list[Callable[[Backends], AbstractContextManager[SocketStreams]]] = [
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


@pytest.fixture(params=RELAYS, ids=lambda relay: relay.__name__)
def harness(request: pytest.FixtureRequest, backend: Backends) -> Iterator[SocketStreams]:
    with request.param(backend) as streams:
        yield streams


@pytest.mark.feature("relay.copy")
class TestWorkerRelays(ByteStreamContract):
    """One plane for each test: at its end no place of a connection may be left."""


# ---- what only TCP has -----------------------------------------------------------------------------------


Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
async def ends(harness: SocketStreams) -> Pair:
    """A client and what the backend has of it, as sockets that block."""
    near, far = await harness.connect(), await harness.accept()
    return near.sock, far.sock


def send_until_stuck(sock: socket.socket) -> None:
    """Send until nothing has been taken for a while."""
    sock.setblocking(False)
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    while poll.poll(200):
        try:
            sock.send(bytes(1 << 16))
        except BlockingIOError:
            continue
    sock.settimeout(TIMEOUT_S)


def unacknowledged_bytes(sock: socket.socket) -> int:
    """What the kernel at the other end has not got yet of what was sent, an end of the stream included."""
    (count,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
    return int(count)


def test_what_follows_an_urgent_byte_is_not_held_up(ends: Pair) -> None:
    """A read stops short of an urgent byte, although more waits behind it."""
    client, backend = ends
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


def test_an_end_and_a_reset_behind_it_arrive_as_a_reset(ends: Pair) -> None:
    """Both reach the proxy while it waits for the backend to read; the end must not hide the reset."""
    client, backend = ends
    send_until_stuck(client)
    client.shutdown(socket.SHUT_WR)
    while unacknowledged_bytes(client):
        backend.recv(1 << 16)
    reset(client)
    if not is_reset(backend):
        wait_for_reset(backend)  # the end may have gone on before the reset came


def test_a_reset_frees_a_peer_that_is_stuck_both_ways(ends: Pair) -> None:
    """The backend reads nothing before it has written all; its client is gone in the meantime."""
    client, backend = ends
    send_until_stuck(client)
    send_until_stuck(backend)
    reset(client)
    backend.sendall(bytes(8 << 20))
    assert is_reset(backend)
