"""New code that nothing covers fails, by file and by hunk, against whatever base there is."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from packages.testkit.tests.integration.coverage.repositories import (
    CORE,
    EVERYTHING,
    IMPORT,
    NEGATIVE,
    NEW_CODE,
    NEW_FUNCTION,
    POSITIVE,
    RATCHET,
    SETTINGS,
    Output,
    Repository,
    broken,
)


def test_uncovered_new_code_fails_by_file_and_by_hunk(tmp_path: Path, capsys: Output) -> None:
    made = Repository(tmp_path, SETTINGS + NEW_CODE)
    made.git("switch", "--quiet", "--create", "feature")
    made.replace("core.py", "    if number < 0:\n", "    if number < 0:\n        number -= 1\n")
    made.write("core.py", (tmp_path / "core.py").read_text() + NEW_FUNCTION)
    made.commit()
    made.measure(unit=[(1, (1, 8, 12)), (1, (2, 3, 4)), (12, (13, 15))])
    assert made.coverage("gate") == 1
    assert capsys.readouterr().err.splitlines() == [
        "new code: core.py: 71.42 % of new lines and branches are covered, 90 % required (5 of 7)",
        "    core.py: 14, 13->14",
        "new code: core.py:10-15: 66.66 % of new lines and branches are covered, 90 % required (4 of 6)",
        "    core.py: 14, 13->14",
    ]
    assert made.coverage("diff") == 1
    out, err = capsys.readouterr()
    assert "100.00   1    core.py:3" in out
    assert "66.66    6    core.py:10-15  14, 13->14" in out
    assert (
        f"note: new code: 1 files with new statements since {made.first[:12]} (merge base with main)" in out
    )
    assert len(err.splitlines()) == 4
    made.measure(unit=[(1, (1, 8, 12)), (1, (2, 3, 4)), (12, (13, 15)), (12, (13, 14))])
    assert made.coverage("gate") == 0


def test_tiny_changes_are_judged_together(tmp_path: Path, capsys: Output) -> None:
    made = Repository(tmp_path, SETTINGS + NEW_CODE + "tiny = 4\n")
    made.git("switch", "--quiet", "--create", "feature")
    made.commit()
    for name in ("one.py", "two.py", "three.py"):
        made.write(name, "def f():\n    return 1\n")
        made.measure(unit=[IMPORT])
        made.record(".coverage.unit.host.2", {name: [(1, (1,))] for name in ("one.py", "two.py", "three.py")})
        failed = made.coverage("gate")
        assert failed == (name != "one.py"), name  # two lines say nothing, four do
        assert len(broken(capsys)) == failed
    assert made.coverage("gate") == 1
    assert broken(capsys) == [
        "new code: 3 tiny changes: 50.00 % of new lines and branches are covered, 90 % required (3 of 6)"
    ]


def test_on_the_base_branch_itself_the_last_commit_is_judged(tmp_path: Path, capsys: Output) -> None:
    made = Repository(tmp_path, SETTINGS + NEW_CODE)
    made.measure(unit=EVERYTHING)
    assert made.coverage("gate") == 0
    assert "no base to compare with: HEAD is on main and its parent is not here" in capsys.readouterr().out
    made.replace("core.py", "def never():\n", "def never():\n    pass\n")
    made.commit()
    made.measure(unit=[(1, (1, 7)), POSITIVE, NEGATIVE])
    assert made.coverage("gate") == 1
    assert broken(capsys) == [
        "new code: core.py:8: 0.00 % of new lines and branches are covered, 90 % required (0 of 1)"
    ]


def test_a_revision_can_be_named_as_base(tmp_path: Path, capsys: Output) -> None:
    made = Repository(tmp_path, SETTINGS + NEW_CODE)
    made.write("core.py", CORE + NEW_FUNCTION)
    made.commit()
    made.commit()
    made.measure(unit=EVERYTHING)
    assert made.coverage("gate") == 0
    assert made.coverage("diff", "--base", made.first) == 1
    capsys.readouterr()
    assert made.coverage("diff", "--base", "gone") == 2
    assert capsys.readouterr().err == "coverage: git knows no revision 'gone'\n"


def test_files_without_anything_new_to_execute_are_no_new_code(tmp_path: Path, capsys: Output) -> None:
    made = Repository(tmp_path, SETTINGS.replace('"*.py"', '"[!s]*.py"') + NEW_CODE)
    made.git("switch", "--quiet", "--create", "feature")
    made.commit()
    made.replace("core.py", "    return 1\n\n\n", "    return 1\n\n# a comment\n\n")
    made.replace("core.py", "    return None\n", "")
    made.write("core.py", (tmp_path / "core.py").read_text().replace("def never():\n", ""))
    made.write("setup.py", "print(1)\n")  # no source of the settings
    made.write("empty.py", "")
    made.measure(unit=[(1, (1,)), POSITIVE, NEGATIVE])
    assert made.coverage("diff") == 0
    assert "new code: 0 files with new statements" in capsys.readouterr().out


def test_a_branch_that_shares_nothing_has_no_base(tmp_path: Path, capsys: Output) -> None:
    made = Repository(tmp_path, SETTINGS + NEW_CODE)
    made.git("switch", "--quiet", "--orphan", "other")
    made.write("pyproject.toml", SETTINGS + NEW_CODE)
    made.write("core.py", CORE)
    made.commit()
    made.measure(unit=EVERYTHING)
    assert made.coverage("gate") == 0
    assert "no base to compare with: HEAD and main have no common commit here" in capsys.readouterr().out


def test_without_the_git_program_there_is_a_verdict_without_a_base(
    tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Repository(tmp_path, SETTINGS + NEW_CODE)
    made.measure(unit=EVERYTHING)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert made.coverage("gate") == 0
    assert "no base to compare with: this is no git repository" in capsys.readouterr().out


def test_a_shallow_clone_is_green_and_says_what_it_cannot_judge(tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "origin").mkdir()
    made = Repository(tmp_path / "origin", SETTINGS + NEW_CODE + RATCHET)
    made.write("core.py", CORE + NEW_FUNCTION)
    made.commit()
    command = ["git", "clone", "--quiet", "--depth=1", f"file://{tmp_path}/origin", str(tmp_path / "clone")]
    subprocess.run(command, check=True, capture_output=True)
    made.root = tmp_path / "clone"
    made.measure(unit=EVERYTHING)
    assert made.coverage("gate") == 0
    out = capsys.readouterr().out
    assert "HEAD is on main and its parent is not here (the clone is shallow: fetch more history)" in out


def test_without_git_there_is_a_verdict_without_a_base(tmp_path: Path, capsys: Output) -> None:
    made = Repository(tmp_path, SETTINGS + NEW_CODE)
    shutil.rmtree(tmp_path / ".git")
    made.measure(unit=EVERYTHING)
    assert made.coverage("gate") == 0
    assert "no base to compare with: this is no git repository with a commit" in capsys.readouterr().out


def test_without_the_base_branch_there_is_a_verdict_without_a_base(tmp_path: Path, capsys: Output) -> None:
    made = Repository(tmp_path, SETTINGS.replace('["main"]', '["trunk", "origin/trunk"]') + NEW_CODE)
    made.measure(unit=EVERYTHING)
    assert made.coverage("gate") == 0
    assert "none of the branches trunk, origin/trunk exists here" in capsys.readouterr().out
