"""One UDP socket with many QUIC connections, those that were dialled as well as those that came.

One socket for both, so that a firewall needs one rule for each pair of POPs and an answer always comes from
where the question went. aioquic's own servers and clients have a socket for each connection that is dialled.
Its state machine does the rest; this moves datagrams, keeps the timers and finds the connection by its id.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, Final, Protocol, cast

from aioquic.buffer import Buffer  # type: ignore[attr-defined]  # which is what it is for
from aioquic.quic import events
from aioquic.quic.configuration import SMALLEST_MAX_DATAGRAM_SIZE, QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicPacketType, encode_quic_version_negotiation, pull_quic_header

SocketAddress = tuple[Any, ...]
"""As the socket gives it: host, port, and for IPv6 two more."""

IDLE_TIMEOUT_S: Final = 15.0
"""A peer that says nothing for so long is gone."""
KEEP_ALIVE_S: Final = 5.0


class Handler(Protocol):
    """Who is told what happens on a connection."""

    def encrypted(self) -> None:
        """The handshake of QUIC is complete; who is at the other end is not known yet."""
        ...

    def received(self, stream: int, data: bytes, *, is_end: bool) -> None: ...

    def ended(self, why: str) -> None:
        """Once, whoever ended it, unless that was :meth:`Link.close`."""
        ...


class Link:
    """One QUIC connection."""

    def __init__(self, endpoint: QuicEndpoint, quic: QuicConnection, *, dialled: bool) -> None:
        self.quic = quic
        self.dialled = dialled
        """Whether the connection was made from here."""
        self.handler: Handler | None = None
        self._endpoint = endpoint
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._keep_alive: asyncio.TimerHandle | None = None
        self._sending: asyncio.Handle | None = None
        self._closed = False

    @property
    def address(self) -> str:
        """Of the peer, for people."""
        found = self.quic.get_peer_address()
        return "nowhere" if found is None else "{}:{}".format(*found[:2])

    def send(self, stream: int, data: bytes, *, is_end: bool = False) -> None:
        """Queue ``data``; it leaves when the loop turns."""
        self.quic.send_stream_data(stream, data, is_end)
        self.send_soon()

    def open_stream(self, *, one_way: bool) -> int:
        return self.quic.get_next_available_stream_id(is_unidirectional=one_way)

    def close(self, why: str, code: int = 0) -> None:
        """End the connection; the peer is told why, the handler is not told."""
        if not self._closed:
            self._closed = True
            self.quic.close(error_code=code, reason_phrase=why)
            self.transmit()

    def send_soon(self) -> None:
        """Have :meth:`transmit` called once, however often this is, when the loop turns."""
        if self._sending is None:
            self._sending = self._loop.call_soon(self.transmit)

    def take(self, data: bytes, address: SocketAddress) -> None:
        """Work off one datagram."""
        self.quic.receive_datagram(data, address, now=self._loop.time())
        self._tell()
        self.transmit()

    def transmit(self) -> None:
        """Send what is due, and wait for what is due next."""
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None
        for data, address in self.quic.datagrams_to_send(now=self._loop.time()):
            self._endpoint.send(data, address)
        if self._timer is not None:
            self._timer.cancel()
        due_s = self.quic.get_timer()
        self._timer = None if due_s is None else self._loop.call_at(due_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.quic.handle_timer(now=self._loop.time())
        self._tell()
        self.transmit()

    def _on_keep_alive(self) -> None:
        self.quic.send_ping(0)
        self.transmit()
        self._keep_alive = self._loop.call_later(KEEP_ALIVE_S, self._on_keep_alive)

    def _tell(self) -> None:
        while (event := self.quic.next_event()) is not None:
            match event:
                case events.ConnectionIdIssued(connection_id=each):
                    self._endpoint.links[each] = self
                case events.ConnectionIdRetired(connection_id=each):
                    self._endpoint.links.pop(each, None)
                case events.ConnectionTerminated(reason_phrase=why, error_code=code):
                    self._end(why or f"QUIC error {code}" if why or code else "it closed the connection")
                case _ if self._closed or self.handler is None:
                    continue
                case events.HandshakeCompleted():
                    self._keep_alive = self._loop.call_later(KEEP_ALIVE_S, self._on_keep_alive)
                    self.handler.encrypted()
                case events.StreamDataReceived(stream_id=stream, data=data, end_stream=is_end):
                    self.handler.received(stream, data, is_end=is_end)

    def _end(self, why: str) -> None:
        self._endpoint.forget(self)
        self.abandon()
        if not self._closed and self.handler is not None:
            self._closed = True
            self.handler.ended(why)

    def abandon(self) -> None:
        """Stop all timers."""
        for each in (self._timer, self._keep_alive, self._sending):
            if each is not None:
                each.cancel()
        self._timer = self._keep_alive = self._sending = None


class QuicEndpoint(asyncio.DatagramProtocol):
    """Routes datagrams to links. Whoever cannot be served is not answered."""

    def __init__(
        self,
        server: QuicConfiguration,
        client: QuicConfiguration,
        accept: Callable[[Link], Handler | None],
        may_come: Callable[[SocketAddress], bool],
    ) -> None:
        """``may_come`` is asked before any work is done for a new connection, ``accept`` when it is there."""
        self._server = server
        self._client = client
        self._accept = accept
        self._may_come = may_come
        self._transport: asyncio.DatagramTransport | None = None
        self.links: dict[bytes, Link] = {}
        """By connection id, several for each."""

    async def listen(self, sock: socket.socket) -> None:
        """Serve on a bound socket, which belongs to this from now on."""
        sock.setblocking(False)
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, sock=sock)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Before Python 3.12, what the loop makes is none by type.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, address: SocketAddress) -> None:
        try:
            header = pull_quic_header(Buffer(data=data), host_cid_length=self._server.connection_id_length)
        except ValueError:
            return
        link = self.links.get(header.destination_cid)
        if link is not None:
            link.take(data, address)
            return
        # A shorter one cannot be the first of a connection, and would make us an amplifier.
        if len(data) < SMALLEST_MAX_DATAGRAM_SIZE or not self._may_come(address):
            return
        if header.version is not None and header.version not in self._server.supported_versions:
            if header.packet_type is not QuicPacketType.VERSION_NEGOTIATION:
                answer = encode_quic_version_negotiation(
                    source_cid=header.destination_cid,
                    destination_cid=header.source_cid,
                    supported_versions=self._server.supported_versions,
                )
                self.send(answer, address)
            return
        if header.packet_type is QuicPacketType.INITIAL:
            self._come(data, address, header.destination_cid)

    def _come(self, data: bytes, address: SocketAddress, cid: bytes) -> None:
        quic = QuicConnection(configuration=self._server, original_destination_connection_id=cid)
        link = Link(self, quic, dialled=False)
        link.handler = self._accept(link)
        self.links[cid] = self.links[quic.host_cid] = link
        link.take(data, address)

    async def dial(self, host: str, port: int, make_handler: Callable[[Link], Handler]) -> Link:
        """Begin a connection; what comes of it, the handler is told.

        Raises:
            OSError: the host has no address that this socket reaches.
        """
        address = await self._resolved(host, port)
        quic = QuicConnection(configuration=self._client)
        link = Link(self, quic, dialled=True)
        link.handler = make_handler(link)
        self.links[quic.host_cid] = link
        quic.connect(address, now=asyncio.get_running_loop().time())
        link.transmit()
        return link

    async def _resolved(self, host: str, port: int) -> SocketAddress:
        assert self._transport is not None
        family = self._transport.get_extra_info("socket").family
        if family == socket.AF_INET6 and _is_ipv4(host):
            host = f"::ffff:{host}"
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, family=family, type=socket.SOCK_DGRAM, flags=socket.AI_V4MAPPED
        )
        return found[0][4]

    def send(self, data: bytes, address: SocketAddress) -> None:
        if self._transport is not None:
            self._transport.sendto(data, address)

    def forget(self, link: Link) -> None:
        for cid in [cid for cid, each in self.links.items() if each is link]:
            del self.links[cid]

    def close(self) -> None:
        """End the socket; links must have been closed before, which tells the peers."""
        for link in set(self.links.values()):
            link.abandon()
        self.links.clear()
        if self._transport is not None:
            self._transport.close()
            self._transport = None


def _is_ipv4(host: str) -> bool:
    try:
        return ip_address(host).version == 4
    except ValueError:
        return False
