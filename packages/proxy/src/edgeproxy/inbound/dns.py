"""The DNS server: both transports of a port, every client within its limit."""

from __future__ import annotations

import asyncio
from collections import Counter
from time import monotonic
from typing import Any, Final

import dns.rcode

from edgeproxy.core.dataplane.client import affinity_network
from edgeproxy.inbound.dns_datagrams import DatagramEndpoint
from edgeproxy.inbound.dns_limit import QueryLimit, Verdict
from edgeproxy.inbound.dns_messages import Responder
from edgeproxy.inbound.dns_port import DnsPort
from edgeproxy.inbound.dns_streams import StreamEndpoint

_RCODE_MASK: Final = 0xF
_DELAYED: Final = "delayed"


class DnsServer:
    """Answers on a port until stopped."""

    def __init__(self, port: DnsPort, responder: Responder, rate_limit: int) -> None:
        """``rate_limit``: queries a second from one client, on each transport; 0 for no limit."""
        self._port = port
        self._responder = responder
        self._datagram_limit = QueryLimit(rate_limit)
        self._stream_limit = QueryLimit(rate_limit)
        self._datagrams = DatagramEndpoint(port.datagrams, self._on_datagram)
        self._streams = StreamEndpoint(port.streams, self._on_stream_query)
        self._queries = {"udp": 0, "tcp": 0}
        self._replies: Counter[str] = Counter()
        self._over_limit = {Verdict.TRUNCATE.value: 0, Verdict.DROP.value: 0, _DELAYED: 0}

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
        verdict = self._datagram_limit.judge(affinity_network(peer), now_s)
        if verdict is Verdict.ANSWER:
            return self._counted(self._responder.respond(query, peer, now_s, stream=False))
        self._over_limit[verdict.value] += 1
        return self._responder.truncated(query) if verdict is Verdict.TRUNCATE else None

    async def _on_stream_query(self, query: bytes, peer: str) -> bytes | None:
        self._queries["tcp"] += 1
        delay_s = self._stream_limit.delay_s(affinity_network(peer), monotonic())
        if delay_s:
            self._over_limit[_DELAYED] += 1
            await asyncio.sleep(delay_s)
        return self._counted(self._responder.respond(query, peer, monotonic(), stream=True))

    def _counted(self, reply: bytes | None) -> bytes | None:
        if reply is not None:
            # BADVERS has a fifth bit elsewhere and is counted as NOERROR.
            self._replies[dns.rcode.to_text(dns.rcode.Rcode(reply[3] & _RCODE_MASK))] += 1
        return reply
