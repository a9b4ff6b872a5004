"""Listening sockets: one per worker on the same port, owned by the control process.

The kernel spreads new connections over them. Because the control process keeps each open, a worker's
death loses none of the clients that wait to be accepted: its replacement finds them.
"""

from __future__ import annotations

import errno
import socket

from edgeproxy.errors import ListenError

BACKLOG = 4096


class Listeners:
    """The sockets of one address, and the mark that says whose the address is."""

    def __init__(self, sockets: list[socket.socket], mark: socket.socket | None) -> None:
        self.sockets = sockets
        self._mark = mark
        host, self.port = sockets[0].getsockname()[:2]
        self.address = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def close(self) -> None:
        """Listen no more. Workers that still hold duplicates go on until they close theirs."""
        for sock in self.sockets:
            sock.close()
        if self._mark is not None:
            self._mark.close()


def open_listeners(host: str, port: int, count: int) -> Listeners:
    """Bind and listen ``count`` times; with port 0 all share the port that the first one got.

    ``::`` also takes IPv4 clients.

    Raises:
        ListenError: the address is taken, not ours, not allowed or unknown.
    """
    sockets: list[socket.socket] = []
    mark = None
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )[0]
        if port:
            mark = _claim(address)
        for _ in range(count):
            sock = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            # Accepted sockets inherit it, which saves a call on each.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.bind(address)
            sock.listen(BACKLOG)
            address = sock.getsockname()
    except OSError as error:
        for sock in (*sockets, *([mark] if mark is not None else [])):
            sock.close()
        raise ListenError(f"cannot listen on {host}:{port}: {_explained(error, port)}") from error
    return Listeners(sockets, mark)


def _claim(address: tuple[object, ...]) -> socket.socket:
    """Mark the address as this process's, until it ends, however it ends.

    Sockets that share a port would let a second proxy silently take half of the first one's clients.
    A trial bind without sharing tells them apart from nothing: it would also fail while the workers of
    a control process that died still serve, which is just when a successor must be able to start. An
    abstract Unix socket has the scope of the port, the network namespace, and goes with its process.
    """
    mark = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        mark.bind(f"\0edgeproxy/listener/{address[0]}/{address[1]}")
    except OSError:
        mark.close()
        raise
    return mark


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
