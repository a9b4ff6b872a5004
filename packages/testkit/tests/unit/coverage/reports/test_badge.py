from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import parse

import pytest

from packages.testkit.tests.unit.coverage.reports.assessments import make_assessment
from testkit.coverage.matrix import Cell, Count
from testkit.coverage.reports.badge import write_badge

GREEN, AMBER, RED = "#2e7d32", "#9a6700", "#b3261e"


@pytest.mark.parametrize(
    ("hit", "total", "fails", "colour", "said"),
    [
        (100, 100, False, GREEN, "100.00 %"),
        (9_499, 10_000, False, AMBER, "94.99 %"),
        (79, 100, False, RED, "79.00 %"),
        (100, 100, True, RED, "100.00 %"),
        (0, 0, False, GREEN, "no branches"),
    ],
)
def test_a_badge_tells_the_share_of_branches_and_whether_a_gate_fails(
    tmp_path: Path, hit: int, total: int, fails: bool, colour: str, said: str
) -> None:
    assessment = make_assessment(tmp_path, fails=fails)
    overall = assessment.measured.rows[-1]
    object.__setattr__(overall, "counted", Cell(Count(0, 0), Count(hit, total), Count(0, 0)))
    write_badge(assessment, tmp_path / "badge.svg")
    badge = parse(tmp_path / "badge.svg").getroot()
    assert badge.get("aria-label") == f"coverage: {said}"
    assert colour in {each.get("fill") for each in badge.iter()}
    assert float(badge.get("width", "")) > 100
