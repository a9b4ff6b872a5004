"""The DNS server: both transports of a port, every client within its limit.

The limit keeps one client from taking the control process's time from all others, and makes the server
useless to those who write somebody else's address into their questions. So of the datagrams too many every
other one is answered by an equally long "ask again over TCP", which a forged address cannot do, and the rest
not at all. Over TCP nobody can pretend to be somebody else: there the client has to wait.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from enum import StrEnum
from time import monotonic
from typing import Any, Final

import dns.rcode

from edgeproxy.core.controlplane.flood import FloodLimit
from edgeproxy.core.dataplane.client import affinity_network
from edgeproxy.inbound.dns_datagrams import DatagramEndpoint
from edgeproxy.inbound.dns_messages import Responder
from edgeproxy.inbound.dns_port import DnsPort
from edgeproxy.inbound.dns_streams import StreamEndpoint

_RCODE_MASK: Final = 0xF


class OverLimit(StrEnum):
    """What becomes of a query too many."""

    TRUNCATED = "truncated"
    DROPPED = "dropped"
    DELAYED = "delayed"


class DnsServer:
    """Answers on a port until stopped."""

    def __init__(self, port: DnsPort, responder: Responder, rate_limit: int) -> None:
        """``rate_limit``: queries a second from one client (IPv4 address, IPv6 /64), and as many at once, on
        each transport; 0 for no limit."""
        self._port = port
        self._responder = responder
        self._datagram_limit = FloodLimit(rate_limit, rate_limit)
        self._stream_limit = FloodLimit(rate_limit, rate_limit)
        self._datagrams = DatagramEndpoint(port.datagrams, self._on_datagram)
        self._streams = StreamEndpoint(port.streams, self._on_stream_query)
        self._queries = {"udp": 0, "tcp": 0}
        self._replies: Counter[str] = Counter()
        self._over_limit = dict.fromkeys(OverLimit, 0)

    def change_settings(self, responder: Responder, rate_limit: int) -> None:
        """Have ``responder`` answer from now on, within another limit."""
        self._responder = responder
        for limit in (self._datagram_limit, self._stream_limit):
            limit.change(rate_limit, rate_limit)

    async def start(self) -> None:
        """Answer from now on, also what came since the port was bound."""
        self._datagrams.start()
        await self._streams.start()

    async def stop(self) -> None:
        """Answer no more. The port is the caller's to close."""
        self._datagrams.stop()
        await self._streams.stop()

    def stats(self) -> dict[str, Any]:
        """What came and what went, since the start."""
        return {
            "address": self._port.address,
            "queries": self._queries,
            "replies": dict(self._replies),
            "over_limit": self._over_limit,
            "unsent": self._datagrams.unsent,
        }

    def _on_datagram(self, query: bytes, peer: str) -> bytes | None:
        self._queries["udp"] += 1  # feature: dns.bounded
        now_s = monotonic()
        if not self._datagram_limit.wait_s(affinity_network(peer), now_s):
            return self._counted(self._responder.respond(query, peer, now_s, stream=False))
        counts = self._over_limit
        if counts[OverLimit.TRUNCATED] > counts[OverLimit.DROPPED]:
            counts[OverLimit.DROPPED] += 1
            return None
        counts[OverLimit.TRUNCATED] += 1
        return self._responder.truncated(query)

    async def _on_stream_query(self, query: bytes, peer: str) -> bytes | None:
        self._queries["tcp"] += 1
        delay_s = self._stream_limit.delay_s(affinity_network(peer), monotonic())
        if delay_s:
            self._over_limit[OverLimit.DELAYED] += 1
            await asyncio.sleep(delay_s)
        return self._counted(self._responder.respond(query, peer, monotonic(), stream=True))

    def _counted(self, reply: bytes | None) -> bytes | None:
        if reply is not None:
            # BADVERS has a fifth bit elsewhere and is counted as NOERROR.
            self._replies[dns.rcode.to_text(dns.rcode.Rcode(reply[3] & _RCODE_MASK))] += 1
        return reply
