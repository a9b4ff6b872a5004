from __future__ import annotations

from pathlib import Path

import geoip2.database
import maxminddb
import pytest
from geoip2.errors import AddressNotFoundError

from testkit.geo import write_country_database

COUNTRIES = {
    "127.0.1.0/24": "BR",
    "127.0.0.0/8": "US",
    "2001:DB8:0::/32": "DE",
    "2001:db8:1::/48": "FR",
    "::1/128": "JP",
}
EXPECTED = [
    ("127.0.1.9", "BR"),
    ("127.0.2.9", "US"),
    ("2001:db8:2::1", "DE"),
    ("2001:db8:1::1", "FR"),
    ("::1", "JP"),
]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "countries.mmdb"
    write_country_database(path, COUNTRIES)
    return path


@pytest.mark.parametrize(("address", "country"), EXPECTED)
def test_c_reader_finds_the_most_specific_network(database: Path, address: str, country: str) -> None:
    with maxminddb.open_database(database, maxminddb.MODE_MMAP_EXT) as reader:
        assert reader.get(address) == {"country": {"iso_code": country}}


@pytest.mark.parametrize(("address", "country"), EXPECTED)
def test_geoip2_accepts_it_as_a_country_database(database: Path, address: str, country: str) -> None:
    with geoip2.database.Reader(database) as reader:
        assert reader.country(address).country.iso_code == country


@pytest.mark.parametrize("address", ["10.0.0.1", "2001:db9::1"])
def test_other_addresses_are_not_in_it(database: Path, address: str) -> None:
    with geoip2.database.Reader(database) as reader, pytest.raises(AddressNotFoundError):
        reader.country(address)


def test_database_type_can_be_another(tmp_path: Path) -> None:
    path = tmp_path / "asn.mmdb"
    write_country_database(path, {"10.0.0.0/8": "BR"}, database_type="GeoLite2-ASN")
    with maxminddb.open_database(path) as reader:
        assert reader.metadata().database_type == "GeoLite2-ASN"


def test_order_of_the_networks_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "reversed.mmdb"
    write_country_database(path, dict(reversed(COUNTRIES.items())))
    with maxminddb.open_database(path) as reader:
        assert [reader.get(address) for address, _ in EXPECTED] == [
            {"country": {"iso_code": country}} for _, country in EXPECTED
        ]


def test_a_reader_of_the_replaced_file_keeps_the_old_one(database: Path) -> None:
    with maxminddb.open_database(database, maxminddb.MODE_MMAP_EXT) as reader:
        write_country_database(database, {"127.0.1.0/24": "CL"})
        assert reader.get("127.0.1.9") == {"country": {"iso_code": "BR"}}
    assert list(database.parent.iterdir()) == [database]


def test_network_with_host_bits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has host bits set"):
        write_country_database(tmp_path / "x.mmdb", {"127.0.0.1/8": "US"})
