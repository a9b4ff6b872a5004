"""How the numbers went from run to run: ``history.jsonl``, one line for each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from testkit.coverage.assessment import Assessment
from testkit.coverage.errors import CoverageInputError
from testkit.coverage.features_matrix import END_TO_END
from testkit.coverage.git import Repository
from testkit.coverage.matrix import Count

FILE_NAME = "history.jsonl"


@dataclass(frozen=True, slots=True)
class Run:
    """One line of the history."""

    at: str
    """Universal time, ISO 8601."""
    commit: str
    """Empty outside of a repository."""
    layers: Mapping[str, Mapping[str, Count]]
    """Row of the matrix to metric to its count, by the kinds of its requirement."""
    features: Count
    """Those proven from end to end."""
    failures: int


def write_history(assessment: Assessment, path: Path) -> None:
    """Append this run."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(_entry(assessment)) + "\n")


def read_history(path: Path) -> list[Run]:
    """Return the runs, the oldest first; none where nothing was written.

    Raises:
        CoverageInputError: a line is damaged.
    """
    if not path.exists():
        return []
    runs: list[Run] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            runs.append(_run(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CoverageInputError([f"{path}:{number}: no run of the history: {error!r}"]) from error
    return runs


def _entry(assessment: Assessment) -> dict[str, object]:
    measured, features = assessment.measured, assessment.features
    proven = features.green(END_TO_END) if features is not None else Count(0, 0)
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": Repository(measured.root).head() or "",
        "layers": {
            row.name: {metric: [count.hit, count.total] for metric, count in row.counted.metrics()}
            for row in measured.rows
        },
        "features": [proven.hit, proven.total],
        "failures": len(assessment.failures),
    }


def _run(entry: Mapping[str, Any]) -> Run:
    layers = {
        name: {metric: Count(*count) for metric, count in metrics.items()}
        for name, metrics in entry["layers"].items()
    }
    features = Count(*entry["features"])
    return Run(str(entry["at"]), str(entry["commit"]), layers, features, int(entry["failures"]))
