"""What could be executed of a source file, whatever was: statements, branches, functions, exclusions.

Parsing is most of the time that the tool takes, so that each file is parsed once for all kinds of test.
"""

from __future__ import annotations

import ast
import tokenize
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import coverage
from coverage.exceptions import CoverageException
from coverage.python import PythonFileReporter

from testkit.coverage.errors import CoverageInputError
from testkit.coverage.functions import Function, find_functions

Branch = tuple[int, int]
"""From line, to line. A negative target leaves the function."""


def read_source(path: Path) -> str:
    """Return the text of a Python file, in whatever encoding it says it has."""
    with tokenize.open(path) as file:
        return file.read()


class FileStructure:
    """One source file as coverage.py's parser sees it under the repository's settings."""

    def __init__(self, path: Path, settings: coverage.Coverage) -> None:
        """Parse.

        Raises:
            CoverageInputError: the file cannot be read or is no Python.
        """
        self._reporter = PythonFileReporter(str(path), settings)
        try:
            possible = self._reporter.arcs()
            exits = self._reporter.exit_counts()
            tree = ast.parse(self._reporter.source())
        except (CoverageException, SyntaxError) as error:
            raise CoverageInputError([f"{path} cannot be read: {error}"]) from error
        self.measured_as = self._reporter.filename
        """The name by which data files know it."""
        self.excluded = frozenset(self._reporter.excluded_lines())
        self.lines = frozenset(self._reporter.lines())
        not_judged = self._reporter.no_branch_lines()
        self.branches: frozenset[Branch] = frozenset(
            (start, end)
            for start, end in possible
            if exits.get(start, 0) > 1 and start not in not_judged and end not in self.excluded
        )
        self.functions: tuple[Function, ...] = tuple(
            function for function in find_functions(tree) if function.lines & self.lines
        )
        targets = Counter(start for start, _ in possible)
        self._only_target = {start: end for start, end in possible if targets[start] == 1}

    def lines_hit(self, executed: Iterable[int]) -> frozenset[int]:
        """Return the statements that the executed lines belong to."""
        return self.lines & self._reporter.translate_lines(executed)

    def branches_hit(self, executed: Iterable[Branch]) -> frozenset[Branch]:
        """Return the branches that the executed arcs took, as coverage.py counts them.

        An arc within one statement of several lines goes from its first line to its first line. It took the
        way out, if there is but one.
        """
        taken = {
            (start, end) if start != end else (start, self._only_target[start])
            for start, end in self._reporter.translate_arcs(executed)
            if start != end or start in self._only_target
        }
        return self.branches & self._reporter.translate_arcs(taken)
