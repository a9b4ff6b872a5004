"""What nodes say to each other: one request and one answer a connection, each a frame.

A frame is the length of what follows (4 bytes, big-endian) and a message as compressed MessagePack.
"""

from __future__ import annotations

import asyncio
import zlib

import msgspec

_LENGTH_BYTES = 4
LARGEST_FRAME_BYTES = 1 << 24


class Entry(msgspec.Struct, frozen=True, array_like=True):
    term: int
    payload: bytes | None
    """``None`` for what a new leader writes to find out how far the log is agreed on."""


class Vote(msgspec.Struct, frozen=True, tag=True):
    term: int
    candidate: str
    last_index: int
    last_term: int


class Append(msgspec.Struct, frozen=True, tag=True):
    """Also a heartbeat, when there are no entries."""

    term: int
    leader: str
    after_index: int
    after_term: int
    entries: list[Entry]
    agreed: int


class Propose(msgspec.Struct, frozen=True, tag=True):
    payload: bytes


class Read(msgspec.Struct, frozen=True, tag=True):
    """All that is agreed on."""


Request = Vote | Append | Propose | Read


class Voted(msgspec.Struct, frozen=True, tag=True):
    term: int
    granted: bool


class Appended(msgspec.Struct, frozen=True, tag=True):
    term: int
    matches: bool


class Done(msgspec.Struct, frozen=True, tag=True):
    """The entry has its index for good; or these are the entries."""

    index: int
    entries: list[bytes] = []


class Refused(msgspec.Struct, frozen=True, tag=True):
    """Nothing was written here; ask ``leader``, if that is known."""

    leader: str | None


class Unknown(msgspec.Struct, frozen=True, tag=True):
    """It may be agreed on in the end, or never."""


Answer = Voted | Appended | Done | Refused | Unknown

_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def frame(message: Request | Answer) -> bytes:
    """The bytes of a message."""
    body = zlib.compress(msgspec.msgpack.encode(message))
    return len(body).to_bytes(_LENGTH_BYTES) + body


async def read_request(reader: asyncio.StreamReader) -> Request:
    """Raises ``ValueError`` for what is no request."""
    return _requests.decode(await _read(reader))


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """Raises ``ValueError`` for what is no answer."""
    return _answers.decode(await _read(reader))


async def _read(reader: asyncio.StreamReader) -> bytes:
    length = int.from_bytes(await reader.readexactly(_LENGTH_BYTES))
    if length > LARGEST_FRAME_BYTES:
        raise ValueError(f"a frame of {length} bytes")
    try:
        return zlib.decompress(await reader.readexactly(length))
    except zlib.error as error:
        raise ValueError(f"no frame: {error}") from error
