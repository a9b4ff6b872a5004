"""Small things of the page; what it looks like as a whole is seen in a browser."""

from __future__ import annotations

import pytest

from testkit.coverage.matrix import Cell, Count
from testkit.coverage.reports.page import _heat, _readable


@pytest.mark.parametrize(
    ("hit", "total", "shade"),
    [(5, 5, "shade0"), (0, 0, "shade0"), (19, 20, "shade1"), (1, 5, "shade6"), (0, 5, "none")],
)
def test_a_cell_is_shaded_by_its_lines_and_not_at_all_without_any(hit: int, total: int, shade: str) -> None:
    cell = Cell(Count(hit, total), Count(0, 1), Count(0, 1))
    assert _heat(cell).attrib["class"] == shade


def test_a_time_is_written_for_people() -> None:
    assert _readable("2026-11-21T16:07:30+00:00") == "2026-11-21 16:07 UTC"
