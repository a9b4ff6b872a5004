"""What one kind of test executed, file by file, read from the data files coverage.py left behind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import coverage
from coverage.exceptions import CoverageException

from testkit.coverage.data_files import DataFolder
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
    """Measures what the data files below one folder tell about the repository's sources.

    Combined data go to ``combined.KIND`` beside them; the originals stay, so that combining can be repeated.
    """

    def __init__(self, folder: DataFolder, root: Path, settings: Path, files: Sequence[str]) -> None:
        """Take where the data are, the repository, coverage.py's settings, and all the source files."""
        self._folder = folder
        self._root = root
        self._settings = settings
        self._files = files
        self._structures: dict[str, FileStructure] = {}

    def measure(self, kind: str, files: Sequence[str] | None = None) -> dict[str, FileMeasurement]:
        """Combine the data of ``kind`` and return what it executed of each of ``files``, of all by default.

        Raises:
            CoverageInputError: there are no data, or they tell nothing about any source file.
        """
        parts = self._folder.of_kind(kind)
        for source in self._folder.sources:
            if source.kind == kind:
                self._measure(f"the source {source.name!r}", "source", self._folder.of_source(source), ())
        return self._measure(f"{kind} tests", kind, parts, self._files if files is None else files)

    def _measure(
        self, whose: str, name: str, parts: Sequence[Path], files: Sequence[str]
    ) -> dict[str, FileMeasurement]:
        try:
            with self._combined(name, parts) as combined:
                data = combined.get_data()
                if data.measured_files() and not data.has_arcs():
                    raise CoverageInputError([f"the data of {whose} hold no branches: set branch = true"])
                # Data name files that were never executed, too.
                if not any(data.lines(str((self._root / file).resolve())) for file in self._files):
                    raise CoverageInputError([f"the data of {whose} tell nothing about any source file"])
                return {file: self._measure_file(combined, data, file) for file in files}
        except CoverageException as error:
            raise CoverageInputError([f"the data of {whose} cannot be read: {error}"]) from error

    def _measure_file(
        self, combined: coverage.Coverage, data: coverage.CoverageData, file: str
    ) -> FileMeasurement:
        if file not in self._structures:
            self._structures[file] = FileStructure(self._root / file, combined)
        structure = self._structures[file]
        return FileMeasurement(
            structure.lines,
            structure.lines_hit(data.lines(structure.measured_as) or ()),
            structure.branches,
            structure.branches_hit(data.arcs(structure.measured_as) or ()),
            structure.functions,
            structure.excluded,
        )

    @contextmanager
    def _combined(self, name: str, parts: Sequence[Path]) -> Iterator[coverage.Coverage]:
        combined = coverage.Coverage(
            data_file=str(self._folder.path / f"combined.{name}"),
            config_file=str(self._settings),
        )
        combined.erase()
        combined.combine([str(part) for part in parts], strict=True, keep=True)
        try:
            yield combined
        finally:
            combined.get_data().close(force=True)
