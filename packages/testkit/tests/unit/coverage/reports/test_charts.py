from __future__ import annotations

from xml.etree.ElementTree import Element

from testkit.coverage.reports.charts import bars, lines


def rectangles(chart: Element) -> list[tuple[float, float, str]]:
    return [
        (float(each.get("x", "")), float(each.get("width", "")), each[0].text or "")
        for each in chart.iter("rect")
    ]


def test_bars_stand_end_to_end_and_are_as_long_as_their_numbers() -> None:
    chart = bars({"core": {"unit": 30, "e2e": 10}, "shell": {"unit": 0, "e2e": 20}}, "tests")
    (left, unit, first), (middle, e2e, second), (_, shell, _) = rectangles(chart)
    assert unit == 3 * e2e == 1.5 * shell
    assert middle == left + unit
    assert (first, second) == ("core: 30 unit", "core: 10 e2e")
    assert [each.text for each in chart.iter("text")] == ["core", "40", "shell", "20"]
    assert chart.get("aria-label") == "tests"


def test_no_bars_are_an_empty_chart() -> None:
    assert list(bars({}, "tests")) == []


def test_lines_rise_with_their_values_and_leave_gaps_out() -> None:
    chart = lines({"lines": [90.0, None, 100.0]}, ["first", "second", "third"], "share")
    dots = [(float(each.get("cx", "")), float(each.get("cy", ""))) for each in chart.iter("circle")]
    (early, low), (late, high) = dots
    assert early < late
    assert high < low, "upwards is towards 0"
    assert [each.text for each in chart.iter("title")] == ["first: lines 90.00 %", "third: lines 100.00 %"]
    assert [each.text for each in chart.iter("text")] == ["90", "95", "100", "first", "third"]


def test_one_run_is_one_dot() -> None:
    chart = lines({"lines": [50.0]}, ["only"], "share")
    assert len(list(chart.iter("circle"))) == 1
    assert [each.text for each in chart.iter("text")][-1] == "only"


def test_no_runs_are_a_scale_alone() -> None:
    assert len(list(lines({}, [], "share").iter("line"))) == 3
