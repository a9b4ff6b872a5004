"""ClientHellos of OpenSSL and hand-made ones, cut everywhere and spread over records."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.wire import client_hello
from edgeproxy.core.wire.client_hello import (
    MAX_MESSAGE_BYTES,
    MAX_PREFIX_BYTES,
    MAX_RECORDS,
    ClientHello,
    read_client_hello,
)
from edgeproxy.core.wire.prefix import Malformed, Verdict
from packages.proxy.tests.fuzz.hellos import (
    ALPN,
    GREASE,
    SERVER_NAME,
    SUPPORTED_GROUPS,
    SUPPORTED_VERSIONS,
    TLS12,
    TLS13,
    alpn,
    extension_block,
    from_openssl,
    hello,
    in_records,
    message,
    server_name,
    vector,
    versions,
)


def read(prefix: bytes) -> ClientHello:
    found = read_client_hello(prefix)
    assert isinstance(found, ClientHello), found
    return found


def refusal(prefix: bytes) -> str:
    found = read_client_hello(prefix)
    assert isinstance(found, Malformed), found
    return found.reason


class TestOpenSsl:
    def test_tls_1_3_with_everything(self) -> None:
        assert read(from_openssl("www.example.com", ["h2", "http/1.1"])) == ClientHello(
            "www.example.com", ("h2", "http/1.1"), (TLS13, TLS12)
        )

    def test_tls_1_2_names_its_highest_version(self) -> None:
        assert read(from_openssl("www.example.com", ["h2"], ssl.TLSVersion.TLSv1_2)) == ClientHello(
            "www.example.com", ("h2",), (TLS12,)
        )

    @pytest.mark.parametrize("highest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_without_server_name_and_alpn(self, highest: ssl.TLSVersion) -> None:
        found = read(from_openssl(None, highest=highest))
        assert (found.server_name, found.alpn) == (None, ())

    def test_large(self) -> None:
        protocols = [f"protocol-{number}" for number in range(1000)]
        prefix = from_openssl("www.example.com", protocols)
        assert len(prefix) > 12_000
        assert read(prefix).alpn == tuple(protocols)

    @pytest.mark.parametrize("highest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    @pytest.mark.parametrize("name", ["www.example.com", None])
    @pytest.mark.parametrize("protocols", [(), ("h2", "http/1.1"), ("x" * 200, "h2")])
    def test_any_cut_needs_more(
        self, name: str | None, protocols: tuple[str, ...], highest: ssl.TLSVersion
    ) -> None:
        prefix = from_openssl(name, protocols, highest)
        for cut in range(len(prefix)):
            assert read_client_hello(prefix[:cut]) is Verdict.NEED_MORE, cut
        assert read(prefix).alpn == protocols

    def test_what_follows_does_not_matter(self) -> None:
        prefix = from_openssl()
        assert read(prefix + b"\x17\x03\x03\x00\x05early") == read(prefix)

    def test_is_taken_out_of_records_of_any_size(self) -> None:
        prefix = from_openssl("www.example.com", ["h2", "http/1.1"])
        handshake = prefix[5:]
        for size in range(len(handshake) // MAX_RECORDS + 1, len(handshake) + 1):
            spread = in_records(handshake, [size] * (len(handshake) // size))
            assert read(spread) == read(prefix), size


class TestRecords:
    @given(st.lists(st.integers(1, 40), max_size=MAX_RECORDS - 1), st.data())
    def test_any_cut_of_any_spread_needs_more(self, sizes: list[int], data: st.DataObject) -> None:
        # Longer than all sizes together, so that the last record is the rest, and not empty.
        handshake = message(extension_block([server_name(b"a.example"), (SUPPORTED_GROUPS, bytes(1400))]))
        prefix = in_records(handshake[: sum(sizes) + 16000], sizes)
        assert read(prefix).server_name == "a.example"
        assert read_client_hello(prefix[: data.draw(st.integers(0, len(prefix) - 1))]) is Verdict.NEED_MORE

    def test_headers_may_be_cut_too(self) -> None:
        handshake = message(extension_block([server_name(b"a.example")]))
        assert read(in_records(handshake, [1, 1, 1, 1, 1])).server_name == "a.example"

    def test_last_record_may_hold_more_than_the_message(self) -> None:
        handshake = message(extension_block([server_name(b"a.example")]))
        assert read(in_records(handshake + b"\x00", [10])).server_name == "a.example"

    def test_so_many_records_and_no_more(self) -> None:
        handshake = message(extension_block([server_name(b"a.example")]))
        assert read(in_records(handshake, [1] * (MAX_RECORDS - 1))).server_name == "a.example"
        prefix = in_records(handshake, [1] * MAX_RECORDS)
        assert "more than 33 TLS records" in refusal(prefix)
        assert "more than 33 TLS records" in refusal(prefix[: 6 * MAX_RECORDS])
        assert read_client_hello(prefix[: 6 * MAX_RECORDS - 1]) is Verdict.NEED_MORE

    @pytest.mark.parametrize(
        ("prefix", "reason"),
        [
            (b"\x16\x03\x01\x00\x00", "record of 0 bytes"),
            (b"\x16\x03\x01\x40\x01", "record of 16385 bytes"),
            (b"\x16\x03\x01\x40\x01" + message(), "record of 16385 bytes"),
            (b"\x16\x03\x01\x00\x46\x02\x00\x00\x42", "message type 2"),
            (b"\x16\x03\x01\x00\x04\x01\x00\x40\x01", "16385 bytes, the limit is"),
            (b"\x16\x03\x01\x00\x04\x01\x01\x00\x00", "65536 bytes, the limit is"),
            (b"\x16\x03\x01\x00\x01\x01\x15\x03\x01\x00\x02", "interrupted"),
            (b"\x16\x03\x01\x00\x01\x01\x16\x02\x01\x00\x02", "interrupted"),
        ],
    )
    def test_impossible_ones_are_refused_at_once(self, prefix: bytes, reason: str) -> None:
        assert reason in refusal(prefix)

    def test_record_may_be_as_large_as_tls_allows(self) -> None:
        padding = 16384 - len(message(extension_block([(21, b"")])))
        handshake = message(extension_block([(21, bytes(padding))]))
        assert len(handshake) == 16384
        assert read(in_records(handshake)).server_name is None

    def test_largest_message_in_the_most_records_fits_into_the_bound(self) -> None:
        padding = MAX_MESSAGE_BYTES + 4 - len(message(extension_block([(21, b"")])))
        prefix = in_records(message(extension_block([(21, bytes(padding))])), [1] * (MAX_RECORDS - 1))
        assert len(prefix) == MAX_PREFIX_BYTES
        assert read(prefix).server_name is None
        assert read_client_hello(prefix[:-1]) is Verdict.NEED_MORE

    @pytest.mark.parametrize(
        "prefix",
        [b"GET / HTTP/1.1\r\n", b"\x15\x03\x01\x00\x02", b"\x16\x02", b"\x80\x2e\x01\x03\x01", b"\x00"],
    )
    def test_anything_else_is_another_protocol(self, prefix: bytes) -> None:
        assert read_client_hello(prefix) is Verdict.OTHER_PROTOCOL

    @pytest.mark.parametrize("prefix", [b"", b"\x16", b"\x16\x03", b"\x16\x03\x03"])
    def test_the_first_bytes_decide_nothing(self, prefix: bytes) -> None:
        assert read_client_hello(prefix) is Verdict.NEED_MORE


class TestServerName:
    @pytest.mark.parametrize(
        ("sent", "meant"),
        [
            (b"example.com", "example.com"),
            (b"EXAMPLE.Com", "example.com"),
            (b"example.com.", "example.com"),
            (b"localhost", "localhost"),
            (b"a", "a"),
            (b"xn--bcher-kva.example", "xn--bcher-kva.example"),
            (b"a_b.example", "a_b.example"),
            (b"1.example", "1.example"),
            (b"4.3.2.1.in-addr.arpa", "4.3.2.1.in-addr.arpa"),
            (b"1a", "1a"),
            (b"x" * 63 + b".example", "x" * 63 + ".example"),
            (b".".join([b"x" * 63] * 3 + [b"y" * 61]), ".".join(["x" * 63] * 3 + ["y" * 61])),
        ],
    )
    def test_is_normalised(self, sent: bytes, meant: str) -> None:
        assert read(hello(server_name(sent))).server_name == meant

    @pytest.mark.parametrize(
        "sent",
        [
            b"",
            b".",
            b"example.com..",
            b".example.com",
            b"a..b",
            b"-a.example",
            b"a-.example",
            b"a.example-",
            b"exa mple.com",
            b"example.com\n",
            b"example.com\x00",
            b"example.com:443",
            b"*.example.com",
            b"b\xc3\xbccher.example",
            b"\xff",
            b"203.0.113.7",
            b"203.0.113.7.",
            b"2001:db8::1",
            b"[2001:db8::1]",
            b"7",
            b"x" * 64 + b".example",
            b".".join([b"x" * 63] * 4),
        ],
    )
    def test_that_is_no_host_name_is_refused(self, sent: bytes) -> None:
        assert "no host name" in refusal(hello(server_name(sent)))

    @pytest.mark.parametrize(
        "extension",
        [
            server_name(b"a.example", b"b.example"),
            server_name(b"a.example", kind=1),
            (SERVER_NAME, vector(2, b"\x00" + vector(2, b"a.example")) + b"\x00"),
            (SERVER_NAME, vector(2, b"\x00" + vector(2, b"a.example") + b"\x00")),
            (SERVER_NAME, b"\x00\x0b\x00\x00\x09a.example"),
        ],
    )
    def test_must_be_the_only_one(self, extension: tuple[int, bytes]) -> None:
        assert "other than one host name" in refusal(hello(extension))

    def test_extension_without_a_list_is_refused(self) -> None:
        assert "beyond its end" in refusal(hello((SERVER_NAME, b"")))


class TestAlpn:
    def test_keeps_any_bytes_in_order(self) -> None:
        assert read(hello(alpn(b"\xff\x00", b"h2", b"acme-tls/1"))).alpn == ("\xff\x00", "h2", "acme-tls/1")

    def test_leaves_grease_out(self) -> None:
        assert read(hello(alpn(b"\x0a\x0a", b"h2", b"\xfa\xfa", b"\x0a\x1a"))).alpn == ("h2", "\x0a\x1a")

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            (b"", "beyond its end"),
            (b"\x00\x00", "does not fill"),
            (vector(2, vector(1, b"h2")) + b"\x00", "does not fill"),
            (b"\x00\x04\x02h2", "does not fill"),
            (vector(2, b"\x00"), "empty name"),
            (vector(2, b"\x02h2\x03h2"), "beyond its end"),
        ],
    )
    def test_with_wrong_lengths_is_refused(self, value: bytes, reason: str) -> None:
        assert reason in refusal(hello((ALPN, value)))

    def test_fills_no_memory_when_it_is_long(self) -> None:
        client_hello._interpret.cache_clear()
        read(hello(alpn(b"h2")))
        for number in range(10):
            assert len(read(hello(alpn(*[b"%d" % number] * 5000))).alpn) == 5000
        assert client_hello._interpret.cache_info().currsize == 1


class TestVersions:
    def test_leave_grease_out(self) -> None:
        assert read(hello(versions(GREASE, TLS13, TLS12, 0xFAFA))).versions == (TLS13, TLS12)

    def test_are_that_of_the_message_without_the_extension(self) -> None:
        assert read(in_records(message(highest=0x0301))).versions == (0x0301,)

    def test_do_not_depend_on_that_of_the_message_with_the_extension(self) -> None:
        block = extension_block([versions(TLS13)])
        assert read(in_records(message(block, highest=0x0301))).versions == (TLS13,)

    @pytest.mark.parametrize(
        "value", [b"", b"\x00", b"\x01\x03", b"\x03\x03\x04\x03", b"\x02\x03\x04\x03", b"\x04\x03\x04"]
    )
    def test_with_wrong_lengths_are_refused(self, value: bytes) -> None:
        assert refusal(hello((SUPPORTED_VERSIONS, value)))


class TestMessage:
    def test_without_extensions(self) -> None:
        assert read(in_records(message())) == ClientHello(None, (), (TLS12,))

    def test_with_an_empty_block_of_extensions(self) -> None:
        assert read(hello()) == ClientHello(None, (), (TLS12,))

    def test_with_unknown_extensions(self) -> None:
        prefix = hello((GREASE, b""), (0xFE0D, bytes(200)), server_name(b"outer.example"), (GREASE, b"\x00"))
        assert read(prefix).server_name == "outer.example"

    @pytest.mark.parametrize("extension", [server_name(b"a.example"), alpn(b"h2"), versions(TLS13)])
    def test_with_one_extension_twice_is_refused(self, extension: tuple[int, bytes]) -> None:
        assert "twice" in refusal(hello(extension, (GREASE, b""), extension))

    @pytest.mark.parametrize(
        "handshake",
        [
            message(session_id=bytes(33)),
            message(cipher_suites=b""),
            message(cipher_suites=b"\x13"),
            message(cipher_suites=b"\x13\x01\x13"),
            message(compressions=b""),
        ],
    )
    def test_with_impossible_lists_is_refused(self, handshake: bytes) -> None:
        assert "impossible" in refusal(in_records(handshake))

    @pytest.mark.parametrize(
        ("extensions", "reason"),
        [
            (b"\x00", "beyond its end"),
            (b"\x00\x01", "do not fill"),
            (b"\x00\x00\x00", "do not fill"),
            (b"\x00\x03\x00\x15\x00", "beyond its end"),
            (b"\x00\x05\x00\x15\x00\x02\x00", "an extension beyond its end"),
        ],
    )
    def test_with_extensions_of_wrong_lengths_is_refused(self, extensions: bytes, reason: str) -> None:
        assert reason in refusal(in_records(message(extensions)))

    def test_that_ends_too_early_is_refused(self) -> None:
        whole = message(extension_block([server_name(b"a.example")]))
        for length in range(len(whole) - 4):
            # Where the block of extensions would begin, a message may also end.
            if length == len(message()) - 4:
                continue
            assert refusal(in_records(b"\x01" + vector(3, whole[4 : 4 + length]))), length

    def test_is_the_same_when_read_again(self) -> None:
        for prefix in (hello(server_name(b"a.example"), alpn(b"h2")), hello(alpn(*[b"h2"] * 100))):
            assert read(prefix) == read(prefix)

    def test_differs_by_version_where_nothing_else_does(self) -> None:
        block = extension_block([server_name(b"a.example")])
        assert [
            read(in_records(message(block, highest=highest))).versions for highest in (0x0301, 0x0302, TLS12)
        ] == [(0x0301,), (0x0302,), (TLS12,)]
