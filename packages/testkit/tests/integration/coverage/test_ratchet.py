"""What was covered and is not now fails, against a base that was measured."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from packages.testkit.tests.integration.coverage.repositories import (
    CORE,
    EVERYTHING,
    IMPORT,
    NEGATIVE,
    NEVER,
    POSITIVE,
    RATCHET,
    SETTINGS,
    Output,
    Repository,
    broken,
)


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
