"""What the command says of where to go on: gaps, what one kind alone reaches, and why a line is covered."""

from __future__ import annotations

from pathlib import Path

import pytest

from packages.testkit.tests.integration.coverage.repositories import (
    EVERYTHING,
    IMPORT,
    NEGATIVE,
    POSITIVE,
    PRAGMA,
    SETTINGS,
    Output,
    Repository,
)


def test_gaps_are_ranked_with_the_lines_to_look_at(tmp_path: Path, capsys: Output) -> None:
    made = Repository(tmp_path, SETTINGS.replace('["*.py"], kinds', '["*.py"], weight = 2, kinds'))
    made.measure(unit=[IMPORT, POSITIVE])
    assert made.coverage("gaps") == 0
    head, first, second, last = capsys.readouterr().out.splitlines()
    assert head.split()[:5] == ["score", "complexity", "uncovered", "churn", "weight"]
    # sign: complexity 2, one branch, one commit and one, weight 2; never: complexity 1, never called.
    assert first.split() == ["8", "2", "1", "2", "2", "core.py:1", "sign", "3,", "2->3"]
    assert second.split() == ["4", "1", "1", "2", "2", "core.py:7", "never", "8"]
    assert last == "2 functions have gaps, 2 uncovered branches"
    assert made.coverage("gaps", "--layer", "core", "--limit", "1", "--since", "2099-01-01") == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:4] == ["4", "2", "1", "1"]


def test_what_only_one_kind_reaches_is_listed(tmp_path: Path, capsys: Output) -> None:
    made = Repository(tmp_path, SETTINGS.replace('kinds = ["unit"]', 'kinds = ["unit", "e2e"]', 1))
    made.measure(unit=[IMPORT, POSITIVE], e2e=[IMPORT, NEGATIVE])
    assert made.coverage("reach", "e2e") == 0
    assert made.coverage("reach", "unit", "--layer", "core") == 0
    assert made.coverage("reach", "nothing") == 0
    assert capsys.readouterr().out.splitlines() == [
        *("core.py: 3", "1 statements are reached only by e2e"),
        *("core.py: 4", "1 statements are reached only by unit"),
        *("core.py: 8", "1 statements are reached by nothing"),
    ]
    assert made.coverage("gate") == 0
    assert "core     1          1         3        1" in capsys.readouterr().out


def test_a_line_is_explained(tmp_path: Path, capsys: Output) -> None:
    made = Repository(tmp_path, SETTINGS.replace('kinds = ["unit"]', 'kinds = ["unit", "e2e"]', 1))
    made.replace("core.py", "def never():", f"\ndef excluded():  {PRAGMA}\n    pass\n\n\ndef never():")
    made.measure(unit=[(1, (1, 12)), POSITIVE], e2e=[(1, (1, 12))])
    for line, said in (
        (1, ["core.py:1  def sign(number):", "in the module, outside of functions", "reached by unit, e2e"]),
        (
            2,
            [
                "core.py:2  if number < 0:",
                "in sign",
                "reached by unit",
                "2->3 taken by nothing",
                "2->4 taken by unit",
            ],
        ),
        (5, ["core.py:5", "in the module, outside of functions", "no statement begins here"]),
        (9, ["core.py:9  pass", "in the module, outside of functions", "left out of the count"]),
        (13, ["core.py:13  return None", "in never", "reached by nothing"]),
    ):
        assert made.coverage("explain", f"./core.py:{line}") == 0
        assert [text.strip() for text in capsys.readouterr().out.splitlines()] == said


@pytest.mark.timeout(300)
def test_the_tests_that_reach_a_line_are_found_in_child_processes_too(
    tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # most of the time goes into loading them
    monkeypatch.delenv(
        "PYTEST_ADDOPTS", raising=False
    )  # whoever runs this test may have set options of theirs
    made = Repository(
        tmp_path,
        SETTINGS.replace("branch = true", 'branch = true\npatch = ["subprocess"]\nsource = ["."]')
        + '[tool.testkit.coverage.tests]\nunit = ["test_*.py"]\n',
    )
    made.write(
        "test_core.py",
        """\
import subprocess
import sys

import core


def test_negative():
    assert core.sign(-1) == -1


def test_positive():
    assert core.sign(1) == 1
    assert 0, "a failing test executes lines, too"


def test_in_a_child():
    subprocess.run([sys.executable, "-c", "import core; core.sign(-2)"], check=True)
""",
    )
    made.replace("pyproject.toml", 'sources = ["*.py"]', 'sources = ["core.py"]')
    made.replace("pyproject.toml", 'paths = ["*.py"]', 'paths = ["core.py"]')
    made.measure(unit=EVERYTHING)
    assert made.coverage("explain", "core.py:3", "--tests") == 0
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "    test_core.py::test_in_a_child",
        "    test_core.py::test_negative",
        "2 tests reach it",
    ]
    assert made.coverage("explain", "core.py:3", "--tests", "gone.py") == 2
    assert "pytest ended with 4" in capsys.readouterr().err
    made.replace("pyproject.toml", '"test_*.py"', '"gone_*.py"')
    assert made.coverage("explain", "core.py:3", "--tests") == 2
    assert "tests: 'gone_*.py' matches nothing" in capsys.readouterr().err
