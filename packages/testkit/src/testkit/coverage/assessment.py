"""Everything that a report can show: what was measured, and what the gates say about it."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import coverage

from testkit.coverage.data_files import DataFolder, changed_since
from testkit.coverage.exclusions import (
    Exclusion,
    excluding_patterns,
    find_exclusions,
    find_idle_patterns,
    judge_exclusions,
)
from testkit.coverage.failure import Failure
from testkit.coverage.features_matrix import FeatureMatrix, judge_features
from testkit.coverage.features_outcomes import TestOutcome, outcome_file, read_outcomes
from testkit.coverage.gaps import CHURN_SINCE, Gap, rank_gaps
from testkit.coverage.git import Base, Repository
from testkit.coverage.matrix import Row, build_matrix, build_row
from testkit.coverage.measurement import Measurement, MeasurementStore, union
from testkit.coverage.new_code import ChangedFile, find_new_code, judge_new_code
from testkit.coverage.policy import Policy, thresholds_of
from testkit.coverage.policy_reader import load_policy
from testkit.coverage.ratchet import (
    BaselineStore,
    Loss,
    find_idle_lowerings,
    find_losses,
    find_lowered_thresholds,
    judge_losses,
    read_base_thresholds,
)
from testkit.coverage.sources import Sources, assign_sources
from testkit.coverage.thresholds import find_failures, find_slack
from testkit.coverage.unstable import read_unstable
from testkit.coverage.workspace import Workspace

_EDITS_NAMED = 5
"""A fresh checkout makes all files newer than measurements that were brought there."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The facts."""

    root: Path
    """The repository; every file below is named relative to it, with forward slashes."""
    policy: Policy
    sources: Sources
    measurements: Mapping[str, Measurement]
    """Kind of test to what it executed of every file, kinds in the policy's order."""
    rows: Sequence[Row]
    """The matrix: a row for each layer, the overall one last."""
    groups: Sequence[Row]
    """A row for each group of files."""

    @property
    def layers(self) -> Sequence[Row]:
        """The rows without the overall one."""
        return self.rows[:-1]


@dataclass(slots=True)
class Assessment:
    """The facts and the verdict."""

    measured: Measured
    failures: list[Failure] = field(default_factory=list)
    """What makes the gate fail."""
    warnings: list[Failure] = field(default_factory=list)
    """What does not."""
    notes: list[str] = field(default_factory=list)
    """What the verdict rests on: which base, which baseline; also what could not be judged, and why."""
    features: FeatureMatrix | None = None
    """None where the repository claims none."""
    outcomes: Mapping[str, Sequence[TestOutcome]] = field(default_factory=dict)
    """Kind to what became of its tests, for the kinds of which that was written down."""
    exclusions: Sequence[Exclusion] = ()
    """What is left out of the count."""
    gaps: Sequence[Gap] = ()
    """What to test next, the worst first."""
    new_code: Sequence[ChangedFile] = ()
    """What changed since the base."""
    losses: Sequence[Loss] = ()
    """What the baseline covered and is missed now."""


def measure(workspace: Workspace) -> Measured:
    """Combine the measurements below the workspace.

    Raises:
        CoverageInputError: policy, sources or measurements cannot be used.
    """
    policy = load_policy(workspace.pyproject)
    sources = assign_sources(workspace.root, policy)
    store = MeasurementStore(
        DataFolder(workspace.data, policy.data), workspace.root, workspace.pyproject, sources.files
    )
    with _collecting_no_garbage():
        measurements = {kind: store.measure(kind) for kind in policy.kinds}
    rows = build_matrix(policy, sources.layers, measurements)
    groups = [build_row(group, sources.groups[group.name], measurements) for group in policy.groups]
    return Measured(workspace.root, policy, sources, measurements, rows, groups)


@contextmanager
def _collecting_no_garbage() -> Iterator[None]:
    """Leave cycles alone for a while: parsing makes millions of values and none, and a tenth of the time
    went into looking for them."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def assess(workspace: Workspace, base: str | None = None) -> Assessment:
    """Measure and ask every gate.

    Args:
        workspace: where everything is.
        base: the revision that changes are held against, instead of the merge base.

    Raises:
        CoverageInputError: there can be no verdict.
    """
    measured = measure(workspace)
    policy = measured.policy
    assessment = Assessment(measured)
    rows = [*measured.rows, *measured.groups]
    assessment.failures += find_failures(rows)
    if policy.slack is not None:
        assessment.warnings += find_slack(rows, policy.slack)
    _warn_of_edits(assessment, workspace)
    _judge_features(assessment, workspace)
    _judge_exclusions(assessment, workspace)
    repository = Repository(workspace.root)
    _judge_changes(assessment, workspace, repository, base)
    weights = {layer.name: layer.weight for layer in policy.layers}
    assessment.gaps = rank_gaps(measured.layers, weights, repository.churn(CHURN_SINCE))
    return assessment


def _warn_of_edits(assessment: Assessment, workspace: Workspace) -> None:
    measured = assessment.measured
    folder = DataFolder(workspace.data, measured.policy.data)
    data = [file for kind in measured.policy.kinds for file in folder.of_kind(kind)]
    sources = [workspace.root / file for file in measured.sources.files]
    edited = [path.relative_to(workspace.root).as_posix() for path in changed_since(sources, data)]
    if edited:
        named = ", ".join(edited[:_EDITS_NAMED])
        more = f" and {len(edited) - _EDITS_NAMED} more" if len(edited) > _EDITS_NAMED else ""
        verdict = "edited since the first test was measured, lines may have moved"
        assessment.warnings.append(Failure("stale", f"{named}{more}", verdict))


def _judge_features(assessment: Assessment, workspace: Workspace) -> None:
    measured = assessment.measured
    assessment.outcomes = {
        kind: read_outcomes(workspace.data, kind)
        for kind in measured.measurements
        if outcome_file(workspace.data, kind).exists()
    }
    assessment.features = judge_features(
        workspace.root, workspace.pyproject, workspace.data, measured.sources.files, measured.measurements
    )
    if assessment.features:
        for problem in assessment.features.problems:
            subject, _, verdict = problem.partition(": ")
            assessment.failures.append(Failure("features", subject, verdict))


def _judge_exclusions(assessment: Assessment, workspace: Workspace) -> None:
    measured = assessment.measured
    policy = measured.policy.exclusions
    settings = coverage.Coverage(data_file=None, config_file=str(workspace.pyproject))
    patterns = excluding_patterns(settings)
    files = union(measured.measurements.values())
    assessment.exclusions = find_exclusions(files, workspace.root, patterns, policy)
    if policy:
        assessment.failures += judge_exclusions(assessment.exclusions, patterns, policy)
        assessment.warnings += find_idle_patterns(patterns, policy)


def _judge_changes(
    assessment: Assessment, workspace: Workspace, repository: Repository, named: str | None
) -> None:
    policy = assessment.measured.policy
    if policy.new_code is None and policy.ratchet is None:
        return
    base = repository.find_base(policy.base, named)
    if isinstance(base, str):
        assessment.notes.append(f"no base to compare with: {base}; new code and losses are not judged")
        return
    if policy.new_code:
        counted = union(row.files for row in assessment.measured.layers)
        assessment.new_code = find_new_code(repository.difference(base.commit), counted)
        assessment.failures += judge_new_code(assessment.new_code, policy.new_code)
        assessment.notes.append(
            f"new code: {len(assessment.new_code)} files with new statements since {base}"
        )
    if policy.ratchet:
        _judge_losses(assessment, workspace, repository, base)


def _judge_losses(assessment: Assessment, workspace: Workspace, repository: Repository, base: Base) -> None:
    measured, policy = assessment.measured, assessment.measured.policy
    assert policy.ratchet is not None
    before, note = read_base_thresholds(_settings_at(base, workspace, repository), base)
    now, lowered = thresholds_of(policy), policy.ratchet.lowered
    assessment.failures += find_lowered_thresholds(before, now, lowered, base)
    assessment.notes.append(f"ratchet: {note}")
    baseline, note = BaselineStore(workspace.baselines, repository, policy.ratchet.baseline).find(base)
    assessment.notes.append(f"ratchet: {note}")
    if baseline is None:
        return
    unstable = read_unstable(workspace.root / policy.unstable) if policy.unstable else frozenset()
    difference = repository.difference(baseline.commit)
    assessment.losses = find_losses(baseline, difference, measured.layers, workspace.root, unstable)
    assessment.failures += judge_losses(
        assessment.losses, measured.layers, measured.sources.critical, policy.ratchet
    )
    assessment.warnings += find_idle_lowerings(before, now, lowered, assessment.losses)


def _settings_at(base: Base, workspace: Workspace, repository: Repository) -> bytes | None:
    if not workspace.pyproject.is_relative_to(workspace.root):
        return None
    return repository.content(base.commit, workspace.pyproject.relative_to(workspace.root).as_posix())
