"""Which backends are told who the client is, and what they are told."""

from __future__ import annotations

import pytest

from edgeproxy.core.dataplane.backend_rules import BackendRule, BackendRules, ProxyVersion, proxy_header
from edgeproxy.core.dataplane.client_tls import ClientTls, Subject
from edgeproxy.core.model import Backend, Client
from edgeproxy.core.wire.proxy_protocol import Header, TlvType, read_header, tls_tlv

V1, V2 = ProxyVersion.V1, ProxyVersion.V2
RULES = BackendRules((BackendRule(V2, match="eu-*"), BackendRule(V1, app="shop")))


def backend(backend_id: str, app: str) -> Backend:
    return Backend(backend_id, app, "eu", "DE", "192.0.2.1", 80, True, 1, 1, 0)


@pytest.mark.parametrize(
    ("backend_id", "app", "version"),
    [
        ("eu-1", "blog", V2),
        ("eu-1", "shop", V2),
        ("us-1", "shop", V1),
        ("us-1", "blog", None),
        ("EU-1", "blog", None),
    ],
)
def test_the_first_rule_that_applies_counts(backend_id: str, app: str, version: ProxyVersion | None) -> None:
    for _ in range(2):
        rule = RULES.of(backend(backend_id, app))
        assert (rule.proxy_protocol if rule is not None else None) is version


def test_a_rule_with_both_wants_both() -> None:
    rule = BackendRule(V1, match="eu-*", app="shop")
    rules = BackendRules((rule,))
    asked = [("eu-1", "shop"), ("eu-1", "blog"), ("us-1", "shop")]
    assert [rules.of(backend(*each)) for each in asked] == [rule, None, None]


def test_version_1_tells_the_addresses() -> None:
    header = proxy_header(V1, Client("2001:db8::7", "DE", "eu"), 4711, "2001:db8::1", 443, "shop")
    assert header == b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n"


@pytest.mark.parametrize(
    ("country", "app", "tlvs"),
    [
        ("DE", "shop", ((TlvType.APP, b"shop"), (TlvType.COUNTRY, b"DE"))),
        ("", "käse", ((TlvType.APP, "käse".encode()),)),
        ("DE", 256 * "x", ((TlvType.COUNTRY, b"DE"),)),
    ],
)
def test_version_2_tells_app_and_country_too(
    country: str, app: str, tlvs: tuple[tuple[int, bytes], ...]
) -> None:
    header = proxy_header(V2, Client("203.0.113.7", country, ""), 4711, "198.51.100.1", 443, app)
    assert read_header(header) == Header(len(header), "203.0.113.7", 4711, "198.51.100.1", 443, tlvs=tlvs)


ALICE = ClientTls("TLSv1.3", "TLS_AES_128_GCM_SHA256", "shop.example.com", "h2", Subject("alice", "alice"))


@pytest.mark.parametrize(
    ("server_name", "tls", "tlvs"),
    [
        ("shop.example.com", None, [(TlvType.AUTHORITY, b"shop.example.com")]),
        ("s" * 256, None, []),
        (
            "shop.example.com",
            ALICE,
            [
                (TlvType.ALPN, b"h2"),
                (TlvType.AUTHORITY, b"shop.example.com"),
                tls_tlv(ALICE.version, ALICE.cipher, client_certificate=True, common_name="alice"),
            ],
        ),
        (
            None,
            ClientTls("TLSv1.2", "X", subject=Subject("c" * 256, "c"), is_resumed=True),
            [tls_tlv("TLSv1.2", "X", client_certificate=True, resumed=True)],
        ),
        (None, ClientTls("TLSv1.2", "X"), [tls_tlv("TLSv1.2", "X")]),
    ],
)
def test_version_2_tells_the_client_s_tls(
    server_name: str | None, tls: ClientTls | None, tlvs: list[tuple[int, bytes]]
) -> None:
    client = Client("203.0.113.7", "", "")
    header = read_header(proxy_header(V2, client, 4711, "198.51.100.1", 443, "shop", server_name, tls))
    assert isinstance(header, Header)
    assert list(header.tlvs) == [*tlvs, (TlvType.APP, b"shop")]
