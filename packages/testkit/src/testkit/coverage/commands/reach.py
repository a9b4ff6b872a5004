"""``testkit coverage reach WHICH``: what only one kind of test reaches, or nothing does."""

from __future__ import annotations

import argparse

from testkit.coverage.assessment import measure
from testkit.coverage.errors import CoverageInputError
from testkit.coverage.exit_codes import OK
from testkit.coverage.failure import describe_lines
from testkit.coverage.reach import NOTHING, reached_only_by
from testkit.coverage.selection import add_layer_argument, select_layers
from testkit.coverage.workspace import Workspace

NAME = "reach"
HELP = "list the lines that only one kind of test reaches, or nothing does"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the kind and ``--layer``."""
    parser.add_argument("which", metavar="KIND", help=f"only by this kind of test; {NOTHING!r}: by none")
    add_layer_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Return OK.

    Raises:
        CoverageInputError: nothing is measured, or there is no such kind or layer.
    """
    measured = measure(Workspace.of(options))
    known = (*measured.policy.kinds, NOTHING)
    if options.which not in known:
        raise CoverageInputError([f"unknown kind {options.which!r}, there are {', '.join(known)}"])
    total = 0
    for row in select_layers(measured, options.layer):
        for file, lines in reached_only_by(row, options.which).items():
            print(f"{file}: {describe_lines(lines, row.files[file].lines)}")
            total += len(lines)
    print(f"{total} statements are reached {'' if options.which == NOTHING else 'only '}by {options.which}")
    return OK
