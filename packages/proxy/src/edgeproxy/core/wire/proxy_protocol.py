"""The PROXY protocol, versions 1 and 2: the line or block before a stream that says whose stream it is.

Source: the specification in HAProxy's ``doc/proxy-protocol.txt``. Where it leaves a choice, this is strict:

- Version 1 is read by its grammar to the letter. The one liberty is an IPv6 address that ends in a dotted
  quad, as ``inet_ntop`` writes IPv4-mapped ones.
- Version 2 is refused for an unknown version, command, family or transport, a block too short for its
  family, a checksum that is wrong or there twice, and a TLV that does not fit.
- LOCAL, UNKNOWN, an unspecified family or transport, and UNIX sockets give no addresses: the socket's own
  count. Datagram transports are read like streams, since a resolver that took a query over UDP may ask on
  over TCP.
- The block of LOCAL and of an unspecified family has no layout to rely on, so it is skipped whole.

Only a listener that is told to, and only from sources it is told to trust, may look for a header: it lets
its sender be anybody.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import IntEnum
from ipaddress import IPv6Address
from struct import Struct
from typing import Final

import msgspec

from edgeproxy.core.dataplane.client import normalise
from edgeproxy.core.wire.crc32c import crc32c
from edgeproxy.core.wire.prefix import Malformed, Verdict

MAX_PREFIX_BYTES: Final = 4096
"""Header of version 2 with all its TLVs. The specification counts on less than a TCP segment; this leaves
room for a client certificate among the TLVs."""

MAX_UNIQUE_ID_BYTES: Final = 128

_MAX_V1_BYTES = 107
_SIGNATURE_V1 = b"PROXY"
_SIGNATURE_V2 = b"\r\n\r\n\0\r\nQUIT\n"
_PORT = rb"(0|[1-9][0-9]{0,4})"
_ADDRESS = rb"([0-9A-Fa-f:.]+)"
_LINE: Final = re.compile(
    rb"PROXY (?:UNKNOWN(?: [^\r\n]*)?|(TCP4|TCP6) %b %b %b %b)\r\n" % (_ADDRESS, _ADDRESS, _PORT, _PORT)
)

_FIXED: Final = Struct(">BBH")
"""Behind the signature: version and command, family and transport, length of the rest."""
_FIXED_BYTES = len(_SIGNATURE_V2) + _FIXED.size
_VERSION = 2
_LOCAL, _PROXY = 0, 1
_UNSPECIFIED, _IPV4, _IPV6 = 0, 1, 2
_STREAM = 1
_TRANSPORTS = 3
_ADDRESSES: Final = (Struct(""), Struct(">4B4BHH"), Struct(">8H8HHH"), Struct("108s108s"))
"""By family: source and destination, then their ports."""
_QUAD = "{}.{}.{}.{}"
_GROUPS = "{:x}:{:x}:{:x}:{:x}:{:x}:{:x}:{:x}:{:x}"
_TLV: Final = Struct(">BH")
_CHECKSUM_BYTES = 4
_TLS_CLIENT: Final = Struct(">BI")

Tlv = tuple[int, bytes]
"""Type and value. The types that mean something to us are in :class:`TlvType`."""


class TlvType(IntEnum):
    """Types of the specification, and ours from its range for applications, 0xE0 to 0xEF."""

    ALPN = 0x01
    """The protocol that TLS agreed on, as on the wire: ``b"h2"``."""
    AUTHORITY = 0x02
    """The server name that the client sent in TLS."""
    CRC32C = 0x03
    NOOP = 0x04
    UNIQUE_ID = 0x05
    """Opaque, at most 128 bytes."""
    SSL = 0x20
    """How the client's TLS is: see :func:`tls_tlv`."""
    APP = 0xE0
    """Ours: the app that the connection is for, UTF-8."""
    COUNTRY = 0xE1
    """Ours: the client's country, ISO 3166-1 alpha-2 in ASCII; absent when unknown."""


class TlsSubtype(IntEnum):
    """Types of the TLVs within :attr:`TlvType.SSL`."""

    VERSION = 0x21
    CN = 0x22
    CIPHER = 0x23


LOCAL_V1: Final = b"PROXY UNKNOWN\r\n"
"""For a connection that is the sender's own, such as one that checks whether the receiver is well."""
LOCAL_V2: Final = _SIGNATURE_V2 + _FIXED.pack(_VERSION << 4 | _LOCAL, _UNSPECIFIED, 0)

_CLIENT_TLS, _CLIENT_CERTIFICATE_CONNECTION, _CLIENT_CERTIFICATE_SESSION = 1, 2, 4


class Header(msgspec.Struct, frozen=True):
    """What a header says."""

    length: int
    """Bytes to take from the stream; what follows is the client's."""
    source: str | None = None
    """Address of the client, normalised (:func:`~edgeproxy.core.dataplane.client.normalise`); ``None``: the
    socket's own addresses count."""
    source_port: int = 0
    destination: str | None = None
    """Address that the client connected to; there when ``source`` is."""
    destination_port: int = 0
    local: bool = False
    """The sender opened this connection for itself, to check whether we are well."""
    tlvs: tuple[Tlv, ...] = ()
    """In the order sent, without padding and the checksum, which has been verified."""


# ---- reading -------------------------------------------------------------------------------------


def read_header(prefix: bytes) -> Header | Malformed | Verdict:
    """Read the header that ``prefix`` begins with, if it does. See :mod:`edgeproxy.core.wire.prefix`."""
    try:  # feature: proxy_protocol.in
        if prefix.startswith(_SIGNATURE_V2):
            return _read_v2(prefix)
        if prefix.startswith(_SIGNATURE_V1):
            return _read_v1(prefix)
    except ValueError as error:
        return Malformed(str(error))
    if _SIGNATURE_V2.startswith(prefix) or _SIGNATURE_V1.startswith(prefix):
        return Verdict.NEED_MORE
    return Verdict.OTHER_PROTOCOL


def _read_v1(prefix: bytes) -> Header | Verdict:
    length = prefix.find(b"\n", 0, _MAX_V1_BYTES) + 1
    if not length:
        if len(prefix) < _MAX_V1_BYTES:
            return Verdict.NEED_MORE
        raise ValueError(f"PROXY line without an end within {_MAX_V1_BYTES} bytes")
    line = _LINE.fullmatch(prefix, 0, length)
    if line is None:
        raise ValueError("PROXY line against the grammar")
    family, source, destination, source_port, destination_port = line.groups()
    if family is None:
        return Header(length)
    return Header(
        length,
        _v1_address(source, family),
        _v1_port(source_port),
        _v1_address(destination, family),
        _v1_port(destination_port),
    )


def _v1_address(field: bytes, family: bytes) -> str:
    if (b":" in field) != (family == b"TCP6"):
        raise ValueError("PROXY line with an address of another family")
    return normalise(field.decode())


def _v1_port(field: bytes) -> int:
    port = int(field)
    if port > 0xFFFF:
        raise ValueError(f"PROXY line with port {port}")
    return port


def _read_v2(prefix: bytes) -> Header | Verdict:
    if len(prefix) < _FIXED_BYTES:
        return Verdict.NEED_MORE
    version_command, family_transport, size = _FIXED.unpack_from(prefix, len(_SIGNATURE_V2))
    version, command = version_command >> 4, version_command & 15
    family, transport = family_transport >> 4, family_transport & 15
    length = _FIXED_BYTES + size
    if version != _VERSION or command not in (_LOCAL, _PROXY):
        raise ValueError(f"PROXY header of version {version} with command {command}")
    if length > MAX_PREFIX_BYTES:
        raise ValueError(f"PROXY header of {length} bytes, the limit is {MAX_PREFIX_BYTES}")
    if command == _PROXY:
        if family >= len(_ADDRESSES) or transport >= _TRANSPORTS:
            raise ValueError(f"PROXY header of family {family} with transport {transport}")
        if transport != _UNSPECIFIED and size < _ADDRESSES[family].size:
            raise ValueError(f"PROXY header of family {family} with only {size} bytes of addresses")
    if len(prefix) < length:
        return Verdict.NEED_MORE
    if command == _LOCAL:
        return Header(length, local=True)
    if family == _UNSPECIFIED or transport == _UNSPECIFIED:
        return Header(length)
    layout = _ADDRESSES[family]
    tlvs = _read_tlvs(prefix[:length], _FIXED_BYTES + layout.size)
    fields = layout.unpack_from(prefix, _FIXED_BYTES)
    if family == _IPV4:
        source, destination = _QUAD.format(*fields[:4]), _QUAD.format(*fields[4:8])
    elif family == _IPV6:
        source = normalise(_GROUPS.format(*fields[:8]))
        destination = normalise(_GROUPS.format(*fields[8:16]))
    else:
        return Header(length, tlvs=tlvs)
    return Header(length, source, fields[-2], destination, fields[-1], tlvs=tlvs)


def _read_tlvs(header: bytes, position: int) -> tuple[Tlv, ...]:
    """The TLVs from ``position`` to the end of ``header``, after comparing the checksum if there is one."""
    tlvs = []
    checksum_at = 0
    end = len(header)
    while position < end:
        start = position + _TLV.size
        if start > end:
            raise ValueError("PROXY header that ends within a TLV")
        kind, size = _TLV.unpack_from(header, position)
        position = start + size
        if position > end:
            raise ValueError(f"PROXY header with TLV {kind:#04x} beyond its end")
        if kind == TlvType.CRC32C:
            if checksum_at or size != _CHECKSUM_BYTES:
                raise ValueError("PROXY header with two checksums, or one of a wrong size")
            checksum_at = start
        elif kind == TlvType.UNIQUE_ID and size > MAX_UNIQUE_ID_BYTES:
            raise ValueError(f"PROXY header with a unique id of {size} bytes")
        elif kind != TlvType.NOOP:
            tlvs.append((kind, header[start:position]))
    if checksum_at:
        behind = checksum_at + _CHECKSUM_BYTES
        protected = header[:checksum_at] + bytes(_CHECKSUM_BYTES) + header[behind:]
        if crc32c(protected).to_bytes(_CHECKSUM_BYTES, "big") != header[checksum_at:behind]:
            raise ValueError("PROXY header with a wrong checksum")
    return tuple(tlvs)


# ---- writing -------------------------------------------------------------------------------------


def encode_v1(source: str, source_port: int, destination: str, destination_port: int) -> bytes:
    """The line of version 1, which has no room for anything but the addresses.

    Raises:
        ValueError: an address is no IP address.
    """
    source, destination = _of_one_family(source, destination)
    family = "TCP6" if ":" in source else "TCP4"
    return f"PROXY {family} {source} {destination} {source_port} {destination_port}\r\n".encode()


def encode_v2(
    source: str,
    source_port: int,
    destination: str,
    destination_port: int,
    tlvs: Sequence[Tlv] = (),
    *,
    checksum: bool = False,
) -> bytes:
    """The header of version 2 for a stream over IP.

    Args:
        source: numeric address of the client, in any spelling.
        source_port: 0 to 65535, as is ``destination_port``.
        destination: numeric address that the client connected to.
        destination_port: see ``source_port``.
        tlvs: sent in this order.
        checksum: protect it all by a :attr:`TlvType.CRC32C`, which costs 0.1 µs a byte.

    Raises:
        ValueError: an address is no IP address, or the header would be longer than ``MAX_PREFIX_BYTES``.
    """
    source, destination = _of_one_family(source, destination)  # feature: proxy_protocol.out
    if ":" in source:
        family, layout = _IPV6, _ADDRESSES[_IPV6]
        packed = IPv6Address(source).packed + IPv6Address(destination).packed
    else:
        family, layout = _IPV4, _ADDRESSES[_IPV4]
        packed = bytes(map(int, f"{source}.{destination}".split(".")))
    if checksum:
        tlvs = ((TlvType.CRC32C, bytes(_CHECKSUM_BYTES)), *tlvs)
    size = layout.size + sum(_TLV.size + len(value) for _, value in tlvs)
    if _FIXED_BYTES + size > MAX_PREFIX_BYTES:
        raise ValueError(f"PROXY header of {_FIXED_BYTES + size} bytes, the limit is {MAX_PREFIX_BYTES}")
    header = b"".join(
        (
            _SIGNATURE_V2,
            _FIXED.pack(_VERSION << 4 | _PROXY, family << 4 | _STREAM, size),
            packed,
            source_port.to_bytes(2, "big"),
            destination_port.to_bytes(2, "big"),
            *(_encode_tlv(kind, value) for kind, value in tlvs),
        )
    )
    if not checksum:
        return header
    start = _FIXED_BYTES + layout.size + _TLV.size
    return (
        header[:start] + crc32c(header).to_bytes(_CHECKSUM_BYTES, "big") + header[start + _CHECKSUM_BYTES :]
    )


def tls_tlv(
    version: str,
    cipher: str,
    *,
    client_certificate: bool = False,
    common_name: str | None = None,
    resumed: bool = False,
) -> Tlv:
    """The TLV for a client that came over TLS.

    Args:
        version: as the ``ssl`` module names it: ``TLSv1.3``.
        cipher: OpenSSL's name of the cipher suite.
        client_certificate: the client has shown a certificate, and it was verified.
        common_name: CN of that certificate, if it has one.
        resumed: the certificate was shown when the session began, not on this connection.
    """
    client = _CLIENT_TLS
    if client_certificate:
        client |= _CLIENT_CERTIFICATE_SESSION
        if not resumed:
            client |= _CLIENT_CERTIFICATE_CONNECTION
    value = _TLS_CLIENT.pack(client, not client_certificate) + _encode_tlv(
        TlsSubtype.VERSION, version.encode()
    )
    if common_name is not None:
        value += _encode_tlv(TlsSubtype.CN, common_name.encode())
    return TlvType.SSL, value + _encode_tlv(TlsSubtype.CIPHER, cipher.encode())


def _encode_tlv(kind: int, value: bytes) -> bytes:
    return _TLV.pack(kind, len(value)) + value


def _of_one_family(source: str, destination: str) -> tuple[str, str]:
    """Both addresses normalised; of two families, the IPv4 one is mapped into IPv6."""
    source, destination = normalise(source), normalise(destination)
    if ":" in source and ":" not in destination:
        destination = _mapped(destination)
    elif ":" in destination and ":" not in source:
        source = _mapped(source)
    return source, destination


def _mapped(quad: str) -> str:
    # In hexadecimal, since the grammar of version 1 has no dotted quad within an IPv6 address.
    a, b, c, d = map(int, quad.split("."))
    return f"::ffff:{a << 8 | b:x}:{c << 8 | d:x}"
