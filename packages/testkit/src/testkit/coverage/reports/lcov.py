"""LCOV's tracefile, which editors and hosts of repositories read; all kinds of test together.

The format is that of ``geninfo(1)``; branches are named by the line that they lead to.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from testkit.coverage.assessment import Assessment
from testkit.coverage.measurement import FileMeasurement, union


def write_lcov(assessment: Assessment, path: Path) -> None:
    """Write one record for each source file."""
    together = union(assessment.measured.measurements.values())
    records = [line for file, measured in sorted(together.items()) for line in _record(file, measured)]
    path.write_text("\n".join(["TN:", *records, ""]), encoding="utf-8")


def _record(file: str, measured: FileMeasurement) -> Iterator[str]:
    yield f"SF:{_one_line(file)}"
    called = measured.functions_hit
    for function in measured.functions:
        yield f"FN:{function.line},{function.name}"
    for function in measured.functions:
        yield f"FNDA:{int(function in called)},{function.name}"
    yield f"FNF:{len(measured.functions)}"
    yield f"FNH:{len(called)}"
    for start, end in sorted(measured.branches):
        # A line that was never reached has branches of which nothing is known: LCOV writes a dash.
        taken = "-" if start not in measured.lines_hit else int((start, end) in measured.branches_hit)
        yield f"BRDA:{start},0,{'exit' if end < 0 else f'to {end}'},{taken}"
    yield f"BRF:{len(measured.branches)}"
    yield f"BRH:{len(measured.branches_hit)}"
    for line in sorted(measured.lines):
        yield f"DA:{line},{int(line in measured.lines_hit)}"
    yield f"LF:{len(measured.lines)}"
    yield f"LH:{len(measured.lines_hit)}"
    yield "end_of_record"


def _one_line(name: str) -> str:
    """A record is known by its lines, which a name must not add to."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in name)
