"""``testkit coverage ratchet``: what was covered at the base and is not now."""

from __future__ import annotations

import argparse
from pathlib import Path

from testkit.coverage import ratchet
from testkit.coverage.assessment import assess
from testkit.coverage.commands.verdict import conclude
from testkit.coverage.errors import CoverageInputError
from testkit.coverage.exit_codes import OK
from testkit.coverage.git import Repository
from testkit.coverage.workspace import Workspace, add_base_argument

NAME = "ratchet"
HELP = "show what was covered at the base and is not now, and fail when it is too much; or record a baseline"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take ``--base`` and ``--record``."""
    add_base_argument(parser)
    parser.add_argument(
        "--record",
        action="store_true",
        help="write what HEAD misses into the committed baseline (ratchet.baseline); needs a clean checkout",
    )


def run(options: argparse.Namespace) -> int:
    """Return FAILED when too much is lost; after recording, OK.

    Raises:
        CoverageInputError: there can be no verdict, or nothing can be recorded.
    """
    workspace = Workspace.of(options)
    assessment = assess(workspace, options.base)
    measured = assessment.measured
    if measured.policy.ratchet is None:
        raise CoverageInputError(["the settings have no table ratchet: losing coverage is allowed"])
    if options.record:
        repository = Repository(workspace.root)
        head, target = repository.head(), measured.policy.ratchet.baseline
        if target is None:
            raise CoverageInputError(["the settings name no file for it: set ratchet.baseline"])
        if head is None or not repository.is_clean():
            raise CoverageInputError(["only a commit has a baseline, and this checkout differs from HEAD"])
        path: Path = workspace.root / target
        baseline = ratchet.make_baseline(head, measured.layers, workspace.root)
        path.write_text(baseline.to_json(), encoding="utf-8")
        print(f"{path}: what {head[:12]} misses, commit it")
        return OK
    for loss in assessment.losses:
        for file, where in loss.places.items():
            print(f"lost {file}: {where}")
    for note in assessment.notes:
        print(f"note: {note}")
    return conclude([failure for failure in assessment.failures if failure.gate == ratchet.GATE])
