"""Which kinds of test prove which feature.

A feature is *green* for a kind when a test of that kind that is marked with it passed, and every line of
the code that is marked with it ran in that kind. A skipped test proves nothing, and neither does a line
that ran by chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from testkit.coverage.features_claims import (
    Feature,
    ask_inventory,
    load_feature_settings,
    load_features,
    ownership_problems,
)
from testkit.coverage.features_marks import Mark, find_marks
from testkit.coverage.features_outcomes import (
    TestOutcome,
    outcome_file,
    passed_features,
    read_outcomes,
)
from testkit.coverage.matrix import Count
from testkit.coverage.measurement import Measurement

END_TO_END = "e2e"


@dataclass(frozen=True, slots=True)
class Proof:
    """What one kind of test has to say about a feature."""

    passed: tuple[str, ...]
    """Marked tests that passed."""
    ran: tuple[Mark, ...]
    """Marked lines that this kind executed."""
    missed: tuple[Mark, ...]

    @property
    def is_green(self) -> bool:
        return bool(self.passed and self.ran) and not self.missed

    @property
    def lacks(self) -> str:
        """What is missing until it is green, in words."""
        parts = [] if self.passed else ["no test marked with it passed"]
        if not self.ran and not self.missed:
            parts.append("no line of the code is marked with it")
        parts += [f"{mark.place} did not run" for mark in self.missed]
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """A feature and its proofs by kind."""

    feature: Feature
    proofs: Mapping[str, Proof]

    @property
    def missing(self) -> dict[str, str]:
        """Kind that must prove it and does not, to what it lacks."""
        return {
            kind: self.proofs[kind].lacks for kind in self.feature.proof if not self.proofs[kind].is_green
        }


@dataclass(frozen=True, slots=True)
class FeatureMatrix:
    """Every feature, and everything that is wrong about them."""

    rows: tuple[FeatureRow, ...]
    problems: tuple[str, ...]
    """One line each: unknown ids, names that belong nowhere, missing proofs. Empty when all is well."""

    def green(self, kind: str) -> Count:
        """So many of the features are proven by ``kind``, asked for or not."""
        return Count(
            sum(kind in row.proofs and row.proofs[kind].is_green for row in self.rows), len(self.rows)
        )


def judge_features(
    root: Path, pyproject: Path, data: Path, files: Sequence[str], measurements: Mapping[str, Measurement]
) -> FeatureMatrix | None:
    """Hold the claims of the repository at ``root`` against what ran; None where nothing is claimed.

    Args:
        root: the repository.
        pyproject: its settings.
        data: the folder in which each kind's tests left what became of them.
        files: its source files, whose comments are read.
        measurements: kind to what it executed.

    Raises:
        CoverageInputError: settings, claims, outcomes or inventory cannot be used.
    """
    settings = load_feature_settings(root, pyproject)
    if settings is None:
        return None
    features = load_features(settings.file, tuple(measurements))
    outcomes = {kind: read_outcomes(data, kind) for kind in measurements if outcome_file(data, kind).exists()}
    wanted = {kind for feature in features for kind in feature.proof}
    silent = [
        f"{kind} tests: what became of them is not written down: run them with --outcomes "
        f"{outcome_file(data, kind)}"
        for kind in measurements
        if kind in wanted and kind not in outcomes
    ]
    matrix = build_feature_matrix(features, find_marks(root, files), measurements, outcomes)
    owned = ownership_problems(features, ask_inventory(root, settings.inventory))
    return FeatureMatrix(matrix.rows, (*silent, *owned, *matrix.problems))


def build_feature_matrix(
    features: Sequence[Feature],
    marks: Sequence[Mark],
    measurements: Mapping[str, Measurement],
    outcomes: Mapping[str, Sequence[TestOutcome]],
) -> FeatureMatrix:
    """Return what is proven, and what is wrong with marks and proofs.

    Nothing is proven by kinds without ``outcomes``, and nothing is said about what they lack.
    """
    known = {feature.id for feature in features}
    passed = {kind: passed_features(outcomes.get(kind, ())) for kind in measurements}
    rows = tuple(
        FeatureRow(
            feature,
            {
                kind: _proof(feature.id, marks, measured, passed[kind].get(feature.id, ()))
                for kind, measured in measurements.items()
            },
        )
        for feature in features
    )
    problems = [
        *(
            f"{mark.place}: marks {mark.feature!r}, which is no feature"
            for mark in marks
            if mark.feature not in known
        ),
        *_marks_of_nothing(marks, measurements),
        *(
            f"{outcome.test}: is marked with {feature!r}, which is no feature"
            for tests in outcomes.values()
            for outcome in tests
            for feature in outcome.features
            if feature not in known
        ),
        *(
            f"{row.feature.id}: not proven by {kind}: {lacks}"
            for row in rows
            for kind, lacks in row.missing.items()
            if kind in outcomes
        ),
    ]
    return FeatureMatrix(rows, tuple(problems))


def _proof(feature: str, marks: Iterable[Mark], measured: Measurement, passed: Iterable[str]) -> Proof:
    own = [mark for mark in marks if mark.feature == feature]
    ran = tuple(mark for mark in own if _ran(mark, measured))
    return Proof(tuple(passed), ran, tuple(mark for mark in own if mark not in ran))


def _ran(mark: Mark, measured: Measurement) -> bool:
    return mark.file in measured and mark.line in measured[mark.file].lines_hit


def _marks_of_nothing(marks: Iterable[Mark], measurements: Mapping[str, Measurement]) -> list[str]:
    return [
        f"{mark.place}: the mark {mark.feature!r} is at no statement that coverage counts"
        for mark in marks
        if not any(
            mark.file in measured and mark.line in measured[mark.file].lines
            for measured in measurements.values()
        )
    ]


def to_text(matrix: FeatureMatrix) -> str:
    """Return a table of features and kinds, the share proven from end to end, and what lacks that."""
    kinds = list(matrix.rows[0].proofs)
    table = [["feature", *kinds, "title"]]
    table += [
        [row.feature.id, *(_cell(row, kind) for kind in kinds), row.feature.title] for row in matrix.rows
    ]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    ]
    if END_TO_END in kinds:
        green = matrix.green(END_TO_END)
        without = [row.feature.id for row in matrix.rows if not row.proofs[END_TO_END].is_green]
        lines += ["", f"{green} % of features have an end-to-end proof ({green.hit} of {green.total})"]
        if without:
            lines.append(f"without one: {', '.join(without)}")
    return "\n".join(lines)


def _cell(row: FeatureRow, kind: str) -> str:
    if row.proofs[kind].is_green:
        return "proven"
    return "MISSING" if kind in row.feature.proof else "-"
