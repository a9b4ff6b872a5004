"""What members tell each other: the messages, and the seal around them."""

from __future__ import annotations

import zlib
from ipaddress import IPv4Address, IPv6Address
from random import Random

from edgeproxy.core.replication.members import MAX_INCARNATION, Claim, Endpoint, State
from edgeproxy.core.replication.membership import Membership, Send
from edgeproxy.core.wire.gossip_datagrams import (
    MAX_DATAGRAM_BYTES,
    VERSION,
    Ack,
    DatagramError,
    Gossip,
    Message,
    Ping,
    PingRequest,
    Sync,
    decode,
    encode,
)
from edgeproxy.core.wire.sealing import NONCE_BYTES, Keyring
from packages.proxy.tests.fuzz.properties import whole_parser

RING = Keyring("cluster", (b"k" * 32, b"o" * 32))


def draw_endpoint(rng: Random) -> Endpoint:
    address = rng.choice((IPv4Address(rng.getrandbits(32)), IPv6Address(rng.getrandbits(128))))
    return Endpoint(str(address), rng.randint(1, 65_535))


def draw_claim(rng: Random) -> Claim:
    return Claim(
        rng.choice(("a", "fra", "n" * 253, f"n{rng.randrange(1_000)}")),
        rng.getrandbits(63),
        rng.choice((0, 1, MAX_INCARNATION, rng.getrandbits(32))),
        rng.choice(list(State)),
        draw_endpoint(rng),
        draw_endpoint(rng),
        rng.choice((0, 1, 65_535)),
        rng.choice((0, 1, 65_535)),
    )


def draw_gossip(rng: Random) -> bytes:
    """What is in a datagram once it was opened, of this version or the next."""
    me, news = draw_claim(rng), tuple(draw_claim(rng) for _ in range(rng.choice((0, 1, 3))))
    number = rng.getrandbits(32)
    payload = encode(
        rng.choice((
            Ping(me, news, number, draw_claim(rng).node),
            Ack(me, news, number, draw_claim(rng).node),
            PingRequest(me, news, number, draw_claim(rng).node, draw_endpoint(rng)),
            Gossip(me, news),
            Sync(me, news, is_question=rng.random() < 0.5),
        ))
    )  # fmt: skip
    return bytes((rng.choice((VERSION, VERSION + 1)),)) + payload[1:]


def check_gossip(message: Message, payload: bytes) -> None:
    """It survives being written and read; a member takes it, and sends nothing that is too large."""
    assert decode(encode(message)) == message
    draw = Random(payload).random
    me = Claim("m", 1, 1, State.ALIVE, Endpoint("192.0.2.1", 1), Endpoint("192.0.2.1", 2), 1, 1)
    member = Membership(me, 1.0, RING.payload_bytes, draw, 0.0)
    outputs = member.receive(payload, Endpoint("192.0.2.2", 1), 0.0)
    for beat in range(50):
        outputs += member.tick(beat / 4)
    outputs += member.leave()
    assert len(member.members.all()) <= 1 + len(message.news)
    for output in outputs:
        if isinstance(output, Send):
            assert len(output.payload) <= RING.payload_bytes
            decode(output.payload)


def draw_sealed(rng: Random) -> bytes:
    ring = RING if rng.random() < 0.5 else Keyring("cluster", (b"o" * 32,))
    return ring.seal(rng.randbytes(rng.randrange(40)), rng.randbytes(NONCE_BYTES))


def check_opened(payload: bytes, datagram: bytes) -> None:
    """Only what was sealed is opened: not a bit of it can be another one."""
    assert len(payload) < len(datagram) <= MAX_DATAGRAM_BYTES
    changed = bytearray(datagram)
    changed[zlib.crc32(datagram) % len(changed)] ^= 1
    try:
        RING.open(bytes(changed))
    except DatagramError:
        return
    raise AssertionError("opened though it was changed")


GOSSIP = whole_parser("gossip", draw_gossip, decode, DatagramError, check_gossip)
GOSSIP_SEALED = whole_parser("gossip_sealed", draw_sealed, RING.open, DatagramError, check_opened)
