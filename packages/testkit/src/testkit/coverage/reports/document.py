"""Everything that an assessment knows, as plain values: ``coverage.json``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from testkit.coverage.assessment import Assessment
from testkit.coverage.failure import Failure
from testkit.coverage.matrix import Cell, Row
from testkit.coverage.reach import kinds_reaching


def write_json(assessment: Assessment, path: Path) -> None:
    """Write layers, groups, files, features, gaps and the verdict, with exact counts."""
    path.write_text(json.dumps(to_document(assessment)) + "\n", encoding="utf-8")


def to_document(assessment: Assessment) -> dict[str, object]:
    """Return what ``coverage.json`` holds; shares stand as ``{"hit", "total"}``."""
    measured = assessment.measured
    return {
        "kinds": list(measured.measurements),
        "layers": _rows(measured.rows),
        "groups": _rows(measured.groups),
        "files": {
            file: {"layer": layer, "statements": _statements(assessment, file)}
            for layer, files in measured.sources.layers.items()
            for file in files
        },
        "features": _features(assessment),
        "gaps": [
            {
                "layer": gap.layer,
                "file": gap.file,
                "line": gap.line,
                "function": gap.function,
                "score": float(gap.score),
                "where": gap.where,
            }
            for gap in assessment.gaps
        ],
        "failures": _failures(assessment.failures),
        "warnings": _failures(assessment.warnings),
        "notes": list(assessment.notes),
    }


def _rows(rows: Iterable[Row]) -> dict[str, object]:
    return {
        row.name: {
            "kinds": {kind: _cell(cell) for kind, cell in row.by_kind.items()},
            "counted": _cell(row.counted),
            "required": {
                "kinds": list(row.requirement.kinds),
                "lines": float(row.requirement.lines),
                "branches": float(row.requirement.branches),
                "functions": float(row.requirement.functions),
            },
        }
        for row in rows
    }


def _cell(cell: Cell) -> dict[str, object]:
    return {metric: {"hit": count.hit, "total": count.total} for metric, count in cell.metrics()}


def _statements(assessment: Assessment, file: str) -> dict[str, list[str]]:
    """Line to the kinds of test that executed it."""
    reached = kinds_reaching(assessment.measured.measurements, file)
    return {str(line): list(kinds) for line, kinds in reached.items()}


def _features(assessment: Assessment) -> list[dict[str, object]]:
    if assessment.features is None:
        return []
    return [
        {
            "id": row.feature.id,
            "title": row.feature.title,
            "wanted": list(row.feature.proof),
            "proven": [kind for kind, proof in row.proofs.items() if proof.is_green],
        }
        for row in assessment.features.rows
    ]


def _failures(failures: Iterable[Failure]) -> list[dict[str, object]]:
    return [
        {
            "gate": failure.gate,
            "subject": failure.subject,
            "verdict": failure.verdict,
            "places": dict(failure.places),
        }
        for failure in failures
    ]
