"""Real database files: the embedded one, others in its place, and files that are none."""

from __future__ import annotations

import importlib.resources
import os
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import geoip2.database
import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from edgeproxy.errors import GeoDatabaseError
from edgeproxy.outbound.geo_maxmind import STARTER_PATH, CountryDatabase, signature
from edgeproxy.ports import CountryLookup
from testkit.geo import write_country_database

METADATA_MARK = b"\xab\xcd\xefMaxMind.com"


def write_records(
    path: Path, records: dict[str, object], *, ip_version: int = 6, database_type: str = "Test"
) -> None:
    """Write records of any shape; testkit's writer only knows countries."""
    writer = MMDBWriter(ip_version, database_type, ["en"], "for a test", ipv4_compatible=ip_version == 6)
    for cidr, record in records.items():
        writer.insert_network(IPSet([cidr]), record)  # type: ignore[arg-type]
    writer.to_db_file(str(path))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "countries.mmdb"


def refusal(path: Path) -> str:
    """The message that ``path`` is refused with, checked to be one line that names it and the remedy."""
    with pytest.raises(GeoDatabaseError) as refused:
        CountryDatabase.open(path)
    message = str(refused.value)
    assert "\n" not in message
    assert str(path) in message
    assert "set EDGEPROXY_GEOIP_PATH" in message
    return message


class TestStarter:
    def test_is_opened_when_no_path_is_given(self) -> None:
        database: CountryLookup = CountryDatabase.open()
        assert database.country("200.160.2.3") == "BR"
        assert database.country("2001:12ff::1") == "BR"

    def test_satisfies_geoip2(self) -> None:
        with geoip2.database.Reader(STARTER_PATH) as reader:
            assert reader.country("200.160.2.3").country.iso_code == "BR"

    def test_describes_itself(self) -> None:
        description = CountryDatabase.open().description
        assert description.database_type == "edgeproxy-starter-Country"
        assert description.path == str(STARTER_PATH)
        assert date(2026, 1, 1) < description.built_on < datetime.now(UTC).date()

    def test_is_package_data(self) -> None:
        data = importlib.resources.files("edgeproxy") / "data"
        assert (data / "starter-country.mmdb").read_bytes() == STARTER_PATH.read_bytes()
        assert "nro.net" in (data / "README.md").read_text()

    @pytest.mark.parametrize(
        "address", ["127.0.0.1", "10.1.2.3", "172.17.0.2", "192.168.0.1", "::1", "fe80::1", "fd00::1"]
    )
    def test_knows_no_country_of_private_addresses(self, address: str) -> None:
        assert CountryDatabase.open().country(address) == ""

    @pytest.mark.feature("geography.country")
    @pytest.mark.parametrize("address", ["::ffff:200.160.2.3", "64:ff9b::200.160.2.3", "2002:c8a0:203::1"])
    def test_finds_ipv4_inside_of_ipv6(self, address: str) -> None:
        assert CountryDatabase.open().country(address) == "BR"


class TestOtherDatabases:
    def test_take_the_starters_place(self, path: Path) -> None:
        write_country_database(path, {"127.0.1.0/24": "BR", "2001:db8::/32": "DE"})
        database = CountryDatabase.open(path)
        assert [database.country(a) for a in ("127.0.1.9", "127.0.2.9", "2001:db8::1", "2001:db9::1")] == [
            "BR",
            "",
            "DE",
            "",
        ]
        assert database.description.database_type == "GeoLite2-Country"
        assert database.description.path == str(path)
        database.close()

    def test_may_have_flat_records(self, path: Path) -> None:
        write_records(path, {"127.0.1.0/24": {"country_code": "BR"}})
        assert CountryDatabase.open(path).country("127.0.1.1") == "BR"

    def test_may_hold_networks_without_a_country(self, path: Path) -> None:
        write_records(
            path,
            {
                "1.0.0.0/24": {"continent": {"code": "OC"}},
                "2.0.0.0/24": {"registered_country": {"iso_code": "FR"}},
            },
        )
        database = CountryDatabase.open(path)
        assert database.country("1.0.0.1") == ""
        assert database.country("2.0.0.1") == "FR"

    def test_may_hold_ipv4_only(self, path: Path) -> None:
        write_records(path, {"127.0.1.0/24": {"country": {"iso_code": "BR"}}}, ip_version=4)
        database = CountryDatabase.open(path)
        assert database.country("127.0.1.1") == "BR"
        assert database.country("2001:db8::1") == ""

    def test_refuse_what_is_no_address(self) -> None:
        with pytest.raises(ValueError, match="localhost"):
            CountryDatabase.open().country("localhost")


class TestUnusableFiles:
    def test_missing(self, path: Path) -> None:
        assert "does not exist" in refusal(path)

    def test_below_a_file(self, path: Path) -> None:
        path.write_text("")
        assert "cannot be read (Not a directory)" in refusal(path / "x.mmdb")

    def test_a_directory(self, tmp_path: Path) -> None:
        assert "cannot be read (Is a directory)" in refusal(tmp_path)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_without_permission(self, path: Path) -> None:
        write_country_database(path, {"127.0.1.0/24": "BR"})
        path.chmod(0)
        assert "cannot be read (Permission denied)" in refusal(path)

    @pytest.mark.parametrize("content", [b"", b"hello\n" * 1000, METADATA_MARK, METADATA_MARK + b"\xff" * 50])
    def test_of_another_format(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        assert "is not an .mmdb file, or a damaged one" in refusal(path)

    @pytest.mark.parametrize("kept", [slice(None, 100_000), slice(-100_000, None), slice(None, -30)])
    def test_truncated(self, path: Path, kept: slice) -> None:
        path.write_bytes(STARTER_PATH.read_bytes()[kept])
        assert "is not an .mmdb file, or a damaged one" in refusal(path)

    def test_of_a_format_that_only_the_c_reader_refuses(self, path: Path) -> None:
        write_country_database(path, {"127.0.1.0/24": "BR"})
        major = b"binary_format_major_version\xa1"
        path.write_bytes(path.read_bytes().replace(major + b"\x02", major + b"\x07"))
        assert "is not an .mmdb file, or a damaged one" in refusal(path)

    def test_with_a_tree_that_leads_nowhere(self, path: Path) -> None:
        write_country_database(path, {"127.0.1.0/24": "BR"})
        content = path.read_bytes()
        path.write_bytes(b"\xee" * 600 + content[600:])
        assert "is not an .mmdb file, or a damaged one" in refusal(path)

    def test_of_another_kind(self, path: Path) -> None:
        asn = {"autonomous_system_number": 22548, "autonomous_system_organization": "NIC.br"}
        write_records(path, {"200.160.0.0/20": asn}, database_type="GeoLite2-ASN")
        assert "is of type 'GeoLite2-ASN' and holds no countries" in refusal(path)

    def test_of_another_kind_and_without_ipv6(self, path: Path) -> None:
        write_records(path, {"200.160.0.0/20": {"is_anonymous": True}}, ip_version=4)
        assert "holds no countries" in refusal(path)

    def test_of_another_kind_are_refused_without_reading_all_of_it(self, path: Path) -> None:
        networks = {f"10.{network >> 8}.{network & 255}.0/24": {"asn": network} for network in range(3000)}
        write_records(path, {**networks, "200.0.0.0/8": {"country_code": "BR"}})
        assert "holds no countries" in refusal(path)


def test_without_the_c_reader_nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "maxminddb.extension", None)
    with pytest.raises(GeoDatabaseError, match="the C reader of maxminddb is not installed: install"):
        CountryDatabase.open()


def test_damage_met_at_a_look_up_makes_the_client_unknown(path: Path) -> None:
    write_country_database(path, {"1.0.0.0/8": "BR", "200.0.0.0/8": "DE"})
    content = path.read_bytes()
    # The second country's text becomes bytes that are not UTF-8.
    path.write_bytes(content.replace(b"BDE", b"B\xff\xfe"))
    database = CountryDatabase.open(path)
    assert database.country("1.2.3.4") == "BR"
    assert database.country("200.2.3.4") == ""


class TestReplacement:
    def test_changes_the_signature(self, path: Path) -> None:
        write_country_database(path, {"127.0.1.0/24": "BR"})
        before = signature(path)
        assert signature(path) == before
        write_country_database(path, {"127.0.1.0/24": "DE"})
        assert signature(path) != before

    def test_by_a_file_of_the_same_size_and_time_changes_the_signature(self, path: Path) -> None:
        write_country_database(path, {"127.0.1.0/24": "BR"})
        before = signature(path)
        twin = path.with_name("twin.mmdb")
        twin.write_bytes(path.read_bytes())
        status = path.stat()
        os.utime(twin, ns=(status.st_atime_ns, status.st_mtime_ns))
        twin.replace(path)
        assert signature(path) != before

    def test_in_place_changes_the_signature(self, path: Path) -> None:
        write_country_database(path, {"127.0.1.0/24": "BR"})
        os.utime(path, ns=(0, 0))
        before = signature(path)
        with path.open("r+b") as file:
            file.write(b"\0")
        assert signature(path) != before

    def test_of_a_missing_file_is_seen_too(self, path: Path) -> None:
        assert signature(path) == ()
        write_country_database(path, {"127.0.1.0/24": "BR"})
        assert signature(path) != ()

    def test_leaves_an_open_database_as_it_was(self, path: Path) -> None:
        write_country_database(path, {"127.0.1.0/24": "BR"})
        old = CountryDatabase.open(path)
        write_country_database(path, {"127.0.1.0/24": "DE"})
        assert old.country("127.0.1.1") == "BR"
        assert CountryDatabase.open(path).country("127.0.1.1") == "DE"
