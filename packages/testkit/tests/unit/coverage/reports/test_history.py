from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from packages.testkit.tests.unit.coverage.reports.assessments import make_assessment
from testkit.coverage.errors import CoverageInputError
from testkit.coverage.matrix import Count
from testkit.coverage.reports.history import read_history, write_history


def test_each_run_adds_one_line(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    write_history(make_assessment(tmp_path), file)
    write_history(make_assessment(tmp_path, fails=False, claims=False), file)
    first, second = read_history(file)
    assert first.layers["core"] == {"lines": Count(4, 6), "branches": Count(1, 2), "functions": Count(1, 2)}
    assert list(first.layers) == ["core", "shell", "overall"]
    assert (first.features, first.failures) == (Count(0, 2), 1)
    assert (second.features, second.failures) == (Count(0, 0), 0)
    assert first.commit == ""
    assert datetime.fromisoformat(first.at) <= datetime.now(UTC)


def test_a_run_knows_its_commit(tmp_path: Path) -> None:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false")
    for arguments in (["init", "--quiet"], ["commit", "--quiet", "--allow-empty", "--message=first"]):
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True)
    write_history(make_assessment(tmp_path), tmp_path / "history.jsonl")
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, capture_output=True, check=True)
    assert read_history(tmp_path / "history.jsonl")[0].commit == head.stdout.decode().strip()


def test_without_a_history_there_are_no_runs(tmp_path: Path) -> None:
    assert read_history(tmp_path / "history.jsonl") == []


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"at": 1, "commit": "", "layers": [], "features": []}'])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "history.jsonl"
    write_history(make_assessment(tmp_path), file)
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(CoverageInputError, match=r"history\.jsonl:2: no run of the history"):
        read_history(file)
