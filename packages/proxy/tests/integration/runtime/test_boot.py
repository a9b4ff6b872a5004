"""Processes that boot, and an operating system that refuses some."""

from __future__ import annotations

import errno
import signal
import socket
import sys
from collections.abc import Iterator, Sequence

import pytest

from edgeproxy.errors import EdgeproxyError
from edgeproxy.runtime import boot as module
from edgeproxy.runtime.boot import Booted, boot, boot_all

PROGRAM = (sys.executable, "-S", "-c", "import socket, sys; socket.socket(fileno=int(sys.argv[1])).recv(1)")
"""Ends when its channel does."""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def test_a_process_is_given_its_channel_and_ends_with_it(listener: socket.socket) -> None:
    (booted,) = boot_all(PROGRAM, [[listener]], listener.fileno())
    booted.channel.close()
    assert booted.process.wait(20) == 0


def test_a_process_that_is_killed_has_ended(listener: socket.socket) -> None:
    booted = boot(PROGRAM, [listener], listener.fileno())
    booted.kill()
    assert booted.process.returncode == -signal.SIGKILL
    assert booted.channel.fileno() == -1


def test_a_system_that_refuses_a_process_leaves_none_behind(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Booted] = []

    def only_one(program: Sequence[str], listeners: Sequence[socket.socket], segment_fd: int) -> Booted:
        if started:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        started.append(boot(program, listeners, segment_fd))
        return started[0]

    monkeypatch.setattr(module, "boot", only_one)
    with pytest.raises(EdgeproxyError, match="cannot start a worker process: Resource temporarily"):
        boot_all(PROGRAM, [[listener]] * 2, listener.fileno())
    assert started[0].process.returncode == -signal.SIGKILL


def test_a_program_that_is_not_there_is_an_error(listener: socket.socket) -> None:
    with pytest.raises(EdgeproxyError, match="cannot start a worker process: No such file"):
        boot_all(("/no/such/program",), [[listener]], listener.fileno())
