"""What one kind of test executed, file by file, read from the data files coverage.py left behind."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import coverage
from coverage.exceptions import CoverageException

from testkit.coverage.errors import CoverageInputError


@dataclass(frozen=True, slots=True)
class FileMeasurement:
    """Statements by line number, branches as (from line, to line); a negative target leaves the function."""

    lines: frozenset[int]
    lines_hit: frozenset[int]
    branches: frozenset[tuple[int, int]]
    branches_hit: frozenset[tuple[int, int]]

    def __or__(self, other: FileMeasurement) -> FileMeasurement:
        """Return what both together executed of the same file."""
        return FileMeasurement(
            self.lines | other.lines,
            self.lines_hit | other.lines_hit,
            self.branches | other.branches,
            self.branches_hit | other.branches_hit,
        )


Measurement = Mapping[str, FileMeasurement]
"""File (relative to the repository, forward slashes) to what was executed of it."""


def union(measurements: Iterable[Measurement]) -> dict[str, FileMeasurement]:
    """Return what several kinds of test executed together."""
    together: dict[str, FileMeasurement] = {}
    for measurement in measurements:
        for file, measured in measurement.items():
            together[file] = together[file] | measured if file in together else measured
    return together


class MeasurementStore:
    """The data files below one folder: ``.coverage.KIND.*``, one for each process that ran.

    Combined data go to ``combined.KIND`` beside them; the originals stay, so that combining can be repeated.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self._folder = folder
        self._root = root

    def measure(self, kind: str, files: Sequence[str]) -> dict[str, FileMeasurement]:
        """Combine the data of ``kind`` and return what it executed of each of ``files``, executed or not.

        Raises:
            CoverageInputError: there are no data, or they tell nothing about ``files``.
        """
        parts = sorted(map(str, self._folder.glob(f".coverage.{kind}.*")))
        if not parts:
            raise CoverageInputError([f"no data of {kind} tests in {self._folder}: run them first"])
        with tempfile.TemporaryDirectory() as scratch:
            report = Path(scratch) / "report.json"
            morfs = [str(self._root / file) for file in files]
            try:
                with self._combined(kind, parts) as combined:
                    combined.json_report(morfs=morfs, outfile=str(report))
            except CoverageException as error:
                raise CoverageInputError([f"the data of {kind} tests cannot be read: {error}"]) from error
            entries = json.loads(report.read_text(encoding="utf-8"))["files"]
        # coverage.py names files relative to the working directory where it can.
        measured = {
            (Path.cwd() / name).relative_to(self._root).as_posix(): entry for name, entry in entries.items()
        }
        measurement = {file: _file_measurement(measured[file]) for file in files}
        if not any(file.lines_hit for file in measurement.values()):
            raise CoverageInputError([f"the data of {kind} tests tell nothing about any source file"])
        return measurement

    def write_html(self, kinds: Sequence[str], files: Sequence[str], target: Path) -> None:
        """Write the annotated source, each line with the kinds that executed it, after ``measure``."""
        parts = [str(self._folder / f"combined.{kind}") for kind in kinds]
        morfs = [str(self._root / file) for file in files]
        with self._combined("all", parts) as everything:
            everything.html_report(morfs=morfs, directory=str(target), show_contexts=True)

    @contextmanager
    def _combined(self, name: str, parts: Sequence[str]) -> Iterator[coverage.Coverage]:
        combined = coverage.Coverage(
            data_file=str(self._folder / f"combined.{name}"), config_file=str(self._root / "pyproject.toml")
        )
        combined.erase()
        combined.combine(parts, strict=True, keep=True)
        try:
            yield combined
        finally:
            combined.get_data().close(force=True)


class _Entry(TypedDict):
    """One file in the JSON report of coverage.py, as far as it is read here."""

    executed_lines: list[int]
    missing_lines: list[int]
    excluded_lines: list[int]
    executed_branches: list[tuple[int, int]]
    missing_branches: list[tuple[int, int]]


def _file_measurement(entry: _Entry) -> FileMeasurement:
    lines_hit = frozenset(entry["executed_lines"]) - frozenset(entry["excluded_lines"])
    branches_hit = frozenset((start, end) for start, end in entry["executed_branches"])
    branches_missed = frozenset((start, end) for start, end in entry["missing_branches"])
    return FileMeasurement(
        lines=lines_hit | frozenset(entry["missing_lines"]),
        lines_hit=lines_hit,
        branches=branches_hit | branches_missed,
        branches_hit=branches_hit,
    )
