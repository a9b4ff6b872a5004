"""The gate against losing: what the base covered and still stands unchanged has to be covered.

A *baseline* is the set of lines and branches that one commit missed, by :class:`~testkit.coverage.keys.Key`.
Since it is a set and no percentage, deleting covered code costs nothing, and a gain in one place pays for no
loss in another. What changed since is judged as new code (:mod:`.new_code`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from testkit.coverage.errors import CoverageInputError
from testkit.coverage.failure import Failure, describe_branches, describe_lines, percent
from testkit.coverage.git import Base, Difference, Repository
from testkit.coverage.keys import SourceKeys
from testkit.coverage.matrix import Row
from testkit.coverage.measurement import FileMeasurement
from testkit.coverage.policy import Lowering, RatchetPolicy, thresholds_of
from testkit.coverage.policy_reader import parse_policy
from testkit.coverage.structure import Branch, read_source

GATE = "ratchet"
_KEPT = 50


@dataclass(frozen=True, slots=True)
class Baseline:
    """What one commit missed."""

    commit: str
    missing: Mapping[str, frozenset[str]]
    """File to the keys of its missing lines and branches (``line KEY``, ``branch KEY``)."""

    def to_json(self) -> str:
        """Return the form in which it is kept; the same for the same sets."""
        missing = {file: sorted(keys) for file, keys in sorted(self.missing.items())}
        return json.dumps({"commit": self.commit, "missing": missing}, indent=1) + "\n"

    @classmethod
    def from_json(cls, content: str | bytes, name: str) -> Baseline:
        """Read what :meth:`to_json` wrote.

        Raises:
            CoverageInputError: it is something else; ``name`` says what was read.
        """
        try:
            document = json.loads(content)
            return cls(
                document["commit"], {file: frozenset(keys) for file, keys in document["missing"].items()}
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CoverageInputError([f"{name} is no baseline: {error!r}"]) from error


@dataclass(frozen=True, slots=True)
class Loss:
    """What one file misses that its base covered."""

    file: str
    measured: FileMeasurement
    lines: frozenset[int]
    branches: frozenset[Branch]

    @property
    def places(self) -> dict[str, str]:
        """The lines and branches, for a failure."""
        described = (describe_lines(self.lines, self.measured.lines), describe_branches(self.branches))
        return {self.file: ", ".join(filter(None, described))}


class BaselineStore:
    """The baselines at hand: one cached file for each commit measured here, and the committed one."""

    def __init__(self, folder: Path, repository: Repository, committed: str | None) -> None:
        self._folder = folder
        self._repository = repository
        self._committed = committed

    def record(self, baseline: Baseline) -> Path:
        """Keep the baseline of a commit, and of older ones only the last few."""
        self._folder.mkdir(parents=True, exist_ok=True)
        target = self._folder / f"{baseline.commit}.json"
        target.write_text(baseline.to_json(), encoding="utf-8")
        by_age = sorted(self._folder.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        for stale in by_age[_KEPT:]:
            stale.unlink()
        return target

    def find(self, base: Base) -> tuple[Baseline | None, str]:
        """Return the baseline of ``base`` or of its nearest ancestor with one, and a note that says which.

        Raises:
            CoverageInputError: the committed baseline is damaged.
        """
        exact = self._folder / f"{base.commit}.json"
        if exact.is_file():
            return Baseline.from_json(exact.read_bytes(), str(exact)), f"held against {base}, measured here"
        never = f"{base} was never measured"
        candidates = [path.stem for path in self._folder.glob("*.json")]
        committed = self._read_committed(base)
        if committed:
            candidates.append(committed.commit)
        distances = {commit: self._repository.distance(commit, base.commit) for commit in candidates}
        ancestors = {commit: distance for commit, distance in distances.items() if distance is not None}
        if not ancestors:
            return None, f"{never}, nor was any ancestor that is known here: nothing to compare with"
        nearest = min(ancestors, key=lambda commit: ancestors[commit])
        note = f"{never}: held against its ancestor {nearest[:12]}, {ancestors[nearest]} commits before"
        cached = self._folder / f"{nearest}.json"
        if cached.is_file():
            return Baseline.from_json(cached.read_bytes(), str(cached)), note
        return committed, f"{note}, as committed in {self._committed}"

    def _read_committed(self, base: Base) -> Baseline | None:
        if self._committed is None:
            return None
        content = self._repository.content(base.commit, self._committed)
        return None if content is None else Baseline.from_json(content, f"{self._committed} in {base}")


def make_baseline(commit: str, rows: Sequence[Row], root: Path) -> Baseline:
    """Return what the rows (layers) miss, by the kinds of their requirements."""
    missing = {
        file: frozenset(_keys_of_missing(measured, read_source(root / file)))
        for row in rows
        for file, measured in row.files.items()
        if measured.lines_missed or measured.branches_missed
    }
    return Baseline(commit, missing)


def find_losses(
    baseline: Baseline, difference: Difference, rows: Sequence[Row], root: Path, unstable: frozenset[str]
) -> list[Loss]:
    """Return what the baseline covered, stands unchanged and is missed now, unstable places left out.

    Args:
        baseline: what was missed.
        difference: what changed since the baseline's commit.
        rows: the layers.
        root: the repository.
        unstable: places that differ from run to run, ``FILE KEY``.
    """
    losses = []
    for row in rows:
        for file, measured in row.files.items():
            if not (measured.lines_missed or measured.branches_missed):
                continue
            changed = difference.changed_lines(file)
            # Of statements that are alike as many may be missed as were: a new one shifts their occurrences.
            known = baseline.missing.get(difference.moved.get(file, file), frozenset())
            excused = Counter(_without_occurrence(key) for key in known)
            lost: set[int | Branch] = set()
            for key, place in _keys_of_missing(measured, read_source(root / file)).items():
                if _start(place) in changed or f"{file} {key}" in unstable:
                    continue
                if excused[_without_occurrence(key)]:
                    excused[_without_occurrence(key)] -= 1
                else:
                    lost.add(place)
            if lost:
                lines = frozenset(place for place in lost if isinstance(place, int))
                branches = frozenset(place for place in lost if not isinstance(place, int))
                losses.append(Loss(file, measured, lines, branches))
    return losses


def judge_losses(
    losses: Sequence[Loss], rows: Sequence[Row], critical: frozenset[str], policy: RatchetPolicy
) -> list[Failure]:
    """Return a failure for each critical file that lost, and for the whole when it lost more than allowed."""
    losses = [kept for loss in losses if (kept := _without_lowered(loss, policy.lowered))]
    failures = [
        Failure(
            GATE,
            loss.file,
            f"critical, and {len(loss.lines)} lines and {len(loss.branches)} branches are lost",
            loss.places,
        )
        for loss in losses
        if loss.file in critical
    ]
    counted = [measured for row in rows for measured in row.files.values()]
    for metric, lost, total in (
        ("lines", sum(len(loss.lines) for loss in losses), sum(len(file.lines) for file in counted)),
        ("branches", sum(len(loss.branches) for loss in losses), sum(len(file.branches) for file in counted)),
    ):
        if total and Fraction(100 * lost, total) > policy.loss:
            verdict = (
                f"{lost} of {total} {metric} were covered at the base and are not now, "
                f"{percent(policy.loss)} % may be lost"
            )
            places: dict[str, str] = {}
            for loss in losses:
                places |= loss.places
            failures.append(Failure(GATE, "overall", verdict, places))
    return failures


def read_base_thresholds(content: bytes | None, base: Base) -> tuple[dict[str, Fraction], str]:
    """Return the thresholds that held at the base, none when they cannot be read, and a note.

    Args:
        content: the settings file at the base, if there was one.
        base: for the note.
    """
    if content is None:
        return {}, f"{base} has no settings to compare the thresholds with"
    try:
        thresholds = thresholds_of(parse_policy(content, f"pyproject.toml in {base}"))
    except CoverageInputError as error:
        return {}, f"the thresholds of {base} cannot be read ({error.problems[0]})"
    return thresholds, f"{len(thresholds)} thresholds compared with {base}"


def find_lowered_thresholds(
    before: Mapping[str, Fraction], now: Mapping[str, Fraction], lowered: Sequence[Lowering], base: Base
) -> list[Failure]:
    """Return a failure for each threshold that fell since the base without a recorded reason."""
    excused = {lowering.what for lowering in lowered}
    return [
        Failure(
            GATE,
            name,
            f"the threshold was {percent(old)} % at {base} and is {percent(now.get(name, Fraction(0)))} %: "
            f"record the reason under ratchet.lowered",
        )
        for name, old in before.items()
        if now.get(name, Fraction(0)) < old and name not in excused
    ]


def find_idle_lowerings(
    before: Mapping[str, Fraction],
    now: Mapping[str, Fraction],
    lowered: Sequence[Lowering],
    losses: Sequence[Loss],
) -> Iterator[Failure]:
    """Yield a warning for each recorded reason that excuses nothing: it would excuse the next loss."""
    for lowering in lowered:
        threshold = before.get(lowering.what, Fraction(0)) > now.get(lowering.what, Fraction(0))
        if not threshold and not any(_without_lowered(loss, (lowering,)) != loss for loss in losses):
            yield Failure("slack", lowering.what, "this recorded lowering excuses nothing: remove it")


def _without_lowered(loss: Loss, lowered: Sequence[Lowering]) -> Loss | None:
    excused = {lowering.what for lowering in lowered}
    if loss.file in excused:
        return None
    lines = {
        line
        for function in loss.measured.functions
        if f"{loss.file}::{function.name}" in excused
        for line in function.lines
    }
    kept = Loss(
        loss.file,
        loss.measured,
        loss.lines - lines,
        frozenset(branch for branch in loss.branches if branch[0] not in lines),
    )
    return kept if kept.lines or kept.branches else None


def _keys_of_missing(measured: FileMeasurement, source: str) -> dict[str, int | Branch]:
    keys = SourceKeys(source, measured)
    return {
        **{f"line {keys.lines[line]}": line for line in measured.lines_missed},
        **{f"branch {keys.branches[branch]}": branch for branch in measured.branches_missed},
    }


def _without_occurrence(key: str) -> str:
    return key.rpartition(" ")[0]


def _start(place: int | Branch) -> int:
    return place if isinstance(place, int) else place[0]
