"""Which reports there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from testkit.coverage.assessment import Assessment
from testkit.coverage.report import write_json, write_markdown

WRITERS: Mapping[str, Callable[[Assessment, Path], None]] = {
    "coverage.json": write_json,
    "coverage.md": write_markdown,
}
"""File or folder below the output folder to what writes it."""


def write_reports(assessment: Assessment, output: Path) -> None:
    """Write every report into ``output``."""
    for name, write in WRITERS.items():
        write(assessment, output / name)
