"""What the commands print."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from testkit.coverage.assessment import Assessment
from testkit.coverage.failure import percent
from testkit.coverage.gaps import Gap
from testkit.coverage.matrix import Cell, Count, Row
from testkit.coverage.policy import Requirement
from testkit.coverage.reach import count_reach


def print_assessment(assessment: Assessment) -> None:
    """Print the matrix, which kinds reach how much alone, and what the verdict rests on."""
    measured = assessment.measured
    rows = [*measured.rows, *measured.groups]
    print("lines / branches / functions in per cent, rounded down")
    print(format_table(matrix_table(rows, {failure.subject for failure in assessment.failures})))
    print("\nstatements that only one kind of test reaches")
    print(format_table(reach_table(rows)))
    print()
    for note in assessment.notes:
        print(f"note: {note}")
    for warning in assessment.warnings:
        print(f"warning: {warning}")


def matrix_table(rows: Sequence[Row], broken: Iterable[str]) -> list[list[str]]:
    """Return head and a line per row; ``broken`` holds the subjects of the failures."""
    subjects = frozenset(broken)
    kinds = list(rows[0].by_kind)
    table = [["layer", *kinds, "counted", "required", ""]]
    for row in rows:
        own = {row.name, *(f"{row.name} x {kind}" for kind in kinds), *(row.files if row.each_file else ())}
        table.append(
            [
                row.name,
                *(format_cell(row.by_kind[kind]) for kind in kinds),
                format_cell(row.counted),
                format_requirement(row.requirement),
                "MISSED" if own & subjects else "met",
            ]
        )
    return table


def reach_table(rows: Sequence[Row]) -> list[list[str]]:
    """Return head and a line per row: statements reached by one kind alone, by several, by nothing."""
    counts = {row.name: count_reach(row) for row in rows}
    head = ["layer", *(f"only {kind}" for kind in rows[0].by_kind), "several", "nothing"]
    return [head, *([name, *map(str, count.values())] for name, count in counts.items())]


def gap_table(gaps: Iterable[Gap]) -> list[list[str]]:
    """Return head and a line per gap."""
    head = ["score", "complexity", "uncovered", "churn", "weight", "function", "lines and branches"]
    return [
        head,
        *(
            [
                percent(gap.score),
                *(str(gap.complexity), str(gap.uncovered), str(gap.churn), percent(gap.weight)),
                f"{gap.file}:{gap.line} {gap.function}",
                gap.where,
            ]
            for gap in gaps
        ),
    ]


def format_table(table: Sequence[Sequence[str]]) -> str:
    """Return the table with columns of equal width."""
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    )


def format_cell(cell: Cell) -> str:
    """Return ``98.12 / 97 / 100``."""
    return " / ".join(_short(count) for _, count in cell.metrics())


def format_requirement(requirement: Requirement) -> str:
    """Return ``95 / 95 / 0 by unit + e2e``."""
    thresholds = (requirement.lines, requirement.branches, requirement.functions)
    return f"{' / '.join(map(percent, thresholds))} by {' + '.join(requirement.kinds)}"


def _short(count: Count) -> str:
    # Text of a count is rounded down, so that nothing but all is written as 100.
    return str(count).removesuffix(".00")
