from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from testkit.coverage.errors import CoverageInputError
from testkit.coverage.policy import (
    DataSource,
    ExcludedPattern,
    ExclusionPolicy,
    Layer,
    Lowering,
    NewCodePolicy,
    Policy,
    RatchetPolicy,
    Requirement,
)
from testkit.coverage.policy_reader import load_policy

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


def test_reads_everything_else_that_can_be_promised(tmp_path: Path) -> None:
    policy = load(
        tmp_path,
        GOOD.replace(
            "lines = 100,",
            "lines = 100, functions = 90, weight = 3, each_file = { lines = 80 }, "
            "cells = { integration = { functions = 50 } },",
        )
        + """
[tool.testkit.coverage.groups]
wire = { paths = ["src/wire/*.py"], kinds = ["integration"], branches = 70 }
[[tool.testkit.coverage.data]]
name = "POP eu"
kind = "integration"
pattern = ".coverage.pop-eu.*"
[tool.testkit.coverage.ratchet]
critical = ["src/core/*.py"]
loss = 0.5
baseline = "baseline.json"
lowered = [{ what = "src/old.py", reason = "goes away" }]
[tool.testkit.coverage.new_code]
threshold = 90
tiny = 5
[tool.testkit.coverage.exclusions]
categories = ["types"]
patterns = [{ pattern = "TYPE_CHECKING", category = "types", reason = "never runs" }]
[tool.testkit.coverage.tests]
unit = ["tests/unit"]
""",
    )
    half = Fraction(1, 2)
    core = Layer(
        "core",
        ("src/core/**/*.py",),
        Requirement(("unit",), Fraction(100), Fraction(999, 10), Fraction(90)),
        each_file=Requirement(("unit",), Fraction(80)),
        cells=(Requirement(("integration",), functions=Fraction(50)),),
        weight=Fraction(3),
    )
    assert policy.layers == (core,)
    assert policy.groups == (
        Layer("wire", ("src/wire/*.py",), Requirement(("integration",), branches=Fraction(70))),
    )
    assert policy.data == (DataSource("POP eu", "integration", ".coverage.pop-eu.*"),)
    assert policy.ratchet == RatchetPolicy(
        ("src/core/*.py",), half, "baseline.json", (Lowering("src/old.py", "goes away"),)
    )
    assert policy.new_code == NewCodePolicy(Fraction(90), 5)
    assert policy.exclusions == ExclusionPolicy(
        ("types",), (ExcludedPattern("TYPE_CHECKING", "types", "never runs"),)
    )
    assert policy.tests == {"unit": ("tests/unit",)}


def test_reads_base_slack_and_the_list_of_unstable_lines(tmp_path: Path) -> None:
    policy = load(
        tmp_path, GOOD.replace("overall", 'base = ["trunk"]\nslack = 2\nunstable = "u.txt"\noverall')
    )
    assert (policy.base, policy.slack, policy.unstable) == (("trunk",), Fraction(2), "u.txt")


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("ratchet = 1", "[tool.testkit.coverage] ratchet must be a table with entries"),
        ("ratchet = { loss = 101 }", "ratchet] loss must be a number from 0 to 100"),
        ("ratchet = { loss = 0, lowered = 1 }", "ratchet] lowered must be a list of tables"),
        ("ratchet = { loss = 0, lowered = [1] }", "ratchet] lowered must be a list of tables"),
        ("ratchet = { loss = 0, lowered = [{ what = 'x' }] }", "lowered.1] reason must be a text"),
        (
            "ratchet = { loss = 0, lowered = [{ what = 'x', reason = ' ' }] }",
            "lowered.1] reason must be a text",
        ),
        ("ratchet = { loss = 0, lowered = [{ which = 'x' }] }", "lowered.1] unknown key 'which'"),
        ("new_code = { tiny = 3 }", "new_code] threshold must be a number from 0 to 100"),
        ("new_code = { threshold = 90, tiny = -1 }", "new_code] tiny must be a number not below 0"),
        ("data = [{ name = 'x', kind = 'e2e', pattern = 'y' }]", "data.1] unknown kind 'e2e'"),
        ("tests = { e2e = ['x'] }", "tests] unknown kind 'e2e', there are unit, integration"),
        ("exclusions = { patterns = [] }", "exclusions] categories must be a list of strings with entries"),
        (
            "exclusions = {categories = ['a'], patterns = [{ pattern = 'x', category = 'b', reason = 'c' }]}",
            "exclusions.patterns] unknown category 'b', there are a",
        ),
        (
            "exclusions = {categories = ['a'], patterns = [{ pattern = '(', category = 'a', reason = 'r' }]}",
            "exclusions.patterns] '(' is no regular expression",
        ),
    ],
)
def test_a_wrong_entry_of_an_optional_table_is_named(tmp_path: Path, table: str, problem: str) -> None:
    found = problems_of(tmp_path, GOOD.replace("overall", f"{table}\noverall"))
    assert any(problem in line for line in found), found


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
            "layers.core] unknown key 'line', there are lines, branches, functions, kinds, paths",
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
        ("lines = 100", "cells = { unit = { line = 1 } }", "core.cells.unit] unknown key 'line'"),
        ("lines = 100", "cells = { e2e = { lines = 1 } }", "core.cells] unknown kind 'e2e'"),
        ("lines = 100", "each_file = 1", "layers.core] each_file must be a table with entries"),
        ("lines = 100", "weight = true", "layers.core] weight must be a number not below 0"),
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
