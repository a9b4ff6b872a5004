"""Listening sockets: one per worker on the same port, owned by the control process.

The kernel spreads new connections over them. Because the control process keeps each open, a worker's
death loses none of the clients that wait to be accepted: its replacement finds them. So do the workers of
its successor, which gets the same sockets, whatever number of workers it has.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from edgeproxy.errors import ListenError

BACKLOG = 4096
_MARK = "edgeproxy/listener/"
_UNIX_SOCKETS = Path("/proc/net/unix")


class Listeners:
    """The sockets of one address, and the mark that says whose the address is."""

    def __init__(self, sockets: list[socket.socket], mark: socket.socket) -> None:
        self.sockets = sockets
        self._mark = mark
        host, self.port = sockets[0].getsockname()[:2]
        self.address = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What a successor gives to :func:`adopt_listeners`: the sockets', and last the mark's."""
        return tuple(sock.fileno() for sock in (*self.sockets, self._mark))

    def per_worker(self, workers: int) -> int:
        """How many of the sockets each of so many workers serves: clients wait in every one of them."""
        return -(-len(self.sockets) // workers)

    def share(self, place: int, workers: int) -> list[socket.socket]:
        """Those that the worker of ``place`` serves. Where they cannot be dealt out evenly, two workers
        serve the same one."""
        return [
            self.sockets[(place + turn * workers) % len(self.sockets)]
            for turn in range(self.per_worker(workers))
        ]

    def close(self) -> None:
        """Listen no more. Workers that still hold duplicates go on until they close theirs."""
        for sock in (*self.sockets, self._mark):
            sock.close()


def open_listeners(host: str, port: int, count: int) -> Listeners:
    """Bind and listen ``count`` times; with port 0 all share the port that the first one got.

    ``::`` also takes IPv4 clients.

    Raises:
        ListenError: the address is taken, not ours, not allowed or unknown.
    """
    opened: list[socket.socket] = []
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )[0]
        for _ in range(count):
            sock = _socket(family)
            opened.append(sock)
            sock.bind(address)
            address = sock.getsockname()
        sockets = list(opened)
        # Before the first of them listens: until then the port's owner keeps all its clients.
        mark = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        opened.append(mark)
        _claim(mark, str(address[0]), int(address[1]))
        for sock in sockets:
            sock.listen(BACKLOG)
    except OSError as error:
        for sock in opened:
            sock.close()
        raise ListenError(f"cannot listen on {host}:{port}: {_explained(error, port)}") from error
    return Listeners(sockets, mark)


def adopt_listeners(inherited: Sequence[socket.socket], count: int) -> Listeners:
    """Take over the sockets of a predecessor and its mark, which is the last of them.

    With fewer than ``count`` others are added, as far as the system allows: not to sockets that a service
    manager opened without sharing, nor to those that were opened by another user. Those that are too many
    are kept, since closing one would reset the clients that wait in it.
    """
    *sockets, mark = inherited
    with contextlib.suppress(OSError):
        while len(sockets) < count:
            sockets.append(_sharing(sockets[0]))
    return Listeners(sockets, mark)


def activated_listeners(sockets: Sequence[socket.socket]) -> Listeners:
    """Serve sockets of one address on which a service manager listens.

    None is added: it would end with this process, and with it the clients that wait in it.

    Raises:
        ListenError: another proxy has the address.
    """
    host, port = sockets[0].getsockname()[:2]
    mark = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _claim(mark, host, port)
    except OSError as error:
        mark.close()
        raise ListenError(f"cannot listen on {host}:{port}: {_explained(error, port)}") from error
    for sock in sockets:
        _send_at_once(sock)
    return Listeners(list(sockets), mark)


def _sharing(owned: socket.socket) -> socket.socket:
    """Another socket on the address of ``owned``.

    Raises:
        OSError: the system does not allow it.
    """
    sock = _socket(owned.family)
    try:
        sock.bind(owned.getsockname())
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _socket(family: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    _send_at_once(sock)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return sock


def _send_at_once(sock: socket.socket) -> None:
    # Accepted sockets inherit it, which saves a call on each.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _claim(mark: socket.socket, host: str, port: int) -> None:
    """Make ``mark`` say that the address is this process's, until it ends, however it ends.

    Sockets that share a port would let a second proxy silently take half of the first one's clients.
    A trial bind without sharing tells them apart from nothing: it would also fail while the workers of
    a control process that died still serve, which is just when a successor must be able to start. An
    abstract Unix socket has the scope of the port, the network namespace, and goes with its process.

    Raises:
        OSError: ``EADDRINUSE``, a proxy has this address, or one that overlaps with it.
    """
    mark.bind(f"\0{_MARK}{port}/{host}")
    for other in _claimed_hosts(port) - {host}:
        if _is_wildcard_over(host, other) or _is_wildcard_over(other, host):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _claimed_hosts(port: int) -> set[str]:
    """Every address whose ``port`` is marked in this network namespace."""
    start = f"@{_MARK}{port}/"
    names = (line.split()[-1] for line in _UNIX_SOCKETS.read_text().splitlines())
    return {name.removeprefix(start) for name in names if name.startswith(start)}


def _is_wildcard_over(host: str, other: str) -> bool:
    return host == "::" or (host == "0.0.0.0" and (":" not in other or other == "::"))


def _explained(error: OSError, port: int) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return (
                f"another process has the port (see `ss -tlnp 'sport = :{port}'`); "
                "stop it or set EDGEPROXY_LISTEN_ADDR"
            )
        case errno.EADDRNOTAVAIL:
            return "no interface of this machine has that address; set EDGEPROXY_LISTEN_ADDR"
        case errno.EACCES:
            return "ports below 1024 need root or CAP_NET_BIND_SERVICE; set EDGEPROXY_LISTEN_ADDR"
        case _:
            return f"{error.strerror}; set EDGEPROXY_LISTEN_ADDR"
