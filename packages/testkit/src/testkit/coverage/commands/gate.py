"""``testkit coverage gate``: the reports and the verdict of every gate."""

from __future__ import annotations

import argparse

from testkit.coverage.assessment import assess
from testkit.coverage.commands.verdict import conclude
from testkit.coverage.git import Repository
from testkit.coverage.ratchet import BaselineStore, make_baseline
from testkit.coverage.reporting import write_reports
from testkit.coverage.terminal import print_assessment
from testkit.coverage.workspace import Workspace, add_base_argument

NAME = "gate"
HELP = "print the table, write the reports and fail when a gate does"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take ``--base``."""
    add_base_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Return OK when every gate passes, else FAILED, with each failure on standard error.

    What a clean checkout missed is kept as the baseline of its commit.

    Raises:
        CoverageInputError: there can be no verdict.
    """
    workspace = Workspace.of(options)
    assessment = assess(workspace, options.base)
    write_reports(assessment, workspace.output)
    print_assessment(assessment)
    repository = Repository(workspace.root)
    head = repository.head()
    if head and assessment.measured.policy.ratchet and repository.is_clean():
        baseline = make_baseline(head, assessment.measured.layers, workspace.root)
        BaselineStore(workspace.baselines, repository, None).record(baseline)
    return conclude(assessment.failures)
