"""What all gates share: claims count, wrong input gives one clear error, and nothing else is changed."""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

import pytest

from packages.testkit.tests.integration.coverage.repositories import (
    EVERYTHING,
    SETTINGS,
    Output,
    Repository,
    broken,
)


def test_a_claim_without_its_proof_fails(tmp_path: Path, capsys: Output) -> None:
    inventory = [sys.executable, "-c", "print('[\"command sign\"]')"]
    table = f'[tool.testkit.features]\nfile = "features.toml"\ninventory = {json.dumps(inventory)}\n'
    made = Repository(tmp_path, SETTINGS + table)
    claim = '[[feature]]\nid = "sign"\ntitle = "Signs"\nproof = ["unit"]\nnames = ["command sign"]\n'
    made.write("features.toml", claim)
    made.replace("core.py", "return -1", "return -1  # feature: sign")
    made.measure(unit=EVERYTHING)
    outcomes = tmp_path / "out" / "data" / "outcomes.unit.jsonl"
    test = {"test": "test_core.py::test_sign", "outcome": "skipped", "features": ["sign"], "seconds": 0.1}
    outcomes.write_text(json.dumps(test) + "\n")
    assert made.coverage("gate") == 1
    assert made.coverage("features") == 1
    assert all("sign" in line for line in broken(capsys))
    outcomes.write_text(json.dumps(test | {"outcome": "passed"}) + "\n")
    assert made.coverage("features") == 0
    assert made.coverage("gate") == 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["gaps", "--layer", "cores"], "unknown layer 'cores', there are core"),
        (["reach", "e2e"], "unknown kind 'e2e', there are unit, nothing"),
        (["diff"], "the settings have no table new_code: nothing is required of new code"),
        (["ratchet"], "the settings have no table ratchet: losing coverage is allowed"),
        (["explain", "core.py"], "'core.py' is no FILE:LINE"),
        (["explain", "core.py:x"], "'core.py:x' is no FILE:LINE"),
        (["explain", "other.py:1"], "other.py is no source file of the settings"),
        (["explain", "core.py:9"], "core.py has 8 lines, there is no line 9"),
        (
            ["explain", "core.py:8", "--tests"],
            "no tests to run: name their paths, or set tests in the settings",
        ),
    ],
)
def test_wrong_input_gives_one_clear_error(
    tmp_path: Path, capsys: Output, arguments: list[str], problem: str
) -> None:
    made = Repository(tmp_path)
    made.measure(unit=EVERYTHING)
    assert made.coverage(*arguments) == 2
    assert capsys.readouterr().err == f"coverage: {problem}\n"


def test_broken_settings_and_absent_data_give_one_clear_error(tmp_path: Path, capsys: Output) -> None:
    made = Repository(tmp_path)
    assert made.coverage("gate") == 2
    assert (
        capsys.readouterr().err == f"coverage: no data of unit tests in {tmp_path}/out/data: run them first\n"
    )
    made.write("pyproject.toml", "[tool")
    assert made.coverage("gate") == 2
    assert "no valid TOML" in capsys.readouterr().err


@pytest.mark.parametrize("was_enabled", [True, False])
def test_the_garbage_collector_is_left_as_it_was(tmp_path: Path, was_enabled: bool) -> None:
    repository = Repository(tmp_path)
    repository.measure(unit=EVERYTHING)
    (gc.enable if was_enabled else gc.disable)()
    try:
        assert repository.coverage("gate") == 0
        assert gc.isenabled() == was_enabled
    finally:
        gc.enable()
