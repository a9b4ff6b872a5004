"""What one kind of test executed, file by file, read from the data files coverage.py left behind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import coverage
from coverage.exceptions import CoverageException

from testkit.coverage.errors import CoverageInputError
from testkit.coverage.functions import Function
from testkit.coverage.structure import Branch, FileStructure


@dataclass(frozen=True, slots=True)
class FileMeasurement:
    """Statements by line number, branches as (from line, to line); a negative target leaves the function."""

    lines: frozenset[int]
    lines_hit: frozenset[int]
    branches: frozenset[Branch]
    branches_hit: frozenset[Branch]
    functions: tuple[Function, ...] = ()
    """In the order of the file; those without a statement of their own are left out."""
    excluded: frozenset[int] = frozenset()
    """Lines that are left out of the count."""

    @property
    def lines_missed(self) -> frozenset[int]:
        """The statements that were not executed."""
        return self.lines - self.lines_hit

    @property
    def branches_missed(self) -> frozenset[Branch]:
        """The branches that were not taken."""
        return self.branches - self.branches_hit

    @property
    def functions_hit(self) -> tuple[Function, ...]:
        """The functions that were called: some statement of the body was executed."""
        return tuple(function for function in self.functions if function.lines & self.lines_hit)

    def __or__(self, other: FileMeasurement) -> FileMeasurement:
        """Return what both together executed of the same file."""
        return FileMeasurement(
            self.lines | other.lines,
            self.lines_hit | other.lines_hit,
            self.branches | other.branches,
            self.branches_hit | other.branches_hit,
            self.functions,
            self.excluded,
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
        self._structures: dict[str, FileStructure] = {}

    def measure(self, kind: str, files: Sequence[str]) -> dict[str, FileMeasurement]:
        """Combine the data of ``kind`` and return what it executed of each of ``files``, executed or not.

        Raises:
            CoverageInputError: there are no data, or they tell nothing about ``files``.
        """
        parts = sorted(map(str, self._folder.glob(f".coverage.{kind}.*")))
        if not parts:
            raise CoverageInputError([f"no data of {kind} tests in {self._folder}: run them first"])
        try:
            with self._combined(kind, parts) as combined:
                measurement = self._measure_all(combined, files)
        except CoverageException as error:
            raise CoverageInputError([f"the data of {kind} tests cannot be read: {error}"]) from error
        if not any(file.lines_hit for file in measurement.values()):
            raise CoverageInputError([f"the data of {kind} tests tell nothing about any source file"])
        return measurement

    def _measure_all(self, combined: coverage.Coverage, files: Sequence[str]) -> dict[str, FileMeasurement]:
        data = combined.get_data()
        measurement: dict[str, FileMeasurement] = {}
        for file in files:
            if file not in self._structures:
                self._structures[file] = FileStructure(self._root / file, combined)
            structure = self._structures[file]
            measurement[file] = FileMeasurement(
                structure.lines,
                structure.lines_hit(data.lines(structure.measured_as) or ()),
                structure.branches,
                structure.branches_hit(data.arcs(structure.measured_as) or ()),
                structure.functions,
                structure.excluded,
            )
        return measurement

    @contextmanager
    def _combined(self, kind: str, parts: Sequence[str]) -> Iterator[coverage.Coverage]:
        combined = coverage.Coverage(
            data_file=str(self._folder / f"combined.{kind}"), config_file=str(self._root / "pyproject.toml")
        )
        combined.erase()
        combined.combine(parts, strict=True, keep=True)
        try:
            yield combined
        finally:
            combined.get_data().close(force=True)
