"""Sockets that the service manager listens on for this process: the protocol of ``sd_listen_fds(3)``.

Descriptors from 3 on, ``LISTEN_FDS`` of them, meant for the process ``LISTEN_PID``, with names in
``LISTEN_FDNAMES`` that the unit gives them (``FileDescriptorName=``).
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from typing import Final

from edgeproxy.config import Address
from edgeproxy.errors import ListenError

NAMES: Final = frozenset({"main", "tls"})
"""Of the listeners that have one: those of ``EDGEPROXY_LISTEN_ADDR`` and ``EDGEPROXY_TLS_LISTEN_ADDR``."""
_FIRST_FD: Final = 3


class ActivatedSockets:
    """What was passed, each socket for the listener that it belongs to."""

    def __init__(self, environ: MutableMapping[str, str], first_fd: int = _FIRST_FD) -> None:
        """The variables are removed: they are for this process alone.

        Raises:
            ListenError: something that was passed is no socket on which TCP clients can be accepted.
        """
        count, names, pid = (environ.pop(f"LISTEN_{what}", "") for what in ("FDS", "FDNAMES", "PID"))
        self._sockets: list[tuple[str, socket.socket]] = []
        if pid != str(os.getpid()) or not count.isdigit():
            return
        named = names.split(":")
        try:
            for number in range(int(count)):
                name = named[number] if number < len(named) else ""
                sock = _listening(first_fd + number, name)  # feature: process.activation
                self._sockets.append((name, sock))
        except ListenError:
            self._close()
            raise

    def take(self, name: str, address: Address) -> list[socket.socket]:
        """Those that are called ``name``, wherever they listen, and those that listen on ``address`` and are
        not called like another listener."""
        taken = [
            (called, sock)
            for called, sock in self._sockets
            if (called == name if called in NAMES else sock.getsockname()[:2] == address)
        ]
        self._sockets = [each for each in self._sockets if each not in taken]
        return [sock for _, sock in taken]

    def refuse_rest(self) -> None:
        """Make sure that all were taken: in one that was not, clients would wait for ever.

        Raises:
            ListenError: naming each that was not.
        """
        if self._sockets:
            rest = ", ".join(f"{_where(sock)} ({_called(name)})" for name, sock in self._sockets)
            self._close()
            raise ListenError(
                f"the service manager listens on {rest}, where no listener is configured; name the socket "
                "main or tls (FileDescriptorName=), set EDGEPROXY_LISTEN_ADDR to its address, or add "
                "[[listeners]] with it to the TOML file"
            )

    def _close(self) -> None:
        for _, sock in self._sockets:
            sock.close()


def _listening(fd: int, name: str) -> socket.socket:
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        raise ListenError(
            f"the service manager passes a descriptor that is no socket: {fd} ({_called(name)})"
        ) from error
    is_tcp = sock.family in {socket.AF_INET, socket.AF_INET6} and sock.type == socket.SOCK_STREAM
    if not is_tcp or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.close()
        raise ListenError(
            f"the service manager passes a socket that TCP clients cannot be accepted on: descriptor {fd} "
            f"({_called(name)}); use ListenStream= with a port, and no Accept=yes"
        )
    sock.set_inheritable(False)
    return sock


def _where(sock: socket.socket) -> str:
    return str(Address(*sock.getsockname()[:2]))


def _called(name: str) -> str:
    return f"called {name!r}" if name else "without a name"
