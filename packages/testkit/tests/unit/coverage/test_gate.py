from __future__ import annotations

from fractions import Fraction

from testkit.coverage.gate import find_failures
from testkit.coverage.matrix import Cell, Count, Row
from testkit.coverage.measurement import FileMeasurement
from testkit.coverage.policy import Requirement


def row(lines: Count, branches: Count, required: int, files: dict[str, FileMeasurement] | None = None) -> Row:
    requirement = Requirement(("unit", "integration"), Fraction(required), Fraction(required))
    return Row("core", requirement, {}, Cell(lines, branches, Count(0, 0)), files or {})


def file(
    lines: set[int], hit: set[int], branches: set[tuple[int, int]], taken: set[tuple[int, int]]
) -> FileMeasurement:
    return FileMeasurement(frozenset(lines), frozenset(hit), frozenset(branches), frozenset(taken))


def test_meeting_the_threshold_exactly_passes() -> None:
    assert find_failures([row(Count(95, 100), Count(19, 20), required=95)]) == []


def test_a_hair_below_the_threshold_fails() -> None:
    (failure,) = find_failures([row(Count(99_999, 100_000), Count(1, 1), required=100)])
    assert str(failure) == "core: 99.99 % of lines by unit + integration, 100 % required (99999 of 100000)"


def test_lines_and_branches_fail_on_their_own() -> None:
    assert [failure.metric for failure in find_failures([row(Count(1, 2), Count(1, 1), 95)])] == ["lines"]
    assert [failure.metric for failure in find_failures([row(Count(1, 1), Count(1, 2), 95)])] == ["branches"]
    assert [failure.metric for failure in find_failures([row(Count(1, 2), Count(1, 2), 95)])] == [
        "lines",
        "branches",
    ]


def test_a_failure_names_the_missing_lines_and_branches_of_each_file() -> None:
    files = {
        "core/a.py": file({1, 2, 4, 5, 6, 9}, {1, 5}, {(5, 6), (5, -1), (5, 9), (2, 4)}, {(5, 9)}),
        "core/complete.py": file({1}, {1}, set(), set()),
    }
    lines, branches = find_failures([row(Count(3, 7), Count(1, 4), 95, files)])
    assert lines.missing == {"core/a.py": "2-4, 6-9"}
    assert branches.missing == {"core/a.py": "2->4, 5->exit, 5->6"}
    assert str(branches).splitlines()[1:] == ["    core/a.py: 2->4, 5->exit, 5->6"]


def test_a_single_missing_line_is_no_range() -> None:
    files = {"a.py": file({1, 2, 3}, {1, 3}, set(), set())}
    (failure,) = find_failures([row(Count(2, 3), Count(0, 0), 95, files)])
    assert failure.missing == {"a.py": "2"}
