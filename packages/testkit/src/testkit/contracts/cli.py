"""``testkit contracts``: hold every suite to itself, and print which implementation holds which contract."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from testkit.contracts import suites
from testkit.contracts.matrix import is_good, judge, read_outcomes, to_text
from testkit.coverage.exit_codes import FAILED, OK
from testkit.seeds import choose_seed

if TYPE_CHECKING:
    # Only type checkers know this name: it is private in argparse.
    Tools = argparse._SubParsersAction[argparse.ArgumentParser]

_NUMBER = 40


def add_to(tools: Tools) -> None:
    """Add the command to ``testkit``'s."""
    parser = tools.add_parser(
        "contracts",
        help="which implementation holds which contract",
        description="Hold each reference to its contract, reject planted bugs, kill mutants of it.",
    )
    parser.add_argument("names", nargs="*", metavar="CONTRACT", help="by default all")
    parser.add_argument("--outcomes", type=Path, metavar="FILE", help="what pytest wrote with --outcomes")
    parser.add_argument("--number", type=int, default=_NUMBER, help="mutants of each reference (%(default)s)")
    parser.add_argument("--seed", type=int, help="of the draw of mutants; printed, fresh by default")
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    """Print the matrix; FAILED when a contract is not held or a suite does not bite."""
    unknown = sorted({*options.names} - {*suites.NAMES})
    if unknown:
        options.parser.error(f"no such contract: {', '.join(unknown)}; there are {', '.join(suites.NAMES)}")
    # Planted bugs leave tasks behind of which nobody asks how they ended.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)
    seed = choose_seed(options.seed, os.environ)
    print(f"seed {seed}", flush=True)
    names = options.names or suites.NAMES
    outcomes = read_outcomes(options.outcomes) if options.outcomes is not None else []
    rows = [judge(suites.load(name), options.number, seed) for name in names]
    print(to_text(rows, outcomes))
    return OK if is_good(rows, outcomes) else FAILED
