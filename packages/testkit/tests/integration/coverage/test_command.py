"""The command against measurements that coverage.py made by running something."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import coverage

from testkit.coverage.data_files import DataFolder
from testkit.coverage.measurement import MeasurementStore

PYPROJECT = """
[tool.coverage.run]
branch = true
core = "ctrace"
parallel = true

[tool.testkit.coverage]
kinds = ["unit"]
sources = ["product.py"]
overall = { kinds = ["unit"], lines = 100, branches = 100 }

[tool.testkit.coverage.layers]
product = { paths = ["product.py"], kinds = ["unit"], lines = 90, branches = 70 }
"""

PRODUCT = '''\
"""Every form of statement that spans lines, branches or leaves in its own way."""

from typing import Protocol

TABLE = {
    "a": 1,
    "b": 2,
}


class Port(Protocol):
    def read(self) -> int: ...


def decide(
    number: int,
) -> str:
    """Tell the size."""
    if number > 10 and (
        number % 2
    ):
        return "odd and large"
    match number:
        case 0:
            return "zero"
        case _:
            pass
    for digit in range(number):
        if digit == 5:
            break
    else:
        return "small"
    with open(__file__):
        return "medium"


if __name__ == "__main__":
    decide(0)
    decide(7)
'''


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # What measures this test must not measure its children as well: one interpreter holds one tracer.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def make_repository(root: Path) -> None:
    (root / "pyproject.toml").write_text(PYPROJECT)
    (root / "product.py").write_text(PRODUCT)
    (root / "coverage_reports" / "data").mkdir(parents=True)
    measured = run(
        root,
        "coverage",
        "run",
        "--data-file=coverage_reports/data/.coverage.unit",
        "--context=unit",
        "product.py",
    )
    assert measured.returncode == 0, measured.stderr


def test_the_command_fails_with_the_name_of_what_missed_and_where(tmp_path: Path) -> None:
    make_repository(tmp_path)
    ended = run(tmp_path, "testkit", "coverage", "gate")
    assert ended.returncode == 1, ended.stderr
    assert ended.stderr.splitlines() == [
        "threshold: overall: 90.00 % of lines by unit, 100 % required (18 of 20)",
        "    product.py: 22, 32",
        "threshold: overall: 70.00 % of branches by unit, 100 % required (7 of 10)",
        "    product.py: 19->22, 28->32, 37->exit",
    ]


def test_counts_agree_with_coverage_py(tmp_path: Path) -> None:
    make_repository(tmp_path)
    data = tmp_path / "coverage_reports" / "data"
    measured = MeasurementStore(
        DataFolder(data), tmp_path, tmp_path / "pyproject.toml", ["product.py"]
    ).measure("unit")["product.py"]

    theirs = coverage.Coverage(
        data_file=str(data / "combined.unit"), config_file=str(tmp_path / "pyproject.toml")
    )
    theirs.load()
    _, statements, _, missing, _ = theirs.analysis2(str(tmp_path / "product.py"))
    branches = theirs.branch_stats(str(tmp_path / "product.py"))
    theirs.get_data().close(force=True)
    assert sorted(measured.lines) == statements
    assert sorted(measured.lines - measured.lines_hit) == missing
    assert len(measured.branches) == sum(total for total, _ in branches.values())
    assert len(measured.branches_hit) == sum(taken for _, taken in branches.values())
