"""``testkit coverage features``: what the product claims, and which kinds of test prove it."""

from __future__ import annotations

import argparse
import sys

from testkit.coverage.assessment import assess
from testkit.coverage.errors import CoverageInputError
from testkit.coverage.exit_codes import FAILED, OK
from testkit.coverage.features_matrix import to_text
from testkit.coverage.workspace import Workspace

NAME = "features"
HELP = "print which kinds of test prove which feature, and fail when a proof is missing"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take nothing more."""


def run(options: argparse.Namespace) -> int:
    """Return OK when every claim is proven as it should be, else FAILED, with each problem on standard error.

    Raises:
        CoverageInputError: there are no claims, or nothing to hold them against.
    """
    workspace = Workspace.of(options)
    features = assess(workspace).features
    if features is None:
        raise CoverageInputError([f"{workspace.pyproject}: the table [tool.testkit.features] is missing"])
    print(to_text(features))
    for problem in features.problems:
        print(problem, file=sys.stderr)
    return FAILED if features.problems else OK
