from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testkit.coverage.matrix import Cell, Count, build_matrix
from testkit.coverage.measurement import FileMeasurement
from testkit.coverage.policy import Layer, Policy, Requirement

NONE = Count(0, 0)


def measured(lines_hit: set[int], branches_hit: set[tuple[int, int]]) -> FileMeasurement:
    return FileMeasurement(
        lines=frozenset({1, 2, 3, 4}),
        lines_hit=frozenset(lines_hit),
        branches=frozenset({(2, 3), (2, 4)}),
        branches_hit=frozenset(branches_hit),
    )


def layer(name: str, *kinds: str) -> Layer:
    return Layer(name, (f"{name}.py",), Requirement(kinds, Fraction(95), Fraction(95)))


POLICY = Policy(
    kinds=("unit", "integration"),
    sources=("*.py",),
    layers=(layer("core", "unit"), layer("app", "unit", "integration")),
    overall=Requirement(("unit", "integration"), Fraction(98), Fraction(98)),
)
SOURCES = {"core": ("core.py",), "app": ("app.py",)}
MEASUREMENTS = {
    "unit": {"core.py": measured({1, 2, 3}, {(2, 3)}), "app.py": measured({1, 2}, {(2, 3)})},
    "integration": {"core.py": measured({1, 2, 4}, {(2, 4)}), "app.py": measured({1, 2, 4}, {(2, 4)})},
}


def test_a_row_holds_each_kinds_own_share() -> None:
    core, app, overall = build_matrix(POLICY, SOURCES, MEASUREMENTS)
    assert core.by_kind["unit"] == Cell(Count(3, 4), Count(1, 2), NONE)
    assert app.by_kind == {
        "unit": Cell(Count(2, 4), Count(1, 2), NONE),
        "integration": Cell(Count(3, 4), Count(1, 2), NONE),
    }
    assert overall.by_kind["unit"] == Cell(Count(5, 8), Count(2, 4), NONE)


def test_only_the_kinds_of_the_requirement_count_and_they_count_together() -> None:
    core, app, overall = build_matrix(POLICY, SOURCES, MEASUREMENTS)
    assert core.counted == Cell(Count(3, 4), Count(1, 2), NONE)
    assert app.counted == Cell(Count(3, 4), Count(2, 2), NONE)
    assert overall.counted == Cell(Count(7, 8), Count(4, 4), NONE)


def test_rows_keep_the_policys_order_and_end_with_the_overall_one() -> None:
    assert [row.name for row in build_matrix(POLICY, SOURCES, MEASUREMENTS)] == ["core", "app", "overall"]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (Count(99_999, 100_000), "99.99"),
        (Count(2, 3), "66.66"),
        (Count(1, 1), "100.00"),
        (Count(1, 2_000), "0.05"),
        (Count(0, 5), "0.00"),
        (Count(0, 0), "-"),
    ],
)
def test_shares_are_rounded_down(count: Count, text: str) -> None:
    assert str(count) == text


def test_nothing_to_execute_is_all_of_it() -> None:
    assert Count(0, 0).percent == 100


@given(st.integers(1, 10**7).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_the_text_never_exceeds_the_share(pair: tuple[int, int]) -> None:
    count = Count(*pair)
    assert count.percent - Fraction(1, 100) < Fraction(str(count)) <= count.percent
