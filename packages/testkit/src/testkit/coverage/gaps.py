"""What to test next: functions ranked by how much risk their untested part carries.

``complexity x uncovered branches x churn x weight of the layer``: what is intricate breaks, what nothing
checks breaks unseen, what changes often breaks again, and not every layer matters as much.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from testkit.coverage.failure import describe_branches, describe_lines
from testkit.coverage.functions import Function
from testkit.coverage.matrix import Row
from testkit.coverage.measurement import FileMeasurement

CHURN_SINCE = "1 year ago"


@dataclass(frozen=True, slots=True)
class Gap:
    """A function that is not covered whole."""

    layer: str
    file: str
    function: str
    line: int
    complexity: int
    uncovered: int
    """Branches that were not taken; a function that was never called counts as one more."""
    churn: int
    """Commits that touched the file, and one."""
    weight: Fraction
    where: str
    """The lines and branches to look at."""

    @property
    def score(self) -> Fraction:
        """The higher, the sooner."""
        return self.complexity * self.uncovered * self.churn * self.weight


def rank_gaps(
    rows: Iterable[Row], weights: Mapping[str, Fraction], churn: Mapping[str, int]
) -> tuple[Gap, ...]:
    """Return the gaps of all layers, the worst first.

    Args:
        rows: the layers, each measured by the kinds of its requirement.
        weights: layer to its weight.
        churn: file to the number of commits that touched it.
    """
    gaps = [
        gap
        for row in rows
        for file, measured in row.files.items()
        for gap in _gaps_of(row.name, file, measured, churn.get(file, 0) + 1, weights[row.name])
    ]
    return tuple(sorted(gaps, key=lambda gap: (-gap.score, gap.file, gap.line)))


def _gaps_of(layer: str, file: str, measured: FileMeasurement, churn: int, weight: Fraction) -> Iterator[Gap]:
    called = measured.functions_hit
    for function in measured.functions:
        lines = function.lines & measured.lines_missed
        branches = frozenset(branch for branch in measured.branches_missed if branch[0] in function.lines)
        if lines or branches:
            where = ", ".join(
                filter(None, (describe_lines(lines, measured.lines), describe_branches(branches)))
            )
            uncovered = _uncovered(function, called, len(branches))
            yield Gap(
                *(
                    layer,
                    file,
                    function.name,
                    function.line,
                    function.complexity,
                    uncovered,
                    churn,
                    weight,
                    where,
                )
            )


def _uncovered(function: Function, called: Iterable[Function], branches: int) -> int:
    # Lines behind a missed branch are that branch's; lines without one were not reached at all.
    return branches + (function not in called) or 1
