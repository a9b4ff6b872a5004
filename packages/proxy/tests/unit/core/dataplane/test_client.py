"""Addresses as the kernel, the PROXY protocol and people write them; ipaddress is the oracle."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeproxy.core.dataplane.client import affinity_network, identify, locate, normalise
from edgeproxy.core.geography import Geography
from edgeproxy.core.model import Client

IPV4_KEYS = 0xFFFF << 48


def oracle(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        # An address without its zone, and the IPv4 address where one is mapped.
        parsed = ipaddress.IPv6Address(int(parsed))
        return parsed.ipv4_mapped or parsed
    return parsed


def oracle_network(address: str) -> int:
    parsed = oracle(address)
    return IPV4_KEYS | int(parsed) if parsed.version == 4 else int(parsed) >> 64


@st.composite
def ipv6_spellings(draw: st.DrawFn) -> str:
    """One of the many ways to write an IPv6 address, mostly with zeros in it."""
    groups = draw(st.lists(st.sampled_from([0, 0, 0, 1, 0xFFFF, 0xDB8, 0x2001]), min_size=8, max_size=8))
    spell = draw(st.sampled_from(["{:x}", "{:X}", "{:04x}"]))
    texts = [spell.format(group) for group in groups]
    start = draw(st.integers(0, 7))
    end = draw(st.integers(start, 8))
    if start < end and not any(groups[start:end]):
        return ":".join(texts[:start]) + "::" + ":".join(texts[end:])
    if draw(st.booleans()):
        low = ipaddress.IPv4Address(groups[6] << 16 | groups[7])
        return ":".join(texts[:6]) + f":{low}"
    return ":".join(texts)


addresses = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.ip_addresses(v=4).map(lambda address: f"::ffff:{address}"),
    ipv6_spellings(),
    st.ip_addresses(v=6).map(lambda address: f"{address}%eth0"),
)

nearly_addresses = st.one_of(
    st.text(alphabet="0123456789abf.:%x+_ ", max_size=24),
    st.text(max_size=8),
    # A valid address with one character put in, which is where a lax parser goes wrong.
    st.tuples(addresses, st.integers(0, 40), st.sampled_from(list("0f.:%g+-_ x\n\x00²\u0661"))).map(
        lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] :]
    ),
)


class TestNormalise:
    @pytest.mark.parametrize(
        ("address", "normalised"),
        [
            ("203.0.113.7", "203.0.113.7"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
            ("::FFFF:203.0.113.7", "203.0.113.7"),
            ("::ffff:cb00:7107", "203.0.113.7"),
            ("0:0:0:0:0:ffff:cb00:7107", "203.0.113.7"),
            ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
            ("2001:db8:0:1:0:0:0:1", "2001:db8:0:1::1"),
            ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
            ("2001:db8:10:0:1:1:1:1", "2001:db8:10:0:1:1:1:1"),
            ("fe80::1%eth0", "fe80::1"),
            ("::", "::"),
            ("::1", "::1"),
            ("1::", "1::"),
            ("64:ff9b::203.0.113.7", "64:ff9b::cb00:7107"),
        ],
    )
    def test_gives_one_spelling(self, address: str, normalised: str) -> None:
        assert normalise(address) == normalised

    @given(addresses)
    def test_agrees_with_ipaddress(self, address: str) -> None:
        assert normalise(address) == str(oracle(address))

    @given(addresses)
    def test_leaves_a_normalised_address_alone(self, address: str) -> None:
        assert normalise(normalise(address)) == normalise(address)


class TestAffinityNetwork:
    def test_of_ipv4_is_the_address(self) -> None:
        assert affinity_network("203.0.113.7") == 0xFFFF_0000_CB00_7107
        assert affinity_network("203.0.113.8") != affinity_network("203.0.113.7")

    def test_of_ipv6_is_the_64(self) -> None:
        assert affinity_network("2001:db8:1:2:3:4:5:6") == 0x2001_0DB8_0001_0002
        assert affinity_network("2001:db8:1:2::1") == affinity_network("2001:db8:1:2:ffff::1")
        assert affinity_network("2001:db8:1:3::1") != affinity_network("2001:db8:1:2::1")

    @pytest.mark.parametrize("spelling", ["::ffff:203.0.113.7", "::ffff:cb00:7107", "::FFFF:203.0.113.7"])
    def test_of_mapped_ipv4_is_that_of_the_ipv4_address(self, spelling: str) -> None:
        assert affinity_network(spelling) == affinity_network("203.0.113.7")

    @given(addresses)
    def test_agrees_with_ipaddress(self, address: str) -> None:
        assert affinity_network(address) == oracle_network(address)

    @given(addresses)
    def test_does_not_depend_on_the_spelling(self, address: str) -> None:
        assert affinity_network(normalise(address)) == affinity_network(address)

    @given(st.ip_addresses(v=4), st.ip_addresses(v=6))
    @example(ipaddress.IPv4Address("0.0.0.0"), ipaddress.IPv6Address("::"))
    @example(ipaddress.IPv4Address("0.0.0.1"), ipaddress.IPv6Address("0:0:0:1::"))
    def test_never_mixes_the_families(self, ipv4: ipaddress.IPv4Address, ipv6: ipaddress.IPv6Address) -> None:
        if not (ipv6.is_multicast or ipv6.ipv4_mapped):
            assert affinity_network(str(ipv4)) != affinity_network(str(ipv6))

    @given(addresses)
    def test_fits_into_64_bits(self, address: str) -> None:
        assert 0 <= affinity_network(address) < 1 << 64


class TestIdentify:
    @given(addresses)
    @example("203.0.113.7")
    @example("::ffff:203.0.113.7")
    @example("::FFFF:203.0.113.7")
    @example("2001:db8::1")
    def test_gives_the_one_spelling_and_the_network(self, address: str) -> None:
        assert identify(address) == (normalise(address), affinity_network(address))


class TestMalformedAddresses:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "localhost",
            "203.0.113",
            "203.0.113.7.1",
            "203.0.113.256",
            "203.0.113.07",
            "203.0.113.+7",
            " 203.0.113.7",
            "203.0.113.7%eth0",
            "203.0.113.7:80",
            "[2001:db8::1]",
            "2001:db8::1/64",
            ":",
            ":::",
            "1::2::3",
            "1:2:3:4:5:6:7",
            "1:2:3:4:5:6:7:8:9",
            "1:2:3:4:5:6:7:8::",
            "::1:2:3:4:5:6:7:8",
            "12345::",
            "+1::",
            "1_0::",
            "::ffff:203.0.113",
            "::203.0.113.256",
            "fe80::1%",
            "fe80::1%eth0%eth1",
            "fe80::1%eth0/64",
        ],
    )
    def test_are_refused_by_name(self, text: str) -> None:
        for function in (normalise, affinity_network, identify):
            with pytest.raises(ValueError, match="not an IP address") as refusal:
                function(text)
            assert repr(text) in str(refusal.value)

    @given(nearly_addresses)
    def test_are_those_that_ipaddress_refuses(self, text: str) -> None:
        try:
            oracle(text)
        except ValueError:
            for function in (normalise, affinity_network, identify):
                with pytest.raises(ValueError, match="not an IP address"):
                    function(text)
        else:
            assert normalise(text) == str(oracle(text))
            assert affinity_network(text) == oracle_network(text)


class TestLocate:
    def test_joins_address_country_and_region(self) -> None:
        countries = {"200.160.2.3": "BR"}
        client = locate("::ffff:200.160.2.3", countries.__getitem__, Geography.built_in())
        assert client == Client("200.160.2.3", "BR", "sa")

    def test_leaves_an_unknown_client_without_country_and_region(self) -> None:
        assert locate("10.0.0.1", lambda _: "", Geography.built_in()) == Client("10.0.0.1", "", "")

    def test_keeps_a_country_that_has_no_region(self) -> None:
        assert locate("192.0.2.1", lambda _: "ZZ", Geography.built_in()) == Client("192.0.2.1", "ZZ", "")
