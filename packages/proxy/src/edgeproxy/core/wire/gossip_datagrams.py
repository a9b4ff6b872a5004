"""What members tell each other in datagrams: a version and one message, before it is sealed.

Each message begins with what its sender says of itself, so that whoever hears from a node knows its name, its
addresses and its incarnation. A node takes its own version and those beside it: later ones add fields at the
end of messages and claims, which are passed over here, or kinds of messages, which are refused as unknown.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from functools import lru_cache
from ipaddress import ip_address
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from edgeproxy.core.replication.members import Claim, Endpoint

VERSION: Final = 1
MAX_DATAGRAM_BYTES: Final = 1_400
"""Sealed. What is larger is torn into pieces on paths with tunnels, and pieces are what firewalls drop."""
_ARRAY_BYTES: Final = 2
"""By which the head of a list grows when it is no longer empty."""

Sequence = Annotated[int, Meta(ge=0, le=2**32 - 1)]


class Refusal(StrEnum):
    """Why a datagram came to nothing, for logs and metrics."""

    OVERSIZED = "oversized"
    MALFORMED = "malformed"
    """It is no datagram of ours, or was cut."""
    VERSION = "version"
    WRONG_CLUSTER = "wrong_cluster"
    WRONG_KEY = "wrong_key"
    """No key of the ring opens it: another key sealed it, or it was changed on its way."""
    UNPROTECTED = "unprotected"
    """It is not sealed, and there is a key; or there is none, and it comes from another machine."""
    MISDIRECTED = "misdirected"
    """It is for another node, which had this address before."""
    UNASKED = "unasked"
    """It answers a question that nobody waits for any more: it is late, came twice or was sent again."""
    SAME_NODE = "same_node"
    """It comes from a node that goes by our own name."""
    NO_ROOM = "no_room"
    """What it says of one more node is passed over, since as many are known as can be."""
    TOO_MANY = "too_many"
    """As many as are answered at a time have asked already."""


class DatagramError(Exception):
    """A datagram is refused; the text says why, for people."""

    def __init__(self, reason: Refusal, why: str) -> None:
        super().__init__(why)
        self.reason = reason


class Ping(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Are you there? A node other than ``target`` keeps silent."""

    me: Claim
    news: tuple[Claim, ...]
    sequence: Sequence
    target: str


class Ack(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Yes, ``subject`` is there: the sender, or whom it was asked to ask."""

    me: Claim
    news: tuple[Claim, ...]
    sequence: Sequence
    subject: str


class PingRequest(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Ask ``target`` for me, which does not answer me."""

    me: Claim
    news: tuple[Claim, ...]
    sequence: Sequence
    target: str
    address: Endpoint


class Gossip(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Nothing but news."""

    me: Claim
    news: tuple[Claim, ...]


class Sync(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """A part of all that the sender knows."""

    me: Claim
    news: tuple[Claim, ...]
    is_question: bool
    """Whether the receiver is to answer with all that it knows."""


Message = Ping | Ack | PingRequest | Gossip | Sync

_DECODER: Final = msgspec.msgpack.Decoder(Message)
_ENCODER: Final = msgspec.msgpack.Encoder()


def encode(message: Message) -> bytes:
    """Return what is to be sealed."""
    return bytes((VERSION,)) + _ENCODER.encode(message)


def room_bytes(message: Message, payload_bytes: int) -> int:
    """How much news fits into a message, given without any, of at most ``payload_bytes`` when encoded."""
    return payload_bytes - len(encode(message)) - _ARRAY_BYTES


def decode(payload: bytes) -> Message:
    """Return the message in what was opened.

    Raises:
        DatagramError: it is malformed, or of a version that is not understood.
    """
    if not payload:
        raise DatagramError(Refusal.MALFORMED, "it is empty")
    version = payload[0]
    if abs(version - VERSION) > 1:
        raise DatagramError(Refusal.VERSION, f"it is of version {version}, ours is {VERSION}")
    try:
        message: Message = _DECODER.decode(memoryview(payload)[1:])
        _check_hosts((message.me, *message.news))
        if isinstance(message, PingRequest):
            _check_host(message.address.host)
    except (ValueError, RecursionError) as error:  # msgspec's own errors are ValueErrors
        reason = Refusal.MALFORMED if version == VERSION else Refusal.VERSION
        raise DatagramError(reason, f"it is no message of version {version}: {error}") from error
    return message


def _check_hosts(claims: Iterable[Claim]) -> None:
    for claim in claims:
        _check_host(claim.gossip.host)
        _check_host(claim.transport.host)


@lru_cache(maxsize=4096)
def _check_host(host: str) -> None:
    ip_address(host)
