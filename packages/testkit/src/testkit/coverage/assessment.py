"""Everything that a report can show: what was measured, and what the gates say about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from testkit.coverage.features_matrix import FeatureMatrix, judge_features
from testkit.coverage.gate import Failure, find_failures
from testkit.coverage.matrix import Row, build_matrix
from testkit.coverage.measurement import Measurement, MeasurementStore
from testkit.coverage.policy import Policy, load_policy
from testkit.coverage.sources import assign_sources
from testkit.coverage.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Measured:
    """The facts."""

    root: Path
    """The repository; every file below is named relative to it, with forward slashes."""
    policy: Policy
    sources: Mapping[str, Sequence[str]]
    """Layer to its files, layers in the policy's order."""
    measurements: Mapping[str, Measurement]
    """Kind of test to what it executed of every file, kinds in the policy's order."""
    rows: Sequence[Row]
    """The matrix: a row for each layer, the overall one last."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """The facts and the verdict."""

    measured: Measured
    failures: Sequence[Failure]
    features: FeatureMatrix | None = None
    """None where the repository claims none."""


def assess(workspace: Workspace) -> Assessment:
    """Combine the measurements below the workspace and ask every gate.

    Raises:
        CoverageInputError: policy, sources or measurements cannot be used.
    """
    policy = load_policy(workspace.pyproject)
    sources = assign_sources(workspace.root, policy)
    files = [file for layer_files in sources.values() for file in layer_files]
    store = MeasurementStore(workspace.data, workspace.root)
    measurements = {kind: store.measure(kind, files) for kind in policy.kinds}
    rows = build_matrix(policy, sources, measurements)
    measured = Measured(workspace.root, policy, sources, measurements, rows)
    features = judge_features(workspace.root, workspace.data, files, measurements)
    return Assessment(measured, find_failures(rows), features)
