"""Headers laid out by hand after the specification, and round trips through the writer."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.dataplane.client import normalise
from edgeproxy.core.wire.prefix import Malformed, Verdict
from edgeproxy.core.wire.proxy_protocol import (
    LOCAL_V1,
    LOCAL_V2,
    MAX_PREFIX_BYTES,
    Header,
    TlsSubtype,
    Tlv,
    TlvType,
    encode_v1,
    encode_v2,
    read_header,
    tls_tlv,
)

SIGNATURE = bytes.fromhex("0D0A0D0A000D0A515549540A")
IPV4_ADDRESSES = bytes.fromhex("CB007107 C6336405 A10F 01BB")
"""203.0.113.7 to 198.51.100.5, ports 41231 to 443."""
IPV6_ADDRESSES = bytes.fromhex(
    "20010DB8 00000000 00000000 00000001 20010DB8 00000000 00000000 00000002 A10F 01BB"
)
LONGEST = b"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"


def v2(block: bytes, *, command: int = 0x21, family: int = 0x11) -> bytes:
    return SIGNATURE + bytes((command, family)) + len(block).to_bytes(2, "big") + block


def tlv(kind: int, value: bytes) -> bytes:
    return bytes((kind,)) + len(value).to_bytes(2, "big") + value


def crc32c_bit_by_bit(data: bytes) -> int:
    remainder = 0xFFFFFFFF
    for byte in data:
        remainder ^= byte
        for _ in range(8):
            remainder = remainder >> 1 ^ (0x82F63B78 if remainder & 1 else 0)
    return remainder ^ 0xFFFFFFFF


def with_checksum(tlvs_before: bytes = b"", tlvs_behind: bytes = b"") -> bytes:
    """A header of version 2 with a right checksum between these TLVs."""
    zeroed = v2(IPV4_ADDRESSES + tlvs_before + tlv(3, bytes(4)) + tlvs_behind)
    at = 16 + len(IPV4_ADDRESSES) + len(tlvs_before) + 3
    return zeroed[:at] + crc32c_bit_by_bit(zeroed).to_bytes(4, "big") + zeroed[at + 4 :]


def read(prefix: bytes) -> Header:
    found = read_header(prefix)
    assert isinstance(found, Header), found
    return found


def refusal(prefix: bytes) -> str:
    found = read_header(prefix)
    assert isinstance(found, Malformed), found
    return found.reason


SAMPLES = [
    (
        b"PROXY TCP4 203.0.113.7 198.51.100.5 41231 443\r\n",
        Header(47, "203.0.113.7", 41231, "198.51.100.5", 443),
    ),
    (
        b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
        Header(56, "255.255.255.255", 65535, "255.255.255.255", 65535),
    ),
    (
        b"PROXY TCP6 2001:DB8::1 2001:db8:0:0:0:0:0:2 0 1\r\n",
        Header(49, "2001:db8::1", 0, "2001:db8::2", 1),
    ),
    (
        b"PROXY TCP6 %b %b 65535 65535\r\n" % (LONGEST, LONGEST),
        Header(104, LONGEST.decode(), 65535, LONGEST.decode(), 65535),
    ),
    (
        b"PROXY TCP6 ::ffff:203.0.113.7 ::ffff:c633:6405 41231 443\r\n",
        Header(58, "203.0.113.7", 41231, "198.51.100.5", 443),
    ),
    (b"PROXY UNKNOWN\r\n", Header(15)),
    (b"PROXY UNKNOWN anything at all\xff\r\n", Header(32)),
    (
        b"PROXY UNKNOWN %b %b 65535 65535\r\n" % (LONGEST, LONGEST),
        Header(107),
    ),
    (v2(IPV4_ADDRESSES), Header(28, "203.0.113.7", 41231, "198.51.100.5", 443)),
    (v2(IPV4_ADDRESSES, family=0x12), Header(28, "203.0.113.7", 41231, "198.51.100.5", 443)),
    (v2(IPV6_ADDRESSES, family=0x21), Header(52, "2001:db8::1", 41231, "2001:db8::2", 443)),
    (v2(IPV6_ADDRESSES, family=0x22), Header(52, "2001:db8::1", 41231, "2001:db8::2", 443)),
    (
        v2(bytes(10) + b"\xff\xff\xcb\x00\x71\x07" + IPV6_ADDRESSES[16:], family=0x21),
        Header(52, "203.0.113.7", 41231, "2001:db8::2", 443),
    ),
    (v2(b"/run/a".ljust(108, b"\0") + b"/run/b".ljust(108, b"\0"), family=0x31), Header(232)),
    (
        v2(bytes(216) + tlv(0xE0, b"shop"), family=0x32),
        Header(239, tlvs=((TlvType.APP, b"shop"),)),
    ),
    (v2(b"", family=0x00), Header(16)),
    (v2(b"of no known layout", family=0x00), Header(34)),
    (v2(b"of no known layout", family=0x01), Header(34)),
    (v2(b"short", family=0x10), Header(21)),
    (v2(b"", command=0x20, family=0x00), Header(16, local=True)),
    (v2(IPV4_ADDRESSES, command=0x20), Header(28, local=True)),
    (v2(b"x", command=0x20, family=0xFF), Header(17, local=True)),
    (
        v2(IPV4_ADDRESSES + tlv(1, b"h2") + tlv(4, b"pad") + tlv(2, b"a.example") + tlv(5, bytes(128))),
        Header(
            28 + 5 + 6 + 12 + 131,
            "203.0.113.7",
            41231,
            "198.51.100.5",
            443,
            tlvs=((1, b"h2"), (2, b"a.example"), (5, bytes(128))),
        ),
    ),
    (
        # What HAProxy 2.6 sends with the options crc32c, unique-id and ssl to a client without TLS.
        SIGNATURE
        + bytes.fromhex("21110042 7F000001 7F000001 D954 AF77 030004 E7FFEFD5 050024")
        + b"35998b1f-18b8-46ad-9cb6-65676b30fa6f"
        + bytes.fromhex("200005 0000000000"),
        Header(
            82,
            "127.0.0.1",
            55636,
            "127.0.0.1",
            44919,
            tlvs=((TlvType.UNIQUE_ID, b"35998b1f-18b8-46ad-9cb6-65676b30fa6f"), (TlvType.SSL, bytes(5))),
        ),
    ),
    (
        with_checksum(tlv(1, b"h2"), tlv(0xE1, b"BR")),
        Header(28 + 5 + 7 + 5, "203.0.113.7", 41231, "198.51.100.5", 443, tlvs=((1, b"h2"), (0xE1, b"BR"))),
    ),
]


class TestReading:
    @pytest.mark.feature("proxy_protocol.in")
    @pytest.mark.parametrize(("data", "header"), SAMPLES)
    def test_gives_what_the_header_says(self, data: bytes, header: Header) -> None:
        assert read_header(data) == header
        assert header.length == len(data)

    @pytest.mark.parametrize(("data", "header"), SAMPLES)
    def test_any_cut_needs_more(self, data: bytes, header: Header) -> None:
        for cut in range(len(data)):
            assert read_header(data[:cut]) is Verdict.NEED_MORE, cut

    @pytest.mark.parametrize(("data", "header"), SAMPLES)
    @pytest.mark.parametrize(
        "following", [b"\r\n", b"GET / HTTP/1.1\r\n\r\n", b"PROXY UNKNOWN\r\n", bytes(9000)]
    )
    def test_what_follows_does_not_matter(self, data: bytes, header: Header, following: bytes) -> None:
        assert read_header(data + following) == header

    @pytest.mark.parametrize(
        "data",
        [
            b"GET / HTTP/1.1\r\n",
            b"POST / HTTP/1.1\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"proxy TCP4",
            b"PROXX",
            b"\r\n\r\n\r\n",
            b"\r\nPROXY UNKNOWN\r\n",
            SIGNATURE[:-1] + b"\r",
            b"\x16\x03\x01\x02\x00\x01",
        ],
    )
    def test_anything_else_is_another_protocol(self, data: bytes) -> None:
        assert read_header(data) is Verdict.OTHER_PROTOCOL

    def test_nothing_decides_nothing(self) -> None:
        assert read_header(b"") is Verdict.NEED_MORE


class TestMalformedLines:
    @pytest.mark.parametrize(
        "line",
        [
            b"PROXY",
            b"PROXY ",
            b"PROXYTCP4 203.0.113.7 198.51.100.5 1 2",
            b"PROXY  TCP4 203.0.113.7 198.51.100.5 1 2",
            b"PROXY TCP4  203.0.113.7 198.51.100.5 1 2",
            b"PROXY TCP4 203.0.113.7 198.51.100.5 1 2 ",
            b"PROXY TCP4 203.0.113.7 198.51.100.5 1",
            b"PROXY TCP4 203.0.113.7 198.51.100.5 1 2 3",
            b"PROXY\tTCP4 203.0.113.7 198.51.100.5 1 2",
            b"PROXY TCP5 203.0.113.7 198.51.100.5 1 2",
            b"PROXY tcp4 203.0.113.7 198.51.100.5 1 2",
            b"PROXY UDP4 203.0.113.7 198.51.100.5 1 2",
            b"PROXY UNKNOWNS",
            b"PROXY UNKNOWN\tx",
            b"PROXY UNKNOWN a\rb",
            b"PROXY TCP4 203.0.113.7 198.51.100.5 01 2",
            b"PROXY TCP4 203.0.113.7 198.51.100.5 1 00",
            b"PROXY TCP4 203.0.113.7 198.51.100.5 +1 2",
            b"PROXY TCP4 203.0.113.7 198.51.100.5 -1 2",
            b"PROXY TCP4 203.0.113.7 198.51.100.5 1 655350",
            b"PROXY TCP4 203.0.113.7 198.51.100.5 1 2\r",
            b"PROXY TCP6 fe80::1%eth0 fe80::2 1 2",
            b"PROXY TCP6 [2001:db8::1] 2001:db8::2 1 2",
        ],
    )
    def test_are_against_the_grammar(self, line: bytes) -> None:
        assert "against the grammar" in refusal(line + b"\r\n")

    @pytest.mark.parametrize(
        "line",
        [
            b"PROXY TCP4 203.0.113.07 198.51.100.5 1 2",
            b"PROXY TCP4 203.0.113 198.51.100.5 1 2",
            b"PROXY TCP4 203.0.113.256 198.51.100.5 1 2",
            b"PROXY TCP4 203.0.113.7 cafe 1 2",
            b"PROXY TCP6 2001:db8::1::2 2001:db8::2 1 2",
            b"PROXY TCP6 2001:db8::12345 2001:db8::2 1 2",
            b"PROXY TCP6 : 2001:db8::2 1 2",
        ],
    )
    def test_hold_no_address(self, line: bytes) -> None:
        assert "not an IP address" in refusal(line + b"\r\n")

    @pytest.mark.parametrize(
        "line",
        [
            b"PROXY TCP4 ::ffff:203.0.113.7 ::ffff:198.51.100.5 1 2",
            b"PROXY TCP4 203.0.113.7 2001:db8::2 1 2",
            b"PROXY TCP6 203.0.113.7 198.51.100.5 1 2",
            b"PROXY TCP6 2001:db8::1 198.51.100.5 1 2",
        ],
    )
    def test_hold_an_address_of_another_family(self, line: bytes) -> None:
        assert "another family" in refusal(line + b"\r\n")

    @pytest.mark.parametrize("ports", [b"65536 1", b"1 65536", b"99999 99999"])
    def test_hold_a_port_that_does_not_exist(self, ports: bytes) -> None:
        assert "with port" in refusal(b"PROXY TCP4 203.0.113.7 198.51.100.5 " + ports + b"\r\n")

    def test_end_with_a_line_feed_alone(self) -> None:
        assert "against the grammar" in refusal(b"PROXY TCP4 203.0.113.7 198.51.100.5 1 2\n")

    def test_do_not_end(self) -> None:
        line = b"PROXY UNKNOWN " + b"x" * 93
        assert read_header(line[:106]) is Verdict.NEED_MORE
        assert "without an end" in refusal(line)
        assert "without an end" in refusal(line[:106] + b"\r\n")


class TestMalformedBlocks:
    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (v2(IPV4_ADDRESSES, command=0x11), "version 1 with command 1"),
            (v2(IPV4_ADDRESSES, command=0x31), "version 3"),
            (v2(IPV4_ADDRESSES, command=0x22), "command 2"),
            (v2(IPV4_ADDRESSES, command=0x2F), "command 15"),
            (v2(bytes(216), family=0x41), "family 4 with transport 1"),
            (v2(bytes(216), family=0x13), "family 1 with transport 3"),
            (v2(bytes(216), family=0x03), "family 0 with transport 3"),
            (v2(IPV4_ADDRESSES[:-1]), "only 11 bytes"),
            (v2(b"", family=0x12), "only 0 bytes"),
            (v2(IPV6_ADDRESSES[:-1], family=0x21), "only 35 bytes"),
            (v2(bytes(215), family=0x31), "only 215 bytes"),
            (v2(bytes(MAX_PREFIX_BYTES - 15), command=0x20), "4097 bytes, the limit is 4096"),
            (v2(bytes(0xFFFF)), "65551 bytes, the limit is 4096"),
        ],
    )
    def test_are_refused_from_the_first_16_bytes_on(self, data: bytes, reason: str) -> None:
        assert reason in refusal(data)
        assert reason in refusal(data[:16])
        assert read_header(data[:15]) is Verdict.NEED_MORE

    def test_of_the_largest_size_are_read(self) -> None:
        data = v2(bytes(MAX_PREFIX_BYTES - 16), command=0x20)
        assert read(data) == Header(MAX_PREFIX_BYTES, local=True)

    @pytest.mark.parametrize(
        ("tlvs", "reason"),
        [
            (b"\xe0", "ends within a TLV"),
            (b"\xe0\x00", "ends within a TLV"),
            (tlv(0xE0, b"shop") + b"\xe1\x00", "ends within a TLV"),
            (b"\xe0\x00\x01", "TLV 0xe0 beyond its end"),
            (b"\x04\xff\xff" + bytes(100), "TLV 0x04 beyond its end"),
            (tlv(5, bytes(129)), "unique id of 129 bytes"),
            (tlv(3, bytes(3)), "of a wrong size"),
            (tlv(3, bytes(5)), "of a wrong size"),
            (tlv(3, bytes(4)), "wrong checksum"),
        ],
    )
    def test_with_wrong_tlvs_are_refused_when_complete(self, tlvs: bytes, reason: str) -> None:
        data = v2(IPV4_ADDRESSES + tlvs)
        assert reason in refusal(data)
        assert read_header(data[:-1]) is Verdict.NEED_MORE

    def test_with_two_checksums_are_refused(self) -> None:
        assert "two checksums" in refusal(with_checksum(tlvs_behind=tlv(3, bytes(4))))

    def test_with_any_byte_changed_fail_their_checksum(self) -> None:
        data = with_checksum(tlv(1, b"h2"), tlv(0xE0, b"shop"))
        for at in [*range(16, 28), *range(31, 33), *range(36, 40), *range(43, 47)]:
            changed = data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]
            assert "wrong checksum" in refusal(changed), at


class TestWriting:
    def test_version_1(self) -> None:
        assert encode_v1("203.0.113.7", 41231, "198.51.100.5", 443) == (
            b"PROXY TCP4 203.0.113.7 198.51.100.5 41231 443\r\n"
        )
        assert encode_v1("2001:DB8::1", 41231, "2001:db8:0::2", 443) == (
            b"PROXY TCP6 2001:db8::1 2001:db8::2 41231 443\r\n"
        )

    @pytest.mark.feature("proxy_protocol.out")
    def test_version_2(self) -> None:
        assert encode_v2("203.0.113.7", 41231, "198.51.100.5", 443) == v2(IPV4_ADDRESSES)
        assert encode_v2("2001:db8::1", 41231, "2001:db8::2", 443) == v2(IPV6_ADDRESSES, family=0x21)

    def test_maps_ipv4_where_the_other_end_has_ipv6(self) -> None:
        assert encode_v1("203.0.113.7", 1, "2001:db8::2", 2) == (
            b"PROXY TCP6 ::ffff:cb00:7107 2001:db8::2 1 2\r\n"
        )
        assert encode_v1("2001:db8::2", 1, "203.0.113.7", 2) == (
            b"PROXY TCP6 2001:db8::2 ::ffff:cb00:7107 1 2\r\n"
        )
        data = encode_v2("203.0.113.7", 41231, "2001:db8::2", 443)
        assert data == v2(bytes(10) + b"\xff\xff\xcb\x00\x71\x07" + IPV6_ADDRESSES[16:], family=0x21)

    def test_unmaps_ipv4_and_drops_a_zone(self) -> None:
        assert encode_v1("::ffff:203.0.113.7", 1, "::ffff:198.51.100.5", 2) == (
            b"PROXY TCP4 203.0.113.7 198.51.100.5 1 2\r\n"
        )
        assert encode_v1("fe80::1%eth0", 1, "fe80::2%eth0", 2) == b"PROXY TCP6 fe80::1 fe80::2 1 2\r\n"

    def test_tlvs_in_order(self) -> None:
        tlvs = ((TlvType.APP, b"shop"), (TlvType.COUNTRY, b"BR"))
        assert encode_v2("203.0.113.7", 41231, "198.51.100.5", 443, tlvs) == v2(
            IPV4_ADDRESSES + b"\xe0\x00\x04shop" + b"\xe1\x00\x02BR"
        )

    def test_checksum(self) -> None:
        data = encode_v2("203.0.113.7", 41231, "198.51.100.5", 443, [(TlvType.APP, b"shop")], checksum=True)
        assert data == with_checksum(tlvs_behind=tlv(0xE0, b"shop"))

    def test_tls_without_a_client_certificate(self) -> None:
        value = b"\x01" + b"\x00\x00\x00\x01" + tlv(0x21, b"TLSv1.3") + tlv(0x23, b"TLS_AES_128_GCM_SHA256")
        assert tls_tlv("TLSv1.3", "TLS_AES_128_GCM_SHA256") == (TlvType.SSL, value)

    def test_tls_with_a_client_certificate(self) -> None:
        version, common_name, cipher = tlv(0x21, b"TLSv1.2"), tlv(0x22, "Zoë".encode()), tlv(0x23, b"C")
        verified = bytes(4)
        for resumed, common_name_sent, value in (
            (False, None, b"\x07" + verified + version + cipher),
            (True, None, b"\x05" + verified + version + cipher),
            (False, "Zoë", b"\x07" + verified + version + common_name + cipher),
        ):
            assert tls_tlv(
                "TLSv1.2", "C", client_certificate=True, common_name=common_name_sent, resumed=resumed
            ) == (TlvType.SSL, value)

    def test_types_of_our_own_are_in_the_range_for_applications(self) -> None:
        assert {TlvType.APP, TlvType.COUNTRY} <= set(range(0xE0, 0xF0))

    def test_other_types_are_those_of_the_specification(self) -> None:
        assert {each.name: each.value for each in TlvType if each < 0xE0} == {
            "ALPN": 0x01,
            "AUTHORITY": 0x02,
            "CRC32C": 0x03,
            "NOOP": 0x04,
            "UNIQUE_ID": 0x05,
            "SSL": 0x20,
        }
        assert set(TlsSubtype) == {0x21, 0x22, 0x23}

    @pytest.mark.parametrize("text", ["", "localhost", "203.0.113.256", "/run/socket"])
    def test_refuses_what_is_no_address(self, text: str) -> None:
        for source, destination in ((text, "203.0.113.7"), ("203.0.113.7", text)):
            with pytest.raises(ValueError, match="not an IP address"):
                encode_v1(source, 1, destination, 2)
            with pytest.raises(ValueError, match="not an IP address"):
                encode_v2(source, 1, destination, 2)

    def test_refuses_more_than_a_reader_takes(self) -> None:
        room = MAX_PREFIX_BYTES - len(encode_v2("203.0.113.7", 1, "203.0.113.8", 2)) - 3
        largest = encode_v2("203.0.113.7", 1, "203.0.113.8", 2, [(0xE0, bytes(room))])
        assert read(largest).length == len(largest) == MAX_PREFIX_BYTES
        for size in (room + 1, 70_000):
            with pytest.raises(ValueError, match="the limit is 4096"):
                encode_v2("203.0.113.7", 1, "203.0.113.8", 2, [(0xE0, bytes(size))])


addresses = st.ip_addresses().map(str) | st.ip_addresses(v=4).map("::ffff:{}".format)
ports = st.integers(0, 65535)
tlvs_sent = st.lists(
    st.tuples(st.integers(0, 255).filter(lambda kind: kind not in (3, 4, 5)), st.binary(max_size=60))
    | st.tuples(st.just(int(TlvType.UNIQUE_ID)), st.binary(max_size=128)),
    max_size=8,
)


class TestRoundTrip:
    @given(addresses, ports, addresses, ports)
    def test_of_version_1(
        self, source: str, source_port: int, destination: str, destination_port: int
    ) -> None:
        data = encode_v1(source, source_port, destination, destination_port)
        assert len(data) <= 107
        assert read_header(data + b"x") == Header(
            len(data), normalise(source), source_port, normalise(destination), destination_port
        )

    @given(addresses, ports, addresses, ports, tlvs_sent, st.booleans())
    def test_of_version_2(
        self,
        source: str,
        source_port: int,
        destination: str,
        destination_port: int,
        tlvs: list[Tlv],
        checksum: bool,
    ) -> None:
        data = encode_v2(source, source_port, destination, destination_port, tlvs, checksum=checksum)
        assert read_header(data + b"x") == Header(
            len(data),
            normalise(source),
            source_port,
            normalise(destination),
            destination_port,
            tlvs=tuple(tlvs),
        )

    @given(st.ip_addresses(v=4) | st.ip_addresses(v=6), st.binary(max_size=60), st.booleans())
    def test_is_the_same_cut_anywhere(self, source: object, app: bytes, checksum: bool) -> None:
        destination = "198.51.100.5" if ip_address(str(source)).version == 4 else "2001:db8::2"
        data = encode_v2(str(source), 1, destination, 2, [(TlvType.APP, app)], checksum=checksum)
        assert {read_header(data[:cut]) for cut in range(len(data))} == {Verdict.NEED_MORE}


def test_a_connection_of_the_senders_own_names_nobody() -> None:
    assert LOCAL_V1 == b"PROXY UNKNOWN\r\n"
    assert SIGNATURE + bytes.fromhex("20 00 0000") == LOCAL_V2
    assert read_header(LOCAL_V1) == Header(len(LOCAL_V1))
    assert read_header(LOCAL_V2) == Header(len(LOCAL_V2), local=True)
