"""A cell or group below its threshold fails, and says which, the number, the threshold and the lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from packages.testkit.tests.integration.coverage.repositories import (
    EVERYTHING,
    IMPORT,
    POSITIVE,
    SETTINGS,
    Output,
    Repository,
    broken,
)


@pytest.mark.parametrize(
    ("promise", "failure"),
    [
        ("lines = 67", "core: 66.66 % of lines by unit, 67 % required (4 of 6)\n    core.py: 3, 8"),
        ("branches = 51", "core: 50.00 % of branches by unit, 51 % required (1 of 2)\n    core.py: 2->3"),
        (
            "functions = 99.9",
            "core: 50.00 % of functions by unit, 99.9 % required (1 of 2)\n    core.py: never (7)",
        ),
        (
            "each_file = { lines = 67 }",
            "core.py: 66.66 % of lines by unit, 67 % required (4 of 6)\n    core.py: 3, 8",
        ),
        (
            "cells = { e2e = { lines = 34 } }",
            "core x e2e: 33.33 % of lines by e2e, 34 % required (2 of 6)\n    core.py: 2-4, 8",
        ),
    ],
)
def test_a_broken_threshold_fails_with_cell_number_and_lines(
    tmp_path: Path, capsys: Output, promise: str, failure: str
) -> None:
    settings = SETTINGS.replace('kinds = ["unit"]', 'kinds = ["unit", "e2e"]', 1)
    head, _, tail = settings.rpartition(" }")
    made = Repository(tmp_path, f"{head}, {promise} }}{tail}")
    made.measure(unit=[IMPORT, POSITIVE], e2e=[IMPORT])
    assert made.coverage("gate") == 1
    assert capsys.readouterr().err == f"threshold: {failure}\n"
    made.measure(unit=EVERYTHING, e2e=EVERYTHING)
    assert made.coverage("gate") == 0


def test_a_group_of_files_has_a_threshold_of_its_own(tmp_path: Path, capsys: Output) -> None:
    group = '[tool.testkit.coverage.groups]\nsigns = { paths = ["co*.py"], kinds = ["unit"], lines = 90 }\n'
    made = Repository(tmp_path, SETTINGS + group)
    made.measure(unit=[IMPORT, POSITIVE])
    assert made.coverage("gate") == 1
    assert broken(capsys) == ["threshold: signs: 66.66 % of lines by unit, 90 % required (4 of 6)"]


def test_a_threshold_far_below_what_is_covered_is_a_warning(tmp_path: Path, capsys: Output) -> None:
    made = Repository(
        tmp_path, SETTINGS.replace('["unit"] }\nbase', '["unit"], lines = 90 }\nslack = 5\nbase')
    )
    made.measure(unit=EVERYTHING)
    assert made.coverage("gate") == 0
    assert (
        "warning: slack: overall: 100.00 % of lines by unit, only 90 % required: raise the threshold"
        in capsys.readouterr().out
    )
