from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from testkit.coverage.errors import CoverageInputError
from testkit.coverage.policy import Layer, Policy, Requirement, load_policy

GOOD = """
[tool.testkit.coverage]
kinds = ["unit", "integration"]
sources = ["src/**/*.py"]
overall = { kinds = ["unit", "integration"], lines = 98, branches = 97.5 }

[tool.testkit.coverage.layers]
core = { paths = ["src/core/**/*.py"], kinds = ["unit"], lines = 100, branches = 99.9 }
"""


def load(tmp_path: Path, text: str) -> Policy:
    (tmp_path / "pyproject.toml").write_text(text)
    return load_policy(tmp_path / "pyproject.toml")


def problems_of(tmp_path: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(CoverageInputError) as info:
        load(tmp_path, text)
    return info.value.problems


def test_reads_kinds_layers_and_exact_thresholds(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD) == Policy(
        kinds=("unit", "integration"),
        sources=("src/**/*.py",),
        layers=(
            Layer("core", ("src/core/**/*.py",), Requirement(("unit",), Fraction(100), Fraction(999, 10))),
        ),
        overall=Requirement(("unit", "integration"), Fraction(98), Fraction(195, 2)),
    )


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CoverageInputError, match=r"absent\.toml: No such file"):
        load_policy(tmp_path / "absent.toml")


@pytest.mark.parametrize("text", ["[tool", "\x00"])
def test_broken_toml_is_named(tmp_path: Path, text: str) -> None:
    (problem,) = problems_of(tmp_path, text)
    assert "pyproject.toml: no valid TOML" in problem


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(CoverageInputError, match="no valid TOML"):
        load_policy(tmp_path / "pyproject.toml")


@pytest.mark.parametrize("text", ["", "tool = 1", "[tool.testkit]\ncoverage = 1"])
def test_missing_table_is_named(tmp_path: Path, text: str) -> None:
    (problem,) = problems_of(tmp_path, text)
    assert problem.endswith("the table [tool.testkit.coverage] is missing")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('sources = ["src', 'source = ["src', "[tool.testkit.coverage] unknown key 'source'"),
        (
            'kinds = ["unit"]',
            'kinds = ["units"]',
            "layers.core] unknown kind 'units', there are unit, integration",
        ),
        (
            "lines = 100",
            "line = 100",
            "layers.core] unknown key 'line', there are kinds, lines, branches, paths",
        ),
        ("lines = 100", "lines = 101", "layers.core] lines must be a number from 0 to 100"),
        ("lines = 100", "lines = -1", "layers.core] lines must be a number from 0 to 100"),
        ("lines = 100", "lines = nan", "layers.core] lines must be a number from 0 to 100"),
        ("lines = 100", "lines = true", "layers.core] lines must be a number from 0 to 100"),
        ("lines = 100", 'lines = "100"', "layers.core] lines must be a number from 0 to 100"),
        ('["src/core/**/*.py"]', '"src/core/**/*.py"', "layers.core] paths must be a list of strings"),
        ('["src/core/**/*.py"]', "[]", "layers.core] paths must be a list of strings with entries"),
        ('["src/core/**/*.py"]', "[1]", "layers.core] paths must be a list of strings"),
        ('kinds = ["unit"]', "kinds = []", "layers.core] kinds must be a list of strings with entries"),
        ("core = {", "core = 1 #", "layers] core must be a table with entries"),
        ("core = {", "# core = {", "[tool.testkit.coverage] layers must be a table with entries"),
        ("overall = {", "# overall = {", "[tool.testkit.coverage] overall must be a table with entries"),
        ("branches = 97.5", "branches = 97.5, paths = []", "overall] unknown key 'paths'"),
    ],
)
def test_wrong_entry_is_named_with_its_place(tmp_path: Path, old: str, new: str, problem: str) -> None:
    assert old in GOOD
    assert any(problem in line for line in problems_of(tmp_path, GOOD.replace(old, new)))


def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("lines = 100", "lines = 200").replace("branches = 97.5", "branches = 975")
    assert len(problems_of(tmp_path, text)) == 2
