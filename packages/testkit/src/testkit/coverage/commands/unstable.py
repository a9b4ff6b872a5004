"""``testkit coverage unstable DATA DATA DATA``: what differs between runs of the same tests."""

from __future__ import annotations

import argparse
from pathlib import Path

from testkit.coverage.data_files import DataFolder
from testkit.coverage.errors import CoverageInputError
from testkit.coverage.exit_codes import OK
from testkit.coverage.measurement import MeasurementStore
from testkit.coverage.policy_reader import load_policy
from testkit.coverage.sources import assign_sources
from testkit.coverage.unstable import find_unstable, write_unstable
from testkit.coverage.workspace import Workspace

NAME = "unstable"
HELP = "compare runs of the same tests on the same sources and list the lines and branches that differ"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the folders and ``--write``."""
    parser.add_argument(
        "data", type=Path, nargs="+", help="a folder with the measurements of one run; at least two"
    )
    parser.add_argument(
        "--write", action="store_true", help="write the list into the file that the settings name (unstable)"
    )


def run(options: argparse.Namespace) -> int:
    """Return OK, whether anything differs or not.

    Raises:
        CoverageInputError: there is nothing to compare, or no file to write to.
    """
    workspace = Workspace.of(options)
    policy = load_policy(workspace.pyproject)
    if len(options.data) < 2:
        raise CoverageInputError(["one run differs from nothing: name at least two folders, better three"])
    if options.write and policy.unstable is None:
        raise CoverageInputError(["the settings name no file for the list: set unstable"])
    files = assign_sources(workspace.root, policy).files
    folders = [DataFolder(folder.resolve(), policy.data) for folder in options.data]
    stores = [MeasurementStore(folder, workspace.root, workspace.pyproject, files) for folder in folders]
    runs = [{kind: store.measure(kind) for kind in policy.kinds} for store in stores]
    places = find_unstable(runs, workspace.root)
    for place in places:
        print(f"{place.file}:{place.line} {place.key.partition(' ')[0]}: {place.source}")
    print(f"{len(places)} lines and branches differ between {len(runs)} runs")
    if options.write and policy.unstable:
        write_unstable(places, workspace.root / policy.unstable)
    return OK
