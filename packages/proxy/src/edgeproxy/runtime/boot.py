"""Starting a worker process. Apart from what is done with one that runs, which takes asyncio."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Sequence
from typing import NamedTuple

from edgeproxy.errors import EdgeproxyError


class Booted(NamedTuple):
    """A process on its way to become a worker, and our end of the channel to it."""

    process: subprocess.Popen[bytes]
    channel: socket.socket

    def kill(self) -> None:
        """End the process, and wait until it has ended."""
        self.process.kill()
        self.process.wait()
        self.channel.close()


def boot_all(
    program: Sequence[str], listeners: Sequence[Sequence[socket.socket]], segment_fd: int
) -> list[Booted]:
    """Start ``program`` once for each place, with the place's ``listeners``.

    Raises:
        EdgeproxyError: the operating system refuses; no process is left behind.
    """
    booted: list[Booted] = []
    try:
        for each in listeners:
            booted.append(boot(program, each, segment_fd))  # noqa: PERF401 - some may stand when one fails
    except OSError as error:
        for started in booted:
            started.kill()
        raise EdgeproxyError(f"cannot start a worker process: {error.strerror}") from error
    return booted


def boot(program: Sequence[str], listeners: Sequence[socket.socket], segment_fd: int) -> Booted:
    """Start ``program`` with the descriptors of its channel, the segment and its listeners as arguments.

    A new interpreter, never a fork: this process may have threads and a running loop.

    Raises:
        OSError: the operating system refuses another process or descriptor.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        fds = [theirs.fileno(), segment_fd, *(listener.fileno() for listener in listeners)]
        try:
            process = subprocess.Popen([*program, *map(str, fds)], pass_fds=fds, stdin=subprocess.DEVNULL)
        except OSError:
            ours.close()
            raise
    return Booted(process, ours)
