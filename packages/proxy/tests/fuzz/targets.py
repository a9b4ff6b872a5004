"""The parsers that are fuzzed. To add one, write what draws valid inputs and add a line to ``TARGETS``."""

from __future__ import annotations

import ssl
from functools import cache
from ipaddress import IPv6Address, ip_address
from random import Random

import msgspec

from edgeproxy.core.controlplane.leases import registration
from edgeproxy.core.controlplane.registry import Refusal
from edgeproxy.core.dataplane.client import normalise
from edgeproxy.core.geography import Geography
from edgeproxy.core.replication.handshake import HELLO, Acceptor, Dialler, HandshakeError, Hello, Peer, Terms
from edgeproxy.core.replication.messages import (
    Changes,
    Digest,
    Gone,
    Message,
    SnapshotPart,
    SnapshotWanted,
    Want,
)
from edgeproxy.core.replication.model import Cell, Dot, Group, RowState, Stamp, Write
from edgeproxy.core.wire import client_hello, frames, peer_frames, peer_messages, proxy_protocol
from edgeproxy.core.wire.client_hello import ClientHello, read_client_hello
from edgeproxy.core.wire.proxy_protocol import Header, TlvType, encode_v1, encode_v2, read_header, tls_tlv
from edgeproxy.inbound.api_routes import read_body
from edgeproxy.inbound.api_shapes import Registration
from packages.proxy.tests.fuzz import hellos
from packages.proxy.tests.fuzz.dns_queries import DNS_QUERY
from packages.proxy.tests.fuzz.gossip import GOSSIP, GOSSIP_SEALED
from packages.proxy.tests.fuzz.instrument import INSTRUMENT
from packages.proxy.tests.fuzz.properties import Target, prefix_reader, stream_reader, whole_parser
from packages.proxy.tests.fuzz.values import draw_value

# ---- addresses -----------------------------------------------------------------------------------


def draw_ipv4(rng: Random) -> str:
    return ".".join(str(octet) for octet in rng.randbytes(4))


def draw_ipv6(rng: Random) -> str:
    """An IPv6 address in one of its spellings, often with runs of zeros or an IPv4 address in it."""
    kind = rng.randrange(4)
    if kind == 0:
        return f"::ffff:{draw_ipv4(rng)}"
    groups = [rng.choice((0, 0, 1, 0xFFFF, rng.getrandbits(16))) for _ in range(8)]
    exploded = ":".join(f"{group:x}" for group in groups)
    return exploded.upper() if kind == 1 else exploded if kind == 2 else str(IPv6Address(exploded))


def draw_address(rng: Random) -> str:
    return rng.choice((draw_ipv4, draw_ipv6))(rng)


def check_address(address: str, data: bytes) -> None:
    expected = ip_address(data.decode("latin-1"))
    if isinstance(expected, IPv6Address):
        # Without a zone, and as IPv4 where that is mapped.
        expected = IPv6Address(int(expected))
        expected = expected.ipv4_mapped or expected
    assert ip_address(address) == expected
    assert normalise(address) == address


# ---- PROXY protocol ------------------------------------------------------------------------------


def draw_proxy_header(rng: Random) -> bytes:
    kind = rng.randrange(8)
    source, destination = draw_address(rng), draw_address(rng)
    source_port, destination_port = rng.getrandbits(16), rng.getrandbits(16)
    if kind == 0:
        return rng.choice((
            b"PROXY UNKNOWN\r\n",
            b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x00\x00\x00",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x31\x00\xdb" + bytes(216) + b"\xe0\x00\x00",
        ))  # fmt: skip
    if kind <= 2:
        return encode_v1(source, source_port, destination, destination_port)
    tlvs = [
        (TlvType.ALPN, b"h2"),
        (TlvType.AUTHORITY, b"www.example.com"),
        (TlvType.NOOP, bytes(rng.randrange(9))),
        (TlvType.UNIQUE_ID, rng.randbytes(rng.randrange(129))),
        tls_tlv("TLSv1.3", "TLS_AES_128_GCM_SHA256", client_certificate=True, common_name="client"),
        (TlvType.APP, b"shop"),
        (TlvType.COUNTRY, b"BR"),
        (rng.randrange(0xF0, 0x100), rng.randbytes(rng.choice((0, 1, 2000)))),
    ]
    chosen = rng.sample(tlvs, rng.randrange(len(tlvs)))
    return encode_v2(source, source_port, destination, destination_port, chosen, checksum=kind == 7)


def check_proxy_header(header: Header, data: bytes) -> None:
    assert 0 < header.length <= len(data), "claims bytes that are not there"
    assert (header.source is None) == (header.destination is None)
    if header.source is None or header.destination is None:
        assert (header.source_port, header.destination_port) == (0, 0)
        return
    ends = header.source, header.source_port, header.destination, header.destination_port
    line = encode_v1(*ends)
    assert read_header(line) == Header(len(line), *ends)
    block = encode_v2(*ends, header.tlvs)
    assert read_header(block) == Header(len(block), *ends, tlvs=header.tlvs)


# ---- ClientHello ---------------------------------------------------------------------------------


@cache
def openssl_hellos() -> tuple[bytes, ...]:
    """Handshake messages, without the header of their record."""
    return tuple(
        hellos.from_openssl(server_name, alpn, highest)[5:]
        for server_name in (None, "www.example.com", "x" * 63 + ".example")
        for alpn in ((), ("h2", "http/1.1"), ("acme-tls/1",), tuple(f"protocol-{n}" for n in range(300)))
        for highest in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
    )


def draw_client_hello(rng: Random) -> bytes:
    message = rng.choice(openssl_hellos()) if rng.random() < 0.5 else _draw_message(rng)
    if rng.random() < 0.7:
        return hellos.in_records(message)
    return hellos.in_records(
        message, [rng.choice((1, 3, 4, 50, 512)) for _ in range(rng.randrange(client_hello.MAX_RECORDS - 1))]
    )


def _draw_message(rng: Random) -> bytes:
    extensions = [
        (hellos.GREASE, rng.randbytes(rng.randrange(3))),
        hellos.server_name(
            rng.choice((b"a.example", b"WWW.Example.COM.", b"localhost", b"xn--bcher-kva.de"))
        ),
        hellos.alpn(*rng.sample((b"h2", b"http/1.1", b"\x0a\x0a", b"\xff"), rng.randint(1, 4))),
        hellos.versions(*rng.sample((hellos.GREASE, hellos.TLS13, hellos.TLS12, 0x0301), rng.randint(1, 4))),
        (hellos.SUPPORTED_GROUPS, rng.randbytes(rng.randrange(20))),
        (0xFE0D, rng.randbytes(rng.choice((8, 200)))),
    ]
    block = hellos.extension_block(rng.sample(extensions, rng.randrange(len(extensions) + 1)))
    return hellos.message(
        block if len(block) > 2 or rng.random() < 0.5 else b"",
        session_id=rng.randbytes(rng.choice((0, 32))),
        cipher_suites=rng.randbytes(2 * rng.randint(1, 20)),
        highest=rng.choice((0x0301, hellos.TLS12)),
    )


def check_client_hello(hello: ClientHello, data: bytes) -> None:
    extensions = [hellos.versions(hellos.GREASE, *hello.versions)]
    if hello.server_name is not None:
        assert hello.server_name == hello.server_name.lower()
        assert 0 < len(hello.server_name) <= 253
        extensions.append(hellos.server_name(hello.server_name.encode("ascii")))
    if hello.alpn:
        extensions.append(hellos.alpn(*(protocol.encode("latin-1") for protocol in hello.alpn)))
    assert read_client_hello(hellos.hello(*extensions)) == hello, "differs when written and read again"


# ---- control frames ------------------------------------------------------------------------------


def frames_of(kind: object, name: str) -> Target:
    """Frames of all types in the union ``kind``."""
    return stream_reader(
        name,
        lambda rng: b"".join(frames.encode(draw_value(kind, rng)) for _ in range(rng.randint(1, 3))),
        lambda: frames.FrameReader(kind).feed,
        frames.FrameError,
        frames.encode,
    )


# ---- what replicas say to each other -------------------------------------------------------------


def draw_peer_frames(rng: Random) -> bytes:
    return b"".join(
        peer_frames.encode(
            peer_frames.Frame(rng.randrange(128), rng.randbytes(rng.randint(0, 3)) * rng.choice((1, 3, 700)))
        )
        for _ in range(rng.randint(1, 3))
    )


def draw_peer_message(rng: Random) -> bytes:
    """The kind in one byte, then the body."""
    spans = rng.choice(((), ((1, 3),), ((2, 2), (5, 9))))
    known = {} if rng.random() < 0.5 else {"a/1f": spans}
    stamp, dot = Stamp(rng.randrange(1 << 40), rng.randrange(9), "a"), Dot("a/1f", rng.randint(1, 99))
    values = {"app": rng.choice((None, 1, -0.5, "ü", b"\xff"))}
    row_id = rng.choice(("", "b1", "x" * 300))
    row = RowState(row_id, {Group.HEALTH: Cell(stamp, dot, values)})
    message: Message = rng.choice((
        Changes((Write(dot, stamp, row_id, {rng.choice(list(Group)): values}),) * rng.randrange(3)),
        Digest("a/1f", known, rng.choice((None, 1 << 63)), rng.randrange(1 << 40), rng.random() < 0.5),
        Want(known),
        Gone(),
        SnapshotWanted(rng.choice((None, row_id))),
        SnapshotPart("a/1f", None, row_id, known, (row,)),
    ))  # fmt: skip
    frame = peer_messages.framed(message)
    return bytes((frame.kind,)) + frame.body


def read_peer_message(data: bytes) -> Message:
    message = peer_messages.message_in(peer_frames.Frame(data[0] if data else 0, data[1:]))
    if message is None:
        raise ValueError("of a kind that nobody knows")
    return message


def check_peer_message(message: Message, _data: bytes) -> None:
    frame = peer_messages.framed(message)
    again = peer_messages.message_in(frame)
    assert again is not None
    # Compared as encoded: a value that holds NaN does not even equal itself.
    assert peer_messages.framed(again) == frame


PEER_TERMS = Terms("cluster", "b", "run", (b"k" * 32,))
PEER_NONCE, PEER_CERTIFICATE = b"n" * 32, b"f" * 32


def draw_handshake(rng: Random) -> bytes:
    """All that a dialler sends to the acceptor of :func:`accept_peer`."""
    terms = Terms(
        "cluster", rng.choice(("a", "c", "ü" * 20)), "run", PEER_TERMS.keys, 1, rng.choice((1, 2, 99))
    )
    dialler = Dialler(terms, rng.randbytes(32), PEER_CERTIFICATE)
    sent = dialler.begin()
    for answer in Acceptor(PEER_TERMS, PEER_NONCE, PEER_CERTIFICATE).receive(sent[0]):
        sent += dialler.receive(answer)
    return b"".join(map(peer_frames.encode, sent))


def accept_peer(data: bytes) -> Peer:
    acceptor = Acceptor(PEER_TERMS, PEER_NONCE, PEER_CERTIFICATE)
    for frame in peer_frames.PeerFrameReader(max_bytes=4096).feed(data):
        acceptor.receive(frame)
    if acceptor.peer is None:
        raise ValueError("incomplete")
    return acceptor.peer


def check_peer(peer: Peer, data: bytes) -> None:
    """Who gets this far has sent a hello that says so."""
    first = next(iter(peer_frames.PeerFrameReader().feed(data)))
    assert first.kind == HELLO
    assert msgspec.msgpack.decode(first.body, type=Hello).node == peer.node


# ---- what backends say of themselves -------------------------------------------------------------

API_REFUSALS = (msgspec.ValidationError, ValueError, RecursionError)


def draw_registration(rng: Random) -> bytes:
    wanted: dict[str, object] = {
        "id": rng.choice(("mock-eu-1", "a", "b" * 253, "shop:8080@eu")),
        "app": rng.choice(("test", "web", "!")),
        "region": rng.choice(("eu", "us", "sa", "ap")),
        "ip": draw_address(rng),
        "port": rng.choice((1, 80, 9001.0, 65535)),
    }
    for field in ("weight", "soft_limit", "hard_limit"):
        if rng.random() < 0.5:
            wanted[field] = rng.randrange(256)
    if rng.random() < 0.5:
        wanted["country"] = rng.choice(("DE", "BR", "us"))
    return msgspec.json.encode(wanted)


def parse_registration(data: bytes) -> Registration:
    """As the API reads a body."""
    return read_body(data, Registration)


def check_registration(wanted: Registration, _data: bytes) -> None:
    """A shape that is right is written, or refused for a value that is named; nothing else comes of it."""
    values: dict[str, object] = {
        "app": wanted.app, "region": wanted.region, "country": wanted.country or None, "wg_ip": wanted.ip,
        "port": wanted.port,
    }  # fmt: skip
    decide = registration(Geography.built_in(), wanted.id, values, at_s=1.0, owner="pop", only_app=None)
    decided = decide({}, None)
    if isinstance(decided, Refusal):
        assert decided.problems
        assert all(issue.column for issue in decided.issues)
    else:
        assert decided.row is not None
        assert decided.row.values["port"] == wanted.port
    assert msgspec.convert(msgspec.to_builtins(wanted), Registration) == wanted


TARGETS = (
    prefix_reader(
        "proxy_protocol", draw_proxy_header, read_header, proxy_protocol.MAX_PREFIX_BYTES, check_proxy_header
    ),
    prefix_reader(
        "client_hello",
        draw_client_hello,
        read_client_hello,
        client_hello.MAX_PREFIX_BYTES,
        check_client_hello,
    ),
    frames_of(frames.ToWorker, "frames_to_worker"),
    frames_of(frames.FromWorker, "frames_from_worker"),
    stream_reader(
        "peer_frames",
        draw_peer_frames,
        lambda: peer_frames.PeerFrameReader().feed,
        peer_frames.PeerFrameError,
        peer_frames.encode,
    ),
    whole_parser("peer_message", draw_peer_message, read_peer_message, ValueError, check_peer_message),
    whole_parser("peer_handshake", draw_handshake, accept_peer, (HandshakeError, ValueError), check_peer),
    GOSSIP,
    GOSSIP_SEALED,
    whole_parser(
        "address",
        lambda rng: draw_address(rng).encode(),
        lambda data: normalise(data.decode("latin-1")),
        ValueError,
        check_address,
    ),
    DNS_QUERY,
    whole_parser("api_registration", draw_registration, parse_registration, API_REFUSALS, check_registration),
    *INSTRUMENT,
)
