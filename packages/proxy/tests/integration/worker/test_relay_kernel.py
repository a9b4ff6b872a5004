"""What the kernel relays, when it begins and ends to, and that nothing is lost on either way.

That it relays as any relay must is in ``test_relay.py``.
"""

from __future__ import annotations

import gc
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from itertools import count
from random import Random

import pytest
from msgspec.structs import replace

from edgeproxy.core.dataplane.lifetime import Lifetimes
from edgeproxy.core.dataplane.promotion import LARGEST_CREDIT_BYTES, Talk
from edgeproxy.core.wire.frames import KernelCounts, RelayMode
from edgeproxy.worker.kernel_program import Word
from edgeproxy.worker.relay_copy import Side
from edgeproxy.worker.relay_kernel import Flow, KernelRelay
from packages.proxy.tests.integration.worker.test_relay import PROMOTED
from packages.proxy.tests.integration.worker.workers import (
    TIMEOUT_S,
    Backends,
    ThreadedPlane,
    in_background,
    need_kernel_relay,
    read_exactly,
    read_to_end,
    reset,
    row,
    start_frame,
)
from testkit.wait import wait_until

pytestmark = pytest.mark.feature("relay.kernel")

TURNS = 8


@pytest.fixture(autouse=True)
def _kernel() -> None:
    need_kernel_relay()


@pytest.fixture
def plane(backend: Backends) -> Iterator[ThreadedPlane]:
    """Promotes after eight turns."""
    settings = replace(start_frame(), relay=RelayMode.KERNEL, promote_after_turns=TURNS)
    with closing(ThreadedPlane(row("b", backend.port), settings=settings)) as plane:
        yield plane


def pair_of(
    plane: ThreadedPlane, backend: Backends, at_end: ExitStack
) -> tuple[socket.socket, socket.socket]:
    client = at_end.enter_context(plane.connect())
    return client, at_end.enter_context(backend.accept())


def relay_of(plane: ThreadedPlane) -> KernelRelay:
    relay = plane.plane.relay
    assert isinstance(relay, KernelRelay)
    return relay


def counts(plane: ThreadedPlane) -> KernelCounts:
    return plane.call(relay_of(plane).kernel_counts)


def talk(client: socket.socket, backend: socket.socket, turns: int, message: bytes = b"hello") -> None:
    """Say ``message`` so often, each side in its turn, and wait for it to be heard."""
    for turn in range(turns):
        sender, receiver = (client, backend) if turn % 2 == 0 else (backend, client)
        sender.sendall(message)
        assert read_exactly(receiver, len(message)) == message


def send_until_stuck(sock: socket.socket) -> int:
    """Send until nothing has been taken for a while; return how much was."""
    sock.setblocking(False)
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    sent = 0
    while poll.poll(200):
        with suppress(BlockingIOError):
            sent += sock.send(bytes(1 << 16))
    sock.settimeout(TIMEOUT_S)
    return sent


def words(plane: ThreadedPlane, side: str, word: Word) -> int:
    """That word of the only connection for what ``client`` or ``backend`` sent; 0 before its promotion."""

    def read() -> int:
        (connection,) = plane.plane._connections
        sides: dict[str, Side | None] = {"client": connection._client, "backend": connection._backend}
        found = sides[side]
        return int(found.flow.words[word]) if found is not None and found.flow is not None else 0

    return plane.call(read)


def is_in_kernel(plane: ThreadedPlane, side: str) -> bool:
    """Whether the kernel may hand on what ``side`` sends."""
    return words(plane, side, Word.LIMIT) > 0


def talk_until_in_kernel(plane: ThreadedPlane, client: socket.socket, backend: socket.socket) -> None:
    """Talk until both directions are the kernel's; its credit can end early when the worker is late."""

    def is_so() -> bool:
        talk(client, backend, 2 * TURNS)
        return is_in_kernel(plane, "client") and is_in_kernel(plane, "backend")

    wait_until(is_so, reason="both directions to be the kernel's", interval_s=0)


# ---- promotion -----------------------------------------------------------------------------------


def test_a_connection_is_promoted_when_it_has_proved_chatty(
    plane: ThreadedPlane, backend: Backends, at_end: ExitStack
) -> None:
    client, server = pair_of(plane, backend, at_end)
    talk(client, server, TURNS - 1)
    assert counts(plane) == KernelCounts(0, 0)
    talk(server, client, 1)
    assert counts(plane) == KernelCounts(1, 1)


def test_what_is_said_after_it_does_not_visit_the_worker(
    plane: ThreadedPlane, backend: Backends, at_end: ExitStack
) -> None:
    client, server = pair_of(plane, backend, at_end)
    talk_until_in_kernel(plane, client, server)
    calls = count()
    ready = Side.ready

    def counted(side: Side, events: int) -> None:
        next(calls)
        ready(side, events)

    redirected = words(plane, "client", Word.REDIRECTED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Side, "ready", counted)
        talk(client, server, 40)
    assert next(calls) == 0
    assert words(plane, "client", Word.REDIRECTED) - redirected == 20 * 5


def test_who_only_listens_or_transfers_is_not_chatty(
    plane: ThreadedPlane, backend: Backends, at_end: ExitStack
) -> None:
    client, server = pair_of(plane, backend, at_end)
    for _ in range(2 * TURNS):  # one direction alone
        client.sendall(b"news")
        read_exactly(server, 4)
    for _ in range(TURNS):  # short questions, long answers
        client.sendall(b"more")
        read_exactly(server, 4)
        server.sendall(bytes(40_000))
        read_exactly(client, 40_000)
    assert counts(plane) == KernelCounts(0, 0)


def test_places_are_given_back_and_who_finds_none_is_relayed_as_ever(
    backend: Backends, at_end: ExitStack
) -> None:
    with closing(ThreadedPlane(row("b", backend.port), settings=PROMOTED)) as plane:
        free = plane.call(lambda: len(relay_of(plane).maps._free))
        pairs = [pair_of(plane, backend, at_end) for _ in range(free + 3)]
        for client, server in pairs:
            talk(client, server, 5)
        assert counts(plane).open == free
        for client, server in pairs:
            talk(client, server, 2, b"still here")
        for client, server in pairs:
            client.close()
            server.close()
        wait_until(lambda: counts(plane).open == 0, reason="all promoted connections are over")
        assert plane.call(lambda: len(relay_of(plane).maps._free)) == free
        client, server = pair_of(plane, backend, at_end)
        talk(client, server, 5)
        assert counts(plane) == KernelCounts(1, free + 1)


@pytest.mark.parametrize("proxy", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("server", ["127.0.0.1", "::1"])
def test_addresses_of_both_kinds_are_joined(proxy: str, server: str, at_end: ExitStack) -> None:
    with (
        closing(Backends(server)) as backend,
        closing(ThreadedPlane(row("b", backend.port, host=server), settings=PROMOTED, host=proxy)) as plane,
    ):
        client, accepted = pair_of(plane, backend, at_end)
        talk(client, accepted, 21)
        assert counts(plane).open == 1
        assert words(plane, "backend", Word.REDIRECTED) > 0
        client.sendall(b"last words")
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(accepted) == b"last words"


def test_memory_of_a_promoted_connection_goes_without_a_collector(
    plane: ThreadedPlane, backend: Backends, at_end: ExitStack
) -> None:
    """A worker has none."""

    def left() -> list[object]:
        return [each for each in gc.get_objects() if isinstance(each, (Flow, Side, Talk))]

    before = set(map(id, left()))  # of other tests
    gc.disable()
    try:
        for _ in range(3):
            client, server = pair_of(plane, backend, at_end)
            talk_until_in_kernel(plane, client, server)
            client.close()
            server.close()
        plane.sessions(3)
        wait_until(
            lambda: plane.call(lambda: [each for each in left() if id(each) not in before]) == [],
            reason="everything of them to be gone",
        )
    finally:
        gc.enable()


# ---- exactness -----------------------------------------------------------------------------------


def test_bytes_are_counted_as_if_the_worker_had_moved_them(
    plane: ThreadedPlane, backend: Backends, at_end: ExitStack
) -> None:
    client, server = pair_of(plane, backend, at_end)
    talk(client, server, TURNS)
    talk(client, server, 300, b"x" * 1_000)
    (connection,) = plane.plane._connections
    seen = plane.call(connection.describe)
    assert seen is not None
    assert (seen.bytes_received, seen.bytes_sent) == (150_020, 150_020)
    client.close()
    server.close()
    (session,) = plane.sessions(1)
    assert (session.bytes_received, session.bytes_sent) == (150_020, 150_020)
    assert session.reason == "complete"


def test_a_reset_has_its_reason_and_its_bytes(
    plane: ThreadedPlane, backend: Backends, at_end: ExitStack
) -> None:
    client, server = pair_of(plane, backend, at_end)
    talk(client, server, TURNS + 20)
    reset(server)
    (session,) = plane.sessions(1)
    assert session.reason == "backend_reset"
    assert (session.bytes_received, session.bytes_sent) == (70, 70)


def test_talk_in_the_kernel_is_no_silence_and_silence_is(backend: Backends, at_end: ExitStack) -> None:
    settings = replace(PROMOTED, lifetimes=Lifetimes(idle_s=0.4))
    with closing(ThreadedPlane(row("b", backend.port), settings=settings)) as plane:
        client, server = pair_of(plane, backend, at_end)
        talk(client, server, 5)
        started_s = plane.call(lambda: plane.loop.now_s)
        talks = 0
        while plane.call(lambda: plane.loop.now_s) < started_s + 1.0:
            talk(client, server, 2)
            talks += 1
        assert counts(plane).open == 1
        (session,) = plane.sessions(1)
        assert session.reason == "idle_timeout"
        assert session.bytes_received == 5 * (3 + talks)


# ---- credit --------------------------------------------------------------------------------------


def test_credit_is_renewed_for_as_long_as_it_is_a_talk(
    plane: ThreadedPlane, backend: Backends, at_end: ExitStack
) -> None:
    client, server = pair_of(plane, backend, at_end)
    talk_until_in_kernel(plane, client, server)
    talk(client, server, 3_000, b"y" * 900)
    assert words(plane, "client", Word.REDIRECTED) > 2 * LARGEST_CREDIT_BYTES
    talk_until_in_kernel(plane, client, server)


@pytest.mark.parametrize("sender", ["client", "backend"])
def test_a_flood_comes_back_to_the_worker_and_what_waits_is_bounded(
    plane: ThreadedPlane, backend: Backends, at_end: ExitStack, sender: str
) -> None:
    client, server = pair_of(plane, backend, at_end)
    talk_until_in_kernel(plane, client, server)
    sending, receiving = (client, server) if sender == "client" else (server, client)
    redirected = words(plane, sender, Word.REDIRECTED)
    taken = send_until_stuck(sending)
    assert not is_in_kernel(plane, sender)
    assert words(plane, sender, Word.PASSED) > 0
    sending.shutdown(socket.SHUT_WR)
    assert len(read_to_end(receiving)) == taken
    assert words(plane, sender, Word.REDIRECTED) - redirected < taken


def test_after_a_bulk_phase_a_talk_is_the_kernels_again(
    plane: ThreadedPlane, backend: Backends, at_end: ExitStack, rng: Random
) -> None:
    client, server = pair_of(plane, backend, at_end)
    for _ in range(3):
        talk_until_in_kernel(plane, client, server)
        taken = send_until_stuck(server)
        assert not is_in_kernel(plane, "backend")
        assert read_exactly(client, taken) == bytes(taken)
        burst = rng.randbytes(3 << 20)
        with in_background(lambda: client.sendall(burst)):  # noqa: B023
            assert read_exactly(server, len(burst)) == burst


def test_a_stuck_direction_leaves_the_other_to_the_kernel(
    plane: ThreadedPlane, backend: Backends, at_end: ExitStack
) -> None:
    client, server = pair_of(plane, backend, at_end)
    talk_until_in_kernel(plane, client, server)
    send_until_stuck(server)
    redirected = words(plane, "client", Word.REDIRECTED)
    for number in range(2_000):
        client.sendall(b"%8d" % number)
        assert read_exactly(server, 8) == b"%8d" % number
    assert words(plane, "client", Word.REDIRECTED) > redirected


def test_a_stuck_direction_does_not_hold_up_the_other_without_credit(
    plane: ThreadedPlane, backend: Backends, at_end: ExitStack
) -> None:
    """What the kernel has for a reader that is stuck must not be in the way of what that reader sends."""
    client, server = pair_of(plane, backend, at_end)
    talk_until_in_kernel(plane, client, server)
    send_until_stuck(server)
    taken = send_until_stuck(client)
    assert read_exactly(server, taken) == bytes(taken)
    client.sendall(b"and on")
    assert read_exactly(server, 6) == b"and on"


# ---- in the middle of traffic --------------------------------------------------------------------


class Conversation:
    """A client that has several messages under way at any time, and a backend that sends back what comes."""

    def __init__(self, client: socket.socket, backend: socket.socket, rng: Random) -> None:
        self._client, self._backend = client, backend
        sizes = [rng.choice([1, 20, 300, 2_000]) for _ in range(60)]
        self._messages = [rng.randbytes(size) for size in sizes]
        self._may_send = threading.Semaphore(rng.choice([1, 2, 8]))
        self._threads = [threading.Thread(target=work) for work in (self._write, self._echo, self._read)]
        self._received = b""
        for thread in self._threads:
            thread.start()

    def _write(self) -> None:
        for message in self._messages:
            self._may_send.acquire(timeout=TIMEOUT_S)
            self._client.sendall(message)
        self._client.shutdown(socket.SHUT_WR)

    def _echo(self) -> None:
        while data := self._backend.recv(1 << 16):
            self._backend.sendall(data)
        self._backend.close()

    def _read(self) -> None:
        for message in self._messages:
            self._received += read_exactly(self._client, len(message))
            self._may_send.release()
        self._received += read_to_end(self._client)

    def is_whole(self) -> bool:
        """Wait for the end; tell whether everything came back, once and in order."""
        for thread in self._threads:
            thread.join(TIMEOUT_S)
        return self._received == b"".join(self._messages)


def test_promotion_amid_traffic_loses_and_doubles_nothing(
    backend: Backends, at_end: ExitStack, rng: Random
) -> None:
    """Bytes come at every moment of it, both ways."""
    with closing(ThreadedPlane(row("b", backend.port), settings=PROMOTED)) as plane:
        for _ in range(10):
            conversations = [
                Conversation(*pair_of(plane, backend, at_end), Random(rng.random())) for _ in range(8)
            ]
            assert all(conversation.is_whole() for conversation in conversations)
        assert counts(plane).promotions > 40
