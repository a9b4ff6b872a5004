"""The gate for what is new: each file and each hunk that changed since the base, lines and branches.

One average over a change hides a branch that nothing takes, so each hunk has to reach the threshold by
itself. Of a hunk of two lines, though, one missing line is half: what is tiny is judged together, the tiny
hunks of a file as part of the file, tiny files with one another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from testkit.coverage.failure import Failure, describe_branches, describe_lines, percent
from testkit.coverage.git import Difference, Hunk
from testkit.coverage.matrix import Count
from testkit.coverage.measurement import FileMeasurement
from testkit.coverage.policy import NewCodePolicy
from testkit.coverage.structure import Branch

GATE = "new code"


@dataclass(frozen=True, slots=True)
class NewCode:
    """A hunk, or all the hunks of a file."""

    file: str
    name: str
    """``FILE``, or ``FILE:FIRST-LAST`` of its only hunk."""
    measured: FileMeasurement
    lines: frozenset[int]
    """Statements."""
    branches: frozenset[Branch]

    @property
    def count(self) -> Count:
        """Statements and branches together."""
        hit = len(self.lines & self.measured.lines_hit) + len(self.branches & self.measured.branches_hit)
        return Count(hit, len(self.lines) + len(self.branches))

    @property
    def places(self) -> dict[str, str]:
        """What is missing, for a failure."""
        described = (
            describe_lines(self.lines & self.measured.lines_missed, self.measured.lines),
            describe_branches(self.branches & self.measured.branches_missed),
        )
        missing = ", ".join(filter(None, described))
        return {self.file: missing} if missing else {}


@dataclass(frozen=True, slots=True)
class ChangedFile:
    """One file with what is new in it."""

    whole: NewCode
    hunks: tuple[NewCode, ...]


def find_new_code(difference: Difference, files: Mapping[str, FileMeasurement]) -> list[ChangedFile]:
    """Return the measured files in which a statement is new, with the hunks that hold any."""
    changed = []
    for file, hunks in sorted(difference.hunks.items()):
        if file not in files:
            continue
        parts = [_new_code(file, files[file], (hunk,)) for hunk in hunks]
        whole = _new_code(file, files[file], hunks)
        if whole.count.total:
            changed.append(ChangedFile(whole, tuple(part for part in parts if part.count.total)))
    return changed


def judge_new_code(changed: Iterable[ChangedFile], policy: NewCodePolicy) -> list[Failure]:
    """Return a failure for each hunk, each file and all tiny files together below the threshold."""
    failures: list[Failure] = []
    tiny: list[NewCode] = []
    for file in changed:
        if file.whole.count.total < policy.tiny:
            tiny.append(file.whole)
            continue
        # A file that is one hunk is judged once.
        parts = file.hunks if len(file.hunks) > 1 else ()
        large = [hunk for hunk in parts if hunk.count.total >= policy.tiny]
        failures += [
            Failure(GATE, part.name, _verdict(part.count, policy.threshold), part.places)
            for part in (file.whole, *large)
            if part.count.percent < policy.threshold
        ]
    together = Count(sum(part.count.hit for part in tiny), sum(part.count.total for part in tiny))
    # Even together they may be too few for a share to mean anything.
    if together.total >= policy.tiny and together.percent < policy.threshold:
        places: dict[str, str] = {}
        for part in tiny:
            places |= part.places
        failures.append(
            Failure(GATE, f"{len(tiny)} tiny changes", _verdict(together, policy.threshold), places)
        )
    return failures


def _new_code(file: str, measured: FileMeasurement, hunks: Iterable[Hunk]) -> NewCode:
    hunks = tuple(hunks)
    changed = frozenset(line for hunk in hunks for line in hunk.lines)
    name = f"{file}:{hunks[0]}" if len(hunks) == 1 else file
    return NewCode(
        file,
        name,
        measured,
        measured.lines & changed,
        frozenset(branch for branch in measured.branches if branch[0] in changed),
    )


def _verdict(count: Count, threshold: Fraction) -> str:
    return (
        f"{count} % of new lines and branches are covered, {percent(threshold)} % required "
        f"({count.hit} of {count.total})"
    )
