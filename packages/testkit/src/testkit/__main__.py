"""``testkit TOOL COMMAND``: what of testkit is a program rather than a library."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from testkit.contracts import cli as contracts_cli
from testkit.coverage import cli as coverage_cli


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code of the command; wrong arguments end the process with 2."""
    parser = argparse.ArgumentParser(prog="testkit", description="Tools for tests of network services.")
    tools = parser.add_subparsers(title="tools", metavar="TOOL", required=True)
    coverage_cli.add_to(tools)
    contracts_cli.add_to(tools)
    options = parser.parse_args(arguments)
    code: int = options.run(options)
    return code


if __name__ == "__main__":
    sys.exit(main())
