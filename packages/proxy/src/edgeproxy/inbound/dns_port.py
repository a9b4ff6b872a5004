"""The port of the DNS server, one number for UDP and TCP.

Apart from the server, whose imports take longer than a start may: the port is bound first of all.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from typing import Final

from edgeproxy.errors import ListenError

_TRIES: Final = 16
"""A port that the system gave for one transport may be taken for the other."""


class DnsPort:
    """Two bound sockets, neither of which is served yet."""

    def __init__(self, host: str, port: int, inherited: Sequence[socket.socket] = ()) -> None:
        """Bind, unless both are ``inherited``; port 0 takes one that is free for both transports.

        Raises:
            ListenError: the address is taken for one of them, not ours or not allowed.
        """
        self.streams, self.datagrams = inherited or _bind_both(host, port)
        self.port: int = self.streams.getsockname()[1]
        self.address = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    @property
    def descriptors(self) -> tuple[int, ...]:
        """For a successor."""
        return self.streams.fileno(), self.datagrams.fileno()

    def close(self) -> None:
        """Give the port back."""
        self.streams.close()
        self.datagrams.close()


def _bind_both(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    tries = 1 if port else _TRIES
    while True:
        tries -= 1
        streams = _bound(host, port, socket.SOCK_STREAM)
        try:
            return streams, _bound(host, streams.getsockname()[1], socket.SOCK_DGRAM)
        except ListenError:
            streams.close()
            if not tries:
                raise


def _bound(host: str, port: int, kind: socket.SocketKind) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, kind)
    try:
        if kind is socket.SOCK_STREAM:
            # On UDP it would let any process of the machine take the port over.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        transport = "TCP" if kind is socket.SOCK_STREAM else "UDP"
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        raise ListenError(
            f"cannot answer DNS on {where} ({transport}): {_explained(error, port, transport)}; "
            "set EDGEPROXY_DNS_LISTEN_ADDR"
        ) from error
    return sock


def _explained(error: OSError, port: int, transport: str) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            also = "; 5353 is also that of mDNS (avahi-daemon)" if port == 5353 else ""
            return (
                f"another process has the port (see `ss -{transport[0].lower()}lnp 'sport = :{port}'`{also})"
            )
        case errno.EADDRNOTAVAIL:
            return "no interface of this machine has that address"
        case errno.EACCES:
            return "ports below 1024 need root or CAP_NET_BIND_SERVICE"
        case _:
            return str(error.strerror)
