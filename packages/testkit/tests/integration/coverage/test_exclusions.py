"""What is left out of the count has a category and a reason, and does no I/O."""

from __future__ import annotations

from pathlib import Path

import pytest

from packages.testkit.tests.integration.coverage.repositories import (
    CORE,
    EVERYTHING,
    IMPORT,
    NEGATIVE,
    POSITIVE,
    PRAGMA,
    SETTINGS,
    Output,
    Repository,
    broken,
)

# The patterns that coverage.py has of itself.
TYPE_CHECKING = r"^\s*if (typing\.)?TYPE_CHECKING:"
ELLIPSIS = r"^\s*(((async )?def .*?)?[\])]+(\s*->.*?)?:\s*)?\.\.\.\s*(#|$)"
EXCLUSIONS = f"""
[tool.testkit.coverage.exclusions]
categories = ["types", "platform"]
patterns = [
    {{ pattern = '{TYPE_CHECKING}', category = "types", reason = "only type checkers read it" }},
    {{ pattern = '{ELLIPSIS}', category = "types", reason = "no body" }},
]
"""


@pytest.mark.parametrize(
    ("comment", "failure"),
    [
        ("", "gives no reason: write"),
        (" - because", "gives no reason: write"),
        (" - laziness: because", "unknown category 'laziness', there are types, platform"),
        (" - platform: only where there is no epoll", None),
    ],
)
def test_an_exclusion_needs_category_and_reason(
    tmp_path: Path, capsys: Output, comment: str, failure: str | None
) -> None:
    made = Repository(tmp_path, SETTINGS + EXCLUSIONS)
    made.replace("core.py", "def never():", f"def never():  {PRAGMA}{comment}")
    made.measure(unit=[IMPORT, POSITIVE, NEGATIVE])
    assert made.coverage("gate") == (failure is not None)
    if failure:
        (line,) = broken(capsys)
        assert line.startswith("exclusions: core.py:7: ")
        assert failure in line
    assert made.coverage("exclusions") == (failure is not None)
    assert f"core.py:7  {'platform' if not failure else ''}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "statement",
    ["return open('x')", "return sock.recv(1)", "await x", "async with x: pass", "async for y in x: pass"],
)
def test_code_that_does_io_is_not_left_out(tmp_path: Path, capsys: Output, statement: str) -> None:
    made = Repository(tmp_path, SETTINGS + EXCLUSIONS)
    made.write(
        "core.py", f"async def f(x, sock):  {PRAGMA} - platform: elsewhere\n    {statement}\n\n\nY = 1\n"
    )
    made.measure(unit=[(1, (5,))])
    assert made.coverage("gate") == 1
    (line,) = broken(capsys)
    assert line.startswith("exclusions: core.py:1: ")
    assert line.endswith("leaves out code that does I/O")


def test_a_pattern_with_a_reason_leaves_out_no_io_either(tmp_path: Path, capsys: Output) -> None:
    made = Repository(tmp_path, SETTINGS + EXCLUSIONS)
    block = "if TYPE_CHECKING:\n    import io\n"
    made.write("core.py", CORE + block)
    made.measure(unit=EVERYTHING)
    assert made.coverage("exclusions") == 0
    assert "core.py:9  types     only type checkers read it  if TYPE_CHECKING:" in capsys.readouterr().out
    made.write("core.py", CORE + block.replace("import io", "io = open('x')"))
    assert made.coverage("exclusions") == 1
    assert "core.py:9: 'if TYPE_CHECKING:' leaves out code that does I/O" in capsys.readouterr().err


def test_a_pattern_without_a_reason_fails_and_a_reason_without_a_pattern_is_a_warning(
    tmp_path: Path, capsys: Output
) -> None:
    settings = SETTINGS.replace(
        "branch = true\n", "branch = true\n[tool.coverage.report]\nexclude_also = ['assert_never']\n"
    )
    made = Repository(tmp_path, settings + EXCLUSIONS)
    made.measure(unit=EVERYTHING)
    assert made.coverage("gate") == 1
    (line,) = broken(capsys)
    assert line == (
        "exclusions: pattern 'assert_never': "
        "coverage.py leaves out what matches it, and [exclusions] gives no reason"
    )
    made.write(
        "pyproject.toml",
        SETTINGS + EXCLUSIONS.replace("'^", "'gone', category = 'types', reason = 'x' }, { pattern = '^", 1),
    )
    assert made.coverage("gate") == 0
    assert "warning: slack: pattern 'gone': coverage.py does not know it" in capsys.readouterr().out
