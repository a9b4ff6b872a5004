"""The gate of thresholds: per layer, per cell of layer and kind, per file and per group of files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction

from testkit.coverage.failure import Failure, describe_missing, percent
from testkit.coverage.matrix import Cell, Row, count_cell
from testkit.coverage.measurement import Measurement
from testkit.coverage.policy import Requirement

GATE = "threshold"


def find_failures(rows: Iterable[Row]) -> list[Failure]:
    """Return every broken promise in the order of ``rows``: together, each kind alone, each file."""
    failures: list[Failure] = []
    for row in rows:
        failures += _judge(row.name, row.requirement, row.counted, row.files)
        for cell in row.cells:
            (kind,) = cell.kinds
            failures += _judge(f"{row.name} x {kind}", cell, row.by_kind[kind], row.files_by_kind[kind])
        if row.each_file:
            for file, measured in row.files.items():
                failures += _judge(file, row.each_file, count_cell([measured]), {file: measured})
    return failures


def find_slack(rows: Iterable[Row], allowed: Fraction) -> Iterator[Failure]:
    """Yield a warning for each threshold that coverage exceeds by more than ``allowed`` points.

    Such a threshold guards nothing: that much could be lost without a word.
    """
    for row in rows:
        held = [(row.name, row.requirement, row.counted)]
        held += [(f"{row.name} x {cell.kinds[0]}", cell, row.by_kind[cell.kinds[0]]) for cell in row.cells]
        for subject, requirement, cell in held:
            for metric, count in cell.metrics():
                threshold: Fraction = getattr(requirement, metric)
                if threshold and count.total and count.percent - threshold > allowed:
                    verdict = (
                        f"{count} % of {metric} by {_by(requirement)}, only {percent(threshold)} % required: "
                        f"raise the threshold"
                    )
                    yield Failure("slack", subject, verdict)


def _judge(subject: str, requirement: Requirement, cell: Cell, files: Measurement) -> Iterator[Failure]:
    for metric, count in cell.metrics():
        threshold: Fraction = getattr(requirement, metric)
        if count.percent < threshold:
            missing = {
                file: where
                for file, measured in files.items()
                if (where := describe_missing(measured, metric))
            }
            verdict = (
                f"{count} % of {metric} by {_by(requirement)}, {percent(threshold)} % required "
                f"({count.hit} of {count.total})"
            )
            yield Failure(GATE, subject, verdict, missing)


def _by(requirement: Requirement) -> str:
    return " + ".join(requirement.kinds)
