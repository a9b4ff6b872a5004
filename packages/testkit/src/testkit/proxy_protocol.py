"""The PROXY protocol, versions 1 and 2, for both ends of a test: write a header, or read one off a socket.

Source: the specification in HAProxy's ``doc/proxy-protocol.txt``. Sans-IO. Reading never takes a byte beyond
the header, so that what follows (a ClientHello, say) can be left in the socket for somebody else::

    data = b""
    while missing := bytes_missing(data):
        data += sock.recv(missing)
    header = read_header(data)

Strict on purpose: a proxy under test gets no benefit of the doubt. A checksum (TLV 0x03) is handed over, not
verified.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address

SIGNATURE_V2 = b"\r\n\r\n\0\r\nQUIT\n"
MAX_V1_BYTES = 107
MAX_V2_BYTES = 4096
"""Ours, not the specification's, which would allow 65,551: room for a client certificate among the TLVs."""

_SIGNATURE_V1 = b"PROXY "
_SHORTEST_V1 = len(b"PROXY UNKNOWN\r\n")
_FIXED_V2 = 16
_STREAM = 1
_BLOCKS = {1: struct.Struct(">4s4sHH"), 2: struct.Struct(">16s16sHH")}
_TLV = struct.Struct(">BH")

Endpoint = tuple[str, int]
"""IP address, in its shortest spelling, and port."""


class ProxyHeaderError(ValueError):
    """The bytes are no PROXY header; says why in one line."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """What a header says. Without ends (``LOCAL``, ``UNKNOWN``) the connection is the sender's own."""

    version: int
    source: Endpoint | None = None
    destination: Endpoint | None = None
    tlvs: tuple[tuple[int, bytes], ...] = ()
    """Type and value, in the order sent; version 2 only."""


def encode_v1(source: Endpoint | None = None, destination: Endpoint | None = None) -> bytes:
    """Write the line; without ends, of an unknown client."""
    if source is None or destination is None:
        return b"PROXY UNKNOWN\r\n"
    one, other = _same_family(source, destination)
    line = f"PROXY TCP{one.version} {one} {other} {source[1]} {destination[1]}\r\n"
    return line.encode("ascii")


def encode_v2(
    source: Endpoint | None = None,
    destination: Endpoint | None = None,
    tlvs: tuple[tuple[int, bytes], ...] = (),
) -> bytes:
    """Write the block; without ends, of a connection of the proxy's own (``LOCAL``)."""
    trailer = b"".join(_TLV.pack(kind, len(value)) + value for kind, value in tlvs)
    if source is None or destination is None:
        return _block(0x20, 0x00, trailer)
    one, other = _same_family(source, destination)
    family = 1 if one.version == 4 else 2
    ends = _BLOCKS[family].pack(one.packed, other.packed, source[1], destination[1])
    return _block(0x21, family << 4 | _STREAM, ends + trailer)


def bytes_missing(data: bytes) -> int:
    """Return how many further bytes certainly belong to the header: 0 when it is whole.

    Raises:
        ProxyHeaderError: no header begins like this, or none may be this long.
    """
    if data.startswith(SIGNATURE_V2):
        if len(data) < _FIXED_V2:
            return _FIXED_V2 - len(data)
        length = _FIXED_V2 + int.from_bytes(data[14:16], "big")
        if length > MAX_V2_BYTES:
            raise ProxyHeaderError(f"a header of {length} bytes; the limit is {MAX_V2_BYTES}")
        return max(0, length - len(data))
    if SIGNATURE_V2.startswith(data):
        # Fewer bytes than either version's shortest: both may still come.
        return (_SHORTEST_V1 if not data else _FIXED_V2) - len(data)
    if not (data.startswith(_SIGNATURE_V1) or _SIGNATURE_V1.startswith(data)):
        raise ProxyHeaderError(f"begins with {data[:16]!r}: neither version's signature")
    if data.endswith(b"\r\n"):
        return 0
    if len(data) >= MAX_V1_BYTES:
        raise ProxyHeaderError(f"no end of line within {MAX_V1_BYTES} bytes")
    # Byte by byte once the line may end, since what follows it is somebody else's.
    return max(_SHORTEST_V1 - len(data), 1)


def read_header(data: bytes) -> ProxyHeader:
    """Read a whole header, such as `bytes_missing` asks for, and nothing behind it.

    Raises:
        ProxyHeaderError: it is no header, not whole, or more than one.
    """
    if bytes_missing(data):
        raise ProxyHeaderError(f"ends early, after {len(data)} bytes")
    return _read_v2(data) if data.startswith(SIGNATURE_V2) else _read_v1(data)


def _read_v1(data: bytes) -> ProxyHeader:
    line = data.removesuffix(b"\r\n")
    if not line.isascii() or b"\r" in line or b"\n" in line:
        raise ProxyHeaderError(f"not one line of ASCII: {data!r}")
    words = line.decode("ascii").split(" ")
    if words[1] == "UNKNOWN":
        return ProxyHeader(1)
    families = {"TCP4": IPv4Address, "TCP6": IPv6Address}
    # A zone (fe80::1%eth0) would mean something else on every machine; the specification knows none.
    if len(words) != 6 or words[1] not in families or "%" in line.decode("ascii"):
        raise ProxyHeaderError(f"not of the form PROXY TCP4 address address port port: {line!r}")
    family = families[words[1]]
    try:
        one, other = family(words[2]), family(words[3])
    except AddressValueError as error:
        raise ProxyHeaderError(f"an address is wrong: {error}") from error
    return ProxyHeader(1, (str(one), _port(words[4])), (str(other), _port(words[5])))


def _read_v2(data: bytes) -> ProxyHeader:
    version_and_command, family_and_transport = data[12], data[13]
    body = data[_FIXED_V2:]
    if len(data) != _FIXED_V2 + int.from_bytes(data[14:16], "big"):
        raise ProxyHeaderError("goes on behind its end")
    if version_and_command == 0x20:
        return ProxyHeader(2)
    if version_and_command != 0x21:
        raise ProxyHeaderError(f"unknown version or command 0x{version_and_command:02x}")
    family, transport = family_and_transport >> 4, family_and_transport & 0xF
    if family_and_transport == 0:
        return ProxyHeader(2)
    if transport != _STREAM or family not in _BLOCKS:
        raise ProxyHeaderError(f"family and transport 0x{family_and_transport:02x} are none of TCP over IP")
    block = _BLOCKS[family]
    if len(body) < block.size:
        raise ProxyHeaderError(f"{len(body)} bytes of addresses where {block.size} belong")
    one, other, source_port, destination_port = block.unpack_from(body)
    ends = (str(ip_address(one)), source_port), (str(ip_address(other)), destination_port)
    return ProxyHeader(2, *ends, _read_tlvs(body[block.size :]))


def _read_tlvs(data: bytes) -> tuple[tuple[int, bytes], ...]:
    found = []
    while data:
        if len(data) < _TLV.size:
            raise ProxyHeaderError("a TLV is cut off")
        kind, length = _TLV.unpack_from(data)
        value = data[_TLV.size : _TLV.size + length]
        if len(value) != length:
            raise ProxyHeaderError(f"a TLV of {length} bytes has {len(value)}")
        found.append((kind, value))
        data = data[_TLV.size + length :]
    return tuple(found)


def _port(text: str) -> int:
    if not text.isdigit() or len(text) > 5 or int(text) > 65535 or text != str(int(text)):
        raise ProxyHeaderError(f"{text!r} is no port")
    return int(text)


def _same_family(source: Endpoint, destination: Endpoint) -> tuple[IPv4Address | IPv6Address, ...]:
    one, other = ip_address(source[0]), ip_address(destination[0])
    if one.version != other.version:
        raise ValueError(f"{one} and {other} are of different families")
    return one, other


def _block(version_and_command: int, family_and_transport: int, body: bytes) -> bytes:
    fixed = bytes((version_and_command, family_and_transport)) + struct.pack(">H", len(body))
    return SIGNATURE_V2 + fixed + body
