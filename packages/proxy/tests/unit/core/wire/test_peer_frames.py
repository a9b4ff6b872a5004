"""Whatever way the stream is cut, the frames come out; whatever else comes in is refused."""

from __future__ import annotations

import random

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.wire.peer_frames import (
    COMPRESS_BYTES,
    MAX_FRAME_BYTES,
    MAX_KIND,
    Frame,
    PeerFrameError,
    PeerFrameReader,
    encode,
)

pytestmark = pytest.mark.feature("replication.peers")

frames = st.builds(
    Frame,
    kind=st.integers(0, MAX_KIND),
    body=st.one_of(st.binary(max_size=20), st.binary(min_size=1, max_size=3).map(lambda body: body * 2_000)),
)


def compressed(body: bytes, *, states_size: bool = True) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=states_size).compress(body)


def on_wire(head: int, body: bytes) -> bytes:
    return (1 + len(body)).to_bytes(4, "big") + bytes((head,)) + body


@given(st.lists(frames, max_size=4), st.integers(1, 50))
def test_survives_any_cut(sent: list[Frame], piece: int) -> None:
    wire = b"".join(map(encode, sent))
    reader = PeerFrameReader()
    found = [frame for at in range(0, len(wire), piece) for frame in reader.feed(wire[at : at + piece])]
    assert found == sent
    assert len(reader) == 0


def test_large_bodies_are_compressed_and_small_or_random_ones_are_not() -> None:
    assert len(encode(Frame(20, bytes(100_000)))) < 200
    assert encode(Frame(20, bytes(COMPRESS_BYTES - 1))) == on_wire(20, bytes(COMPRESS_BYTES - 1))
    noise = random.Random(3).randbytes(2 * COMPRESS_BYTES)
    assert encode(Frame(20, noise)) == on_wire(20, noise)


def test_knows_what_waits_for_the_rest() -> None:
    reader = PeerFrameReader()
    assert list(reader.feed(encode(Frame(20, b"abc"))[:-1])) == []
    assert len(reader) == 7


@pytest.mark.parametrize("length", [0, MAX_FRAME_BYTES + 1, 0xFFFFFFFF])
def test_a_length_out_of_bounds_is_refused_before_anything_is_kept_for_it(length: int) -> None:
    with pytest.raises(PeerFrameError, match=f"a frame of {length} bytes"):
        list(PeerFrameReader().feed(length.to_bytes(4, "big")))


def test_the_bound_can_be_a_smaller_one() -> None:
    with pytest.raises(PeerFrameError):
        list(PeerFrameReader(max_bytes=10).feed(encode(Frame(20, bytes(10)))))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no zstd",
        compressed(bytes(1_000))[:-1],
        compressed(bytes(1_000)) + b"more",
        compressed(bytes(1_000)) + compressed(b"more"),
        compressed(bytes(1_000), states_size=False),
    ],
)
def test_what_is_wrongly_compressed_is_refused(body: bytes) -> None:
    with pytest.raises(PeerFrameError):
        list(PeerFrameReader().feed(on_wire(0x80 | 20, body)))


def test_a_compressed_nothing_is_nothing() -> None:
    assert list(PeerFrameReader().feed(on_wire(0x80 | 20, compressed(b"")))) == [Frame(20, b"")]


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = on_wire(0x80 | 20, compressed(bytes(MAX_FRAME_BYTES + 1)))
    assert len(bomb) < 2_000
    with pytest.raises(PeerFrameError, match="says it has"):
        list(PeerFrameReader().feed(bomb))


def test_a_frame_that_lies_about_its_size_is_refused() -> None:
    body = bytearray(compressed(bytes(300)))
    # Single segment, two bytes of size, which hold the size less 256.
    assert body[4] == 0x60
    body[5:7] = (0).to_bytes(2, "little")
    with pytest.raises(PeerFrameError, match="wrongly compressed"):
        list(PeerFrameReader().feed(on_wire(0x80 | 20, bytes(body))))
