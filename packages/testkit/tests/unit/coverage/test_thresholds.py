from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from testkit.coverage.failure import Failure
from testkit.coverage.functions import Function
from testkit.coverage.matrix import Count, Row, build_row
from testkit.coverage.measurement import FileMeasurement
from testkit.coverage.policy import Layer, Requirement
from testkit.coverage.thresholds import find_failures, find_slack

BOTH = ("unit", "integration")


def file(
    lines: set[int],
    hit: set[int],
    branches: set[tuple[int, int]] | None = None,
    taken: set[tuple[int, int]] | None = None,
) -> FileMeasurement:
    return FileMeasurement(
        frozenset(lines), frozenset(hit), frozenset(branches or ()), frozenset(taken or ())
    )


def counted(count: Count) -> FileMeasurement:
    return file(set(range(1, count.total + 1)), set(range(1, count.hit + 1)))


def row(files: Mapping[str, FileMeasurement], required: Requirement, **more: object) -> Row:
    """Make a row whose files every kind measured alike."""
    layer = Layer("core", ("*.py",), required, **more)  # type: ignore[arg-type]
    return build_row(layer, list(files), dict.fromkeys(BOTH, files))


def lines(required: int) -> Requirement:
    return Requirement(BOTH, lines=Fraction(required))


def test_meeting_the_threshold_exactly_passes() -> None:
    assert find_failures([row({"a.py": counted(Count(95, 100))}, lines(95))]) == []


def test_a_hair_below_the_threshold_fails() -> None:
    (failure,) = find_failures([row({"a.py": counted(Count(999, 1000))}, lines(100))])
    assert failure == Failure(
        "threshold",
        "core",
        "99.90 % of lines by unit + integration, 100 % required (999 of 1000)",
        {"a.py": "1000"},
    )
    assert str(failure).splitlines()[1:] == ["    a.py: 1000"]


def test_lines_branches_and_functions_fail_on_their_own() -> None:
    functions = (Function("f", 1, frozenset({2}), 1), Function("C.g", 4, frozenset({5}), 1))
    half = FileMeasurement(
        frozenset({1, 2, 4, 5}),
        frozenset({1, 2}),
        frozenset({(1, 2), (1, 4)}),
        frozenset({(1, 2)}),
        functions,
    )
    for metric, missing in (("lines", "4-5"), ("branches", "1->4"), ("functions", "C.g (4)")):
        (failure,) = find_failures([row({"a.py": half}, Requirement(BOTH, **{metric: Fraction(51)}))])
        assert failure.verdict.startswith(f"50.00 % of {metric} by unit + integration, 51 % required")
        assert failure.places == {"a.py": missing}


def test_a_failure_names_the_missing_lines_and_branches_of_each_file() -> None:
    files = {
        "core/a.py": file({1, 2, 4, 5, 6, 9}, {1, 5}, {(5, 6), (5, -1), (5, 9), (2, 4)}, {(5, 9)}),
        "core/complete.py": file({1}, {1}),
    }
    of_lines, of_branches = find_failures([row(files, Requirement(BOTH, Fraction(95), Fraction(95)))])
    assert of_lines.places == {"core/a.py": "2-4, 6-9"}
    assert of_branches.places == {"core/a.py": "2->4, 5->exit, 5->6"}


def test_a_cell_is_held_to_its_own_threshold() -> None:
    unit, integration = {"a.py": file({1, 2}, {1, 2})}, {"a.py": file({1, 2}, {1})}
    layer = Layer(
        "core",
        ("*.py",),
        Requirement(("unit",), Fraction(100)),
        cells=(Requirement(("unit",), Fraction(100)), Requirement(("integration",), Fraction(60))),
    )
    (failure,) = find_failures([build_row(layer, ["a.py"], {"unit": unit, "integration": integration})])
    assert failure.subject == "core x integration"
    assert failure.verdict == "50.00 % of lines by integration, 60 % required (1 of 2)"
    assert failure.places == {"a.py": "2"}


def test_each_file_is_held_to_the_threshold_for_files() -> None:
    files = {"good.py": counted(Count(100, 100)), "bad.py": counted(Count(1, 2))}
    (failure,) = find_failures([row(files, lines(95), each_file=lines(80))])
    assert (failure.subject, failure.places) == ("bad.py", {"bad.py": "2"})


def test_a_threshold_that_guards_nothing_is_a_warning() -> None:
    rows = [row({"a.py": counted(Count(99, 100))}, lines(96), cells=(Requirement(("unit",), Fraction(50)),))]
    assert [str(warning) for warning in find_slack(rows, Fraction(3))] == [
        "slack: core x unit: 99.00 % of lines by unit, only 50 % required: raise the threshold",
    ]
    assert len(list(find_slack(rows, Fraction(2)))) == 2


def test_what_is_not_required_has_no_slack() -> None:
    assert list(find_slack([row({"a.py": counted(Count(0, 0))}, lines(50))], Fraction(0))) == []
