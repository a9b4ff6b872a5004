from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from testkit.coverage.errors import CoverageInputError
from testkit.coverage.mutation_policy import Promise, load_mutation_policy

LAYERS = frozenset({"core", "shell"})


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "pyproject.toml"
    file.write_text(text)
    return file


def problems_of(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(CoverageInputError) as refused:
        load_mutation_policy(write(tmp_path, text), LAYERS)
    return [problem.partition("[tool.testkit.mutation] ")[2] for problem in refused.value.problems]


def test_promises_are_read(tmp_path: Path) -> None:
    text = """
[tool.testkit.mutation]
pytest_options = ["-n0"]
changed = { killed = 80 }

[tool.testkit.mutation.layers]
core = { killed = 99.9 }
shell = { killed = 80, number = 20 }
"""
    policy = load_mutation_policy(write(tmp_path, text), LAYERS)
    assert policy.layers == {"core": Promise(Fraction("99.9"), None), "shell": Promise(Fraction(80), 20)}
    assert policy.changed == Promise(Fraction(80), None)
    assert policy.pytest_options == ("-n0",)


def test_what_is_not_named_is_empty(tmp_path: Path) -> None:
    policy = load_mutation_policy(write(tmp_path, "[tool.testkit.mutation]\n"), LAYERS)
    assert (policy.layers, policy.changed, policy.pytest_options, policy.suites) == ({}, None, (), {})


def test_suites_of_several_modules_are_read(tmp_path: Path) -> None:
    (tmp_path / "test_both.py").touch()
    (tmp_path / "one_a.py").touch()
    text = '[tool.testkit.mutation.suites]\n"test_both.py" = ["one_*.py"]\n'
    policy = load_mutation_policy(write(tmp_path, text), LAYERS)
    assert policy.suites == {"test_both.py": ("one_*.py",)}


def test_suites_and_what_they_answer_for_must_be_there(tmp_path: Path) -> None:
    text = '[tool.testkit.mutation.suites]\n"test_gone.py" = ["gone_*.py"]\n"test_odd.py" = "odd.py"\n'
    assert problems_of(tmp_path, text) == [
        "suites.test_gone.py: there is no such file",
        "suites.test_gone.py: no file is like gone_*.py",
        "suites.test_odd.py must be a list of strings",
    ]
    assert problems_of(tmp_path, "[tool.testkit.mutation]\nsuites = 3\n") == ["suites must be a table"]


def test_every_problem_is_named(tmp_path: Path) -> None:
    text = """
[tool.testkit.mutation]
pytest_options = "-n0"
speed = 1
changed = 80

[tool.testkit.mutation.layers]
core = { killed = 101, part = 1 }
shell = { killed = true, number = 0 }
other = { killed = 1, number = "all" }
"""
    assert problems_of(tmp_path, text) == [
        "unknown key 'speed', there are layers, changed, pytest_options, suites",
        "pytest_options must be a list of strings",
        "layers.core: unknown key 'part', there are killed, number",
        "layers.core: killed must be a number from 0 to 100",
        "layers.shell: killed must be a number from 0 to 100",
        "layers.shell: number must be a whole number from 1",
        "layers.other: number must be a whole number from 1",
        "layers.other: unknown layer, there are core, shell",
        "changed must be a table",
    ]


def test_layers_must_be_a_table(tmp_path: Path) -> None:
    assert problems_of(tmp_path, "[tool.testkit.mutation]\nlayers = 3\n") == ["layers must be a table"]


@pytest.mark.parametrize(
    ("text", "told"), [("", r"\[tool\.testkit\.mutation\] is missing"), ("[", "Expected|Invalid")]
)
def test_a_file_without_promises_is_refused(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(CoverageInputError, match=told):
        load_mutation_policy(write(tmp_path, text), LAYERS)
