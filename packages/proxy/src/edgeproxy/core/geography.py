"""Which region a country belongs to.

Selection compares regions, so a country's region should be the one whose backends its clients reach
fastest. Distance on the map is a poor guide: what counts is where the submarine cables go and where
the networks of a country meet their transit. The table below follows the sub-regions of the United
Nations' M49 standard, and each sub-region says why it is where it is. Every country of ISO 3166-1 has
a place; an operator who measures otherwise moves it in the configuration (:func:`parse_geography`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

_BUILT_IN: Final[dict[str, dict[str, str]]] = {
    "sa": {
        # São Paulo, Fortaleza and Buenos Aires are the meeting points; the Pacific coast and the Guianas
        # are tied to them over land or by coastal cables.
        "South America": "AR BO BR CL CO EC FK GF GY PE PY SR UY VE",
        # No cables. Most stations stand on the peninsula, whose gateway is Punta Arenas.
        "Antarctic and South Atlantic": "AQ BV GS",
    },
    "us": {
        "Northern America": "BM CA GL MX PM US",
        # Both hang on cables to Florida; even traffic between neighbours usually meets in Miami.
        "Central America": "BZ CR GT HN NI PA SV",
        "Caribbean": "AG AI AW BB BL BQ BS CU CW DM DO GD GP HT JM KN KY LC MF MQ MS PR SX TC TT VC VG VI",
        # Netherlands Antilles: withdrawn from ISO 3166 in 2010, still found in registry data.
        "Caribbean, withdrawn": "AN",
    },
    "eu": {
        "Northern Europe": "AX DK EE FI FO GB GG IE IM IS JE LT LV NO SE SJ",
        "Western Europe": "AT BE CH DE FR LI LU MC NL",
        "Southern Europe": "AD AL BA ES GI GR HR IT ME MK MT PT RS SI SM VA",
        # Kosovo: user-assigned in ISO 3166, but the code that country databases use.
        "Southern Europe, user-assigned": "XK",
        # Russia as a whole: nine tenths of its users live nearer to Frankfurt than to Tokyo.
        "Eastern Europe": "BG BY CZ HU MD PL RO RU SK UA",
        # Through Egypt and Turkey to Marseille, Sofia and Frankfurt; Iran too, which M49 counts as
        # Southern Asia.
        "Western Asia": "AE AM AZ BH CY GE IL IQ IR JO KW LB OM PS QA SA SY TR YE",
        # Landlocked; transit through Russia.
        "Central Asia": "KG KZ TJ TM UZ",
        # The cables of both coasts end in Portugal, Britain and France. East African and Indian Ocean
        # networks also reach Mumbai, but Marseille holds more of what they ask for.
        "Northern Africa": "DZ EG EH LY MA SD TN",
        "Western Africa": "BF BJ CI CV GH GM GN GW LR ML MR NE NG SH SL SN TG",
        "Middle Africa": "AO CD CF CG CM GA GQ ST TD",
        "Eastern Africa": "BI DJ ER ET IO KE KM MG MU MW MZ RE RW SC SO SS TF TZ UG YT ZM ZW",
        "Southern Africa": "BW LS NA SZ ZA",
    },
    "ap": {
        "Eastern Asia": "CN HK JP KP KR MN MO TW",
        "South-eastern Asia": "BN ID KH LA MM MY PH SG TH TL VN",
        # Chennai and Mumbai reach Singapore in half the time they need to Europe.
        "Southern Asia": "AF BD BT IN LK MV NP PK",
        "Australia and New Zealand": "AU CC CX HM NF NZ",
        # Cables to Sydney, Guam and Fiji; Hawaii is counted with the United States.
        "Melanesia": "FJ NC PG SB VU",
        "Micronesia": "FM GU KI MH MP NR PW UM",
        "Polynesia": "AS CK NU PF PN TK TO TV WF WS",
    },
}

_DEFAULT_COUNTRIES: Final = {"sa": "BR", "us": "US", "eu": "DE", "ap": "JP"}

_REGION_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")


class Geography(msgspec.Struct, frozen=True):
    """Countries and their regions, as plain mappings so that it travels to workers as it is."""

    region_by_country: dict[str, str]
    """Upper-case ISO 3166-1 alpha-2 code to region name."""
    default_country_by_region: dict[str, str]
    """Every region there is, with the country of its backends that name none (``""``: no such country)."""

    @classmethod
    def built_in(cls) -> Geography:
        """The regions ``sa``, ``us``, ``eu`` and ``ap``, which share all countries among them."""
        region_by_country = {
            country: region
            for region, areas in _BUILT_IN.items()
            for codes in areas.values()
            for country in codes.split()
        }
        return cls(region_by_country, dict(_DEFAULT_COUNTRIES))

    def region_of(self, country: str) -> str:
        """Region of an upper-case country code, ``""`` when the code is unknown."""
        return self.region_by_country.get(country, "")

    def default_country(self, region: str) -> str:
        """Country of a backend in ``region`` (lower case) that names none; ``""`` when there is none."""
        return self.default_country_by_region.get(region, "")

    @property
    def regions(self) -> frozenset[str]:
        return frozenset(self.default_country_by_region)

    @property
    def countries(self) -> frozenset[str]:
        return frozenset(self.region_by_country)


def parse_geography(document: Mapping[str, object]) -> tuple[Geography, list[str]]:
    """Apply what an operator wrote to the built-in geography.

    ``document`` is decoded TOML; its tables ``countries`` and ``regions`` are read, other keys belong to
    the caller::

        [countries]               # a country moves to another region
        MX = "sa"
        [regions.af]              # a further region, or more countries for a built-in one
        countries = ["ZA", "NG"]
        default_country = "ZA"    # for backends of this region that name no country

    Codes and names may be written in either case.

    Returns:
        The resulting geography and every problem found, one line each. With problems the geography is
        the built-in one, untouched.
    """
    built_in = Geography.built_in()
    reader = _OverrideReader(built_in)
    reader.read_regions(document.get("regions", {}))
    reader.read_countries(document.get("countries", {}))
    geography = reader.result()
    return (built_in, reader.problems) if reader.problems else (geography, [])


class _OverrideReader:
    """Collects an operator's claims (country → region) and what is wrong with them."""

    def __init__(self, built_in: Geography) -> None:
        self.problems: list[str] = []
        self._built_in = built_in
        self._default_countries = dict(built_in.default_country_by_region)
        self._claims: dict[str, str] = {}

    def read_regions(self, tables: object) -> None:
        if not isinstance(tables, Mapping):
            self.problems.append("[regions]: must be a table, such as [regions.af]")
            return
        seen: set[str] = set()
        for written, table in tables.items():
            region = str(written).lower()
            if not _REGION_NAME.fullmatch(region):
                self.problems.append(
                    f"[regions] {written!r}: a region's name is a letter followed by at most 31 letters, "
                    "digits or hyphens"
                )
            elif region in seen:
                self.problems.append(f"[regions] {written!r}: the region is defined twice")
            else:
                seen.add(region)
                self._default_countries.setdefault(region, "")
                self._read_region(region, table)

    def _read_region(self, region: str, table: object) -> None:
        where = f"[regions.{region}]"
        if not isinstance(table, Mapping):
            self.problems.append(f'{where}: must be a table with countries = ["ZA", …]')
            return
        for key in sorted(table.keys() - {"countries", "default_country"}):
            self.problems.append(f"{where} {key!r}: unknown key; known are countries and default_country")
        countries = table.get("countries", [])
        if not isinstance(countries, list):
            self.problems.append(f'{where} countries: must be a list such as ["ZA", "NG"]')
            countries = []
        for written in countries:
            country = self._country(f"{where} countries", written)
            if country:
                self._claim(country, region)
        if "default_country" in table:
            self._default_countries[region] = self._country(
                f"{where} default_country", table["default_country"]
            )

    def read_countries(self, table: object) -> None:
        if not isinstance(table, Mapping):
            self.problems.append('[countries]: must be a table of lines such as MX = "sa"')
            return
        for written, written_region in table.items():
            country = self._country("[countries]", written)
            region = written_region.lower() if isinstance(written_region, str) else ""
            if region not in self._default_countries:
                self.problems.append(
                    f"[countries] {written!r}: {written_region!r} is no region; there are "
                    f"{', '.join(sorted(self._default_countries))}, and [regions.NAME] adds one"
                )
            elif country:
                self._claim(country, region)

    def result(self) -> Geography:
        """The geography that the claims make, once both tables are read."""
        region_by_country = self._built_in.region_by_country | self._claims
        for region, country in self._default_countries.items():
            actual = region_by_country.get(country, region)
            if actual != region:
                self.problems.append(
                    f"[regions.{region}] default_country: {country} belongs to region {actual}; "
                    f"name a country of {region}"
                )
        return Geography(region_by_country, self._default_countries)

    def _country(self, where: str, written: object) -> str:
        country = written.upper() if isinstance(written, str) else ""
        if country in self._built_in.region_by_country:
            return country
        self.problems.append(f"{where}: {written!r} is no country code of ISO 3166-1 (two letters, like BR)")
        return ""

    def _claim(self, country: str, region: str) -> None:
        other = self._claims.setdefault(country, region)
        if other != region:
            self.problems.append(f"country {country} is given to two regions: {other} and {region}")
