from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testkit.proxy_protocol import (
    MAX_V1_BYTES,
    MAX_V2_BYTES,
    SIGNATURE_V2,
    ProxyHeader,
    ProxyHeaderError,
    bytes_missing,
    encode_v1,
    encode_v2,
    read_header,
)

CLIENT, SERVER = ("192.0.2.7", 40000), ("198.51.100.1", 443)
CLIENT_6, SERVER_6 = ("2001:db8::7", 40000), ("2001:db8::1", 443)


def read_from(stream: bytes) -> tuple[ProxyHeader, bytes]:
    """Read a header as a socket's owner does; return it and what was left in the stream."""
    data = b""
    while missing := bytes_missing(data):
        piece, stream = stream[:missing], stream[missing:]
        if not piece:
            raise ProxyHeaderError("the stream ended")
        data += piece
    return read_header(data), stream


def test_version_1_is_written_as_the_specification_shows_it() -> None:
    assert encode_v1(CLIENT, SERVER) == b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\n"
    assert encode_v1(CLIENT_6, SERVER_6) == b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 443\r\n"
    assert encode_v1() == b"PROXY UNKNOWN\r\n"


def test_version_2_is_written_as_the_specification_shows_it() -> None:
    assert encode_v2(CLIENT, SERVER, ((0x04, b"x"),)) == bytes.fromhex(
        "0d0a0d0a000d0a515549540a 21 11 0010 c0000207 c6336401 9c40 01bb 04 0001 78"
    )
    assert encode_v2() == SIGNATURE_V2 + b"\x20\x00\x00\x00"


@pytest.mark.parametrize("ends", [(CLIENT, SERVER), (CLIENT_6, SERVER_6)])
@pytest.mark.parametrize("rest", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\r\n", b"\x16\x03\x01"])
def test_what_was_written_is_read_and_what_follows_is_left(
    ends: tuple[tuple[str, int], tuple[str, int]], rest: bytes
) -> None:
    tlvs = ((0x05, b"id"), (0xE0, b""))
    assert read_from(encode_v1(*ends) + rest) == (ProxyHeader(1, *ends), rest)
    assert read_from(encode_v2(*ends, tlvs) + rest) == (ProxyHeader(2, *ends, tlvs), rest)


@pytest.mark.parametrize(
    ("data", "version"),
    [
        (b"PROXY UNKNOWN\r\n", 1),
        (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", 1),
        (encode_v2(), 2),
        (SIGNATURE_V2 + b"\x20\x11\x00\x03abc", 2),
        (SIGNATURE_V2 + b"\x21\x00\x00\x03abc", 2),
    ],
)
def test_connection_of_the_senders_own_has_no_ends(data: bytes, version: int) -> None:
    assert read_from(data) == (ProxyHeader(version), b"")


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"GET / HTTP/1.1\r\n", "neither version's signature"),
        (b"PROXY", "ends early"),
        (b"PROXY " + b"x" * MAX_V1_BYTES, "no end of line within 107"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 40000\r\n", "not of the form"),
        (b"PROXY TCP5 192.0.2.7 198.51.100.1 40000 443\r\n", "not of the form"),
        (b"PROXY TCP6 fe80::1%eth0 fe80::2 40000 443\r\n", "not of the form"),
        (b"PROXY TCP4 2001:db8::7 198.51.100.1 40000 443\r\n", "an address is wrong"),
        (b"PROXY TCP6 192.0.2.7 198.51.100.1 40000 443\r\n", "an address is wrong"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 040000 443\r\n", "'040000' is no port"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 -1 443\r\n", "'-1' is no port"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n", "'65536' is no port"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 4\r0 443\r\n", "not one line"),
        (b"PROXY TCP4 192.0.2.\xff 198.51.100.1 40 443\r\n", "not one line"),
        (SIGNATURE_V2 + b"\x31\x11\x00\x00", "unknown version or command 0x31"),
        (SIGNATURE_V2 + b"\x22\x11\x00\x00", "unknown version or command 0x22"),
        (SIGNATURE_V2 + b"\x21\x12\x00\x00", "none of TCP"),
        (SIGNATURE_V2 + b"\x21\x31\x00\x00", "none of TCP"),
        (SIGNATURE_V2 + b"\x21\x11\x00\x0bxxxxxxxxxxx", "11 bytes of addresses where 12"),
        (SIGNATURE_V2 + b"\x21\x11\xff\xff", f"limit is {MAX_V2_BYTES}"),
        (encode_v2() + b"x", "goes on behind its end"),
        (encode_v2(CLIENT, SERVER)[:-3], "ends early"),
        (SIGNATURE_V2 + b"\x21\x11\x00\x0e" + bytes(12) + b"\x01\x00", "a TLV is cut off"),
        (SIGNATURE_V2 + b"\x21\x11\x00\x0f" + bytes(12) + b"\x01\x00\x01", "a TLV of 1 bytes has 0"),
    ],
)
def test_anything_else_is_refused_with_the_reason(data: bytes, complaint: str) -> None:
    with pytest.raises(ProxyHeaderError, match=complaint):
        read_header(data)


def test_ends_of_two_families_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="different families"):
        encode_v1(CLIENT, SERVER_6)
    with pytest.raises(ValueError, match="different families"):
        encode_v2(CLIENT, SERVER_6)


@given(seed=st.integers(0, 2**32))
def test_any_bytes_are_a_header_or_refused_within_the_limit(seed: int) -> None:
    rng = random.Random(seed)
    valid = rng.choice((
        encode_v1(CLIENT, SERVER),
        encode_v1(),
        encode_v2(CLIENT_6, SERVER_6, ((rng.randrange(256), rng.randbytes(rng.randrange(300))),)),
        rng.randbytes(rng.randrange(200)),
    ))  # fmt: skip
    data = bytearray(valid)
    for _ in range(rng.randrange(4)):
        if data:
            data[rng.randrange(len(data))] = rng.choice((0, 10, 13, 32, 33, 255, rng.randrange(256)))
    stream = bytes(data) + rng.randbytes(rng.randrange(20))
    try:
        header, rest = read_from(stream)
    except ProxyHeaderError:
        return
    assert len(stream) - len(rest) <= MAX_V2_BYTES
    again = encode_v1 if header.version == 1 else encode_v2
    read_again, _ = read_from(again(header.source, header.destination))
    assert (read_again.source, read_again.destination) == (header.source, header.destination)
