"""``testkit coverage exclusions``: the ledger of what is left out of the count."""

from __future__ import annotations

import argparse

from testkit.coverage import exclusions
from testkit.coverage.assessment import assess
from testkit.coverage.commands.verdict import conclude
from testkit.coverage.terminal import format_table
from testkit.coverage.workspace import Workspace

NAME = "exclusions"
HELP = "list what is left out of the count, with category and reason, and fail when a reason is missing"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take nothing more."""


def run(options: argparse.Namespace) -> int:
    """Return FAILED when an exclusion has no category and reason, or does I/O.

    Raises:
        CoverageInputError: there can be no verdict.
    """
    assessment = assess(Workspace.of(options))
    table = [
        ["place", "category", "reason", "source"],
        *(
            [f"{entry.file}:{entry.line}", entry.category, entry.reason, entry.source]
            for entry in assessment.exclusions
        ),
    ]
    print(format_table(table))
    print(f"{len(assessment.exclusions)} places are left out")
    return conclude([failure for failure in assessment.failures if failure.gate == exclusions.GATE])
