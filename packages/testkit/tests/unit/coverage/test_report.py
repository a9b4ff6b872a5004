from __future__ import annotations

import json
from fractions import Fraction

from testkit.coverage.gate import Failure
from testkit.coverage.matrix import Cell, Count, Row
from testkit.coverage.policy import Requirement
from testkit.coverage.report import to_json, to_markdown, to_text

CORE = Row(
    "core",
    Requirement(("unit",), Fraction(100), Fraction("99.5")),
    {"unit": Cell(Count(2, 3), Count(1, 1), Count(0, 0)), "e2e": Cell(Count(1, 3), Count(0, 1), Count(0, 0))},
    Cell(Count(2, 3), Count(1, 1), Count(0, 0)),
    {},
)
APP = Row(
    "app",
    Requirement(("unit", "e2e"), Fraction(95), Fraction(95)),
    {"unit": Cell(Count(9, 9), Count(0, 0), Count(0, 0)), "e2e": Cell(Count(0, 9), Count(0, 0), Count(0, 0))},
    Cell(Count(9, 9), Count(0, 0), Count(0, 0)),
    {},
)
FAILURE = Failure("core", "lines", ("unit",), Count(2, 3), Fraction(100), {"core.py": "3"})


def test_the_table_has_a_line_per_layer_and_says_which_one_missed() -> None:
    assert to_text([CORE, APP], [FAILURE]).splitlines() == [
        "layer  unit                e2e               counted             required",
        "core   66.66 / 100.00 / -  33.33 / 0.00 / -  66.66 / 100.00 / -  100 / 99.5 by unit     MISSED",
        "app    100.00 / - / -      0.00 / - / -      100.00 / - / -      95 / 95 by unit + e2e  met",
    ]


def test_markdown_holds_the_table_and_what_is_missing() -> None:
    text = to_markdown([CORE, APP], [FAILURE])
    assert "| core | 66.66 / 100.00 / - | 33.33 / 0.00 / - | 66.66 / 100.00 / - |" in text
    assert "## Below the threshold" in text
    assert "    core.py: 3" in text


def test_markdown_without_failures_has_no_section_about_them() -> None:
    assert "Below" not in to_markdown([CORE, APP], [])


def test_json_holds_exact_counts() -> None:
    document = json.loads(to_json([CORE, APP], [FAILURE]))
    assert document["layers"]["core"] == {
        "kinds": {
            "unit": {
                "lines": {"hit": 2, "total": 3},
                "branches": {"hit": 1, "total": 1},
                "functions": {"hit": 0, "total": 0},
            },
            "e2e": {
                "lines": {"hit": 1, "total": 3},
                "branches": {"hit": 0, "total": 1},
                "functions": {"hit": 0, "total": 0},
            },
        },
        "counted": {
            "lines": {"hit": 2, "total": 3},
            "branches": {"hit": 1, "total": 1},
            "functions": {"hit": 0, "total": 0},
        },
        "required": {"kinds": ["unit"], "lines": 100.0, "branches": 99.5},
    }
    assert document["failures"] == [{"layer": "core", "metric": "lines", "missing": {"core.py": "3"}}]
