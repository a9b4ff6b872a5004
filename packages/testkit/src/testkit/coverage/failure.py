"""A promise that is broken, and where; how lines and branches are named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from testkit.coverage.measurement import FileMeasurement
from testkit.coverage.structure import Branch


@dataclass(frozen=True, slots=True)
class Failure:
    """What a gate objects to; a warning has the same shape."""

    gate: str
    """``threshold``, ``ratchet``, ``new code``, ``exclusions`` …"""
    subject: str
    """What it is about: a row of the matrix, a file, a hunk, a function."""
    verdict: str
    """The number, what was required, and the count behind it, in one line."""
    places: Mapping[str, str] = field(default_factory=dict)
    """File to its lines (``3, 7-9``) or branches (``12->15``) in question."""

    def __str__(self) -> str:
        """One line for the verdict, one for each file."""
        places = [f"    {file}: {where}" for file, where in self.places.items()]
        return "\n".join([f"{self.gate}: {self.subject}: {self.verdict}", *places])


def percent(threshold: Fraction) -> str:
    """Return the threshold as it stands in the settings, ``99.5``."""
    return f"{float(threshold):g}"


def describe_lines(lines: Iterable[int], statements: Iterable[int]) -> str:
    """Return runs of neighbouring statements; comments and blank lines do not part a run."""
    wanted = frozenset(lines)
    runs: list[str] = []
    run: list[int] = []
    for line in [*sorted(statements), None]:
        if line is not None and line in wanted:
            run.append(line)
        elif run:
            runs.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
            run = []
    return ", ".join(runs)


def describe_branches(branches: Iterable[Branch]) -> str:
    """Return ``12->15, 20->exit``."""
    return ", ".join(f"{start}->{'exit' if end < 0 else end}" for start, end in sorted(branches))


def describe_missing(measured: FileMeasurement, metric: str) -> str:
    """Return the lines, branches or functions of a file that were missed, or nothing."""
    if metric == "lines":
        return describe_lines(measured.lines_missed, measured.lines)
    if metric == "branches":
        return describe_branches(measured.branches_missed)
    called = measured.functions_hit
    return ", ".join(
        f"{function.name} ({function.line})" for function in measured.functions if function not in called
    )
