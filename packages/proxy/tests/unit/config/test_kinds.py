from __future__ import annotations

import contextlib
import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.config import kinds
from edgeproxy.config.kinds import Address, InvalidValueError, Kind
from edgeproxy.config.settings import SETTINGS

ALL_KINDS = [setting.kind for setting in SETTINGS.values()]

TOML_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates() | st.times(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


def refusal(kind: Kind[Any], text: str) -> str:
    with pytest.raises(InvalidValueError) as caught:
        kind.parse(text)
    return str(caught.value)


@given(kind=st.sampled_from(ALL_KINDS), text=st.text() | st.from_regex(r"\A[-+.:0-9a-fxE\[\]%]{1,40}\Z"))
def test_any_text_gives_a_value_that_formats_back_or_a_refusal(kind: Kind[Any], text: str) -> None:
    try:
        value = kind.parse(text)
    except InvalidValueError:
        assert refusal(kind, text).isprintable()
    else:
        assert kind.parse(kind.format(value)) == value


@given(kind=st.sampled_from(ALL_KINDS), value=TOML_VALUES)
def test_any_toml_value_gives_text_or_a_refusal(kind: Kind[Any], value: object) -> None:
    with contextlib.suppress(InvalidValueError):
        assert isinstance(kinds.text_from_toml(kind, value), str)


@given(st.floats(0.01, 31_536_000))
def test_every_duration_survives_being_written(duration_s: float) -> None:
    kind = kinds.seconds()
    assert kind.parse(kind.format(duration_s)) == duration_s


class TestFlag:
    @pytest.mark.parametrize("text", ["true", "TRUE", "1", "yes", "Yes", "on"])
    def test_takes_the_words_for_true(self, text: str) -> None:
        assert kinds.flag.parse(text) is True

    @pytest.mark.parametrize("text", ["false", "False", "0", "no", "OFF"])
    def test_takes_the_words_for_false(self, text: str) -> None:
        assert kinds.flag.parse(text) is False

    @pytest.mark.parametrize("text", ["", "2", "y", "enabled", " true", "\uff54rue"])
    def test_refuses_other_words(self, text: str) -> None:
        assert "neither true nor false" in refusal(kinds.flag, text)


class TestWhole:
    kind = kinds.whole(1, 256)

    @pytest.mark.parametrize(("text", "number"), [("1", 1), ("256", 256), ("007", 7), ("+5", 5)])
    def test_takes_numbers_up_to_and_including_the_bounds(self, text: str, number: int) -> None:
        assert self.kind.parse(text) == number

    @pytest.mark.parametrize("text", ["0", "257", "-1", "9" * 21, "9" * 10_000])
    def test_refuses_numbers_out_of_bounds(self, text: str) -> None:
        assert refusal(self.kind, text) == "is out of bounds; write a whole number from 1 to 256"

    @pytest.mark.parametrize("text", ["", "ten", "1.0", "1_0", " 1", "1\n", "0x10", "٣", "1e2", "--1"])
    def test_refuses_what_is_no_plain_number(self, text: str) -> None:
        assert refusal(self.kind, text) == "is not a whole number; write one from 1 to 256"


class TestSeconds:
    kind = kinds.seconds(0.5, 60)

    @pytest.mark.parametrize(
        ("text", "number"), [("0.5", 0.5), ("60", 60.0), ("5e-1", 0.5), (".5", 0.5), ("1.", 1.0)]
    )
    def test_takes_numbers_up_to_and_including_the_bounds(self, text: str, number: float) -> None:
        assert self.kind.parse(text) == number

    @pytest.mark.parametrize("text", ["0", "0.49", "60.1", "-1", "1e999"])
    def test_refuses_numbers_out_of_bounds(self, text: str) -> None:
        assert refusal(self.kind, text) == "is out of bounds; write seconds from 0.5 to 60"

    @pytest.mark.parametrize("text", ["", "5s", "nan", "inf", "-Infinity", "1_0", "5 ", "5,5", "."])
    def test_refuses_what_is_no_plain_number(self, text: str) -> None:
        assert refusal(self.kind, text) == "is not a number; write seconds from 0.5 to 60, without a unit"


class TestChoice:
    def test_takes_its_words_in_any_case(self) -> None:
        assert kinds.choice("tcp", "http").parse("HTTP") == "http"

    def test_lists_its_words_when_it_refuses(self) -> None:
        assert refusal(kinds.choice("off", "sampled", "all"), "most") == (
            "is not a choice; write off, sampled or all"
        )


class TestMatching:
    def test_a_region_is_kept_in_lower_case(self) -> None:
        assert kinds.region.parse("EU-West") == "eu-west"

    @pytest.mark.parametrize("text", ["", "e u", "-eu", "1eu", "eu\n", "x" * 33])
    def test_a_region_has_the_form_that_the_geography_takes(self, text: str) -> None:
        assert "empty or malformed" in refusal(kinds.region, text)

    @pytest.mark.parametrize("text", ["", "my app", "a\tb", "ü", "x" * 254])
    def test_a_name_has_no_blanks_or_control_characters(self, text: str) -> None:
        assert "empty or malformed" in refusal(kinds.name, text)

    def test_a_name_keeps_its_case(self) -> None:
        assert kinds.name.parse('My"App') == 'My"App'

    @pytest.mark.parametrize("text", ["internal", "Edge.Example", "a-b.c1"])
    def test_a_domain_is_kept_in_lower_case(self, text: str) -> None:
        assert kinds.domain.parse(text) == text.lower()

    @pytest.mark.parametrize("text", ["", ".", "a..b", "a.", "a_b", "-a", "x" * 64])
    def test_a_malformed_domain_is_refused(self, text: str) -> None:
        assert "domain name" in refusal(kinds.domain, text)

    def test_a_url_path_begins_with_a_slash(self) -> None:
        assert kinds.url_path.parse("/health?deep=1") == "/health?deep=1"
        assert "begins with /" in refusal(kinds.url_path, "health")

    def test_a_postgres_url_may_have_both_schemes_and_no_other(self) -> None:
        assert kinds.postgres_url.parse("postgres://h/d") == "postgres://h/d"
        assert kinds.postgres_url.parse("postgresql://h/d") == "postgresql://h/d"
        assert "postgresql://" in refusal(kinds.postgres_url, "mysql://h/d")

    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://me:p%2Fw@db-1.example:5432,db-2,[::1]:5433/edge?target_session_attrs=any",
            "postgresql://me:a@b:c!@h",
            "postgresql:///edge?host=/run/postgresql",
        ],
    )
    def test_a_postgres_url_names_hosts_in_all_their_forms(self, url: str) -> None:
        assert kinds.postgres_url.parse(url) == url

    @pytest.mark.parametrize(
        "url",
        ["", "postgresql:/h", "postgresql://me:a/b@h/d", "postgresql://h:port/d", "postgresql://h,,i/d",
         "postgresql://h/d#x", "postgresql://a b/d", "postgresql://me:\u00e9@h/d"],
    )  # fmt: skip
    def test_a_postgres_url_that_cannot_be_read_is_refused(self, url: str) -> None:
        assert "postgresql://user:password@host:port/database" in refusal(kinds.postgres_url, url)

    def test_a_refusal_never_repeats_a_secret(self) -> None:
        assert "hunter2" not in refusal(kinds.postgres_url, "mysql://me:hunter2@h/d")


class TestPath:
    def test_takes_relative_and_absolute_paths(self) -> None:
        assert kinds.path.parse("a dir/routing ü.db") == Path("a dir/routing ü.db")

    def test_refuses_an_empty_path(self) -> None:
        assert "is empty" in refusal(kinds.path, "")

    @pytest.mark.parametrize("text", ["a\0b", "routing.db\n", "a\rb"])
    def test_refuses_control_characters(self, text: str) -> None:
        assert "control character" in refusal(kinds.path, text)

    def test_refuses_bytes_that_are_not_utf_8(self) -> None:
        assert "not UTF-8" in refusal(kinds.path, b"caf\xe9".decode(errors="surrogateescape"))

    def test_a_socket_path_has_the_length_that_the_kernel_takes(self) -> None:
        assert kinds.socket_path.parse("x" * 107) == Path("x" * 107)
        assert "(108 bytes)" in refusal(kinds.socket_path, "x" * 108)

    def test_a_socket_path_is_measured_in_bytes(self) -> None:
        assert "(110 bytes)" in refusal(kinds.socket_path, "ü" * 55)


class TestAddress:
    @pytest.mark.parametrize(
        ("text", "address"),
        [
            ("0.0.0.0:8080", Address("0.0.0.0", 8080)),
            ("127.0.0.1:0", Address("127.0.0.1", 0)),
            ("[::]:65535", Address("::", 65535)),
            ("[0:0::1]:80", Address("::1", 80)),
            ("[::ffff:1.2.3.4]:80", Address("::ffff:1.2.3.4", 80)),
        ],
    )
    def test_takes_an_ip_address_and_a_port(self, text: str, address: Address) -> None:
        assert kinds.address.parse(text) == address

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("", "has no port"),
            ("8080", "has no port"),
            ("0.0.0.0", "has no port"),
            ("0.0.0.0:", "has no port"),
            ("0.0.0.0:http", "has no port"),
            ("0.0.0.0:-1", "has no port"),
            ("0.0.0.0:\uff18\uff10", "has no port"),
            ("0.0.0.0:65536", "above 65535"),
            (":8080", "has no IP address"),
            ("::1:8080", "without brackets"),
            ("localhost:8080", "does not begin with an IP address"),
            ("256.0.0.1:80", "does not begin with an IP address"),
            ("1.2.3:80", "does not begin with an IP address"),
            ("01.2.3.4:80", "does not begin with an IP address"),
            ("[1.2.3.4]:80", "does not begin with an IP address"),
            ("[::1:80", "does not begin with an IP address"),
            ("[fe80::1%eth0]:80", "does not begin with an IP address"),
            ("0.0.0.0\0:80", "does not begin with an IP address"),
        ],
    )
    def test_refuses_anything_else_with_its_reason(self, text: str, reason: str) -> None:
        message = refusal(kinds.address, text)
        assert reason in message
        assert "[::]:8080" in message

    def test_writes_ipv6_in_brackets(self) -> None:
        assert str(Address("::1", 80)) == "[::1]:80"
        assert str(Address("1.2.3.4", 80)) == "1.2.3.4:80"


class TestPeers:
    def test_takes_addresses_and_host_names(self) -> None:
        assert kinds.peers.parse("10.0.0.1:4001, pop-2.example:4001,[::1]:4001") == (
            Address("10.0.0.1", 4001),
            Address("pop-2.example", 4001),
            Address("::1", 4001),
        )

    def test_empty_text_is_no_peers(self) -> None:
        assert kinds.peers.parse("") == ()

    @pytest.mark.parametrize("text", [",", "a:1,", "a", "a:1,,b:2", "a b:1", "-a:1", "::1:4001"])
    def test_refuses_a_list_with_anything_else_in_it(self, text: str) -> None:
        assert "peers as host:port" in refusal(kinds.peers, text)


class TestOptional:
    kind = kinds.optional(kinds.path)

    def test_empty_text_is_none_and_back(self) -> None:
        assert self.kind.parse("") is None
        assert self.kind.format(None) == ""

    def test_other_text_is_what_the_kind_takes(self) -> None:
        assert self.kind.parse("x") == Path("x")
        assert self.kind.format(Path("x")) == "x"


class TestTextFromToml:
    @pytest.mark.parametrize(
        ("kind", "value", "text"),
        [
            (kinds.flag, True, "true"),
            (kinds.whole(1, 9), 7, "7"),
            (kinds.seconds(), 7, "7"),
            (kinds.seconds(), 0.5, "0.5"),
            (kinds.path, "a", "a"),
            (kinds.peers, ["a:1", "b:2"], "a:1,b:2"),
            (kinds.peers, [], ""),
            (kinds.peers, "a:1,b:2", "a:1,b:2"),
        ],
    )
    def test_takes_the_types_of_the_kind(self, kind: Kind[Any], value: object, text: str) -> None:
        assert kinds.text_from_toml(kind, value) == text

    @pytest.mark.parametrize(
        ("kind", "value", "found", "wanted"),
        [
            (kinds.whole(1, 9), True, "boolean", "integer"),
            (kinds.whole(1, 9), "7", "string", "integer"),
            (kinds.whole(1, 9), 7.0, "float", "integer"),
            (kinds.flag, 1, "integer", "boolean"),
            (kinds.seconds(), "5", "string", "integer or float"),
            (kinds.path, ["a"], "array", "string"),
            (kinds.path, {}, "table", "string"),
            (kinds.path, dt.date(2024, 1, 1), "date or time", "string"),
        ],
    )
    def test_refuses_other_types_by_name(
        self, kind: Kind[Any], value: object, found: str, wanted: str
    ) -> None:
        with pytest.raises(InvalidValueError, match=f"TOML type {found}; write the type {wanted} "):
            kinds.text_from_toml(kind, value)

    @pytest.mark.parametrize("item", [1, "", "a:1,b:2", ["a:1"]])
    def test_refuses_an_array_with_anything_but_single_strings(self, item: object) -> None:
        with pytest.raises(InvalidValueError, match="strings only"):
            kinds.text_from_toml(kinds.peers, ["a:1", item])

    def test_refuses_a_number_that_python_does_not_write(self) -> None:
        with pytest.raises(InvalidValueError, match="out of bounds"):
            kinds.text_from_toml(kinds.whole(1, 9), 16**5000)


class TestNetworks:
    def test_takes_networks_of_both_versions(self) -> None:
        networks = kinds.networks.parse("192.0.2.0/24, 2001:db8::/32,::1")
        assert [str(each) for each in networks] == ["192.0.2.0/24", "2001:db8::/32", "::1/128"]
        assert kinds.networks.format(networks) == "192.0.2.0/24,2001:db8::/32,::1/128"

    def test_takes_none(self) -> None:
        assert kinds.networks.parse("") == ()

    @pytest.mark.parametrize("text", ["192.0.2.1/24", "192.0.2.0/33", "example.net", ",", "10.0.0.0/8,"])
    def test_refuses_what_is_no_network(self, text: str) -> None:
        assert refusal(kinds.networks, text) == (
            "holds something that is no network, or has bits set behind its prefix; "
            "write networks such as 192.0.2.0/24, separated by commas"
        )


class TestCountries:
    def test_takes_codes_in_any_case(self) -> None:
        assert kinds.countries.parse("DE, fr") == ("DE", "FR")
        assert kinds.countries.format(("DE", "FR")) == "DE,FR"

    def test_takes_none(self) -> None:
        assert kinds.countries.parse("") == ()

    @pytest.mark.parametrize("text", ["DEU", "D", "DE,", "DE FR", "D1"])
    def test_refuses_what_is_no_code(self, text: str) -> None:
        assert refusal(kinds.countries, text) == (
            "holds something that is no code of two letters; "
            "write codes of countries such as DE, separated by commas"
        )


class TestRegionalAddresses:
    kind = kinds.regional_addresses

    def test_takes_addresses_of_both_versions_in_their_usual_spelling(self) -> None:
        addresses = self.kind.parse("SA=192.0.2.1, eu=2001:DB8:0::1")
        assert addresses == (("sa", "192.0.2.1"), ("eu", "2001:db8::1"))
        assert self.kind.format(addresses) == "sa=192.0.2.1,eu=2001:db8::1"

    def test_takes_none(self) -> None:
        assert self.kind.parse("") == ()

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("192.0.2.1", "holds something without a region"),
            ("eu=192.0.2.1,", "holds something without a region"),
            ("eu=192.0.2", "holds something that is no IP address"),
            ("eu=edge.example", "holds something that is no IP address"),
            ("e u=192.0.2.1", "is empty or malformed; expected is: name of a region"),
        ],
    )
    def test_refuses_what_is_no_address_in_a_region(self, text: str, problem: str) -> None:
        assert refusal(self.kind, text).startswith(problem)


def test_a_domain_leaves_room_for_names_below_it() -> None:
    label = "a" * 49
    assert kinds.domain.parse(f"{label}.{label}.{label}.{label}") == ".".join([label] * 4)
    assert "at most 200 characters" in refusal(kinds.domain, f"{label}.{label}.{label}.{label}.aaa")


@pytest.mark.parametrize(
    ("text", "value"), [("", ()), ("h2", ("h2",)), ("h2, http/1.1", ("h2", "http/1.1")), ("x-1", ("x-1",))]
)
def test_protocols_are_names_with_commas_between(text: str, value: tuple[str, ...]) -> None:
    assert kinds.protocols.parse(text) == value
    assert kinds.protocols.parse(kinds.protocols.format(value)) == value


@pytest.mark.parametrize("text", ["h2,,x", "h 2", "\x00", "é", "x" * 256])
def test_what_is_no_name_of_a_protocol_is_refused(text: str) -> None:
    with pytest.raises(kinds.InvalidValueError, match="protocol"):
        kinds.protocols.parse(text)


@pytest.mark.parametrize("text", ["file:///var/lib/archive", "s3://our-bucket", "s3://our.bucket/pops/eu"])
def test_archive_is_a_folder_or_a_bucket(text: str) -> None:
    assert kinds.archive_url.parse(text) == text


@pytest.mark.parametrize(
    "text", ["", "/var/lib", "file://host/x", "file:///", "s3://", "s3:///x", "s3://A", "ftp://x/y"]
)
def test_archive_that_is_neither_is_refused(text: str) -> None:
    assert "file:///FOLDER or s3://BUCKET/PREFIX" in refusal(kinds.archive_url, text)
