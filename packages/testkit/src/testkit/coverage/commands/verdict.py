"""How every command with a verdict ends."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from testkit.coverage.exit_codes import FAILED, OK
from testkit.coverage.failure import Failure


def conclude(failures: Sequence[Failure]) -> int:
    """Print each failure on standard error and return the exit code."""
    for failure in failures:
        print(failure, file=sys.stderr)
    return FAILED if failures else OK
