"""Which promises are broken, and where."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from testkit.coverage.matrix import Count, Row
from testkit.coverage.measurement import FileMeasurement


@dataclass(frozen=True, slots=True)
class Failure:
    """A layer below its threshold in lines or in branches."""

    layer: str
    metric: str
    kinds: tuple[str, ...]
    count: Count
    threshold: Fraction
    missing: Mapping[str, str]
    """File to its missing line ranges (``3, 7-9``) or branches (``12->15``)."""

    def __str__(self) -> str:
        """One line for the verdict, one for each file with something missing."""
        verdict = (
            f"{self.layer}: {self.count} % of {self.metric} by {' + '.join(self.kinds)}, "
            f"{float(self.threshold):g} % required ({self.count.hit} of {self.count.total})"
        )
        return "\n".join([verdict, *(f"    {file}: {where}" for file, where in self.missing.items())])


def find_failures(rows: Iterable[Row]) -> list[Failure]:
    """Return every broken promise, lines before branches, in the order of ``rows``."""
    failures: list[Failure] = []
    for row in rows:
        metrics = (
            ("lines", row.counted.lines, row.requirement.lines, _missing_lines),
            ("branches", row.counted.branches, row.requirement.branches, _missing_branches),
        )
        for metric, count, threshold, describe in metrics:
            if count.percent < threshold:
                missing = {
                    file: where for file, measured in row.files.items() if (where := describe(measured))
                }
                failures.append(Failure(row.name, metric, row.requirement.kinds, count, threshold, missing))
    return failures


def _missing_lines(measured: FileMeasurement) -> str:
    return ", ".join(_ranges(sorted(measured.lines), measured.lines_hit))


def _ranges(statements: Sequence[int], hit: frozenset[int]) -> Iterable[str]:
    """Yield runs of neighbouring statements that were missed; comments and blank lines do not part a run."""
    run: list[int] = []
    for line in [*statements, None]:
        if line is not None and line not in hit:
            run.append(line)
        elif run:
            yield str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}"
            run = []


def _missing_branches(measured: FileMeasurement) -> str:
    missed = sorted(measured.branches - measured.branches_hit)
    return ", ".join(f"{start}->{'exit' if end < 0 else end}" for start, end in missed)
