"""DNS over UDP: one socket, answered from the address that was asked."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Final

from edgeproxy.inbound.dns_messages import MAX_QUERY_BYTES

BATCH: Final = 32
"""How many queries are answered before the loop may do something else."""

_IP_PKTINFO: Final = 8
"""Of linux/in.h; Python names it from 3.14 on."""

_IPV4_INFO: Final = struct.Struct("=I4s4s")  # interface, address the datagram came to, its destination
_IPV6_INFO: Final = struct.Struct("=16sI")  # destination, interface
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(_IPV4_INFO.size) + socket.CMSG_SPACE(_IPV6_INFO.size)

_SocketAddress = tuple[str | int, ...]
_Ancillary = list[tuple[int, int, bytes]]


class DatagramEndpoint:
    """Receives queries on a bound UDP socket and sends replies.

    A socket bound to every address would reply from the one that the route to the client prefers, and
    resolvers drop what comes from elsewhere than they asked. So the kernel tells the address with each
    datagram, and is told it with each reply.
    """

    def __init__(self, sock: socket.socket, answer: Callable[[bytes, str], bytes | None]) -> None:
        """``answer`` takes a query, cut after one byte too many, and the peer's address."""
        self._sock = sock
        self._answer = answer
        self.unsent = 0
        """Replies that the kernel did not take: no buffer left, or the peer cannot be reached."""

    def start(self) -> None:
        """Answer from now on, on the running loop."""
        self._sock.setblocking(False)
        if self._sock.family == socket.AF_INET6:
            self._sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            self._sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        asyncio.get_running_loop().add_reader(self._sock, self._on_readable)

    def stop(self) -> None:
        """Answer no more; the socket stays the caller's."""
        asyncio.get_running_loop().remove_reader(self._sock)

    def _on_readable(self) -> None:
        for _ in range(BATCH):
            try:
                query, ancillary, _flags, peer = self._sock.recvmsg(MAX_QUERY_BYTES + 1, _ANCILLARY_BYTES)
            except BlockingIOError:
                return
            reply = self._answer(query, peer[0])
            if reply is not None:
                self._send(reply, ancillary, peer)

    def _send(self, reply: bytes, ancillary: _Ancillary, peer: _SocketAddress) -> None:
        try:
            self._sock.sendmsg([reply], [_source(*each) for each in ancillary], 0, peer)
        except OSError:
            self.unsent += 1


def _source(level: int, kind: int, info: bytes) -> tuple[int, int, bytes]:
    """From "it came to this address" to "send it from this address", over whatever interface."""
    if level == socket.IPPROTO_IPV6:
        destination, _interface = _IPV6_INFO.unpack(info)
        return level, kind, _IPV6_INFO.pack(destination, 0)
    _interface, came_to, _destination = _IPV4_INFO.unpack(info)
    return level, kind, _IPV4_INFO.pack(0, came_to, bytes(4))
