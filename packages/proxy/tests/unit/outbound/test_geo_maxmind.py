"""What counts as a country in a record; everything else needs a file and is an integration test."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import pytest

from edgeproxy.outbound.geo_maxmind import Description, iso_code

if TYPE_CHECKING:
    from maxminddb.types import Record


@pytest.mark.parametrize(
    "record",
    [
        {"country": {"iso_code": "BR"}},
        {"country": {"iso_code": "BR", "names": {"en": "Brazil"}}, "registered_country": {"iso_code": "US"}},
        {"country": {"geoname_id": 1}, "registered_country": {"iso_code": "BR"}},
        {"registered_country": {"iso_code": "BR"}, "continent": {"code": "SA"}},
        {"country_code": "BR"},
        {"country": "Brazil", "country_code": "BR"},
        {"country": {"iso_code": "br"}},
        {"country_code": "br"},
    ],
)
def test_finds_the_country_in_each_known_shape(record: Record) -> None:
    assert iso_code(record) == "BR"


@pytest.mark.parametrize(
    "record",
    [
        None,
        {},
        "BR",
        {"country": {}},
        {"country": {"iso_code": 76}},
        {"country": {"iso_code": "BRA"}},
        {"country": {"iso_code": "1\n"}},
        {"country": {"iso_code": "ßé"}},
        {"country_code": "-"},
        {"continent": {"code": "SA"}},
        {"autonomous_system_number": 22548},
    ],
)
def test_finds_none_elsewhere(record: Record | None) -> None:
    assert iso_code(record) == ""


def test_describes_a_database_in_one_phrase() -> None:
    description = Description("/var/lib/GeoIP/city.mmdb", "GeoLite2-City", date(2026, 6, 17))
    assert str(description) == "GeoLite2-City of 2026-06-17 (/var/lib/GeoIP/city.mmdb)"
