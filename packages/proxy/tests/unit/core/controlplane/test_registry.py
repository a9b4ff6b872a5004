from __future__ import annotations

from collections.abc import Mapping

import pytest

from edgeproxy.core.controlplane.registry import (
    Refusal,
    RefusalReason,
    add_backend,
    remove_backend,
    set_backend,
)
from edgeproxy.core.geography import Geography
from edgeproxy.ports import Row, RowChange

GEOGRAPHY = Geography.built_in()
NEEDED: Mapping[str, object] = {"app": "test", "region": "eu", "wg_ip": "127.0.0.1", "port": 9001}
DEFAULTS: Mapping[str, object] = {
    "country": None,
    "healthy": 1,
    "weight": 2,
    "soft_limit": 100,
    "hard_limit": 150,
}
ROW: Row = {"id": "mock-eu-1", **NEEDED, **DEFAULTS, "deleted": 0}
TABLE: Mapping[str, Row] = {"mock-eu-1": ROW, "mock-eu-9": {**ROW, "id": "mock-eu-9", "deleted": 1}}


def values_of(decision: RowChange | Refusal) -> Mapping[str, object]:
    assert isinstance(decision, RowChange), decision
    return decision.values


def refusal_of(decision: RowChange | Refusal) -> Refusal:
    assert isinstance(decision, Refusal), decision
    return decision


def test_added_backend_gets_the_defaults_of_the_original() -> None:
    assert add_backend({}, GEOGRAPHY, "new", NEEDED) == RowChange("new", {**NEEDED, **DEFAULTS, "deleted": 0})


def test_added_backend_keeps_what_was_given() -> None:
    given = {"country": "PT", "healthy": False, "weight": 0, "soft_limit": 0, "hard_limit": 0}
    values = values_of(add_backend({}, GEOGRAPHY, "new", {**NEEDED, **given}))
    assert values == {**NEEDED, **given, "healthy": 0, "deleted": 0}
    assert type(values["healthy"]) is int


def test_values_are_written_as_they_are_understood() -> None:
    given = {**NEEDED, "region": " EU", "country": "pt", "wg_ip": "[FD00::1]"}
    values = values_of(add_backend({}, GEOGRAPHY, "new", given))
    assert (values["region"], values["country"], values["wg_ip"]) == ("eu", "PT", "fd00::1")


def test_invalid_new_backend_is_refused_with_every_problem() -> None:
    refusal = refusal_of(add_backend({}, GEOGRAPHY, "new", {**NEEDED, "port": 0, "region": "mars"}))
    assert refusal.reason is RefusalReason.INVALID
    assert [problem.split(" is not ")[0] for problem in refusal.problems] == [
        "backend 'new': region 'mars'",
        "backend 'new': port 0",
    ]


def test_existing_id_cannot_be_added_again() -> None:
    assert add_backend(TABLE, GEOGRAPHY, "mock-eu-1", NEEDED) == Refusal(
        RefusalReason.EXISTS, ("backend 'mock-eu-1' exists already",)
    )


def test_removed_id_can_be_added_again_and_keeps_nothing_of_its_former_row() -> None:
    table = {"old": {**ROW, "id": "old", "country": "PT", "weight": 9, "healthy": 0, "deleted": 1}}
    assert values_of(add_backend(table, GEOGRAPHY, "old", NEEDED)) == {**NEEDED, **DEFAULTS, "deleted": 0}


@pytest.mark.feature("table.commands")
def test_set_writes_the_given_columns_only() -> None:
    change = set_backend(TABLE, GEOGRAPHY, "mock-eu-1", {"healthy": False, "weight": 5})
    assert change == RowChange("mock-eu-1", {"healthy": 0, "weight": 5})


@pytest.mark.parametrize("blank", ["", " "])
def test_setting_a_blank_country_goes_back_to_that_of_the_region(blank: str) -> None:
    assert values_of(set_backend(TABLE, GEOGRAPHY, "mock-eu-1", {"country": blank})) == {"country": None}


def test_set_judges_the_whole_row() -> None:
    table = {"b": {**ROW, "id": "b", "port": None}}
    refusal = refusal_of(set_backend(table, GEOGRAPHY, "b", {"weight": 5}))
    assert refusal.problems == ("backend 'b': port NULL is not a whole number from 1 to 65535",)
    assert values_of(set_backend(table, GEOGRAPHY, "b", {"port": 80})) == {"port": 80}


def test_removing_marks_the_row_as_deleted() -> None:
    assert remove_backend(TABLE, "mock-eu-1") == RowChange("mock-eu-1", {"deleted": 1})


def test_row_that_is_no_valid_backend_can_be_removed() -> None:
    assert values_of(remove_backend({"b": {"id": "b", "port": None}}, "b")) == {"deleted": 1}


def test_unknown_id_is_refused_with_close_matches_that_are_not_removed() -> None:
    for decision in (set_backend(TABLE, GEOGRAPHY, "mock-eu-2", {}), remove_backend(TABLE, "mock-eu-2")):
        assert decision == Refusal(
            RefusalReason.UNKNOWN, ("there is no backend 'mock-eu-2' (did you mean 'mock-eu-1'?)",)
        )


def test_removed_id_is_unknown() -> None:
    for decision in (set_backend(TABLE, GEOGRAPHY, "mock-eu-9", {}), remove_backend(TABLE, "mock-eu-9")):
        assert refusal_of(decision).reason is RefusalReason.UNKNOWN


def test_unknown_id_without_close_matches_is_named() -> None:
    assert refusal_of(remove_backend(TABLE, "zzz")).problems == ("there is no backend 'zzz'",)
