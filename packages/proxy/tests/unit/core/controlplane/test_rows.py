from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.controlplane.rows import RowIssue, backend_from_row, host_from_text, written
from edgeproxy.core.geography import Geography
from edgeproxy.core.model import Backend

GEOGRAPHY = Geography.built_in()
GOOD: Mapping[str, object] = {
    "id": "mock-eu-1",
    "app": "test",
    "region": "eu",
    "country": "PT",
    "wg_ip": "127.0.0.1",
    "port": 9001,
    "healthy": 1,
    "weight": 2,
    "soft_limit": 100,
    "hard_limit": 150,
}
NUMBERS = ("port", "healthy", "weight", "soft_limit", "hard_limit")


def backend(**changes: object) -> Backend:
    outcome = backend_from_row({**GOOD, **changes}, GEOGRAPHY, place=1)
    assert isinstance(outcome, Backend), outcome
    return outcome


def issues(**changes: object) -> list[str]:
    outcome = backend_from_row({**GOOD, **changes}, GEOGRAPHY, place=7)
    assert isinstance(outcome, tuple), outcome
    return [str(issue) for issue in outcome]


def test_good_row_becomes_the_backend_it_describes() -> None:
    assert backend() == Backend("mock-eu-1", "test", "eu", "PT", "127.0.0.1", 9001, True, 2, 100, 150)


def test_issue_names_row_column_value_and_problem() -> None:
    outcome = backend_from_row({**GOOD, "port": 99999}, GEOGRAPHY, place=7)
    assert outcome == (
        RowIssue("backend 'mock-eu-1'", "port", "99999", "is not a whole number from 1 to 65535"),
    )
    assert issues(port=99999) == ["backend 'mock-eu-1': port 99999 is not a whole number from 1 to 65535"]


@pytest.mark.feature("table.bad_rows")
def test_every_wrong_value_of_a_row_is_named() -> None:
    outcome = backend_from_row({}, GEOGRAPHY, place=7)
    assert isinstance(outcome, tuple)
    assert {issue.column for issue in outcome} == {*GOOD} - {"country"}
    assert {(issue.row, issue.value) for issue in outcome} == {("row 7", "NULL")}


@pytest.mark.parametrize("column", [*GOOD])
def test_null_is_an_issue_unless_the_column_is_country(column: str) -> None:
    if column == "country":
        assert backend(country=None).country == "DE"
    else:
        (issue,) = issues(**{column: None})
        assert f"{column} NULL is not" in issue


@pytest.mark.parametrize(
    ("column", "lowest", "highest"),
    [("port", 1, 65535), ("weight", 0, 255), ("soft_limit", 0, 2**63 - 1), ("hard_limit", 0, 2**63 - 1)],
)
def test_numbers_are_kept_within_their_bounds_and_refused_beyond(
    column: str, lowest: int, highest: int
) -> None:
    for value in (lowest, highest):
        assert getattr(backend(**{column: value}), column) == value
    for value in (lowest - 1, highest + 1):
        assert f"{column} {value} is not a whole number" in issues(**{column: value})[0]


@pytest.mark.parametrize("column", NUMBERS)
@pytest.mark.parametrize("value", ["9001", "", b"\x01", 1.5, float("inf"), float("nan")])
def test_number_of_the_wrong_type_is_an_issue(column: str, value: object) -> None:
    assert len(issues(**{column: value})) == 1


@pytest.mark.parametrize("column", NUMBERS)
def test_whole_real_number_counts_as_integer(column: str) -> None:
    outcome = backend(**{column: 1.0})
    assert outcome == backend(**{column: 1})
    assert type(getattr(outcome, column)) is type(getattr(backend(), column))


@pytest.mark.parametrize(("value", "healthy"), [(0, False), (1, True), (2, True), (-1, True), (True, True)])
def test_any_number_but_zero_means_healthy(value: int, healthy: bool) -> None:
    assert backend(healthy=value).healthy is healthy


def test_flag_as_a_number_leaves_a_number() -> None:
    assert type(backend(weight=True).weight) is int


@pytest.mark.parametrize("column", ["id", "app", "region", "country", "wg_ip"])
@pytest.mark.parametrize("value", [5, 1.5, b"eu"])
def test_text_of_the_wrong_type_is_an_issue(column: str, value: object) -> None:
    assert len(issues(**{column: value})) == 1


@pytest.mark.parametrize("value", ["", "  "])
def test_empty_id_is_an_issue_that_names_the_place_of_the_row(value: str) -> None:
    assert issues(id=value) == [f"row 7: id {value!r} is empty"]


def test_empty_app_is_kept() -> None:
    assert backend(app="").app == ""


@pytest.mark.parametrize("column", ["id", "app"])
@pytest.mark.parametrize("value", ["a\nb", "a\0", "\udcff", "\x1b[31m"])
def test_unprintable_characters_in_names_are_an_issue(column: str, value: str) -> None:
    (issue,) = issues(**{column: value})
    assert issue.isprintable()
    assert "cannot be printed" in issue


def test_region_is_taken_in_any_case_and_with_spaces_around() -> None:
    assert backend(region=" Eu ").region == "eu"


def test_unknown_region_is_an_issue_that_lists_the_known_ones() -> None:
    assert issues(region="mars") == [
        "backend 'mock-eu-1': region 'mars' is not a region; there are ap, eu, sa, us"
    ]


def test_configured_region_is_known() -> None:
    geography = Geography({"ZA": "af"}, {"af": "ZA"})
    outcome = backend_from_row({**GOOD, "region": "AF", "country": None}, geography, place=1)
    assert isinstance(outcome, Backend)
    assert (outcome.region, outcome.country) == ("af", "ZA")


@pytest.mark.parametrize(("region", "country"), [("sa", "BR"), ("us", "US"), ("eu", "DE"), ("ap", "JP")])
@pytest.mark.parametrize("written_country", [None, "", "  "])
def test_missing_country_comes_from_the_region(
    region: str, country: str, written_country: str | None
) -> None:
    assert backend(region=region, country=written_country).country == country


def test_country_is_taken_in_any_case_and_with_spaces_around() -> None:
    assert backend(country=" fr ").country == "FR"


@pytest.mark.parametrize("value", ["Germany", "D", "ZZ", "49"])
def test_unknown_country_is_an_issue(value: str) -> None:
    assert "is not a country code" in issues(country=value)[0]


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("10.50.1.2", "10.50.1.2"),
        (" 10.50.1.2 ", "10.50.1.2"),
        ("fd00::1", "fd00::1"),
        ("[fd00::1]", "fd00::1"),
        ("FD00:0:0::1", "fd00::1"),
        ("fe80::1%wg0", "fe80::1%wg0"),
        ("localhost", "localhost"),
        ("api-1.Example.internal", "api-1.Example.internal"),
        ("db.internal.", "db.internal."),
        ("9lives.example", "9lives.example"),
        ("a" * 63 + ".example", "a" * 63 + ".example"),
    ],
)
def test_addresses_and_host_names_are_hosts(text: str, host: str) -> None:
    assert host_from_text(text) == host
    assert backend(wg_ip=text).host == host


@pytest.mark.parametrize(
    "text",
    [
        *("", "  ", ".", "a..b", "10.0.0.256", "10.0.0", "127.0.0.1:9001", "[10.0.0.1]", "[localhost]", "[]"),
        *("[fd00::1", "fd00::1/64", "fe80::1%", "fe80::1%a b", "my_host", "-a.example", "a-.example", "a b"),
        *("http://a", "exämple", "a" * 64 + ".example", ".".join(["abcdefg"] * 32)),
    ],
)
def test_other_text_is_no_host(text: str) -> None:
    assert host_from_text(text) == ""
    assert "is neither an IP address nor a host name" in issues(wg_ip=text)[0]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "NULL"),
        (b"abcd", "a BLOB of 4 bytes"),
        ("it", "'it'"),
        (1.5, "1.5"),
        ("x" * 61, f"'{'x' * 60}'…"),
    ],
)
def test_values_are_shown_as_people_write_them(value: object, shown: str) -> None:
    assert written(value) == shown


SQLITE_VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(),
    st.binary(),
    st.sampled_from(
        [0, 1, 150, 65535, 65536, 255, 256, "eu", "DE", "10.0.0.1", "[::1]", "a.example", "9001"]
    ),
)


@given(st.dictionaries(st.sampled_from([*GOOD]), SQLITE_VALUES))
def test_any_row_gives_a_backend_within_the_contract_or_issues(changes: dict[str, object]) -> None:
    row = {**GOOD, **changes}
    outcome = backend_from_row(row, GEOGRAPHY, place=3)
    if isinstance(outcome, Backend):
        assert 1 <= outcome.port <= 65535
        assert 0 <= outcome.weight <= 255
        assert outcome.soft_limit >= 0
        assert outcome.hard_limit >= 0
        assert outcome.region in GEOGRAPHY.regions
        assert outcome.country in GEOGRAPHY.countries
        assert host_from_text(outcome.host) == outcome.host
        assert outcome.id.strip()
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(outcome), type=Backend) == outcome
    else:
        assert outcome
        assert {issue.column for issue in outcome} <= {*changes}
        assert all(str(issue).isprintable() for issue in outcome)


@given(st.dictionaries(st.sampled_from(NUMBERS), st.sampled_from([0, 0.0, 1, 1.0, True, 255, 255.0])))
def test_rows_that_compare_equal_have_the_same_outcome(changes: dict[str, object]) -> None:
    as_floats = {column: float(value) for column, value in changes.items() if isinstance(value, int | float)}
    assert {**GOOD, **changes} == {**GOOD, **as_floats}
    one, other = (backend_from_row({**GOOD, **c}, GEOGRAPHY, place=1) for c in (changes, as_floats))
    assert isinstance(one, Backend) == isinstance(other, Backend)
    if isinstance(one, Backend):
        assert one == other
