"""DNS messages: bytes of a query and who sent it, to the bytes of the reply. No sockets.

What cannot be read gets the shortest reply that the protocol has, and what may itself be a reply gets
none at all, or two servers could keep each other busy for ever.
"""

from __future__ import annotations

import contextlib
import random
import struct
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import msgspec

from edgeproxy.core.controlplane.candidates import Candidates
from edgeproxy.core.controlplane.directory import Labels
from edgeproxy.core.controlplane.names import (
    Answer,
    Host,
    Names,
    NameServer,
    Record,
    RecordType,
    Service,
    Text,
    Zone,
)
from edgeproxy.core.dataplane.client import normalise
from edgeproxy.core.model import Client

Network = IPv4Network | IPv6Network

MAX_QUERY_BYTES: Final = 1232
"""A query is a name and a few options. What is longer costs more to read than it is worth."""

MAX_DATAGRAM_BYTES: Final = 1232
"""What crosses every network unfragmented (the value of DNS Flag Day 2020), whatever the asker offers."""

MAX_STREAM_BYTES: Final = 65_535
_PLAIN_DATAGRAM_BYTES: Final = 512

_HEADER: Final = struct.Struct("!HHHHHH")
_EDNS_VERSION: Final = 0
_SERVICE: Final = struct.Struct("!HHH")
_TEXT_CHUNK_BYTES: Final = 255
_KEPT: Final = 8192
# Types above these are questions about several types, transfers and the like (RFC 6895).
_FIRST_META_TYPE: Final = 128
_LAST_META_TYPE: Final = 255

# Secondary servers do not exist: the values say "rarely" to whoever asks.
_REFRESH_S, _RETRY_S, _EXPIRE_S = 3600, 600, 86_400


class Lifetimes(msgspec.Struct, frozen=True):
    """How long askers may keep what they were told."""

    answer_s: int
    negative_s: int
    """That there is no such name, or no such record."""


class Responder:
    """Reads queries and writes replies; what names mean is the business of :class:`Names`."""

    def __init__(
        self,
        zone: Zone,
        candidates: Candidates,
        version: Callable[[], int],
        locate: Callable[[str], Client],
        lifetimes: Lifetimes,
        trusted: Sequence[Network],
    ) -> None:
        """``version`` is the table's, ``locate`` finds out where an address is.

        Of askers in ``trusted``, which speak for others, the client subnet is believed.
        """
        self._names = Names(zone, candidates)
        self._candidates = candidates
        self._zone = zone
        self._domain = (*zone.domain, b"")
        self._version = version
        self._locate = locate
        self._lifetimes = lifetimes
        self._trusted = trusted

    def respond(self, query: bytes, asker: str, now_s: float, *, stream: bool) -> bytes | None:
        """The reply to ``query``, which the peer at ``asker`` sent; ``None`` when there must be none.

        Over a datagram (not ``stream``) a reply that is too long is emptied and marked as truncated.
        """
        header = _Header.read(query)
        if header is None or header.is_response:
            return None
        if header.opcode != dns.opcode.QUERY:
            return header.reply(dns.rcode.NOTIMP)
        if header.questions != 1 or len(query) > MAX_QUERY_BYTES:
            return header.reply(dns.rcode.FORMERR)
        try:
            message = dns.message.from_wire(query, keyring=False)
        except dns.exception.DNSException:
            return header.reply(dns.rcode.FORMERR)
        return self._reply(message, normalise(asker), now_s, stream=stream)

    def truncated(self, query: bytes) -> bytes | None:
        """A reply that says only: ask again over TCP. No longer than the query."""
        header = _Header.read(query)
        if header is None or header.is_response or header.questions != 1:
            return None
        try:
            message = dns.message.from_wire(query, question_only=True, keyring=False)
        except dns.exception.DNSException:
            return None
        reply = _reply_to(message)
        reply.flags |= dns.flags.TC
        wire = reply.to_wire()
        # A name that is compressed by pointing into the header comes back in full length.
        return wire if len(wire) <= len(query) else None

    def _reply(self, query: dns.message.Message, asker: str, now_s: float, *, stream: bool) -> bytes:
        reply = _reply_to(query)
        if query.edns >= 0:
            _use_edns(reply, query)
        if query.edns > _EDNS_VERSION:
            reply.set_rcode(dns.rcode.BADVERS)
        elif (rcode := self._refusal(query)) is not None:
            reply.set_rcode(rcode)
        else:
            self._answer(query, reply, asker, now_s)
        if stream:
            return _written(reply, MAX_STREAM_BYTES)
        return _written(reply, min(max(query.payload, _PLAIN_DATAGRAM_BYTES), MAX_DATAGRAM_BYTES))

    def _refusal(self, query: dns.message.Message) -> dns.rcode.Rcode | None:
        (question,) = query.question
        rdtype = question.rdtype
        if rdtype in (dns.rdatatype.AXFR, dns.rdatatype.IXFR):
            return dns.rcode.REFUSED
        if rdtype == dns.rdatatype.OPT:
            return dns.rcode.FORMERR
        if _FIRST_META_TYPE <= rdtype <= _LAST_META_TYPE and rdtype != dns.rdatatype.ANY:
            return dns.rcode.NOTIMP
        labels = _lower(question.name.labels)
        if question.rdclass != dns.rdataclass.IN or labels[-len(self._domain) :] != self._domain:
            return dns.rcode.REFUSED
        return None

    def _answer(
        self, query: dns.message.Message, reply: dns.message.Message, asker: str, now_s: float
    ) -> None:
        (question,) = query.question
        subnets = self._believed_subnets(query, asker)
        if len(subnets) > 1 or any(subnet.scopelen for subnet in subnets):
            # The scope is for replies to set (RFC 7871).
            reply.set_rcode(dns.rcode.FORMERR)
            return
        # With a prefix of 0 bits the client asks not to be located.
        place = next((subnet.address for subnet in subnets if subnet.srclen), asker)
        wanted = _TYPES.get(question.rdtype, RecordType.OTHER)
        relative = _lower(question.name.labels)[: -len(self._domain)]
        self._candidates.catch_up(now_s)
        answer = self._names.answer(relative, wanted, self._locate(place), random.random)
        reply.flags |= dns.flags.AA
        self._put(reply, question, answer)
        for subnet in subnets:
            scope = subnet.srclen if answer.is_local else 0
            _use_edns(reply, query, dns.edns.ECSOption(subnet.address, subnet.srclen, scope))

    def _believed_subnets(self, query: dns.message.Message, asker: str) -> list[dns.edns.ECSOption]:
        """The client subnets (RFC 7871) in ``query``; none when ``asker`` is not one that may name any."""
        # feature: dns.client_subnet
        subnets = [option for option in query.options if isinstance(option, dns.edns.ECSOption)]
        if subnets:
            address = ip_address(asker)
            if not any(address in network for network in self._trusted):
                return []
        return subnets

    def _put(self, reply: dns.message.Message, question: dns.rrset.RRset, answer: Answer) -> None:
        """Write ``answer`` into the sections of ``reply``."""
        if answer.records:
            rdatas = [self._rdata(record) for record in answer.records]
            reply.answer.append(_rrset(question.name, rdatas, self._lifetimes.answer_s))
        elif question.rdtype == dns.rdatatype.ANY and answer.exists:
            # Not all there is, which would serve those who want to flood somebody else (RFC 8482).
            reply.answer.append(_rrset(question.name, [_minimal()], self._lifetimes.answer_s))
        else:
            if not answer.exists:
                reply.set_rcode(dns.rcode.NXDOMAIN)
            authority = _rrset(_name(self._domain), [self._authority()], self._lifetimes.negative_s)
            reply.authority.append(authority)
        for target, host in answer.additional:
            name = _name((*target, *self._domain))
            reply.additional.append(_rrset(name, [_host(host.address)], self._lifetimes.answer_s))

    def _rdata(self, record: Record) -> dns.rdata.Rdata:
        match record:
            case Host(address):
                return _host(address)
            case Service(priority, weight, port, target):
                return _service(priority, weight, port, (*target, *self._domain))
            case Text(text):
                return _text(text)
            case NameServer(target):
                return _from_text("NS", _name((*target, *self._domain)).to_text())
        return self._authority()

    def _authority(self) -> dns.rdata.Rdata:
        server = _name((*self._zone.name_server, *self._domain)).to_text()
        contact = f"hostmaster.{_name(self._domain).to_text()}"
        serial = self._version() & 0xFFFFFFFF
        timers = f"{_REFRESH_S} {_RETRY_S} {_EXPIRE_S} {self._lifetimes.negative_s}"
        return _from_text("SOA", f"{server} {contact} {serial} {timers}")


class _Header(msgspec.Struct, frozen=True, gc=False):
    """The first twelve bytes, read before anything else is."""

    id: int
    flags: int
    questions: int

    @classmethod
    def read(cls, query: bytes) -> _Header | None:
        """``None`` when there are not even so many bytes."""
        if len(query) < _HEADER.size:
            return None
        message_id, flags, questions, *_ = _HEADER.unpack_from(query)
        return cls(message_id, flags, questions)

    @property
    def is_response(self) -> bool:
        return bool(self.flags & dns.flags.QR)

    @property
    def opcode(self) -> int:
        return dns.opcode.from_flags(self.flags)

    def reply(self, rcode: dns.rcode.Rcode) -> bytes:
        """A reply without a question: what it was could not be understood."""
        # The opcode and the wish for recursion go back as they came.
        flags = dns.flags.QR | self.flags & (0x7800 | dns.flags.RD) | rcode
        return _HEADER.pack(self.id, flags, 0, 0, 0, 0)


_TYPES: Final[dict[int, RecordType]] = {int(each): each for each in RecordType}


def _lower(labels: Iterable[bytes]) -> Labels:
    return tuple(label.lower() for label in labels)


def _reply_to(query: dns.message.Message) -> dns.message.Message:
    """An empty reply, whose question has the letters of the query in the same case (its entropy)."""
    reply = dns.message.QueryMessage(id=query.id)
    reply.flags = dns.flags.QR | query.flags & dns.flags.RD
    reply.question = query.question
    return reply


def _use_edns(reply: dns.message.Message, query: dns.message.Message, *options: dns.edns.Option) -> None:
    flags = query.ednsflags & dns.flags.DO
    reply.use_edns(_EDNS_VERSION, flags, MAX_DATAGRAM_BYTES, options=list(options))


def _written(reply: dns.message.Message, limit_bytes: int) -> bytes:
    """``reply`` in at most ``limit_bytes``: if need be without additions, at last without its answer."""
    additions, reply.additional = reply.additional, []
    try:
        wire = reply.to_wire(max_size=limit_bytes, want_shuffle=False)
    except dns.exception.TooBig:
        # Part of a set of records looks like the whole of it, so none of it is sent.
        reply.answer.clear()
        reply.flags |= dns.flags.TC
        return reply.to_wire(max_size=limit_bytes)
    if additions:
        reply.additional = additions
        with contextlib.suppress(dns.exception.TooBig):
            return reply.to_wire(max_size=limit_bytes, want_shuffle=False)
    return wire


def _rrset(name: dns.name.Name, rdatas: Sequence[dns.rdata.Rdata], ttl_s: int) -> dns.rrset.RRset:
    return dns.rrset.from_rdata_list(name, ttl_s, rdatas)


# What the same few backends come to, again and again: making it anew takes longer than all the rest.


@lru_cache(maxsize=_KEPT)
def _name(labels: Labels) -> dns.name.Name:
    return dns.name.Name(labels)


@lru_cache(maxsize=_KEPT)
def _service(priority: int, weight: int, port: int, target: Labels) -> dns.rdata.Rdata:
    # Already as bytes, since names in it are never compressed and dnspython is slow at writing them.
    name_wire = _name(target).to_wire()
    assert name_wire is not None  # it is written to a file only when one is given
    wire = _SERVICE.pack(priority, weight, port) + name_wire
    return dns.rdata.GenericRdata(dns.rdataclass.IN, dns.rdatatype.SRV, wire)


@lru_cache(maxsize=_KEPT)
def _from_text(rdtype: str, text: str) -> dns.rdata.Rdata:
    return dns.rdata.from_text(dns.rdataclass.IN, rdtype, text)


def _host(address: str) -> dns.rdata.Rdata:
    return _from_text("AAAA" if ":" in address else "A", address)


def _text(text: str) -> dns.rdata.Rdata:
    """One TXT record: strings of up to 255 bytes, which readers put together again."""
    encoded = text.encode()
    wire = bytearray()
    for start in range(0, len(encoded), _TEXT_CHUNK_BYTES):
        chunk = encoded[start : start + _TEXT_CHUNK_BYTES]
        wire.append(len(chunk))
        wire += chunk
    return dns.rdata.from_wire(dns.rdataclass.IN, dns.rdatatype.TXT, bytes(wire), 0, len(wire))


def _minimal() -> dns.rdata.Rdata:
    return _from_text("HINFO", 'RFC8482 ""')
