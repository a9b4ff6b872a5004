"""As much of MySQL's protocol as says who a client is and which database it wants.

A packet is the length of what follows the header (3 bytes, little-endian), a number that counts up in a
conversation (1 byte), and that many bytes. The server speaks first.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

HEADER_BYTES = 4
SALT_BYTES = 20
LARGEST_LOGIN_BYTES = 1 << 16

_CONNECT_WITH_DB = 1 << 3
_PROTOCOL_41 = 1 << 9
_SECURE_CONNECTION = 1 << 15
_PLUGIN_AUTH = 1 << 19
_LENGTH_ENCODED_AUTH = 1 << 21
_OFFERED = _CONNECT_WITH_DB | _PROTOCOL_41 | _SECURE_CONNECTION | _PLUGIN_AUTH | _LENGTH_ENCODED_AUTH
_UTF8 = 45
_BEFORE_THE_USER_BYTES = 32
_LENGTH_FOLLOWS = {0xFC: 2, 0xFD: 3, 0xFE: 8}


@dataclass(frozen=True, slots=True)
class Login:
    user: str
    database: str
    """Empty when none was asked for."""


def packet(number: int, payload: bytes) -> bytes:
    """The bytes of a packet."""
    return len(payload).to_bytes(3, "little") + bytes([number]) + payload


async def read_packet(reader: asyncio.StreamReader) -> bytes:
    """Return the next packet, its header included.

    Raises:
        ValueError: it is larger than a login is.
        EOFError: the stream ended first.
    """
    header = await reader.readexactly(HEADER_BYTES)
    length = int.from_bytes(header[:3], "little")
    if length > LARGEST_LOGIN_BYTES:
        raise ValueError(f"a packet of {length} bytes is no login")
    return header + await reader.readexactly(length)


def greeting(salt: bytes) -> bytes:
    """What a server says first: version 10 of the handshake, without TLS."""
    assert len(salt) == SALT_BYTES
    return packet(
        0,
        b"\x0a8.0.0-door\0"
        + bytes(4)
        + salt[:8]
        + b"\0"
        + (_OFFERED & 0xFFFF).to_bytes(2, "little")
        + bytes([_UTF8, 2, 0])
        + (_OFFERED >> 16).to_bytes(2, "little")
        + bytes([SALT_BYTES + 1])
        + bytes(10)
        + salt[8:]
        + b"\0mysql_native_password\0",
    )


def read_login(sent: bytes) -> Login:
    """Understand the client's answer to the greeting, a whole packet.

    Raises:
        ValueError: it is none.
    """
    payload = sent[HEADER_BYTES:]
    offered = int.from_bytes(payload[:4], "little")
    if len(payload) < _BEFORE_THE_USER_BYTES or not offered & _PROTOCOL_41:
        raise ValueError("no login of protocol 4.1")
    user, rest = _text(payload[_BEFORE_THE_USER_BYTES:])
    if offered & _LENGTH_ENCODED_AUTH:
        length, rest = _length_encoded(rest)
    elif offered & _SECURE_CONNECTION:
        (length,), rest = _take(rest, 1)
    else:
        length = len(_text(rest)[0]) + 1
    _, rest = _take(rest, length)
    return Login(user, _text(rest)[0] if offered & _CONNECT_WITH_DB else "")


def refusal(code: int, state: str, why: str) -> bytes:
    """An error, in answer to a login."""
    return packet(2, b"\xff" + code.to_bytes(2, "little") + f"#{state}{why}".encode())


def _text(data: bytes) -> tuple[str, bytes]:
    text, end, rest = data.partition(b"\0")
    if not end:
        raise ValueError("a login that ends too early")
    return text.decode(), rest


def _length_encoded(data: bytes) -> tuple[int, bytes]:
    (first,), rest = _take(data, 1)
    if (size := _LENGTH_FOLLOWS.get(first)) is None:
        return first, rest
    length, rest = _take(rest, size)
    return int.from_bytes(length, "little"), rest


def _take(data: bytes, count: int) -> tuple[bytes, bytes]:
    if count > len(data):
        raise ValueError("a login that ends too early")
    return data[:count], data[count:]
