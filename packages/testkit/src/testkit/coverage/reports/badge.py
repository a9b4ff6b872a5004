"""A badge, as it stands in a README: the share of branches that all tests together take."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import ElementTree

from testkit.coverage.assessment import Assessment
from testkit.coverage.reports.elements import element, text

_LABEL = "coverage"
_GREEN_PERCENT, _AMBER_PERCENT = 95, 80
_CHARACTER_PX = 6.6
_PADDING_PX = 7.0


def write_badge(assessment: Assessment, path: Path) -> None:
    """Write an SVG; red when a gate fails, else by the share."""
    count = assessment.measured.rows[-1].counted.branches
    if assessment.failures:
        colour = "#b3261e"
    elif count.percent >= _GREEN_PERCENT:
        colour = "#2e7d32"
    else:
        colour = "#9a6700" if count.percent >= _AMBER_PERCENT else "#b3261e"
    value = f"{count} %" if count.total else "no branches"
    left, right = _width(_LABEL), _width(value)
    badge = element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "width": f"{left + right:g}",
            "height": "20",
            "role": "img",
            "aria-label": f"{_LABEL}: {value}",
            "font-family": "Verdana, DejaVu Sans, sans-serif",
            "font-size": "11",
            "fill": "#fff",
            "text-anchor": "middle",
        },
        element("title", {}, text(f"{_LABEL}: {value}")),
        element("rect", {"width": f"{left + right:g}", "height": "20", "rx": "3", "fill": "#444"}),
        element("rect", {"x": f"{left:g}", "width": f"{right:g}", "height": "20", "rx": "3", "fill": colour}),
        element("rect", {"x": f"{left:g}", "width": "4", "height": "20", "fill": colour}),
        element("text", {"x": f"{left / 2:g}", "y": "14"}, text(_LABEL)),
        element("text", {"x": f"{left + right / 2:g}", "y": "14"}, text(value)),
    )
    ElementTree(badge).write(path, encoding="utf-8")


def _width(words: str) -> float:
    return round(len(words) * _CHARACTER_PX + 2 * _PADDING_PX, 1)
