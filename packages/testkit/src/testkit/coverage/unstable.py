"""Lines and branches that are executed in one run and not in the next, because they race a signal or a timer.

They are listed in a file of the repository and not ratcheted, so that nobody is blamed for chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from testkit.coverage.errors import CoverageInputError
from testkit.coverage.keys import Place, SourceKeys
from testkit.coverage.measurement import FileMeasurement, Measurement
from testkit.coverage.structure import read_source

_HEADER = """\
# Lines and branches that differ from run to run: file, what, function, digest, occurrence, and the source.
# `testkit coverage unstable` writes this file.
"""
_SOURCE = "  # "


@dataclass(frozen=True, slots=True)
class UnstablePlace:
    """A line or branch, named so that edits elsewhere do not matter."""

    file: str
    key: str
    """``line KEY`` or ``branch KEY``."""
    source: str
    """For people."""
    line: int

    @property
    def name(self) -> str:
        """What the ratchet compares."""
        return f"{self.file} {self.key}"


def find_unstable(runs: Sequence[Mapping[str, Measurement]], root: Path) -> list[UnstablePlace]:
    """Return what some of ``runs`` executed and others did not, by any one kind of test.

    Args:
        runs: kind to what it executed, once for each run of the same sources.
        root: the repository.
    """
    first = runs[0]
    places: dict[str, UnstablePlace] = {}
    for kind, measurement in first.items():
        for file in measurement:
            for place in _differing([run[kind][file] for run in runs], root, file):
                places[place.name] = place
    return sorted(places.values(), key=lambda place: (place.file, place.line, place.key))


def write_unstable(places: Sequence[UnstablePlace], path: Path) -> None:
    """Write the list."""
    entries = [f"{place.name}{_SOURCE}{place.source}\n" for place in places]
    path.write_text(_HEADER + "".join(entries), encoding="utf-8")


def read_unstable(path: Path) -> frozenset[str]:
    """Return the names of the places in the list.

    Raises:
        CoverageInputError: there is no such file.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise CoverageInputError([f"{path}: {error.strerror}"]) from error
    return frozenset(line.partition(_SOURCE)[0] for line in lines if line and not line.startswith("#"))


def _differing(measured: Sequence[FileMeasurement], root: Path, file: str) -> list[UnstablePlace]:
    lines = _in_some(run.lines_hit for run in measured)
    branches = _in_some(run.branches_hit for run in measured)
    if not (lines or branches):
        return []
    keys = SourceKeys(read_source(root / file), measured[0])
    return [
        *(UnstablePlace(file, f"line {keys.lines[line]}", keys.text(line), line) for line in lines),
        *(
            UnstablePlace(file, f"branch {keys.branches[branch]}", keys.branch_text(branch), branch[0])
            for branch in branches
        ),
    ]


def _in_some(hits: Iterable[frozenset[Place]]) -> frozenset[Place]:
    sets = list(hits)
    return frozenset.union(*sets) - frozenset.intersection(*sets)
