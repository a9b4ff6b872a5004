"""What became of each test, as pytest's plugin of this package writes it down: one JSON object a line.

``pytest --outcomes FILE`` writes ``{"test": id, "outcome": "passed", "features": [...], "seconds": 0.1}``
for each test; the outcomes are passed, failed and skipped. An expected failure counts as skipped: it proves
nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from testkit.coverage.errors import CoverageInputError


@dataclass(frozen=True, slots=True)
class TestOutcome:
    """One test of one run."""

    __test__ = False

    test: str
    outcome: str
    features: tuple[str, ...]
    seconds: float

    @property
    def file(self) -> str:
        """The file it is in, relative to the repository."""
        return self.test.partition("::")[0]


def outcome_file(folder: Path, kind: str) -> Path:
    """Where the outcomes of one kind of test are, beside its measurements."""
    return folder / f"outcomes.{kind}.jsonl"


def read_outcomes(folder: Path, kind: str) -> list[TestOutcome]:
    """Return what the tests of ``kind`` said.

    Raises:
        CoverageInputError: there is no such file, or it is damaged.
    """
    file = outcome_file(folder, kind)
    if not file.exists():
        raise CoverageInputError([f"no outcomes of {kind} tests: run them with --outcomes {file}"])
    return list(_parse(file))


def _parse(file: Path) -> Iterator[TestOutcome]:
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            entry = json.loads(line)
            yield TestOutcome(
                str(entry["test"]), str(entry["outcome"]), tuple(entry["features"]), float(entry["seconds"])
            )
        except (ValueError, KeyError, TypeError) as error:
            raise CoverageInputError([f"{file}:{number}: no outcome of a test: {error!r}"]) from error


def passed_features(outcomes: Iterable[TestOutcome]) -> dict[str, list[str]]:
    """Return feature id to the tests marked with it that passed."""
    passed: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.outcome == "passed":
            for feature in outcome.features:
                passed.setdefault(feature, []).append(outcome.test)
    return passed
