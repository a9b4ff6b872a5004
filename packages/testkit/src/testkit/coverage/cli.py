"""``testkit coverage COMMAND``: the commands, and what their exit codes mean.

Each command is a module of :mod:`testkit.coverage.commands` that has what :class:`Command` names.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Protocol

from testkit.coverage.commands import (
    diff,
    exclusions,
    explain,
    features,
    gaps,
    gate,
    mutation,
    ratchet,
    reach,
    report,
    unstable,
)
from testkit.coverage.errors import CoverageInputError
from testkit.coverage.exit_codes import EXIT_CODES, NO_VERDICT
from testkit.coverage.workspace import add_workspace_arguments

if TYPE_CHECKING:
    # Only type checkers know this name: it is private in argparse.
    Tools = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001


class Command(Protocol):
    """What a module of ``commands`` defines."""

    @property
    def NAME(self) -> str:  # noqa: N802 - a module's constant
        """What is typed after ``testkit coverage``."""

    @property
    def HELP(self) -> str:  # noqa: N802 - a module's constant
        """One line."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add what this command takes besides ``--root``, ``--settings`` and ``--output``."""

    def run(self, options: argparse.Namespace) -> int:
        """Do it and return an exit code.

        Raises:
            CoverageInputError: there can be no verdict.
        """


COMMANDS: tuple[Command, ...] = (
    *(report, gate, diff, ratchet, features, exclusions),
    *(gaps, reach, explain, unstable, mutation),
)
"""In the order in which the help lists them."""


def add_to(tools: Tools) -> None:
    """Add the tool ``coverage`` with all its commands."""
    meanings = "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items())
    parser = tools.add_parser(
        "coverage",
        help="what the tests covered, by layer and kind of test, held against thresholds",
        description="What the tests covered, by layer and kind of test, held against thresholds.",
        epilog=f"Exit codes: {meanings}.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        subparser = commands.add_parser(command.NAME, help=command.HELP, description=command.HELP)
        add_workspace_arguments(subparser)
        command.add_arguments(subparser)
        subparser.set_defaults(run=_run, command=command)


def _run(options: argparse.Namespace) -> int:
    command: Command = options.command
    try:
        return command.run(options)
    except CoverageInputError as error:
        for problem in error.problems:
            print(f"coverage: {problem}", file=sys.stderr)
        return NO_VERDICT
