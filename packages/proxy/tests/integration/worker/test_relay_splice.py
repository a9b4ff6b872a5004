"""When the relay splices, and what becomes of its pipes; that bytes arrive is in test_relay."""

from __future__ import annotations

import socket
from hashlib import blake2b
from random import Random

import pytest
from msgspec.structs import replace

from edgeproxy.core.wire.frames import RelayMode
from edgeproxy.worker import pipes
from edgeproxy.worker.pipes import Pipe
from edgeproxy.worker.relay_copy import UNKNOWN, Side
from edgeproxy.worker.relay_splice import SpliceRelay
from packages.proxy.tests.integration.worker.conftest import StartPlane
from packages.proxy.tests.integration.worker.workers import (
    TIMEOUT_S,
    Backends,
    ThreadedPlane,
    in_background,
    is_reset,
    read_exactly,
    read_to_end,
    reset,
    row,
    start_frame,
)
from testkit.wait import wait_until

KIB = 1 << 10
MIB = 1 << 20


def relay_of(plane: ThreadedPlane) -> SpliceRelay:
    assert isinstance(plane.plane.relay, SpliceRelay)
    return plane.plane.relay


def spliced_bytes(plane: ThreadedPlane) -> int:
    """Asked in the loop's thread: bytes arrive before they are counted."""
    return plane.call(lambda: relay_of(plane).spliced_bytes)


def pair(plane: ThreadedPlane, backend: Backends) -> tuple[socket.socket, socket.socket]:
    client = plane.connect()
    return client, backend.accept()


@pytest.fixture
def spliced(start_plane: StartPlane, backend: Backends) -> ThreadedPlane:
    """A plane that splices whatever follows the first bytes."""
    return start_plane(row("b", backend.port), settings=replace(start_frame(), relay=RelayMode.SPLICE))


@pytest.fixture
def auto(start_plane: StartPlane, backend: Backends) -> ThreadedPlane:
    """A plane that decides by itself."""
    return start_plane(row("b", backend.port), settings=replace(start_frame(), relay=RelayMode.AUTO))


def exchange(sender: socket.socket, receiver: socket.socket, size: int) -> None:
    with in_background(lambda: sender.sendall(bytes(size))):
        read_exactly(receiver, size)


@pytest.mark.feature("relay.splice")
def test_the_first_bytes_are_copied_and_what_follows_is_spliced(
    spliced: ThreadedPlane, backend: Backends
) -> None:
    client, served = pair(spliced, backend)
    with client, served:
        exchange(client, served, 5)
        assert spliced_bytes(spliced) == 0
        exchange(client, served, 7)
        assert spliced_bytes(spliced) == 7
        exchange(served, client, 3)
        assert spliced_bytes(spliced) == 7, "each direction goes over by itself"


def test_a_direction_goes_over_when_it_has_moved_much(auto: ThreadedPlane, backend: Backends) -> None:
    client, served = pair(auto, backend)
    with client, served:
        exchange(client, served, 200 * KIB)
        assert spliced_bytes(auto) == 0
        exchange(client, served, 32 * MIB)
        assert spliced_bytes(auto) > 16 * MIB
        exchange(served, client, 200 * KIB)


def test_a_trickle_is_copied_again(auto: ThreadedPlane, backend: Backends) -> None:
    client, served = pair(auto, backend)
    with client, served:
        exchange(client, served, 8 * MIB)
        for _ in range(3):  # the first may still be counted with what came before it
            exchange(client, served, 1)
            served.sendall(b"!")
            read_exactly(client, 1)
        before_bytes = spliced_bytes(auto)
        for _ in range(20):
            exchange(client, served, 100)
        assert spliced_bytes(auto) == before_bytes
        exchange(client, served, 8 * MIB)
        assert spliced_bytes(auto) > before_bytes


def test_a_pipe_goes_back_when_it_is_empty(spliced: ThreadedPlane, backend: Backends) -> None:
    pairs = [pair(spliced, backend) for _ in range(20)]
    for client, served in pairs:
        exchange(client, served, 1)
        exchange(client, served, MIB)
    in_use, idle = spliced.call(lambda: (relay_of(spliced).pipes.in_use, relay_of(spliced).pipes.idle))
    assert (in_use, idle) == (0, 1)
    for client, served in pairs:
        client.close()
        served.close()


def client_side(plane: ThreadedPlane) -> Side:
    """Of the only connection."""
    (connection,) = plane.plane._connections
    return connection._client


def fill(sender: socket.socket) -> int:
    """Send until the kernel has long taken no more; return how much it has taken."""
    sender.settimeout(0.2)
    sent = 0
    try:
        while True:
            sent += sender.send(bytes(64 * KIB))
    except TimeoutError:
        sender.settimeout(TIMEOUT_S)
        return sent


def stick(plane: ThreadedPlane, client: socket.socket, served: socket.socket) -> tuple[int, Pipe]:
    """Send the client, who does not read, too much; return how much, and the pipe that holds some of it.

    All of that waits already when the relay goes on, so that it is in a pipe that it comes to a halt.
    """
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)

    def prepare() -> int:
        client_side(plane).sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * KIB)
        return fill(served)

    sent = plane.call(prepare)
    wait_until(lambda: plane.call(lambda: client_side(plane).pipe) is not None, reason="a pipe holds bytes")
    pipe = plane.call(lambda: client_side(plane).pipe)
    assert pipe is not None
    return sent, pipe


def test_a_pipe_that_cannot_be_emptied_yet_waits_for_the_next_event(
    spliced: ThreadedPlane, backend: Backends
) -> None:
    client, served = pair(spliced, backend)
    with served:
        exchange(served, client, 1)
        _, pipe = stick(spliced, client, served)

        spliced.call(lambda: spliced.plane.relay.flush(client_side(spliced)))
        assert spliced.call(lambda: client_side(spliced).pipe) is pipe
        reset(client)
        assert is_reset(served)


def test_a_side_that_cannot_be_sent_to_ends_the_connection(spliced: ThreadedPlane, backend: Backends) -> None:
    client, served = pair(spliced, backend)
    exchange(served, client, 1)

    def send_to_one_that_was_reset() -> None:
        side = client_side(spliced)
        assert side.peer is not None
        served.sendall(b"too late")
        reset(client)
        spliced.plane.relay.pump(side.peer, UNKNOWN)

    spliced.call(send_to_one_that_was_reset)
    assert is_reset(served)
    served.close()
    (session,) = spliced.sessions(1)
    assert (session.reason, session.bytes_sent) == ("client_reset", 1)
    assert relay_of(spliced).pipes.in_use == 0


def test_a_reset_with_a_full_pipe_closes_it_and_counts_only_what_left_it(
    spliced: ThreadedPlane, backend: Backends
) -> None:
    client, served = pair(spliced, backend)
    exchange(served, client, 1)
    sent, pipe = stick(spliced, client, served)
    held_bytes = pipe.filled_bytes
    assert held_bytes > 0
    del pipe
    reset(client)
    assert is_reset(served)
    served.close()
    (session,) = spliced.sessions(1)
    assert 1 < session.bytes_sent <= 1 + sent - held_bytes
    wait_until(lambda: relay_of(spliced).pipes.in_use == 0, reason="the pipe is let go")
    assert relay_of(spliced).pipes.idle == 0


def test_bytes_are_counted_exactly_both_ways(auto: ThreadedPlane, backend: Backends, rng: Random) -> None:
    client, served = pair(auto, backend)
    up, down = rng.randrange(4 * MIB, 8 * MIB), rng.randrange(4 * MIB, 8 * MIB)
    with client, served, in_background(lambda: exchange(client, served, up)):
        exchange(served, client, down)
    (session,) = auto.sessions(1)
    assert (session.bytes_received, session.bytes_sent) == (up, down)


def test_without_pipes_everything_is_copied(
    spliced: ThreadedPlane, backend: Backends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipes, "_OPEN_LIMIT", 0)
    client, served = pair(spliced, backend)
    with client, served:
        exchange(client, served, 1)
        exchange(client, served, 4 * MIB)
    assert spliced_bytes(spliced) == 0


def test_a_flood_is_spliced_turn_by_turn(
    spliced: ThreadedPlane, backend: Backends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeproxy.worker.relay_splice._FILLS_PER_TURN", 1)
    client, served = pair(spliced, backend)
    with client, served:
        exchange(served, client, 1)
        exchange(served, client, 16 * MIB)
        assert spliced_bytes(spliced) > 8 * MIB
        assert spliced.call(lambda: relay_of(spliced).pipes.in_use) == 0


@pytest.mark.timeout(120)
def test_256_mib_for_a_slow_reader_arrive_whole_in_one_pipe(
    spliced: ThreadedPlane, backend: Backends, rng: Random
) -> None:
    block = rng.randbytes(MIB)
    client, served = pair(spliced, backend)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * KIB)
    sent, received = blake2b(), blake2b()

    def send() -> None:
        for number in range(256):
            data = number.to_bytes(4, "big") + block
            sent.update(data)
            served.sendall(data)
        served.close()

    most_in_use = 0
    with client, in_background(send):
        while data := client.recv(rng.randrange(1, 128 * KIB)):
            received.update(data)
            most_in_use = max(most_in_use, relay_of(spliced).pipes.in_use)
            assert relay_of(spliced)._kept_bytes <= 256 * KIB
    assert received.digest() == sent.digest()
    assert most_in_use == 1
    (session,) = spliced.sessions(1)
    assert session.bytes_sent == 256 * (MIB + 4)
    assert spliced_bytes(spliced) > 200 * MIB


def test_an_upload_to_a_backend_that_is_gone_ends_in_a_reset(
    spliced: ThreadedPlane, backend: Backends
) -> None:
    client, served = pair(spliced, backend)
    with client:
        exchange(client, served, 1)
        exchange(client, served, 1)
        served.sendall(b"sorry")
        served.close()
        assert read_to_end(client) == b"sorry"
        with pytest.raises(OSError, match=r"reset|pipe"):  # noqa: PT012
            while True:
                client.sendall(bytes(64 * KIB))
