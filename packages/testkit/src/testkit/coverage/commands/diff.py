"""``testkit coverage diff``: what is new since the base, each file and each hunk."""

from __future__ import annotations

import argparse

from testkit.coverage import new_code
from testkit.coverage.assessment import assess
from testkit.coverage.commands.verdict import conclude
from testkit.coverage.errors import CoverageInputError
from testkit.coverage.terminal import format_table
from testkit.coverage.workspace import Workspace, add_base_argument

NAME = "diff"
HELP = "show how much of what is new is covered, each file and each hunk, and fail when it is too little"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take ``--base``."""
    add_base_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Return FAILED when a file or hunk is below the threshold.

    Raises:
        CoverageInputError: there can be no verdict.
    """
    assessment = assess(Workspace.of(options), options.base)
    if assessment.measured.policy.new_code is None:
        raise CoverageInputError(["the settings have no table new_code: nothing is required of new code"])
    table = [["covered", "new", "what", "missing"]]
    for file in assessment.new_code:
        for part in (file.whole, *(hunk for hunk in file.hunks if hunk.name != file.whole.name)):
            missing = " ".join(part.places.values())
            table.append([str(part.count), str(part.count.total), part.name, missing])
    print(format_table(table))
    for note in assessment.notes:
        print(f"note: {note}")
    return conclude([failure for failure in assessment.failures if failure.gate == new_code.GATE])
