"""``testkit coverage report``: write every report and print the table, without a verdict."""

from __future__ import annotations

import argparse

from testkit.coverage.assessment import assess
from testkit.coverage.exit_codes import OK
from testkit.coverage.reporting import print_table, write_reports
from testkit.coverage.workspace import Workspace

NAME = "report"
HELP = "print the table and write the reports, without a verdict"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take nothing more."""


def run(options: argparse.Namespace) -> int:
    """Return OK, whatever the gates would say.

    Raises:
        CoverageInputError: there is nothing to report.
    """
    workspace = Workspace.of(options)
    assessment = assess(workspace)
    write_reports(assessment, workspace.output)
    print_table(assessment)
    return OK
