"""The built-in regions, and what an operator may change about them."""

from __future__ import annotations

import tomllib

import msgspec
import pytest

from edgeproxy.core.geography import _BUILT_IN, Geography, parse_geography

# ISO 3166-1 alpha-2, all 249 officially assigned codes, in the order of the standard.
ISO_3166 = """
AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ
CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO
FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE
JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO
MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW
PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM
TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW
"""

ORIGINAL = {
    "sa": "BR AR CL PE CO UY PY BO EC",
    "us": "US CA MX",
    "eu": "PT ES FR DE NL IT GB IE BE CH AT PL CZ SE NO DK FI",
    "ap": "JP KR TW HK SG MY TH VN ID PH AU NZ",
}

EU_MEMBERS = "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK"


def overridden(toml: str) -> Geography:
    geography, problems = parse_geography(tomllib.loads(toml))
    assert problems == []
    return geography


def problems_of(toml: str) -> list[str]:
    geography, problems = parse_geography(tomllib.loads(toml))
    assert geography == Geography.built_in()
    assert all("\n" not in problem for problem in problems)
    return problems


class TestBuiltIn:
    def test_knows_every_country_of_iso_3166_and_two_codes_that_databases_use(self) -> None:
        codes = ISO_3166.split()
        assert len(codes) == len(set(codes)) == 249
        assert Geography.built_in().countries == {*codes, "XK", "AN"}

    def test_names_no_country_twice(self) -> None:
        # A country in two places of the table would silently take the later one.
        listed = [code for areas in _BUILT_IN.values() for codes in areas.values() for code in codes.split()]
        assert len(listed) == len(set(listed))

    def test_has_the_four_regions_of_the_original(self) -> None:
        geography = Geography.built_in()
        assert geography.regions == {"sa", "us", "eu", "ap"}
        assert set(geography.region_by_country.values()) == geography.regions

    @pytest.mark.parametrize("region", ORIGINAL)
    def test_keeps_the_countries_that_the_original_lists(self, region: str) -> None:
        geography = Geography.built_in()
        assert {geography.region_of(country) for country in ORIGINAL[region].split()} == {region}

    def test_puts_all_members_of_the_european_union_into_eu(self) -> None:
        geography = Geography.built_in()
        assert {geography.region_of(country) for country in EU_MEMBERS.split()} == {"eu"}

    @pytest.mark.parametrize(
        ("region", "countries"),
        [
            ("sa", "GY SR GF VE FK GS BV AQ"),
            ("us", "GT HN SV NI CR PA BZ CU DO HT JM PR TT BM GL"),
            ("eu", "ZA NG KE EG MA MU SA AE IL TR IR KZ UZ RU UA XK IS"),
            ("ap", "IN PK BD CN MN KH LA PG FJ GU PF"),
        ],
    )
    def test_sends_the_rest_where_the_cables_go(self, region: str, countries: str) -> None:
        geography = Geography.built_in()
        assert {geography.region_of(country) for country in countries.split()} == {region}

    @pytest.mark.parametrize("country", ["", "ZZ", "EU", "br"])
    def test_has_no_region_for_what_is_no_upper_case_country_code(self, country: str) -> None:
        assert Geography.built_in().region_of(country) == ""

    def test_gives_backends_without_a_country_the_one_of_the_original(self) -> None:
        geography = Geography.built_in()
        assert [geography.default_country(region) for region in ("sa", "us", "eu", "ap")] == [
            "BR",
            "US",
            "DE",
            "JP",
        ]
        assert geography.default_country("af") == ""

    def test_travels_to_a_worker_and_back(self) -> None:
        geography = Geography.built_in()
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(geography), type=Geography) == geography


class TestOverrides:
    def test_none_leave_the_built_in_geography(self) -> None:
        assert overridden("") == Geography.built_in()

    def test_move_a_country_to_another_region(self) -> None:
        geography = overridden('[countries]\nMX = "sa"')
        assert geography.region_of("MX") == "sa"
        assert geography.region_of("US") == "us"

    def test_add_a_region(self) -> None:
        geography = overridden('[regions.af]\ncountries = ["ZA", "NG", "KE"]\ndefault_country = "ZA"')
        assert geography.regions == {"sa", "us", "eu", "ap", "af"}
        assert geography.region_of("NG") == "af"
        assert geography.region_of("GH") == "eu"
        assert geography.default_country("af") == "ZA"

    def test_add_a_region_that_countries_are_then_moved_to(self) -> None:
        geography = overridden('[regions.af]\n[countries]\nZA = "af"')
        assert geography.region_of("ZA") == "af"
        assert geography.default_country("af") == ""

    def test_extend_a_built_in_region_and_keep_its_default_country(self) -> None:
        geography = overridden('[regions.ap]\ncountries = ["AE"]')
        assert geography.region_of("AE") == "ap"
        assert geography.default_country("ap") == "JP"

    def test_change_the_default_country_of_a_built_in_region(self) -> None:
        assert overridden('[regions.eu]\ndefault_country = "FR"').default_country("eu") == "FR"

    def test_may_be_written_in_either_case(self) -> None:
        geography = overridden(
            '[countries]\nmx = "SA"\n[regions.AF]\ncountries = ["za"]\ndefault_country = "Za"'
        )
        assert geography.region_of("MX") == "sa"
        assert geography.region_of("ZA") == "af"
        assert geography.default_country("af") == "ZA"

    def test_may_say_the_same_twice(self) -> None:
        assert (
            overridden('[countries]\nZA = "af"\n[regions.af]\ncountries = ["ZA", "ZA"]').region_of("ZA")
            == "af"
        )

    def test_leave_other_keys_of_the_document_to_the_caller(self) -> None:
        assert overridden('listen_addr = "0.0.0.0:8080"') == Geography.built_in()

    def test_do_not_leak_into_the_built_in_geography(self) -> None:
        overridden('[countries]\nMX = "sa"')
        assert Geography.built_in().region_of("MX") == "us"


class TestProblems:
    @pytest.mark.parametrize(
        ("toml", "named"),
        [
            ('countries = "MX"', "[countries]: must be a table"),
            ("regions = 1", "[regions]: must be a table"),
            ("regions.af = 1", "[regions.af]: must be a table"),
            ('[countries]\nMexico = "us"', "'Mexico' is no country code"),
            ('[countries]\nUK = "eu"', "'UK' is no country code"),
            ('[countries]\nMX = "mars"', "[countries] 'MX': 'mars' is no region; there are ap, eu, sa, us"),
            ("[countries]\nMX = 3", "'MX': 3 is no region"),
            ('[regions.af]\ncountries = "ZA"', "[regions.af] countries: must be a list"),
            ("[regions.af]\ncountries = [27]", "[regions.af] countries: 27 is no country code"),
            ('[regions.af]\ndefault_country = "Africa"', "default_country: 'Africa' is no country code"),
            ('[regions.af]\ncountry = ["ZA"]', "[regions.af] 'country': unknown key"),
            ('[regions."1a"]', "[regions] '1a': a region's name is a letter"),
            ('[regions."af_1"]', "[regions] 'af_1': a region's name is"),
            ("[regions.AF]\n[regions.af]", "[regions] 'af': the region is defined twice"),
            (
                '[countries]\nZA = "eu"\n[regions.af]\ncountries = ["ZA"]',
                "country ZA is given to two regions: af and eu",
            ),
            ('[countries]\nmx = "sa"\nMX = "eu"', "country MX is given to two regions: sa and eu"),
            ('[regions.af]\ndefault_country = "US"', "[regions.af] default_country: US belongs to region us"),
            ('[countries]\nDE = "ap"', "[regions.eu] default_country: DE belongs to region ap"),
        ],
    )
    def test_are_named_in_one_line_each(self, toml: str, named: str) -> None:
        problems = problems_of(toml)
        assert len(problems) == 1
        assert named in problems[0]

    @pytest.mark.parametrize(
        "toml",
        [
            '[countries]\n"M\\nX" = "us"',
            '[countries]\nMX = "u\\ns"',
            '[regions."a\\nf"]',
            '[regions.af]\n"k\\ny" = 1',
        ],
    )
    def test_stay_in_one_line_whatever_is_written(self, toml: str) -> None:
        assert len(problems_of(toml)) == 1

    def test_are_all_found_at_once(self) -> None:
        problems = problems_of(
            '[countries]\nQQ = "sa"\nMX = "mars"\n[regions.af]\ncountries = ["ZA", "XX"]\n[regions."-"]'
        )
        assert len(problems) == 4

    def test_leave_names_of_32_characters_alone(self) -> None:
        assert problems_of(f"[regions.{'a' * 33}]")
        assert "a" * 32 in overridden(f"[regions.{'a' * 32}]").regions
