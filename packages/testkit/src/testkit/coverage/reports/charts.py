"""Pictures for the page, as SVG that takes its colours from the page's style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.etree.ElementTree import Element

from testkit.coverage.reports.elements import add, element, text

_WIDTH = 720
_ROW_PX = 26
_LABEL_PX = 130
_NUMBER_PX = 60
_LINES_HEIGHT_PX = 220
_MARGIN_PX = 36
_SCALE_PX = 70


def bars(rows: Mapping[str, Mapping[str, int]], label: str) -> Element:
    """Return a bar for each row, in it a part for each kind as long as its number, the sum behind it."""
    kinds = list(next(iter(rows.values()), {}))
    longest = max((sum(numbers.values()) for numbers in rows.values()), default=0) or 1
    scale = (_WIDTH - _LABEL_PX - _NUMBER_PX) / longest
    chart = _chart(len(rows) * _ROW_PX, label)
    for place, (name, numbers) in enumerate(rows.items()):
        top, left = place * _ROW_PX, float(_LABEL_PX)
        add(chart, _words(_LABEL_PX - 8, top + 17, name, anchor="end"))
        for kind, number in numbers.items():
            if number:
                area = {"x": f"{left:.1f}", "y": str(top + 4), "width": f"{number * scale:.1f}"}
                shape = {**area, "height": "18", "class": f"series s{kinds.index(kind)}"}
                hint = element("title", {}, text(f"{name}: {number} {kind}"))
                add(chart, element("rect", shape, hint))
                left += number * scale
        add(chart, _words(left + 6, top + 17, str(sum(numbers.values()))))
    return chart


def lines(series: Mapping[str, Sequence[float | None]], captions: Sequence[str], label: str) -> Element:
    """Return a line for each series over runs from left to right, in per cent; None leaves a run out."""
    chart = _chart(_LINES_HEIGHT_PX, label)
    known = [value for values in series.values() for value in values if value is not None]
    # Most of the scale would be empty from 0 on: all that happens happens near the top.
    least = min([*known, 99.0]) // 5 * 5
    height = _LINES_HEIGHT_PX - 2 * _MARGIN_PX
    step = (_WIDTH - _SCALE_PX - _MARGIN_PX) / max(len(captions) - 1, 1)

    def at(run: int, value: float) -> tuple[float, float]:
        return _SCALE_PX + run * step, _MARGIN_PX + (100 - value) / (100 - least) * height

    for value in (least, (least + 100) / 2, 100.0):
        _, y = at(0, value)
        ends = {"x1": str(_SCALE_PX), "x2": str(_WIDTH - _MARGIN_PX), "y1": f"{y:.1f}", "y2": f"{y:.1f}"}
        add(chart, element("line", {**ends, "class": "grid"}))
        add(chart, _words(_SCALE_PX - 6, y + 4, f"{value:g}", anchor="end"))
    for number, (name, values) in enumerate(series.items()):
        points = [(run, value, *at(run, value)) for run, value in enumerate(values) if value is not None]
        path = " ".join(f"{x:.1f},{y:.1f}" for _, _, x, y in points)
        add(chart, element("polyline", {"points": path, "class": f"line l{number}"}))
        for run, value, x, y in points:
            place = {"cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": "3", "class": f"series s{number}"}
            hint = element("title", {}, text(f"{captions[run]}: {name} {value:.2f} %"))
            add(chart, element("circle", place, hint))
    for run in sorted({0, len(captions) - 1}) if captions else ():
        x, _ = at(run, 100)
        anchor = "start" if run == 0 else "end"
        add(chart, _words(x, _LINES_HEIGHT_PX - 10, captions[run], anchor=anchor))
    return chart


def _chart(height_px: int, label: str) -> Element:
    view = f"0 0 {_WIDTH} {height_px}"
    return element("svg", {"viewBox": view, "role": "img", "aria-label": label, "class": "chart"})


def _words(x: float, y: float, words: str, anchor: str = "start") -> Element:
    return element("text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}, text(words))
