"""``testkit coverage report``: every report and the table, without a verdict."""

from __future__ import annotations

import argparse

from testkit.coverage.assessment import assess
from testkit.coverage.exit_codes import OK
from testkit.coverage.reporting import write_reports
from testkit.coverage.terminal import print_assessment
from testkit.coverage.workspace import Workspace, add_base_argument

NAME = "report"
HELP = "print the table and write the reports, without a verdict"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take ``--base``."""
    add_base_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Return OK, whatever the gates say.

    Raises:
        CoverageInputError: there is nothing to report.
    """
    workspace = Workspace.of(options)
    assessment = assess(workspace, options.base)
    write_reports(assessment, workspace.output)
    print_assessment(assessment)
    return OK
