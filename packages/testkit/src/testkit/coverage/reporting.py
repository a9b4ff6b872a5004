"""Which reports there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from testkit.coverage.assessment import Assessment
from testkit.coverage.reports.badge import write_badge
from testkit.coverage.reports.cobertura import write_cobertura
from testkit.coverage.reports.document import write_json
from testkit.coverage.reports.history import FILE_NAME, write_history
from testkit.coverage.reports.lcov import write_lcov
from testkit.coverage.reports.markdown import write_markdown
from testkit.coverage.reports.page import write_page

WRITERS: Mapping[str, Callable[[Assessment, Path], None]] = {
    "coverage.json": write_json,
    "coverage.md": write_markdown,
    "coverage.lcov": write_lcov,
    "coverage.xml": write_cobertura,
    "badge.svg": write_badge,
    # The page shows the history, which has this run in it by then.
    FILE_NAME: write_history,
    "index.html": write_page,
}
"""File or folder below the output folder to what writes it."""


def write_reports(assessment: Assessment, output: Path) -> None:
    """Write every report into ``output``."""
    for name, write in WRITERS.items():
        write(assessment, output / name)
