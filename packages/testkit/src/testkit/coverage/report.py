"""The matrix as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from testkit.coverage.assessment import Assessment
from testkit.coverage.failure import Failure
from testkit.coverage.matrix import Cell, Row
from testkit.coverage.terminal import matrix_table


def write_markdown(assessment: Assessment, path: Path) -> None:
    """Write the table, and below it what failed."""
    measured, failures = assessment.measured, assessment.failures
    rows = [*measured.rows, *measured.groups]
    head, *body = matrix_table(rows, [failure.subject for failure in failures])
    table = [_markdown_row(head), _markdown_row(["---"] * len(head)), *map(_markdown_row, body)]
    missing = ["", "## Failures", "", "```", *map(str, failures), "```"] if failures else []
    text = ["# Coverage", "", "Lines / branches / functions, in per cent.", "", *table, *missing, ""]
    path.write_text("\n".join(text), encoding="utf-8")


def write_json(assessment: Assessment, path: Path) -> None:
    """Write ``{"layers": {NAME: {"kinds", "counted", "required"}}, "groups": ..., "failures": [...]}``."""
    measured = assessment.measured
    document = {
        "layers": _json_rows(measured.rows),
        "groups": _json_rows(measured.groups),
        "failures": [_json_failure(failure) for failure in assessment.failures],
    }
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _json_rows(rows: Iterable[Row]) -> dict[str, object]:
    return {
        row.name: {
            "kinds": {kind: _json_cell(cell) for kind, cell in row.by_kind.items()},
            "counted": _json_cell(row.counted),
            "required": {
                "kinds": row.requirement.kinds,
                "lines": float(row.requirement.lines),
                "branches": float(row.requirement.branches),
                "functions": float(row.requirement.functions),
            },
        }
        for row in rows
    }


def _json_failure(failure: Failure) -> dict[str, object]:
    return {
        "gate": failure.gate,
        "subject": failure.subject,
        "verdict": failure.verdict,
        "places": dict(failure.places),
    }


def _json_cell(cell: Cell) -> dict[str, dict[str, int]]:
    return {metric: {"hit": count.hit, "total": count.total} for metric, count in cell.metrics()}


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
