"""Which kinds of test reach a line: only one of them, several, or none."""

from __future__ import annotations

from collections.abc import Mapping

from testkit.coverage.matrix import Row
from testkit.coverage.measurement import Measurement

NOTHING = "nothing"
SEVERAL = "several"


def kinds_reaching(measurements: Mapping[str, Measurement], file: str) -> dict[int, tuple[str, ...]]:
    """Return the kinds that executed each statement of ``file``, in the order of ``measurements``."""
    statements = next(iter(measurements.values()))[file].lines
    return {
        line: tuple(kind for kind, measured in measurements.items() if line in measured[file].lines_hit)
        for line in sorted(statements)
    }


def reached_only_by(row: Row, which: str) -> dict[str, frozenset[int]]:
    """Return the statements of each file that only the kind ``which`` executed, or none did (``NOTHING``)."""
    wanted = () if which == NOTHING else (which,)
    found = {
        file: frozenset(
            line for line, kinds in kinds_reaching(row.files_by_kind, file).items() if kinds == wanted
        )
        for file in row.files
    }
    return {file: lines for file, lines in found.items() if lines}


def count_reach(row: Row) -> dict[str, int]:
    """Return how many statements only each kind executed, how many several did, and how many none did."""
    counts = dict.fromkeys([*row.files_by_kind, SEVERAL, NOTHING], 0)
    for file in row.files:
        for kinds in kinds_reaching(row.files_by_kind, file).values():
            counts[kinds[0] if len(kinds) == 1 else SEVERAL if kinds else NOTHING] += 1
    return counts
