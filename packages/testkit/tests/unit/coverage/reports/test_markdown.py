from __future__ import annotations

from pathlib import Path

from packages.testkit.tests.unit.coverage.reports.assessments import HOSTILE, make_assessment
from testkit.coverage.assessment import Assessment
from testkit.coverage.failure import Failure
from testkit.coverage.reports.markdown import write_markdown


def written(tmp_path: Path, assessment: Assessment) -> str:
    write_markdown(assessment, tmp_path / "coverage.md")
    return (tmp_path / "coverage.md").read_text()


def test_the_verdict_comes_first_and_failures_are_open(tmp_path: Path) -> None:
    text = written(tmp_path, make_assessment(tmp_path))
    assert text.startswith(
        "# Coverage\n\n**1 failures.**\n0.00 % of features have an end-to-end proof (0 of 2)"
    )
    assert "<details open><summary>Failures</summary>\n\n    threshold: shell x unit: 0 %" in text
    assert "| core | 66.66 / 50 / 50 | 33.33 / 0 / 0 | 66.66 / 50 / 50 | 60 / 50 / 0 by unit | met |" in text
    for title in ("New code", "What to test next", "Warnings", "Notes"):
        assert f"<summary>{title}</summary>" in text


def test_a_run_without_anything_to_tell_is_short(tmp_path: Path) -> None:
    assessment = make_assessment(tmp_path, fails=False, claims=False)
    assessment.gaps = assessment.new_code = ()
    assessment.warnings, assessment.notes = [], []
    text = written(tmp_path, assessment)
    assert "**Every gate passes.**" in text
    assert "<details" not in text
    assert "features" not in text


def test_what_names_hold_is_no_markup(tmp_path: Path) -> None:
    text = written(tmp_path, make_assessment(tmp_path))
    # Code blocks may hold it as it is: they are shown to the letter.
    outside = [line for line in text.splitlines() if not line.startswith("    ")]
    assert "<img" not in "\n".join(outside)
    assert all(line.count("|") == 7 for line in outside if line.startswith("| core"))
    assert any("&#60;img src" in line for line in outside)
    assert HOSTILE in text


def test_very_many_failures_are_counted(tmp_path: Path) -> None:
    assessment = make_assessment(tmp_path)
    assessment.failures = [Failure("threshold", f"layer {number}", "too low") for number in range(60)]
    text = written(tmp_path, assessment)
    assert "threshold: layer 49: too low" in text
    assert "threshold: layer 50: too low" not in text
    assert "    and 10 more\n" in text
