"""``testkit coverage features`` and the gate, on a repository that claims something."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from packages.testkit.tests.integration.coverage.repositories import (
    EVERYTHING,
    IMPORT,
    NEGATIVE,
    SETTINGS,
    Repository,
)

Output = pytest.CaptureFixture[str]

CLAIMS = """
[tool.testkit.features]
file = "features.toml"
inventory = ["echo", '["setting x"]']
"""
FEATURES = '[[feature]]\nid = "sign"\ntitle = "Tells the sign"\nproof = ["unit"]\nnames = ["setting x"]\n'


def make_repository(root: Path, outcome: str = "passed") -> Repository:
    root.mkdir()
    repository = Repository(root, SETTINGS + CLAIMS)
    repository.write("features.toml", FEATURES)
    repository.replace("core.py", "    return 1\n", "    return 1  # feature: sign\n")
    repository.measure(unit=EVERYTHING)
    entry = {"test": "test_core.py::test_sign", "outcome": outcome, "features": ["sign"], "seconds": 0.1}
    repository.write("out/data/outcomes.unit.jsonl", json.dumps(entry) + "\n")
    return repository


def test_what_is_proven_is_printed(tmp_path: Path, capsys: Output) -> None:
    repository = make_repository(tmp_path / "repository")
    assert repository.coverage("features") == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[:2] == [
        "feature  unit    title",
        "sign     proven  Tells the sign",
    ]
    assert printed.err == ""
    assert repository.coverage("gate") == 0


def test_a_line_that_did_not_run_fails_the_gate(tmp_path: Path, capsys: Output) -> None:
    repository = make_repository(tmp_path / "repository")
    outcomes = (repository.root / "out" / "data" / "outcomes.unit.jsonl").read_text()
    repository.measure(unit=[IMPORT, NEGATIVE])
    repository.write("out/data/outcomes.unit.jsonl", outcomes)
    assert repository.coverage("features") == 1
    assert "sign: not proven by unit: core.py:4 did not run" in capsys.readouterr().err
    assert repository.coverage("gate") == 1
    assert "features: sign: not proven by unit: core.py:4 did not run" in capsys.readouterr().err


def test_a_skipped_test_fails_the_gate(tmp_path: Path, capsys: Output) -> None:
    repository = make_repository(tmp_path / "repository", outcome="skipped")
    assert repository.coverage("gate") == 1
    assert "features: sign: not proven by unit: no test marked with it passed" in capsys.readouterr().err


def test_a_name_that_belongs_nowhere_fails_the_gate(tmp_path: Path, capsys: Output) -> None:
    repository = make_repository(tmp_path / "repository")
    repository.replace("pyproject.toml", '["setting x"]', '["setting x", "setting y"]')
    assert repository.coverage("gate") == 1
    assert "features: setting y: belongs to no feature" in capsys.readouterr().err


def test_a_repository_without_claims_has_nothing_to_print(tmp_path: Path, capsys: Output) -> None:
    repository = Repository(tmp_path)
    repository.measure(unit=EVERYTHING)
    assert repository.coverage("features") == 2
    assert "the table [tool.testkit.features] is missing" in capsys.readouterr().err
    assert repository.coverage("gate") == 0


def test_every_report_is_written(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "repository")
    assert repository.coverage("gate") == 0
    assert repository.coverage("gate") == 0
    written = {path.name for path in (repository.root / "out").iterdir() if path.is_file()}
    assert written >= {
        "badge.svg",
        "coverage.json",
        "coverage.lcov",
        "coverage.md",
        "coverage.xml",
        "history.jsonl",
        "index.html",
    }
    assert len((repository.root / "out" / "history.jsonl").read_text().splitlines()) == 2
    assert "Evolution" in (repository.root / "out" / "index.html").read_text()


def test_settings_elsewhere_may_name_claims_too(tmp_path: Path, capsys: Output) -> None:
    repository = make_repository(tmp_path / "repository", outcome="skipped")
    settings = tmp_path / "settings.toml"
    settings.write_text((repository.root / "pyproject.toml").read_text())
    repository.write("pyproject.toml", "[project]\n")
    assert repository.coverage("features", "--settings", str(settings)) == 1
    assert "sign: not proven by unit: no test marked with it passed" in capsys.readouterr().err
