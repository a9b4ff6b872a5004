"""``testkit contracts``, which forks a process for each mutant, and what the plugin does with contracts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from testkit.__main__ import main

pytest_plugins = ["pytester"]

TOY = """
    import pytest
    from testkit.contracts.contract import Contract, needs, since

    class ToyContract(Contract, contract="toy", capabilities={"wings": "it flies"}):
        def test_stands(self, harness):
            assert harness == "toy"

        @needs("wings")
        def test_flies(self, harness):
            assert False

        @since(2)
        def test_talks(self, harness):
            assert False

    class TestToy(ToyContract, lacks={"wings": "it has wheels"}):
        @pytest.fixture
        def harness(self):
            return "toy"

        def test_of_its_own(self, harness):
            assert harness
"""


def contracts(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "testkit", "contracts", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_matrix_is_printed_with_its_seed_and_the_share_of_mutants_decides() -> None:
    done = contracts("retry", "--number", "6", "--seed", "3")
    lines = done.stdout.splitlines()
    assert lines[:3] == ["seed 3", "retry@2, 29 tests", "  reference: 29 passed"]
    assert "  bugs: 20/20 rejected" in lines
    (mutants,) = re.findall(r"^  mutants: (\d)/6 killed, seed 3$", done.stdout, re.MULTILINE)
    assert 3 <= int(mutants) <= 6
    assert done.stdout.count("\n    --- retry.py") == 6 - int(mutants)
    assert done.returncode == (0 if int(mutants) >= 5 else 1), done.stderr


def test_outcomes_of_pytest_are_in_the_matrix(tmp_path: Path) -> None:
    said = {"name": "retry", "by": "TestOurs", "lacks": "", "level": 1}
    outcomes = tmp_path / "outcomes.jsonl"
    outcomes.write_text(json.dumps({"test": "t", "outcome": "failed", "contract": said}), encoding="utf-8")
    done = contracts("retry", "--number", "0", "--outcomes", str(outcomes))
    assert done.returncode == 1
    assert "  TestOurs (level 1): 0 passed, 1 FAILED" in done.stdout


def test_unknown_contract_is_an_error_that_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["contracts", "flying"])
    assert "no such contract: flying; there are" in capsys.readouterr().err


def test_plugin_leaves_out_what_is_lacking_and_lets_later_levels_fail_nobody(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeini("""
        [pytest]
        addopts = -p no:schemathesis -p no:anyio -p no:mock_backend
        asyncio_default_fixture_loop_scope = function
    """)
    pytester.makepyfile(TOY)
    outcomes = pytester.path / "outcomes.jsonl"
    result = pytester.runpytest(f"--outcomes={outcomes}", "-rsx", "-m", "contract")
    result.assert_outcomes(passed=1, skipped=1, xfailed=1, deselected=1)
    result.stdout.fnmatch_lines(["*wings: it has wheels", "*of a later level than promised"])
    said = [json.loads(line)["contract"] for line in outcomes.read_text(encoding="utf-8").splitlines()]
    assert sorted((each["name"], each["by"], each["level"], each["lacks"]) for each in said) == [
        *[("toy", "TestToy", 1, "")] * 2,
        ("toy", "TestToy", 1, "wings: it has wheels"),
    ]
