"""The port of the DNS server, one number for UDP and TCP.

Apart from the server, whose imports take longer than a start may: the port is bound first of all.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Final

from edgeproxy.config import Address
from edgeproxy.errors import ListenError
from edgeproxy.inbound.bound_socket import bind_socket

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
        self.address = str(Address(host, self.port))

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
    transport = "TCP" if kind is socket.SOCK_STREAM else "UDP"
    return bind_socket(
        Address(host, port),
        to=f"answer DNS over {transport}",
        variable="EDGEPROXY_DNS_LISTEN_ADDR",
        kind=kind,
        if_taken="; 5353 is also that of mDNS (avahi-daemon)" if port == 5353 else "",
    )
