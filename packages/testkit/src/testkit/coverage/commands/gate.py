"""``testkit coverage gate``: the reports and the verdict of every gate."""

from __future__ import annotations

import argparse
import sys

from testkit.coverage.assessment import assess
from testkit.coverage.exit_codes import FAILED, OK
from testkit.coverage.reporting import print_table, write_reports
from testkit.coverage.workspace import Workspace

NAME = "gate"
HELP = "print the table, write the reports and fail when a gate does"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take nothing more."""


def run(options: argparse.Namespace) -> int:
    """Return OK when every gate passes, else FAILED, with each failure on standard error.

    Raises:
        CoverageInputError: there can be no verdict.
    """
    workspace = Workspace.of(options)
    assessment = assess(workspace)
    write_reports(assessment, workspace.output)
    print_table(assessment)
    for failure in assessment.failures:
        print(failure, file=sys.stderr)
    problems = assessment.features.problems if assessment.features is not None else ()
    for problem in problems:
        print(f"features: {problem}", file=sys.stderr)
    return FAILED if assessment.failures or problems else OK
