"""Without data of every source, and of this version of everything, there is no verdict."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from coverage import CoverageData

from packages.testkit.tests.integration.coverage.repositories import (
    EVERYTHING,
    IMPORT,
    NEVER,
    POSITIVE,
    SETTINGS,
    Output,
    Repository,
)


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
