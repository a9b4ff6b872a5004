"""Questions to the DNS server, and what holds for its reply to any bytes."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from ipaddress import ip_network
from random import Random

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode

from edgeproxy.core.controlplane.candidates import Candidates
from edgeproxy.core.controlplane.names import Zone
from edgeproxy.core.controlplane.routing_table import PlacedBackend
from edgeproxy.core.dataplane.client import locate
from edgeproxy.core.geography import Geography
from edgeproxy.core.model import Backend
from edgeproxy.inbound.dns_messages import MAX_DATAGRAM_BYTES, MAX_STREAM_BYTES, Lifetimes, Responder
from packages.proxy.tests.fuzz.properties import Target, whole_parser

RESOLVER, STRANGER = "198.51.100.53", "192.0.2.99"
_HEADER_BYTES = 12
_TYPES = ("A", "AAAA", "SRV", "TXT", "ANY", "SOA", "NS", "MX", "HTTPS", "AXFR", "TYPE65280")
_LABELS = (
    *("shop", "many", "eu", "us", "global", "top3", "nearest", "of", "vm", "backends", "pops", "regions"),
    *("vms", "_apps", "_shop", "_tcp", "de-1", "backend-number-7", "x" * 63, "*", "a b", "\\255"),
)


def draw_query(rng: Random) -> bytes:
    """A question about one of our names, or somebody else's."""
    labels = rng.choices(_LABELS, k=rng.randrange(4))
    domain = rng.choice(("internal", "internal", "internal", "example"))
    name = ".".join((*labels, domain)).replace(" ", "\\032") + "."
    if rng.random() < 0.3:
        name = "".join(rng.choice((each.upper(), each.lower())) for each in name)
    options: list[dns.edns.Option] = []
    if rng.random() < 0.5:
        address, bits = rng.choice((("203.0.113.0", 24), ("2001:db8:b::", 48), ("0.0.0.0", 0)))
        options.append(dns.edns.ECSOption(address, bits))
    if rng.random() < 0.2:
        options.append(
            dns.edns.GenericOption(
                dns.edns.OptionType.make(rng.randrange(65536)), rng.randbytes(rng.randrange(20))
            )
        )
    query = dns.message.make_query(
        name,
        rng.choice(_TYPES),
        use_edns=rng.choice((False, 0, 0, 0, 1)) if not options else 0,
        payload=rng.choice((0, 512, 1232, 65535)),
        options=options or None,
        id=rng.getrandbits(16),
    )
    return query.to_wire()


def respond(query: bytes) -> tuple[bytes | None, bytes | None]:
    """The replies over a datagram to a trusted resolver, and over a stream to a stranger."""
    responder = _responder()
    return (
        responder.respond(query, RESOLVER, 0.0, stream=False),
        responder.respond(query, STRANGER, 0.0, stream=True),
    )


def check_replies(replies: tuple[bytes | None, bytes | None], query: bytes) -> None:
    datagram, stream = replies
    for reply, limit_bytes in ((datagram, MAX_DATAGRAM_BYTES), (stream, MAX_STREAM_BYTES)):
        assert reply is not None, "the asker waits in vain"
        assert _HEADER_BYTES <= len(reply) <= limit_bytes
        message = dns.message.from_wire(reply)
        assert message.id == int.from_bytes(query[:2], "big")
        assert message.flags & dns.flags.QR
    shortest = _responder().truncated(query)
    useful = "a forged question would be of use to whoever forges it"
    assert shortest is None or len(shortest) <= len(query), useful


class UnreadableError(Exception):
    """The reply is none, or says that the question could not be read."""


def _read(query: bytes) -> tuple[bytes | None, bytes | None]:
    replies = respond(query)
    if None in replies:
        assert len(query) < _HEADER_BYTES or query[2] & 0x80, "a question was not replied to"
        assert replies == (None, None)
        raise UnreadableError
    check_replies(replies, query)
    if any(reply is not None and reply[3] & 0xF == dns.rcode.FORMERR for reply in replies):
        raise UnreadableError
    return replies


DNS_QUERY: Target = whole_parser("dns_query", draw_query, _read, UnreadableError, check_replies)


class _Rows:
    """A table without connections."""

    version = 7

    def __init__(self) -> None:
        rows = [
            Backend("de-1", "shop", "eu", "DE", "192.0.2.1", 9000, True, 1, 100, 0),
            Backend("jp-6", "shop", "ap", "JP", "2001:db8::3", 9000, True, 1, 100, 0),
            *(
                Backend(f"backend-number-{n}", "many", "us", "US", f"10.0.0.{n}", 9000, True, 1, 100, 0)
                for n in range(60)
            ),
        ]
        self._placed = [PlacedBackend(slot, each) for slot, each in enumerate(rows)]

    def snapshot(self) -> Collection[PlacedBackend]:
        return self._placed

    def changed_slots(self) -> Collection[int] | None:
        return ()

    def connections(self, slot: int) -> int:
        return 0


@cache
def _responder() -> Responder:
    rows, geography = _Rows(), Geography.built_in()
    return Responder(
        Zone((b"internal",), "eu", geography.regions, {"eu": ("198.51.100.1", "2001:db8:e::1")}),
        Candidates("eu", rows, rows, dict),
        lambda: rows.version,
        lambda address: locate(address, lambda _: "BR", geography),
        Lifetimes(answer_s=30, negative_s=5),
        [ip_network("198.51.100.0/24")],
    )
