from __future__ import annotations

from pathlib import Path

from packages.testkit.tests.unit.coverage.reports.assessments import PLAIN, make_assessment
from testkit.coverage.reports.lcov import write_lcov

RECORD = """\
SF:src/product/core/part.py
FN:1,sign
FN:7,never
FNDA:1,sign
FNDA:0,never
FNF:2
FNH:1
BRDA:2,0,to 3,1
BRDA:2,0,to 4,0
BRF:2
BRH:1
DA:1,1
DA:2,1
DA:3,1
DA:4,0
DA:7,1
DA:8,0
LF:6
LH:4
end_of_record
"""


def test_a_record_tells_of_functions_branches_and_lines(tmp_path: Path) -> None:
    write_lcov(make_assessment(tmp_path), tmp_path / "coverage.lcov")
    text = (tmp_path / "coverage.lcov").read_text()
    assert text.startswith(f"TN:\n{RECORD}SF:")
    assert text.count("end_of_record\n") == 2


def test_of_a_line_that_never_ran_the_branches_are_unknown(tmp_path: Path) -> None:
    assessment = make_assessment(tmp_path)
    del assessment.measured.measurements["unit"]  # type: ignore[attr-defined]
    write_lcov(assessment, tmp_path / "coverage.lcov")
    assert "BRDA:2,0,to 3,-\nBRDA:2,0,to 4,-\nBRF:2\nBRH:0\n" in (tmp_path / "coverage.lcov").read_text()


def test_a_name_cannot_add_lines(tmp_path: Path) -> None:
    assessment = make_assessment(tmp_path)
    for measured in assessment.measured.measurements.values():
        measured["src/a\nend_of_record\n.py"] = measured[PLAIN]  # type: ignore[index]
    write_lcov(assessment, tmp_path / "coverage.lcov")
    text = (tmp_path / "coverage.lcov").read_text()
    assert text.count("\nend_of_record\n") == 3
    assert "SF:src/a\ufffdend_of_record\ufffd.py\n" in text
