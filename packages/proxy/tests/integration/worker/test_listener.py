"""Accepting, also without descriptors: who is turned away, who is counted, who gets in after."""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest

from edgeproxy.worker import listener as listener_module
from edgeproxy.worker.listener import Listener
from edgeproxy.worker.loop import LEVEL_READ, Loop
from packages.proxy.tests.integration.worker.workers import bound_listener, connected, is_reset


class Door:
    """A listener, and who came in."""

    def __init__(self, sock: socket.socket) -> None:
        self.loop = Loop()
        self.address = sock.getsockname()[:2]
        self.guests: list[tuple[socket.socket, str]] = []
        self.shed = 0
        self.listener = Listener(sock, self.loop, self._enter, self._turn_away)

    def _enter(self, sock: socket.socket, address: str) -> None:
        self.guests.append((sock, address))

    def _turn_away(self) -> None:
        self.shed += 1

    def close(self) -> None:
        for sock, _ in self.guests:
            sock.close()
        self.listener.close()
        self.loop._close_doomed()
        self.loop._epoll.close()


@pytest.fixture
def door() -> Iterator[Door]:
    sock = bound_listener()
    with closing(Door(sock)) as door:
        yield door


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Let this process open only so many descriptors more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
    fillers: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + count, hard))
    try:
        with suppress(OSError):
            while True:
                fillers.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(count):
            os.close(fillers.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for filler in fillers:
            os.close(filler)


def test_clients_come_in_with_their_address(door: Door) -> None:
    with connected(door.address) as one, connected(door.address):
        door.listener.ready(LEVEL_READ)
        assert [address for _, address in door.guests] == ["127.0.0.1", "127.0.0.1"]
        door.guests[0][0].send(b"welcome")
        assert one.recv(100) == b"welcome"
    assert door.shed == 0


def test_a_turn_takes_only_so_many(door: Door) -> None:
    with ExitStack() as at_end:
        for _ in range(listener_module._ACCEPTS_PER_TURN + 6):
            at_end.enter_context(connected(door.address))
        door.listener.ready(LEVEL_READ)
        assert len(door.guests) == listener_module._ACCEPTS_PER_TURN
        door.listener.ready(LEVEL_READ)
        assert len(door.guests) == listener_module._ACCEPTS_PER_TURN + 6


def test_closing_takes_in_who_waits(door: Door) -> None:
    with connected(door.address), connected(door.address), connected(door.address):
        door.listener.close()
        assert len(door.guests) == 3
    sock = bound_listener()
    door.listener = Listener(sock, door.loop, door._enter, door._turn_away)


def test_closing_asks_no_more_when_nobody_waits(door: Door) -> None:
    nobody = BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
    real = door.listener._sock
    failures: list[OSError] = [nobody, nobody]
    door.listener._sock = FlakySocket(real, failures)  # type: ignore[assignment]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(door.loop, "close_shared", lambda _sock: None)
        door.listener.close()
    assert failures == [nobody]
    door.listener._sock = real


def test_who_closes_does_not_wait_for_those_who_go_on_to_come(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "_LAST_ACCEPTS", 2)
    with connected(door.address), connected(door.address), connected(door.address):
        door.listener.close()
        assert len(door.guests) == 2
    sock = bound_listener()
    door.listener = Listener(sock, door.loop, door._enter, door._turn_away)


def test_without_descriptors_clients_are_reset_and_counted(door: Door) -> None:
    clients = [connected(door.address) for _ in range(5)]
    with descriptors_left(2):
        door.listener.ready(LEVEL_READ)
    assert len(door.guests) == 2
    assert door.shed == 3
    assert [is_reset(client) for client in clients[2:]] == [True, True, True]
    for client in clients:
        client.close()
    with connected(door.address):
        door.listener.ready(LEVEL_READ)
        assert len(door.guests) == 3


def test_at_the_limit_nobody_is_counted_who_was_not_there(door: Door) -> None:
    """Without a descriptor, accept fails although nobody waits."""
    with descriptors_left(0):
        door.listener.ready(LEVEL_READ)
    assert door.shed == 0
    with connected(door.address):
        door.listener.ready(LEVEL_READ)
    assert len(door.guests) == 1


def test_a_spare_descriptor_that_was_lost_is_taken_back_when_there_is_one(door: Door) -> None:
    assert door.listener._spare is not None
    os.close(door.listener._spare)
    door.listener._spare = None
    with connected(door.address) as client:
        with descriptors_left(0):
            door.listener.ready(LEVEL_READ)
            assert (door.shed, door.guests) == (0, [])
        door.listener._spare = None
        door.listener.ready(LEVEL_READ)
        assert len(door.guests) == 1
        del client


def test_a_listener_without_a_spare_descriptor_can_be_closed() -> None:
    sock = bound_listener()
    door = Door(sock)
    assert door.listener._spare is not None
    os.close(door.listener._spare)
    door.listener._spare = None
    door.close()


class FlakySocket:
    """A listening socket whose first accepts fail."""

    def __init__(self, sock: socket.socket, failures: list[OSError]) -> None:
        self._sock = sock
        self._failures = failures

    def _accept(self) -> tuple[int, tuple[str, int]]:
        if self._failures:
            raise self._failures.pop(0)
        sock, address = self._sock.accept()
        return sock.detach(), address


def test_a_client_that_is_gone_before_it_is_taken_in_holds_up_nobody(door: Door) -> None:
    aborted = OSError(errno.ECONNABORTED, "Software caused connection abort")
    real = door.listener._sock
    door.listener._sock = FlakySocket(real, [aborted])  # type: ignore[assignment]
    with connected(door.address):
        door.listener.ready(LEVEL_READ)
        assert len(door.guests) == 1
    door.listener._sock = real
