"""Each gate fails, and says which cell, number, threshold and lines."""

from __future__ import annotations

import gc
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from coverage import CoverageData

from packages.testkit.tests.integration.coverage.repositories import (
    CORE,
    EVERYTHING,
    IMPORT,
    NEGATIVE,
    NEVER,
    POSITIVE,
    SETTINGS,
    Repository,
)

Output = pytest.CaptureFixture[str]

RATCHET = """
[tool.testkit.coverage.ratchet]
critical = ["core.py"]
loss = 100
"""
NEW_CODE = """
[tool.testkit.coverage.new_code]
threshold = 90
"""
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
NEW_FUNCTION = """

def added(number):
    if number:
        return 1
    return 2
"""


def broken(output: Output) -> list[str]:
    """Return the first line of each failure."""
    return [line for line in output.readouterr().err.splitlines() if not line.startswith("    ")]


# Thresholds


@pytest.mark.parametrize(
    ("promise", "failure"),
    [
        ("lines = 67", "core: 66.66 % of lines by unit, 67 % required (4 of 6)\n    core.py: 3, 8"),
        ("branches = 51", "core: 50.00 % of branches by unit, 51 % required (1 of 2)\n    core.py: 2->3"),
        (
            "functions = 99.9",
            "core: 50.00 % of functions by unit, 99.9 % required (1 of 2)\n    core.py: never (7)",
        ),
        (
            "each_file = { lines = 67 }",
            "core.py: 66.66 % of lines by unit, 67 % required (4 of 6)\n    core.py: 3, 8",
        ),
        (
            "cells = { e2e = { lines = 34 } }",
            "core x e2e: 33.33 % of lines by e2e, 34 % required (2 of 6)\n    core.py: 2-4, 8",
        ),
    ],
)
def test_a_broken_threshold_fails_with_cell_number_and_lines(
    tmp_path: Path, capsys: Output, promise: str, failure: str
) -> None:
    settings = SETTINGS.replace('kinds = ["unit"]', 'kinds = ["unit", "e2e"]', 1)
    head, _, tail = settings.rpartition(" }")
    made = Repository(tmp_path, f"{head}, {promise} }}{tail}")
    made.measure(unit=[IMPORT, POSITIVE], e2e=[IMPORT])
    assert made.coverage("gate") == 1
    assert capsys.readouterr().err == f"threshold: {failure}\n"
    made.measure(unit=EVERYTHING, e2e=EVERYTHING)
    assert made.coverage("gate") == 0


def test_a_group_of_files_has_a_threshold_of_its_own(tmp_path: Path, capsys: Output) -> None:
    group = '[tool.testkit.coverage.groups]\nsigns = { paths = ["co*.py"], kinds = ["unit"], lines = 90 }\n'
    made = Repository(tmp_path, SETTINGS + group)
    made.measure(unit=[IMPORT, POSITIVE])
    assert made.coverage("gate") == 1
    assert broken(capsys) == ["threshold: signs: 66.66 % of lines by unit, 90 % required (4 of 6)"]


def test_a_threshold_far_below_what_is_covered_is_a_warning(tmp_path: Path, capsys: Output) -> None:
    made = Repository(
        tmp_path, SETTINGS.replace('["unit"] }\nbase', '["unit"], lines = 90 }\nslack = 5\nbase')
    )
    made.measure(unit=EVERYTHING)
    assert made.coverage("gate") == 0
    assert (
        "warning: slack: overall: 100.00 % of lines by unit, only 90 % required: raise the threshold"
        in capsys.readouterr().out
    )


# Sources of data


def test_a_source_that_returned_no_data_leaves_no_verdict(tmp_path: Path, capsys: Output) -> None:
    source = (
        '[[tool.testkit.coverage.data]]\nname = "POP eu"\nkind = "unit"\npattern = ".coverage.pop-eu.*"\n'
    )
    made = Repository(tmp_path, SETTINGS + source)
    made.measure(unit=[IMPORT])
    assert made.coverage("gate") == 2
    assert capsys.readouterr().err == (
        f"coverage: the source 'POP eu' of unit tests returned no data: "
        f"nothing in {tmp_path}/out/data matches '.coverage.pop-eu.*'\n"
    )
    made.record(".coverage.pop-eu.1", {"elsewhere.py": [IMPORT]})
    assert made.coverage("gate") == 2
    assert "data of the source 'POP eu' tell nothing about any source file" in capsys.readouterr().err
    made.record(".coverage.pop-eu.2", {"core.py": [NEVER]})
    assert made.coverage("gate") == 0
    assert "3  " in capsys.readouterr().out  # what the container executed counts as executed by unit tests


def test_each_kind_asks_only_its_own_sources(tmp_path: Path) -> None:
    source = '[[tool.testkit.coverage.data]]\nname = "POP eu"\nkind = "e2e"\npattern = ".coverage.pop-eu.*"\n'
    made = Repository(tmp_path, SETTINGS.replace('kinds = ["unit"]', 'kinds = ["unit", "e2e"]', 1) + source)
    made.measure(unit=[IMPORT])
    made.record(".coverage.pop-eu.1", {"core.py": [NEVER]})
    assert made.coverage("reach", "e2e") == 0


def test_what_a_container_measured_under_another_path_is_combined(tmp_path: Path) -> None:
    paths = f'[tool.coverage.paths]\nsource = ["{tmp_path}", "/srv/app"]\n'
    made = Repository(tmp_path, SETTINGS.replace('unit"] }\n', 'unit"], functions = 100 }\n') + paths)
    made.measure(unit=[IMPORT, POSITIVE])
    assert made.coverage("gate") == 1
    made.record(".coverage.unit.pop-eu.7", {"/srv/app/core.py": [NEVER]})
    assert made.coverage("gate") == 0


def test_data_of_another_version_of_coverage_leave_no_verdict(tmp_path: Path, capsys: Output) -> None:
    made = Repository(tmp_path)
    made.measure(unit=[IMPORT])
    file = tmp_path / "out" / "data" / ".coverage.unit.host.1"
    database = sqlite3.connect(file)
    database.execute("UPDATE meta SET value = '6.5' WHERE key = 'version'")
    database.commit()
    database.close()
    assert made.coverage("gate") == 2
    assert f"coverage: {file} was written by coverage 6.5, this is " in capsys.readouterr().err


def test_data_of_another_schema_leave_no_verdict(tmp_path: Path, capsys: Output) -> None:
    made = Repository(tmp_path)
    made.measure(unit=[IMPORT])
    database = sqlite3.connect(tmp_path / "out" / "data" / ".coverage.unit.host.1")
    database.execute("DELETE FROM meta WHERE key = 'version'")
    database.execute("UPDATE coverage_schema SET version = 3")
    database.commit()
    database.close()
    assert made.coverage("gate") == 2
    assert "was written by coverage with schema 3, this is " in capsys.readouterr().err


def test_data_without_branches_leave_no_verdict(tmp_path: Path, capsys: Output) -> None:
    made = Repository(tmp_path)
    made.measure(unit=[])
    data = CoverageData(str(tmp_path / "out" / "data" / ".coverage.unit.host.2"))
    data.add_lines({str(tmp_path / "core.py"): [1, 2]})
    data.write()
    data.close(force=True)
    (tmp_path / "out" / "data" / ".coverage.unit.host.1").unlink()
    assert made.coverage("gate") == 2
    assert capsys.readouterr().err == "coverage: the data of unit tests hold no branches: set branch = true\n"


def test_sources_that_were_edited_after_measuring_are_a_warning(tmp_path: Path, capsys: Output) -> None:
    made = Repository(tmp_path)
    made.measure(unit=EVERYTHING)
    os.utime(tmp_path / "core.py", (2**31, 2**31))
    assert made.coverage("report") == 0
    assert "warning: stale: core.py: edited since the first test was measured" in capsys.readouterr().out


def test_of_many_edited_sources_some_are_named(tmp_path: Path, capsys: Output) -> None:
    made = Repository(tmp_path)
    for number in range(7):
        made.write(f"part{number}.py", "x = 1\n")
    made.measure(unit=EVERYTHING)
    for number in range(7):
        os.utime(tmp_path / f"part{number}.py", (2**31, 2**31))
    assert made.coverage("report") == 0
    named = "part0.py, part1.py, part2.py, part3.py, part4.py and 2 more"
    assert f"warning: stale: {named}: edited since the first test was measured" in capsys.readouterr().out


# New code


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


# Ratchet


def test_a_critical_file_may_not_lose_what_the_measured_merge_base_covered(
    tmp_path: Path, capsys: Output
) -> None:
    made = Repository(tmp_path, SETTINGS + RATCHET)
    made.measure(unit=EVERYTHING)
    assert made.coverage("gate") == 0
    made.git("switch", "--quiet", "--create", "feature")
    made.write("core.py", "LIMIT = 3\n" + CORE)  # every line moves
    made.commit()
    moved = [(line + 1, tuple(number + 1 for number in lines)) for line, lines in EVERYTHING]
    made.measure(unit=moved)
    assert made.coverage("gate") == 0
    assert f"held against {made.first[:12]} (merge base with main), measured here" in capsys.readouterr().out
    made.measure(unit=[frame for frame in moved if frame[1] != (3, 4)])
    assert made.coverage("gate") == 1
    assert capsys.readouterr().err.splitlines() == [
        "ratchet: core.py: critical, and 1 lines and 1 branches are lost",
        "    core.py: 4, 3->4",
    ]
    assert made.coverage("ratchet") == 1
    assert "lost core.py: 4, 3->4" in capsys.readouterr().out


def test_deleting_covered_code_is_free(tmp_path: Path) -> None:
    made = Repository(tmp_path, SETTINGS + RATCHET)
    made.measure(unit=[IMPORT, POSITIVE, NEGATIVE])  # never() is not covered
    assert made.coverage("gate") == 0
    made.replace("core.py", "    if number < 0:\n        return -1\n    return 1\n", "    return number\n")
    made.commit()
    made.measure(unit=[(1, (1, 5)), (1, (2,))])
    assert made.coverage("gate") == 0


def test_a_new_statement_that_is_like_a_missed_one_makes_no_loss_of_it(tmp_path: Path) -> None:
    made = Repository(tmp_path, SETTINGS + RATCHET)
    made.measure(unit=[IMPORT, POSITIVE, NEGATIVE])  # the return of never() is missed
    assert made.coverage("gate") == 0
    made.replace("core.py", "    return None\n", "    if sign:\n        return None\n    return None\n")
    made.commit()
    made.measure(unit=[IMPORT, POSITIVE, NEGATIVE, (7, (8, 9))])
    assert made.coverage("gate") == 0


def test_the_whole_may_not_lose_more_than_is_set(tmp_path: Path, capsys: Output) -> None:
    made = Repository(tmp_path, SETTINGS + "[tool.testkit.coverage.ratchet]\nloss = 16.6\n")
    made.measure(unit=EVERYTHING)
    assert made.coverage("gate") == 0
    made.commit()
    made.measure(unit=[IMPORT, NEGATIVE, POSITIVE])
    assert made.coverage("gate") == 1
    assert capsys.readouterr().err.splitlines() == [
        "ratchet: overall: 1 of 6 lines were covered at the base and are not now, 16.6 % may be lost",
        "    core.py: 8",
    ]
    made.replace("pyproject.toml", "16.6", "16.7")
    assert made.coverage("gate") == 0


@pytest.mark.parametrize("what", ["core.py", "core.py::sign"])
def test_a_loss_with_a_recorded_reason_passes(tmp_path: Path, capsys: Output, what: str) -> None:
    made = Repository(tmp_path, SETTINGS + RATCHET)
    made.measure(unit=EVERYTHING)
    assert made.coverage("gate") == 0
    made.commit()
    made.measure(unit=[IMPORT, POSITIVE, NEVER])
    assert made.coverage("gate") == 1
    reason = (
        f'[[tool.testkit.coverage.ratchet.lowered]]\nwhat = "{what}"\nreason = "numbers are natural now"\n'
    )
    made.write("pyproject.toml", SETTINGS + RATCHET + reason)
    assert made.coverage("gate") == 0
    assert "excuses nothing" not in capsys.readouterr().out
    made.measure(unit=EVERYTHING)
    assert made.coverage("gate") == 0
    assert (
        f"warning: slack: {what}: this recorded lowering excuses nothing: remove it"
        in capsys.readouterr().out
    )


def test_lowering_a_threshold_needs_a_recorded_reason(tmp_path: Path, capsys: Output) -> None:
    head, _, tail = SETTINGS.rpartition(" }")
    settings = f"{head}, lines = 90 }}{tail}" + RATCHET
    made = Repository(tmp_path, settings)
    made.commit()
    made.measure(unit=EVERYTHING)
    made.write("pyproject.toml", settings.replace("lines = 90", "lines = 80"))
    assert made.coverage("gate") == 1
    (failure,) = broken(capsys)
    assert failure.startswith("ratchet: layers.core.lines: the threshold was 90 % at ")
    assert failure.endswith("and is 80 %: record the reason under ratchet.lowered")
    reason = '[[tool.testkit.coverage.ratchet.lowered]]\nwhat = "layers.core.lines"\nreason = "see 7"\n'
    made.write("pyproject.toml", settings.replace("lines = 90", "lines = 80") + reason)
    assert made.coverage("gate") == 0


def test_thresholds_are_compared_only_with_settings_that_can_be_read(tmp_path: Path, capsys: Output) -> None:
    made = Repository(tmp_path, SETTINGS + "old = 1\n")
    made.write("pyproject.toml", SETTINGS + RATCHET)
    made.commit()
    made.measure(unit=EVERYTHING)
    assert made.coverage("gate") == 0
    assert f"note: ratchet: the thresholds of {made.first[:12]}" in capsys.readouterr().out
    made.git("rm", "--quiet", "--cached", "pyproject.toml")
    made.git("commit", "--quiet", "--message=without settings")
    made.commit()
    assert made.coverage("gate") == 0
    assert "has no settings to compare the thresholds with" in capsys.readouterr().out


def test_settings_outside_of_the_repository_have_no_history(tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "repository").mkdir()
    made = Repository(tmp_path / "repository")
    made.commit()
    made.measure(unit=EVERYTHING)
    (tmp_path / "settings.toml").write_text(SETTINGS + RATCHET)
    assert made.coverage("gate", "--settings", str(tmp_path / "settings.toml")) == 0
    assert "has no settings to compare the thresholds with" in capsys.readouterr().out


def test_only_the_last_baselines_are_kept(tmp_path: Path) -> None:
    made = Repository(tmp_path, SETTINGS + RATCHET)
    made.measure(unit=EVERYTHING)
    baselines = tmp_path / "out" / "baselines"
    baselines.mkdir()
    for number in range(60):
        (baselines / f"{number:040}.json").write_text("{}")
        os.utime(baselines / f"{number:040}.json", (number, number))
    assert made.coverage("gate") == 0
    kept = sorted(path.stem for path in baselines.iterdir())
    assert len(kept) == 50
    assert made.first in kept
    assert f"{10:040}" not in kept


def test_a_base_that_was_never_measured_is_said_plainly(tmp_path: Path, capsys: Output) -> None:
    made = Repository(tmp_path, SETTINGS + RATCHET)
    made.commit()
    made.measure(unit=EVERYTHING)
    assert made.coverage("gate") == 0
    assert (
        f"note: ratchet: {made.first[:12]} (the commit before HEAD, which is on main) was never measured, "
        "nor was any ancestor" in capsys.readouterr().out
    )


def test_the_nearest_measured_ancestor_stands_in_for_the_base(tmp_path: Path, capsys: Output) -> None:
    made = Repository(tmp_path, SETTINGS + RATCHET)
    made.measure(unit=EVERYTHING)
    assert made.coverage("gate") == 0
    made.commit()
    made.commit()
    made.measure(unit=[IMPORT, POSITIVE, NEVER])
    assert made.coverage("gate") == 1
    assert (
        f"was never measured: held against its ancestor {made.first[:12]}, 1 commits before"
        in capsys.readouterr().out
    )


def test_a_committed_baseline_serves_a_fresh_clone(tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "origin").mkdir()
    made = Repository(tmp_path / "origin", SETTINGS + RATCHET + 'baseline = "baseline.json"\n')
    made.measure(unit=[IMPORT, NEGATIVE, POSITIVE])
    assert made.coverage("ratchet", "--record") == 0
    baseline = json.loads((made.root / "baseline.json").read_text())
    assert baseline["commit"] == made.first
    assert [key.split()[:2] for key in baseline["missing"]["core.py"]] == [["line", "never"]]
    made.commit()
    made.commit()
    made.git("clone", "--quiet", ".", str(tmp_path / "clone"))
    made.root = tmp_path / "clone"
    made.measure(unit=[IMPORT, POSITIVE])
    capsys.readouterr()
    assert made.coverage("gate") == 1
    out, err = capsys.readouterr()
    assert "commits before, as committed in baseline.json" in out
    assert err.splitlines()[1] == "    core.py: 3, 2->3"  # and not 8, which the baseline misses, too


def test_only_a_clean_checkout_is_recorded(tmp_path: Path, capsys: Output) -> None:
    made = Repository(tmp_path, SETTINGS + RATCHET)
    made.measure(unit=EVERYTHING)
    assert made.coverage("ratchet", "--record") == 2
    assert "set ratchet.baseline" in capsys.readouterr().err
    made.replace("pyproject.toml", "loss = 100", 'loss = 100\nbaseline = "baseline.json"')
    made.write("core.py", CORE + "\n")
    assert made.coverage("ratchet", "--record") == 2
    assert "this checkout differs from HEAD" in capsys.readouterr().err
    assert made.coverage("gate") == 0
    assert not (tmp_path / "out" / "baselines").exists()


def test_a_damaged_baseline_leaves_no_verdict(tmp_path: Path, capsys: Output) -> None:
    made = Repository(tmp_path, SETTINGS + RATCHET)
    made.commit()
    made.measure(unit=EVERYTHING)
    (tmp_path / "out" / "baselines").mkdir()
    for damage in ("{", "[]", '{"commit": 1}', '{"commit": "x", "missing": []}'):
        (tmp_path / "out" / "baselines" / f"{made.first}.json").write_text(damage)
        assert made.coverage("gate") == 2
        assert f"{made.first}.json is no baseline" in capsys.readouterr().err


def test_a_moved_file_keeps_what_it_missed(tmp_path: Path) -> None:
    made = Repository(tmp_path, SETTINGS + RATCHET.replace('"core.py"', '"*.py"'))
    made.measure(unit=[IMPORT, NEGATIVE, POSITIVE])
    assert made.coverage("gate") == 0
    made.git("mv", "core.py", "moved.py")
    made.commit()
    made.measure(unit=[])
    made.record(".coverage.unit.host.2", {"moved.py": [IMPORT, NEGATIVE, POSITIVE]})
    assert made.coverage("gate") == 0
    made.measure(unit=[])
    made.record(".coverage.unit.host.2", {"moved.py": [IMPORT, POSITIVE]})
    assert made.coverage("gate") == 1


def test_unstable_lines_are_listed_and_not_ratcheted(tmp_path: Path, capsys: Output) -> None:
    settings = SETTINGS.replace("base =", 'unstable = "unstable.txt"\nbase =') + RATCHET
    made = Repository(tmp_path, settings)
    made.write("unstable.txt", "")
    made.commit()
    made.measure(unit=EVERYTHING)
    assert made.coverage("gate") == 0
    made.commit()
    for run, frames in enumerate([EVERYTHING, (IMPORT, POSITIVE, NEVER), EVERYTHING]):
        made.record(".coverage.unit.host.1", {"core.py": frames}, f"out/run{run}")
    runs = [str(tmp_path / "out" / f"run{run}") for run in range(3)]
    assert made.coverage("unstable", *runs) == 0
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "core.py:2 branch: ifnumber<0: -> return-1",
        "core.py:3 line: return-1",
        "2 lines and branches differ between 3 runs",
    ]
    made.measure(unit=[IMPORT, POSITIVE, NEVER])
    assert made.coverage("gate") == 1
    assert made.coverage("unstable", *runs, "--write") == 0
    assert made.coverage("gate") == 0
    made.measure(unit=[IMPORT, POSITIVE])
    assert made.coverage("gate") == 1  # what is not in the list still counts
    assert made.coverage("unstable", runs[0], runs[2]) == 0
    assert "0 lines and branches differ between 2 runs" in capsys.readouterr().out


def test_comparing_runs_needs_two_runs_and_a_file(tmp_path: Path, capsys: Output) -> None:
    made = Repository(tmp_path)
    assert made.coverage("unstable", "out/run0") == 2
    assert made.coverage("unstable", "out/run0", "out/run1", "--write") == 2
    assert made.coverage("unstable", "out/run0", "out/run1") == 2
    one, other, absent = capsys.readouterr().err.splitlines()
    assert "one run differs from nothing" in one
    assert "set unstable" in other
    assert "no data of unit tests" in absent


def test_a_list_of_unstable_lines_that_is_not_there_leaves_no_verdict(tmp_path: Path, capsys: Output) -> None:
    made = Repository(tmp_path, SETTINGS.replace("base =", 'unstable = "gone.txt"\nbase =') + RATCHET)
    made.measure(unit=EVERYTHING)
    made.coverage("gate")
    made.commit()
    assert made.coverage("gate") == 2
    assert "gone.txt: No such file" in capsys.readouterr().err


# Features


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


# Exclusions

PRAGMA = "# pragma" + ": no cover"


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


# What is wrong with the input


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


# What to do next


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
