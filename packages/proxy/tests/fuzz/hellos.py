"""ClientHellos: real ones from OpenSSL, and ones built field by field."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Sequence

SERVER_NAME, SUPPORTED_GROUPS, ALPN, SUPPORTED_VERSIONS = 0, 10, 16, 43
TLS12, TLS13 = 0x0303, 0x0304
GREASE = 0x3A3A
RECORD_BYTES = 1 << 14


def from_openssl(
    server_name: str | None = "www.example.com",
    alpn: Sequence[str] = (),
    highest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
) -> bytes:
    """What a client of the ``ssl`` module sends first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # What it would be by default is for whoever built the interpreter to say.
    context.minimum_version = min(ssl.TLSVersion.TLSv1_2, highest)
    context.maximum_version = highest
    if alpn:
        context.set_alpn_protocols(list(alpn))
    sent = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=server_name)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return sent.read()
    raise AssertionError("a handshake without an answer")


def vector(width: int, items: bytes) -> bytes:
    """``items`` behind their length, a number of ``width`` bytes."""
    return len(items).to_bytes(width, "big") + items


def server_name(*names: bytes, kind: int = 0) -> tuple[int, bytes]:
    return SERVER_NAME, vector(2, b"".join(bytes((kind,)) + vector(2, name) for name in names))


def alpn(*protocols: bytes) -> tuple[int, bytes]:
    return ALPN, vector(2, b"".join(vector(1, protocol) for protocol in protocols))


def versions(*offered: int) -> tuple[int, bytes]:
    return SUPPORTED_VERSIONS, vector(1, b"".join(version.to_bytes(2, "big") for version in offered))


def extension_block(extensions: Iterable[tuple[int, bytes]]) -> bytes:
    return vector(2, b"".join(kind.to_bytes(2, "big") + vector(2, value) for kind, value in extensions))


def message(
    extensions: bytes = b"",
    *,
    session_id: bytes = b"\x5e" * 32,
    cipher_suites: bytes = b"\x3a\x3a\x13\x01\x13\x02",
    compressions: bytes = b"\x00",
    highest: int = TLS12,
) -> bytes:
    """A handshake message, with ``extensions`` as :func:`extension_block` makes them."""
    fields = (
        highest.to_bytes(2, "big"),
        bytes(range(32)),
        vector(1, session_id),
        vector(2, cipher_suites),
        vector(1, compressions),
        extensions,
    )
    return b"\x01" + vector(3, b"".join(fields))


def in_records(handshake: bytes, sizes: Iterable[int] = ()) -> bytes:
    """``handshake`` in records of these sizes, the rest in records as large as may be."""
    records = []
    for size in sizes:
        records.append(handshake[:size])
        handshake = handshake[size:]
    records += [handshake[at : at + RECORD_BYTES] for at in range(0, len(handshake), RECORD_BYTES)]
    return b"".join(b"\x16\x03\x01" + vector(2, record) for record in records)


def hello(*extensions: tuple[int, bytes]) -> bytes:
    """A ClientHello with these extensions, in one record."""
    return in_records(message(extension_block(extensions)))
