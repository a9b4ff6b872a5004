"""``nox -s repeat``: what a run is summed up as, and that a failure is neither hidden nor tried again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tools.repeat import main, summary

# Nothing of what is measured runs here.
pytestmark = [pytest.mark.untraced, pytest.mark.usefixtures("unmeasured")]

OUTPUT = """
Using --randomly-seed=17
collected 3 items
============ 2 passed, 1 skipped in 83.05s (0:01:23) ============
nox > Session tests was successful.
Using --randomly-seed=18
======= 1 failed, 2 passed, 2 errors in 9.53s =======
"""


def test_seeds_and_outcomes_of_every_pytest_are_told() -> None:
    assert summary(OUTPUT) == "seed 17: 2 passed, 1 skipped; seed 18: 1 failed, 2 passed, 2 errors"


def test_a_run_without_pytest_says_so() -> None:
    assert summary("nox > nothing") == "no test"


def test_every_run_is_printed_and_one_that_fails_fails_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marker = tmp_path / "ran"
    program = (
        f"import sys, pathlib; path = pathlib.Path({str(marker)!r}); "
        "times = path.exists() and len(path.read_text()); path.write_text('x' * (times + 1)); "
        f"print({OUTPUT!r}); sys.exit(times == 1)"
    )
    assert main(["3", sys.executable, "-c", program]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert [line[:6] for line in printed] == ["run  1", "run  2", "      ", "run  3", "3 runs"]
    assert [line.rpartition(" ")[2] for line in printed[::2][:1]] == ["0"]
    assert printed[1].endswith("exit code 1")
    assert "1 failed" in printed[-1]
    assert Path(printed[2].rpartition(" ")[2]).read_text().strip() == OUTPUT.strip()
    assert marker.read_text() == "xxx", "nothing is run again"


def test_all_well_is_success() -> None:
    assert main(["2", sys.executable, "-c", ""]) == 0
