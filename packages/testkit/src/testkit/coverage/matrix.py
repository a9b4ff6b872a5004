"""How much of each layer each kind of test executed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from testkit.coverage.measurement import FileMeasurement, Measurement, union
from testkit.coverage.policy import Layer, Policy, Requirement

OVERALL = "overall"
METRICS = ("lines", "branches", "functions")


@dataclass(frozen=True, slots=True)
class Count:
    """So many of so many statements, branches or functions."""

    hit: int
    total: int

    @property
    def percent(self) -> Fraction:
        """The exact share; 100 where there is nothing to execute."""
        return Fraction(100 * self.hit, self.total) if self.total else Fraction(100)

    def __str__(self) -> str:
        """Two decimals, rounded down: 100.00 is written only for all."""
        if not self.total:
            return "-"
        whole, hundredths = divmod(10_000 * self.hit // self.total, 100)
        return f"{whole}.{hundredths:02}"


@dataclass(frozen=True, slots=True)
class Cell:
    """What was executed of one layer."""

    lines: Count
    branches: Count
    functions: Count

    def metrics(self) -> Iterable[tuple[str, Count]]:
        """Yield the three with their names."""
        return zip(METRICS, (self.lines, self.branches, self.functions), strict=True)


@dataclass(frozen=True, slots=True)
class Row:
    """One layer or group: each kind's own share, and what its requirement is held against."""

    name: str
    requirement: Requirement
    by_kind: Mapping[str, Cell]
    counted: Cell
    """By the kinds of the requirement together."""
    files: Mapping[str, FileMeasurement]
    """What ``counted`` counts, file by file."""
    files_by_kind: Mapping[str, Measurement]
    """What ``by_kind`` counts, file by file."""
    each_file: Requirement | None = None
    cells: Sequence[Requirement] = ()


def build_matrix(
    policy: Policy, sources: Mapping[str, Sequence[str]], measurements: Mapping[str, Measurement]
) -> list[Row]:
    """Return a row for each layer in the policy's order, and the overall one at the end.

    Args:
        policy: what is promised.
        sources: layer name to its files.
        measurements: kind to what it executed; each knows every file of ``sources``.
    """
    rows = [build_row(layer, sources[layer.name], measurements) for layer in policy.layers]
    everything = [file for files in sources.values() for file in files]
    return [*rows, build_row(Layer(OVERALL, policy.sources, policy.overall), everything, measurements)]


def build_row(layer: Layer, files: Sequence[str], measurements: Mapping[str, Measurement]) -> Row:
    """Return the row of one layer or group that consists of ``files``."""
    own = {kind: {file: measured[file] for file in files} for kind, measured in measurements.items()}
    counted = union(own[kind] for kind in layer.requirement.kinds)
    return Row(
        name=layer.name,
        requirement=layer.requirement,
        by_kind={kind: count_cell(measured.values()) for kind, measured in own.items()},
        counted=count_cell(counted.values()),
        files=counted,
        files_by_kind=own,
        each_file=layer.each_file,
        cells=layer.cells,
    )


def count_cell(files: Iterable[FileMeasurement]) -> Cell:
    """Return the counts of some files together."""
    measured = list(files)
    return Cell(
        lines=Count(sum(len(file.lines_hit) for file in measured), sum(len(file.lines) for file in measured)),
        branches=Count(
            sum(len(file.branches_hit) for file in measured), sum(len(file.branches) for file in measured)
        ),
        functions=Count(
            sum(len(file.functions_hit) for file in measured), sum(len(file.functions) for file in measured)
        ),
    )
