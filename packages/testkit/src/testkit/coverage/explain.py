"""What is known about one line: which kinds of test reach it, which ways out they took, which tests."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import coverage

from testkit.coverage import per_test
from testkit.coverage.errors import CoverageInputError
from testkit.coverage.measurement import FileMeasurement, Measurement
from testkit.coverage.reach import kinds_reaching
from testkit.coverage.structure import FileStructure
from testkit.coverage.workspace import Workspace

# pytest's: all passed, some failed, interrupted is 2. Whatever ran was measured.
_RAN = (0, 1)


def explain_line(measurements: Mapping[str, Measurement], file: str, line: int, text: str) -> list[str]:
    """Return what there is to say, a line each.

    Args:
        measurements: kind to what it executed.
        file: as ``measurements`` names it.
        line: its number.
        text: what stands there.
    """
    (any_kind, *_) = measurements.values()
    structure = any_kind[file]
    said = [f"{file}:{line}  {text.strip()}", f"in {_function_at(structure, line)}"]
    if line in structure.excluded:
        return [*said, "left out of the count"]
    if line not in structure.lines:
        return [*said, "no statement begins here"]
    kinds = kinds_reaching(measurements, file)[line]
    said.append(f"reached by {', '.join(kinds) or 'nothing'}")
    for branch in sorted(branch for branch in structure.branches if branch[0] == line):
        taken = [kind for kind, measured in measurements.items() if branch in measured[file].branches_hit]
        target = "exit" if branch[1] < 0 else branch[1]
        said.append(f"{line}->{target} taken by {', '.join(taken) or 'nothing'}")
    return said


def find_tests(workspace: Workspace, file: str, line: int, paths: Sequence[str]) -> list[str]:
    """Run the tests in ``paths``, each in a context of its own; return the ids of those that reach the line.

    Raises:
        CoverageInputError: the tests cannot be run.
    """
    with tempfile.TemporaryDirectory() as scratch:
        data_file, settings = Path(scratch) / ".coverage", workspace.pyproject
        command = [
            *(sys.executable, "-m", "coverage", "run", "--parallel-mode", "--branch"),
            *(f"--data-file={data_file}", f"--rcfile={settings}"),
            *("-m", "pytest", "-q", "-p", per_test.__name__, *paths),
        ]
        # What measures this process must not measure the tests: one interpreter holds one tracer.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
        ended = subprocess.run(
            command, cwd=workspace.root, env=environment, capture_output=True, text=True, check=False
        )
        if ended.returncode not in _RAN:
            last = "\n".join((ended.stdout + ended.stderr).splitlines()[-10:])
            raise CoverageInputError([f"pytest ended with {ended.returncode}: {last}"])
        combined = coverage.Coverage(data_file=str(data_file), config_file=str(settings))
        combined.combine([scratch], strict=True)
        structure = FileStructure(workspace.root / file, combined)
        data = combined.get_data()
        contexts = data.contexts_by_lineno(structure.measured_as)
        data.close(force=True)
    return sorted(
        {
            context
            for executed, names in contexts.items()
            if line in structure.lines_hit([executed])
            for context in names
            if context
        }
    )


def _function_at(structure: FileMeasurement, line: int) -> str:
    names = [function.name for function in structure.functions if line in function.lines]
    return names[0] if names else "the module, outside of functions"


def match_tests(root: Path, patterns: Iterable[str]) -> list[str]:
    """Return the files and folders that glob patterns stand for, relative to the root.

    Raises:
        CoverageInputError: a pattern matches nothing.
    """
    matched: list[str] = []
    for pattern in patterns:
        paths = sorted(path.relative_to(root).as_posix() for path in root.glob(pattern))
        if not paths:
            raise CoverageInputError([f"tests: {pattern!r} matches nothing"])
        matched += paths
    return matched
