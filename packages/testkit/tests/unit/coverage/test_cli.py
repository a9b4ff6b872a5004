from __future__ import annotations

import json
from pathlib import Path

import pytest
from coverage import CoverageData

from testkit.__main__ import main

PYPROJECT = """
[tool.coverage.run]
branch = true

[tool.testkit.coverage]
kinds = ["unit"]
sources = ["*.py"]
overall = { kinds = ["unit"], lines = 50, branches = 0 }

[tool.testkit.coverage.layers]
core = { paths = ["core.py"], kinds = ["unit"], lines = THRESHOLD, branches = 0 }
"""


def make_repository(root: Path, threshold: int) -> list[str]:
    """Make a repository whose core has two of three lines covered; return the arguments that name it."""
    (root / "pyproject.toml").write_text(PYPROJECT.replace("THRESHOLD", str(threshold)))
    (root / "core.py").write_text("def f():\n    return 1\nx = 1\n")
    (root / "out" / "data").mkdir(parents=True)
    data = CoverageData(str(root / "out" / "data" / ".coverage.unit.host.1"))
    data.set_context("unit")
    data.add_arcs({str(root / "core.py"): [(-1, 1), (1, 3), (3, -1)]})
    data.write()
    data.close(force=True)
    return ["coverage", "gate", "--root", str(root), "--output", str(root / "out")]


def test_ends_with_0_and_writes_the_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(make_repository(tmp_path, threshold=66)) == 0
    assert "core     66.66 / - / 0" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "coverage.json").read_text())["failures"] == []
    assert "| core |" in (tmp_path / "out" / "coverage.md").read_text()


def test_ends_with_1_and_names_layer_and_lines_below_the_threshold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(make_repository(tmp_path, threshold=67)) == 1
    assert capsys.readouterr().err.splitlines() == [
        "threshold: core: 66.66 % of lines by unit, 67 % required (2 of 3)",
        "    core.py: 2",
    ]
    assert json.loads((tmp_path / "out" / "coverage.json").read_text())["failures"] != []


def test_ends_with_2_when_there_can_be_no_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = make_repository(tmp_path, threshold=66)
    (tmp_path / "other.py").touch()
    assert main(arguments) == 2
    assert capsys.readouterr().err == "coverage: other.py belongs to no layer\n"
