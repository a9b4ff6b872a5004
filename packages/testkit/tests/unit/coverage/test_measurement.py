from __future__ import annotations

import gc
from pathlib import Path

import pytest
from coverage import CoverageData
from coverage.exceptions import CoverageWarning

from testkit.coverage.data_files import DataFolder
from testkit.coverage.errors import CoverageInputError
from testkit.coverage.measurement import FileMeasurement, MeasurementStore, union

SOURCE = '''\
"""A module."""
def sign(number):
    if number < 0:
        return (
            -1
        )
    return 1
'''


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text("[tool.coverage.run]\nbranch = true\n")
    (tmp_path / "sign.py").write_text(SOURCE)
    (tmp_path / "never_imported.py").write_text("x = 1\n")
    (tmp_path / "data").mkdir()
    return tmp_path


def record(repository: Path, kind: str, process: str, *arcs: tuple[int, int], file: str = "sign.py") -> None:
    data = CoverageData(str(repository / "data" / f".coverage.{kind}.{process}"))
    data.set_context(kind)
    data.add_arcs({str(repository / file): arcs})
    data.write()
    data.close(force=True)


def measure(
    repository: Path, kind: str, files: tuple[str, ...] = ("never_imported.py", "sign.py")
) -> dict[str, FileMeasurement]:
    return MeasurementStore(
        DataFolder(repository / "data"), repository, repository / "pyproject.toml", files
    ).measure(kind)


IMPORT = ((-1, 1), (1, 2), (2, -1))
NEGATIVE = ((-2, 3), (3, 4), (4, -2))
POSITIVE = ((-2, 3), (3, 7), (7, -2))


def test_data_of_all_processes_of_a_kind_are_combined(repository: Path) -> None:
    record(repository, "unit", "host.1", *IMPORT, *NEGATIVE)
    record(repository, "unit", "host.2", *POSITIVE)
    measured = measure(repository, "unit")["sign.py"]
    assert measured.lines == measured.lines_hit
    assert measured.branches == measured.branches_hit == {(3, 4), (3, 7)}


def test_kinds_stay_apart(repository: Path) -> None:
    record(repository, "unit", "host.1", *IMPORT, *NEGATIVE)
    record(repository, "e2e", "host.2", *IMPORT, *POSITIVE)
    assert measure(repository, "unit")["sign.py"].branches_hit == {(3, 4)}
    assert measure(repository, "e2e")["sign.py"].branches_hit == {(3, 7)}


def test_a_file_that_nothing_imported_counts_as_missed(repository: Path) -> None:
    record(repository, "unit", "host.1", *IMPORT)
    measured = measure(repository, "unit")
    assert measured["never_imported.py"] == FileMeasurement(
        frozenset({1}), frozenset(), frozenset(), frozenset()
    )


def test_measuring_again_gives_the_same(repository: Path) -> None:
    record(repository, "unit", "host.1", *IMPORT, *NEGATIVE)
    assert measure(repository, "unit") == measure(repository, "unit")


def test_files_are_found_from_any_working_directory(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(repository, "unit", "host.1", *IMPORT)
    monkeypatch.chdir(repository)
    inside = measure(repository, "unit")
    monkeypatch.chdir("/")
    assert measure(repository, "unit") == inside


def test_a_kind_without_data_is_named(repository: Path) -> None:
    record(repository, "unit", "host.1", *IMPORT)
    with pytest.raises(CoverageInputError, match=r"no data of e2e tests in .*data: run them first"):
        measure(repository, "e2e")


def test_data_that_tell_nothing_about_the_sources_are_no_data(repository: Path) -> None:
    record(repository, "unit", "host.1", *IMPORT, file="elsewhere.py")
    with pytest.raises(CoverageInputError, match="unit tests tell nothing about any source file"):
        measure(repository, "unit")


@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")
def test_a_data_file_that_a_killed_process_left_damaged_is_named_and_the_others_count(
    repository: Path,
) -> None:
    record(repository, "unit", "host.1", *IMPORT)
    (repository / "data" / ".coverage.unit.host.2").write_text("cut off in the middle of a write")
    with pytest.warns(CoverageWarning, match=r"host\.2"):
        measured = measure(repository, "unit")
    assert measured["sign.py"].lines_hit == {2}
    # coverage.py drops the damaged database without closing it; its complaint must not reach another test.
    gc.collect()


@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")
def test_data_files_that_are_all_damaged_are_no_data(repository: Path) -> None:
    (repository / "data" / ".coverage.unit.host.1").write_text("cut off in the middle of a write")
    with (
        pytest.warns(CoverageWarning, match=r"host\.1"),
        pytest.raises(
            CoverageInputError, match="the data of unit tests cannot be read: No usable data files"
        ),
    ):
        measure(repository, "unit")
    gc.collect()


def test_a_source_file_that_does_not_parse_is_named(repository: Path) -> None:
    record(repository, "unit", "host.1", *IMPORT)
    (repository / "sign.py").write_text("def (")
    with pytest.raises(CoverageInputError, match=r"cannot be read: .*sign\.py"):
        measure(repository, "unit")


def test_a_union_knows_what_any_of_them_executed() -> None:
    lines, branches = frozenset({1, 2, 3}), frozenset({(1, 2), (1, 3)})
    one = FileMeasurement(lines, frozenset({1, 2}), branches, frozenset({(1, 2)}))
    other = FileMeasurement(lines, frozenset({1, 3}), branches, frozenset({(1, 3)}))
    assert union([{"a": one, "b": one}, {"a": other}]) == {
        "a": FileMeasurement(lines, lines, branches, branches),
        "b": one,
    }
