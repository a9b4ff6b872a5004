from __future__ import annotations

from pathlib import Path

import pytest

from testkit.coverage.errors import CoverageInputError
from testkit.coverage.features_outcomes import TestOutcome, passed_features, read_outcomes

LINE = '{"test": "tests/test_a.py::test_b[c::d]", "outcome": "passed", "features": ["a"], "seconds": 0.5}\n'


def test_outcomes_are_read_back(tmp_path: Path) -> None:
    (tmp_path / "outcomes.unit.jsonl").write_text(LINE)
    (outcome,) = read_outcomes(tmp_path, "unit")
    assert outcome == TestOutcome("tests/test_a.py::test_b[c::d]", "passed", ("a",), 0.5)
    assert outcome.file == "tests/test_a.py"


def test_a_kind_without_outcomes_is_told_with_the_option_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(CoverageInputError, match="no outcomes of e2e tests: run them with --outcomes"):
        read_outcomes(tmp_path, "e2e")


@pytest.mark.parametrize("damage", ["{", "[]", '{"test": "a"}', "null"])
def test_a_damaged_line_is_named(tmp_path: Path, damage: str) -> None:
    (tmp_path / "outcomes.unit.jsonl").write_text(LINE + damage + "\n")
    with pytest.raises(CoverageInputError, match=r"outcomes\.unit\.jsonl:2: no outcome of a test"):
        read_outcomes(tmp_path, "unit")


def test_only_tests_that_passed_prove_anything() -> None:
    outcomes = [
        TestOutcome("one", "passed", ("a", "b"), 0),
        TestOutcome("two", "skipped", ("a", "c"), 0),
        TestOutcome("three", "failed", ("a",), 0),
        TestOutcome("four", "passed", ("a",), 0),
    ]
    assert passed_features(outcomes) == {"a": ["one", "four"], "b": ["one"]}
