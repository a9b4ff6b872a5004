"""Which implementation holds which contract, and whether the contract bites."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from testkit.contracts.checking import Report, Verdict
from testkit.contracts.mutants import MutantsReport, try_mutants
from testkit.contracts.planted import Suite

REFERENCE = "TestReference"
"""By this name pytest holds a suite's own reference to it; all others are real implementations."""
KILLED_PERCENT = 80
"""Of the mutants tried, all suites together. Some are the same program in other words."""
_NEXT_CAPABILITY = re.compile(r"; (?=\w+: )")
"""Reasons may have semicolons of their own."""


@dataclass(frozen=True, slots=True)
class SuiteRow:
    """A suite held to itself."""

    name: str
    newest: int
    reference: Report
    bugs: int
    missed: tuple[str, ...]
    """Why each bug that was not rejected was not."""
    mutants: MutantsReport
    capabilities: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the reference does, and every bug is rejected."""
        return not self.reference.of(Verdict.FAILED) and not self.missed


@dataclass(slots=True)
class Implementation:
    """What pytest said of one implementation of one contract."""

    contract: str
    name: str
    level: int
    passed: int = 0
    failed: list[str] = field(default_factory=list)
    lacks: dict[str, str] = field(default_factory=dict)
    """Capability and reason."""
    left_out: int = 0


def is_good(rows: Sequence[SuiteRow], implementations: Iterable[Implementation]) -> bool:
    """Whether every contract is held, every bug rejected and most mutants killed."""
    tried, killed = sum(row.mutants.tried for row in rows), sum(row.mutants.killed for row in rows)
    return (
        all(row.holds for row in rows)
        and not any(each.failed for each in implementations)
        and killed * 100 >= tried * KILLED_PERCENT
    )


def judge(suite: Suite, number: int, seed: int) -> SuiteRow:
    """Hold the reference to the contract, reject each bug, try ``number`` mutants drawn by ``seed``."""
    reference = suite.check_reference()
    missed = []
    for bug in suite.bugs:
        try:
            bug.reject()
        except AssertionError as error:
            missed.append(str(error))
    # Mutants of what is wrong anyway would say nothing.
    mutants = MutantsReport(seed, 0, ()) if missed or reference.of(Verdict.FAILED) else None
    return SuiteRow(
        suite.name,
        suite.contract.newest,
        reference,
        len(suite.bugs),
        tuple(missed),
        mutants or try_mutants(suite, number, seed),
        tuple(suite.contract.capabilities),
    )


def read_outcomes(file: Path) -> list[Implementation]:
    """What the tests in a file of ``pytest --outcomes`` say of implementations, in their order."""
    found: dict[tuple[str, str], Implementation] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        said = entry.get("contract")
        if said is None:
            continue
        key = said["name"], said["by"]
        known = found.setdefault(key, Implementation(*key, level=said["level"]))
        match entry["outcome"]:
            case "passed":
                known.passed += 1
            case "failed":
                known.failed.append(entry["test"])
            case _:
                known.left_out += 1
                known.lacks.update(
                    (capability, reason)
                    for capability, _, reason in (
                        each.partition(": ") for each in _NEXT_CAPABILITY.split(said["lacks"])
                    )
                    if capability
                )
    return sorted(found.values(), key=lambda each: (each.contract, each.name))


def to_text(rows: Sequence[SuiteRow], implementations: Iterable[Implementation]) -> str:
    """The matrix for people."""
    others = list(implementations)
    names = sorted({row.name for row in rows} | {each.contract for each in others})
    by_name = {row.name: row for row in rows}
    lines: list[str] = []
    for name in names:
        if (row := by_name.get(name)) is not None:
            lines += _of_suite(row)
        else:
            lines.append(f"\n{name}")
        for each in others:
            if each.contract == name:
                lines += _of_implementation(each)
        if row is not None and (alone := _held_by_nobody_real(row, others)):
            lines.append(f"  held by the reference alone: {', '.join(alone)}")
    return "\n".join(lines).strip()


def _held_by_nobody_real(row: SuiteRow, implementations: Sequence[Implementation]) -> list[str]:
    """Capabilities of a contract of which no real implementation shows that they can be had."""
    real = [each for each in implementations if each.contract == row.name and each.name != REFERENCE]
    return [each for each in row.capabilities if real and all(each in other.lacks for other in real)]


def _of_suite(row: SuiteRow) -> Iterator[str]:
    passed, failed = row.reference.of(Verdict.PASSED), row.reference.of(Verdict.FAILED)
    yield f"\n{row.name}@{row.newest}, {len(row.reference.results)} tests"
    yield f"  reference: {len(passed)} passed" + (f", {len(failed)} FAILED" if failed else "")
    yield from (f"    {each.test}: {each.why}" for each in row.reference.results if each.test in failed)
    yield f"  bugs: {row.bugs - len(row.missed)}/{row.bugs} rejected"
    yield from (f"    {why}" for why in row.missed)
    mutants = row.mutants
    yield f"  mutants: {mutants.killed}/{mutants.tried} killed, seed {mutants.seed}"
    yield from ("    " + diff.replace("\n", "\n    ") for diff in mutants.survivors)


def _of_implementation(each: Implementation) -> Iterator[str]:
    parts = [f"{each.passed} passed"]
    if each.left_out:
        parts.append(f"{each.left_out} left out")
    if each.failed:
        parts.append(f"{len(each.failed)} FAILED")
    yield f"  {each.name} (level {each.level}): {', '.join(parts)}"
    yield from (f"    lacks {capability}: {reason}" for capability, reason in each.lacks.items())
    yield from (f"    failed: {test}" for test in each.failed)
