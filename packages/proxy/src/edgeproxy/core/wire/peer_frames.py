"""How what replicas say to each other is framed on a QUIC stream.

::

    length   4 bytes, big-endian: of all that follows
    head     1 byte: the kind of message; the highest bit says that the body is compressed
    body     msgpack, or a zstd frame of it that states its size

A frame says nothing of its version, because both ends agreed on one before the first (see
:mod:`edgeproxy.core.replication.handshake`). Kinds are never given another meaning.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec
import zstandard

MAX_FRAME_BYTES: Final = 8 << 20
"""Of one frame, compressed or not. Snapshots come in parts that stay far below."""
COMPRESS_BYTES: Final = 512
"""Bodies of at least this size are compressed. Below, the zstd frame gains little on three writes."""

_LENGTH_BYTES: Final = 4
_COMPRESSED: Final = 0x80
MAX_KIND: Final = 0x7F

_compressor = zstandard.ZstdCompressor(level=3, write_checksum=False, write_content_size=True)
_decompressor = zstandard.ZstdDecompressor()


class Frame(msgspec.Struct, frozen=True):
    """One message that nobody has looked into."""

    kind: int
    body: bytes


class PeerFrameError(ValueError):
    """The peer sent what is no frame; its stream is of no use any more."""


def encode(frame: Frame) -> bytes:
    """The frame as it goes over the wire."""
    head, body = frame.kind, frame.body
    if len(body) >= COMPRESS_BYTES:
        compressed = _compressor.compress(body)
        if len(compressed) < len(body):
            head, body = head | _COMPRESSED, compressed
    return (1 + len(body)).to_bytes(_LENGTH_BYTES, "big") + bytes((head,)) + body


class PeerFrameReader:
    """Bytes in, frames out, however they were cut."""

    def __init__(self, max_bytes: int = MAX_FRAME_BYTES) -> None:
        """``max_bytes`` bounds a frame, and also what a compressed body may grow to."""
        self.max_bytes = max_bytes
        self._buffer = bytearray()

    def __len__(self) -> int:
        """How many bytes wait for the rest of their frame."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take in ``data`` and give every frame that is now whole.

        Raises:
            PeerFrameError: too long, empty, or wrongly compressed.
        """
        self._buffer += data
        while len(self._buffer) >= _LENGTH_BYTES:
            length = int.from_bytes(self._buffer[:_LENGTH_BYTES], "big")
            if not 1 <= length <= self.max_bytes:
                raise PeerFrameError(f"a frame of {length} bytes, the limit is {self.max_bytes}")
            end = _LENGTH_BYTES + length
            if len(self._buffer) < end:
                return
            head = self._buffer[_LENGTH_BYTES]
            body = bytes(memoryview(self._buffer)[_LENGTH_BYTES + 1 : end])
            del self._buffer[:end]
            if head & _COMPRESSED:
                body = _decompressed(body, self.max_bytes)
            yield Frame(head & MAX_KIND, body)


def _decompressed(body: bytes, max_bytes: int) -> bytes:
    """What was compressed; never more memory than ``max_bytes`` is taken for it."""
    try:
        # The frame states its size, and decompression ends there whatever follows.
        size = zstandard.frame_content_size(body)
        if not 0 <= size <= max_bytes:
            raise PeerFrameError(f"a body that says it has {size} bytes, the limit is {max_bytes}")
        # To zstandard, a limit of 0 is none.
        return _decompressor.decompress(body, max_output_size=max(1, size), allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise PeerFrameError(f"a wrongly compressed body: {error}") from error
