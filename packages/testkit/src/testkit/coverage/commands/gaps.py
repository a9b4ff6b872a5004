"""``testkit coverage gaps``: what to test next."""

from __future__ import annotations

import argparse

from testkit.coverage.assessment import measure
from testkit.coverage.exit_codes import OK
from testkit.coverage.gaps import CHURN_SINCE, rank_gaps
from testkit.coverage.git import Repository
from testkit.coverage.selection import add_layer_argument, select_layers
from testkit.coverage.terminal import format_table, gap_table
from testkit.coverage.workspace import Workspace

NAME = "gaps"
HELP = "rank functions by complexity x uncovered branches x churn x weight of the layer"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take ``--layer``, ``--limit`` and ``--since``."""
    add_layer_argument(parser)
    parser.add_argument("--limit", type=int, default=20, help="how many to show (20)")
    parser.add_argument(
        "--since", default=CHURN_SINCE, help=f"count commits since this date, as git takes it ({CHURN_SINCE})"
    )


def run(options: argparse.Namespace) -> int:
    """Return OK.

    Raises:
        CoverageInputError: nothing is measured, or there is no such layer.
    """
    workspace = Workspace.of(options)
    measured = measure(workspace)
    weights = {layer.name: layer.weight for layer in measured.policy.layers}
    churn = Repository(workspace.root).churn(options.since)
    gaps = rank_gaps(select_layers(measured, options.layer), weights, churn)
    print(format_table(gap_table(gaps[: options.limit])))
    print(f"{len(gaps)} functions have gaps, {sum(gap.uncovered for gap in gaps)} uncovered branches")
    return OK
