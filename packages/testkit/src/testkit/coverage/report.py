"""The matrix as text for a terminal, as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from testkit.coverage.assessment import Assessment
from testkit.coverage.gate import Failure
from testkit.coverage.matrix import Cell, Row


def to_text(rows: Sequence[Row], failures: Iterable[Failure]) -> str:
    """Return a table with one line per layer; a cell is lines / branches / functions, in per cent."""
    table = _table(rows, failures)
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    )


def to_markdown(rows: Sequence[Row], failures: Sequence[Failure]) -> str:
    """Return the same table in Markdown, what is missing below it."""
    head, *body = _table(rows, failures)
    table = [_markdown_row(head), _markdown_row(["---"] * len(head)), *map(_markdown_row, body)]
    missing = ["", "## Below the threshold", "", "```", *map(str, failures), "```"] if failures else []
    return "\n".join(
        ["# Coverage", "", "Lines / branches / functions, in per cent.", "", *table, *missing, ""]
    )


def to_json(rows: Iterable[Row], failures: Iterable[Failure]) -> str:
    """Return ``{"layers": {NAME: {"kinds", "counted", "required"}}, "failures": [...]}``."""
    layers = {
        row.name: {
            "kinds": {kind: _json_cell(cell) for kind, cell in row.by_kind.items()},
            "counted": _json_cell(row.counted),
            "required": {
                "kinds": row.requirement.kinds,
                "lines": float(row.requirement.lines),
                "branches": float(row.requirement.branches),
            },
        }
        for row in rows
    }
    broken = [
        {"layer": failure.layer, "metric": failure.metric, "missing": failure.missing} for failure in failures
    ]
    return json.dumps({"layers": layers, "failures": broken}, indent=2) + "\n"


def write_markdown(assessment: Assessment, path: Path) -> None:
    """Write the table, and what is missing below a threshold."""
    path.write_text(to_markdown(assessment.measured.rows, assessment.failures), encoding="utf-8")


def write_json(assessment: Assessment, path: Path) -> None:
    """Write the exact counts."""
    path.write_text(to_json(assessment.measured.rows, assessment.failures), encoding="utf-8")


def _table(rows: Sequence[Row], failures: Iterable[Failure]) -> list[list[str]]:
    broken = {failure.layer for failure in failures}
    kinds = list(rows[0].by_kind)
    table = [["layer", *kinds, "counted", "required", ""]]
    for row in rows:
        required = row.requirement
        table.append(
            [
                row.name,
                *(_text_cell(row.by_kind[kind]) for kind in kinds),
                _text_cell(row.counted),
                f"{float(required.lines):g} / {float(required.branches):g} by {' + '.join(required.kinds)}",
                "MISSED" if row.name in broken else "met",
            ]
        )
    return table


def _text_cell(cell: Cell) -> str:
    return f"{cell.lines} / {cell.branches} / {cell.functions}"


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _json_cell(cell: Cell) -> dict[str, dict[str, int]]:
    return {
        "lines": {"hit": cell.lines.hit, "total": cell.lines.total},
        "branches": {"hit": cell.branches.hit, "total": cell.branches.total},
        "functions": {"hit": cell.functions.hit, "total": cell.functions.total},
    }
