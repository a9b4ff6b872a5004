"""What a service manager does: it is told things on a real datagram socket, and passes sockets."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from testkit.wait import wait_until

Message = dict[str, str]


class ServiceManagerSocket:
    """Takes what ``NOTIFY_SOCKET`` is told: each message a mapping of names to values."""

    def __init__(self, address: str) -> None:
        """``address`` is a path, or begins with ``@`` for one in the abstract namespace."""
        self.address = address
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._sock.bind("\0" + address[1:] if address.startswith("@") else address)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.messages: list[tuple[int, Message]] = []
        """Each with the process that sent it."""

    @classmethod
    def in_folder(cls, folder: Path) -> Self:
        return cls(os.fspath(folder / "notify"))

    def receive(self) -> list[tuple[int, Message]]:
        """All that came so far."""
        while True:
            try:
                data, ancillary, _, _ = self._sock.recvmsg(4096, socket.CMSG_SPACE(12))
            except BlockingIOError:
                return self.messages
            pid = int.from_bytes(ancillary[0][2][:4], "little")
            lines = (line.partition("=") for line in data.decode().splitlines())
            self.messages.append((pid, {name: value for name, _, value in lines}))

    def wait_for(self, count: int = 1, **values: str) -> list[tuple[int, Message]]:
        """Wait for so many messages that hold these values; return them."""

        def found() -> list[tuple[int, Message]] | None:
            matching = [each for each in self.receive() if values.items() <= each[1].items()]
            return matching if len(matching) >= count else None

        return wait_until(found, reason=f"{count} messages with {values}", timeout_s=20)

    def close(self) -> None:
        self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_PASS = """
import fcntl, os, sys
descriptors, names, *command = sys.argv[1:]
apart = [fcntl.fcntl(int(each), fcntl.F_DUPFD, 100) for each in descriptors.split(",")]
for number, descriptor in enumerate(apart):
    os.dup2(descriptor, 3 + number)
os.environ.update(LISTEN_FDS=str(len(apart)), LISTEN_FDNAMES=names, LISTEN_PID=str(os.getpid()))
os.execv(command[0], command)
"""


def passing(sockets: Sequence[tuple[str, socket.socket]], command: Sequence[str]) -> list[str]:
    """A command that starts ``command`` with these sockets, each under a name, as systemd would; it must
    inherit their descriptors."""
    descriptors = ",".join(str(sock.fileno()) for _, sock in sockets)
    return [sys.executable, "-c", _PASS, descriptors, ":".join(name for name, _ in sockets), *command]
