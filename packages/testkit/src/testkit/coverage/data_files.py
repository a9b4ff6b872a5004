"""The data files that coverage.py left behind: who wrote them, and who should have but did not."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import coverage
from coverage.sqldata import SCHEMA_VERSION

from testkit.coverage.errors import CoverageInputError
from testkit.coverage.policy import DataSource


@dataclass(frozen=True, slots=True)
class DataFolder:
    """A folder with ``.coverage.KIND.*``, one file for each process, and what further sources left there."""

    path: Path
    sources: tuple[DataSource, ...] = ()

    def of_kind(self, kind: str) -> list[Path]:
        """Return the files of a kind of test, those of its sources included.

        Raises:
            CoverageInputError: there are none, a declared source left none, or another version wrote one.
        """
        files = set(self.path.glob(f".coverage.{kind}.*"))
        problems = []
        for source in self.sources:
            if source.kind == kind:
                own = self.of_source(source)
                files.update(own)
                if not own:
                    problems.append(
                        f"the source {source.name!r} of {kind} tests returned no data: "
                        f"nothing in {self.path} matches {source.pattern!r}"
                    )
        if not files:
            problems.append(f"no data of {kind} tests in {self.path}: run them first")
        problems += _of_other_versions(files)
        if problems:
            raise CoverageInputError(problems)
        return sorted(files)

    def of_source(self, source: DataSource) -> list[Path]:
        """Return the files of one declared source."""
        return sorted(self.path.glob(source.pattern))


def changed_since(files: Sequence[Path], data: Iterable[Path]) -> list[Path]:
    """Return the source files that were edited after the first data file was written."""
    oldest_s = min(path.stat().st_mtime for path in data)
    return [path for path in files if path.stat().st_mtime > oldest_s]


def _of_other_versions(files: Iterable[Path]) -> list[str]:
    problems: dict[str, str] = {}
    for file in sorted(files):
        writer = _writer_of(file)
        if writer not in (None, coverage.__version__):
            problems.setdefault(
                str(writer),
                f"{file} was written by coverage {writer}, this is {coverage.__version__}: "
                f"run the tests again",
            )
    return list(problems.values())


def _writer_of(file: Path) -> str | None:
    """Return the version that wrote the file; None when it is damaged, as a killed process leaves it."""
    try:
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
            ((schema,),) = database.execute("SELECT version FROM coverage_schema")
            versions = database.execute("SELECT value FROM meta WHERE key = 'version'").fetchall()
    except (sqlite3.Error, ValueError):
        return None
    if versions:
        return str(versions[0][0])
    return None if schema == SCHEMA_VERSION else f"with schema {schema}"
