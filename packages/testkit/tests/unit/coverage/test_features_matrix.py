from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from testkit.coverage.features_claims import Feature
from testkit.coverage.features_marks import Mark
from testkit.coverage.features_matrix import FeatureMatrix, build_feature_matrix, judge_features, to_text
from testkit.coverage.features_outcomes import TestOutcome
from testkit.coverage.matrix import Count
from testkit.coverage.measurement import FileMeasurement

MARK = Mark("a", "part.py", 3)


def measured(*hit: int) -> dict[str, FileMeasurement]:
    return {"part.py": FileMeasurement(frozenset({3, 4, 5}), frozenset(hit), frozenset(), frozenset())}


def outcome(kind: str, *features: str, outcome: str = "passed") -> TestOutcome:
    return TestOutcome(f"{kind}.py::test_it", outcome, features, 0.1)


def judged(
    proof: Iterable[str] = ("unit", "e2e"),
    marks: Iterable[Mark] = (MARK,),
    ran: Mapping[str, Mapping[str, FileMeasurement]] | None = None,
    outcomes: Mapping[str, list[TestOutcome]] | None = None,
) -> FeatureMatrix:
    return build_feature_matrix(
        [Feature("a", "The first", tuple(proof), ())],
        list(marks),
        ran or {"unit": measured(3), "e2e": measured(3)},
        outcomes or {"unit": [outcome("unit", "a")], "e2e": [outcome("e2e", "a")]},
    )


def test_a_test_that_passed_and_a_line_that_ran_prove_a_feature() -> None:
    matrix = judged()
    assert matrix.problems == ()
    assert (matrix.green("unit"), matrix.green("e2e")) == (Count(1, 1), Count(1, 1))
    assert matrix.rows[0].missing == {}


def test_a_line_that_ran_in_one_kind_proves_nothing_for_another() -> None:
    matrix = judged(ran={"unit": measured(3), "e2e": measured(4)})
    assert matrix.problems == ("a: not proven by e2e: part.py:3 did not run",)
    assert matrix.green("e2e") == Count(0, 1)


def test_every_marked_line_must_run() -> None:
    matrix = judged(marks=[MARK, Mark("a", "part.py", 5)])
    assert matrix.problems == (
        "a: not proven by unit: part.py:5 did not run",
        "a: not proven by e2e: part.py:5 did not run",
    )


@pytest.mark.parametrize("said", ["skipped", "failed"])
def test_a_test_that_did_not_pass_proves_nothing(said: str) -> None:
    matrix = judged(outcomes={"unit": [outcome("unit", "a")], "e2e": [outcome("e2e", "a", outcome=said)]})
    assert matrix.problems == ("a: not proven by e2e: no test marked with it passed",)


def test_a_feature_without_a_mark_in_the_code_is_not_proven() -> None:
    matrix = judged(proof=["unit"], marks=[])
    assert matrix.problems == ("a: not proven by unit: no line of the code is marked with it",)


def test_a_proof_that_is_not_asked_for_may_be_missing() -> None:
    matrix = judged(proof=["unit"], ran={"unit": measured(3), "e2e": measured()})
    assert matrix.problems == ()
    assert matrix.green("e2e") == Count(0, 1)


def test_unknown_ids_are_told_with_their_places() -> None:
    matrix = judged(
        marks=[MARK, Mark("b", "part.py", 4)],
        outcomes={"unit": [outcome("unit", "a", "c")], "e2e": [outcome("e2e", "a")]},
    )
    assert matrix.problems == (
        "part.py:4: marks 'b', which is no feature",
        "unit.py::test_it: is marked with 'c', which is no feature",
    )


@pytest.mark.parametrize("mark", [Mark("a", "part.py", 9), Mark("a", "gone.py", 3)])
def test_a_mark_at_nothing_that_is_counted_is_told(mark: Mark) -> None:
    problems = judged(marks=[MARK, mark]).problems
    assert problems[0] == f"{mark.place}: the mark 'a' is at no statement that coverage counts"


def test_the_table_tells_what_is_proven_missing_and_not_asked_for() -> None:
    matrix = build_feature_matrix(
        [Feature("a", "The first", ("unit", "e2e"), ()), Feature("bb", "The second", ("unit",), ())],
        [MARK, Mark("bb", "part.py", 4)],
        {"unit": measured(3, 4), "e2e": measured(4)},
        {"unit": [outcome("unit", "a", "bb")], "e2e": [outcome("e2e", "bb")]},
    )
    assert to_text(matrix).splitlines() == [
        "feature  unit    e2e      title",
        "a        proven  MISSING  The first",
        "bb       proven  proven   The second",
        "",
        "50.00 % of features have an end-to-end proof (1 of 2)",
        "without one: a",
    ]


def test_the_table_of_a_repository_without_end_to_end_tests_says_nothing_about_them() -> None:
    matrix = build_feature_matrix([Feature("a", "The first", (), ())], [], {"unit": measured()}, {})
    assert to_text(matrix).splitlines() == ["feature  unit  title", "a        -     The first"]


def make_repository(root: Path, names: list[str]) -> None:
    (root / "pyproject.toml").write_text(
        '[tool.testkit.features]\nfile = "features.toml"\ninventory = ["echo", \''
        + json.dumps(names)
        + "']\n"
    )
    (root / "features.toml").write_text(
        '[[feature]]\nid = "a"\ntitle = "A"\nproof = ["unit"]\nnames = ["setting x"]\n'
    )
    (root / "part.py").write_text("\n\nx = 1  # feature: a\n")
    (root / "outcomes.unit.jsonl").write_text(
        '{"test": "t.py::t", "outcome": "passed", "features": ["a"], "seconds": 0}\n'
    )


def test_a_repository_is_judged_by_its_own_list_marks_and_names(tmp_path: Path) -> None:
    make_repository(tmp_path, ["setting x", "setting y"])
    matrix = judge_features(
        tmp_path, tmp_path / "pyproject.toml", tmp_path, ["part.py"], {"unit": measured(3)}
    )
    assert matrix is not None
    assert matrix.problems == ("setting y: belongs to no feature",)
    assert matrix.green("unit") == Count(1, 1)


def test_a_repository_that_claims_nothing_is_not_judged(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    assert judge_features(tmp_path, tmp_path / "pyproject.toml", tmp_path, [], {}) is None


def test_a_kind_whose_tests_left_no_outcomes_is_told_once(tmp_path: Path) -> None:
    make_repository(tmp_path, ["setting x"])
    (tmp_path / "outcomes.unit.jsonl").unlink()
    matrix = judge_features(
        tmp_path, tmp_path / "pyproject.toml", tmp_path, ["part.py"], {"unit": measured(3), "e2e": measured()}
    )
    assert matrix is not None
    (problem,) = matrix.problems
    assert problem.startswith("unit tests: what became of them is not written down: run them with --outcomes")
