"""``testkit coverage explain FILE:LINE``: which kinds of test reach a line, and which tests."""

from __future__ import annotations

import argparse
from pathlib import Path

from testkit.coverage.data_files import DataFolder
from testkit.coverage.errors import CoverageInputError
from testkit.coverage.exit_codes import OK
from testkit.coverage.explain import explain_line, find_tests, match_tests
from testkit.coverage.measurement import MeasurementStore
from testkit.coverage.policy_reader import load_policy
from testkit.coverage.reach import kinds_reaching
from testkit.coverage.sources import assign_sources
from testkit.coverage.structure import read_source
from testkit.coverage.workspace import Workspace

NAME = "explain"
HELP = "tell which kinds of test reach FILE:LINE; with --tests, which tests"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the place and ``--tests``."""
    parser.add_argument(
        "place", metavar="FILE:LINE", help="a line of a source file, relative to the repository"
    )
    parser.add_argument(
        "--tests",
        nargs="*",
        metavar="PATH",
        help="run tests, each measured by itself, and list those that reach the line: the tests in the paths "
        "given, else those of the kinds that reach it, where the settings say (tests)",
    )


def run(options: argparse.Namespace) -> int:
    """Return OK.

    Raises:
        CoverageInputError: there is no such line, or nothing is measured.
    """
    workspace = Workspace.of(options)
    policy = load_policy(workspace.pyproject)
    file, line = _parse_place(options.place)
    files = assign_sources(workspace.root, policy).files
    if file not in files:
        raise CoverageInputError([f"{file} is no source file of the settings"])
    text = read_source(workspace.root / file).splitlines()
    if not 1 <= line <= len(text):
        raise CoverageInputError([f"{file} has {len(text)} lines, there is no line {line}"])
    store = MeasurementStore(DataFolder(workspace.data), workspace.root, workspace.pyproject, files)
    measurements = {kind: store.measure(kind, [file]) for kind in policy.kinds}
    print("\n".join(explain_line(measurements, file, line, text[line - 1])))
    if options.tests is not None:
        kinds = kinds_reaching(measurements, file).get(line, ())
        patterns = [pattern for kind in kinds for pattern in policy.tests.get(kind, ())]
        paths = options.tests or match_tests(workspace.root, patterns)
        if not paths:
            raise CoverageInputError(["no tests to run: name their paths, or set tests in the settings"])
        _print_tests(find_tests(workspace, file, line, paths))
    return OK


def _parse_place(place: str) -> tuple[str, int]:
    file, _, line = place.rpartition(":")
    if not file or not line.isdecimal():
        raise CoverageInputError([f"{place!r} is no FILE:LINE"])
    return Path(file).as_posix(), int(line)


def _print_tests(tests: list[str]) -> None:
    for test in tests:
        print(f"    {test}")
    print(f"{len(tests)} tests reach it")
