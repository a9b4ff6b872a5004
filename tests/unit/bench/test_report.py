"""From samples to ratios, verdicts, tables, JSON and the plot."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench.goals import GOALS, Goal, Verdict
from bench.report import markdown, table, terminal, write
from bench.rounds import COMPARED, ROWS
from bench.samples import Outcome, Sample, added_ratio, ratio

ABOUT = {"when": "2026-01-01", "cores": "2"}


def rounds(**figures: list[float]) -> dict[str, list[Sample]]:
    return {
        target: [Sample(figure, cpu_s_per_1e5=figure / 10) for figure in all_]
        for target, all_ in figures.items()
    }


def outcome(row: str = "k64", figure: float | None = 0.96, **figures: list[float]) -> Outcome:
    return Outcome(row, "keep-alive", "requests/s", rounds(**figures), figure)


def test_the_ratio_is_the_median_of_the_ratios_within_rounds() -> None:
    # The machine was three times as fast in the second round, for all.
    measured = rounds(edgeproxy=[90, 330, 100], haproxy=[100, 300, 100])
    assert ratio(measured, "edgeproxy", "haproxy") == 1.0


def test_without_a_peer_there_is_no_ratio() -> None:
    assert ratio(rounds(edgeproxy=[1]), "edgeproxy", "haproxy") is None


def test_what_is_added_is_compared_without_the_base() -> None:
    measured = rounds(direct=[20, 20, 30], haproxy=[50, 20, 60], edgeproxy=[59, 40, 66])
    # A peer that added nothing in the second round says nothing about it.
    assert added_ratio(measured, "edgeproxy", "haproxy", "direct") == pytest.approx((39 / 30 + 36 / 30) / 2)


@pytest.mark.parametrize(
    ("goal", "figure", "verdict"),
    [
        (Goal(0.8, 1.0), 0.79, Verdict.BELOW_FLOOR),
        (Goal(0.8, 1.0), 0.8, Verdict.BELOW_GOAL),
        (Goal(0.8, 1.0), 1.0, Verdict.REACHED),
        (Goal(0.6, 0.3, more_is_better=False), 0.61, Verdict.BELOW_FLOOR),
        (Goal(0.6, 0.3, more_is_better=False), 0.6, Verdict.BELOW_GOAL),
        (Goal(0.6, 0.3, more_is_better=False), 0.3, Verdict.REACHED),
        (Goal(0.8, 1.0), None, Verdict.UNKNOWN),
    ],
)
def test_a_figure_is_judged_by_floor_and_goal(goal: Goal, figure: float | None, verdict: Verdict) -> None:
    assert goal.judge(figure) is verdict


def test_a_goal_is_missed_by_a_share_of_it() -> None:
    assert Goal(0.8, 1.0).shortfall(0.9) == pytest.approx(0.1)
    assert Goal(0.6, 0.3, more_is_better=False).shortfall(0.45) == pytest.approx(0.5)


def test_every_row_has_a_goal_and_every_goal_is_stricter_than_its_floor() -> None:
    assert set(COMPARED) < set(ROWS) == set(GOALS)
    assert all((goal.goal > goal.floor) is goal.more_is_better for goal in GOALS.values())


def test_the_table_shows_figures_bounds_and_processor_time() -> None:
    headings, line = table([outcome(edgeproxy=[96.0], haproxy=[100.0], direct=[200.0])])
    shown = dict(zip(headings, line, strict=True))
    assert shown["haproxy"] == "100"
    assert shown["nginx"] == "-"
    assert shown["ours / haproxy"] == "0.96"
    assert shown["ours / direct"] == "0.48"
    assert (shown["floor"], shown["goal"]) == ("0.95", "1.05")
    assert shown["verdict"] == "below the goal (by 9%)"
    assert (shown["CPU haproxy"], shown["CPU ours"]) == ("10", "9.6")


def test_columns_of_the_terminal_are_aligned() -> None:
    first, second = terminal([outcome(edgeproxy=[123456.0])]).splitlines()
    assert first.index("edgeproxy") + len("edgeproxy") == second.index("123,456") + len("123,456")


def test_markdown_tells_what_is_missing_what_failed_and_where_the_time_goes() -> None:
    missed = outcome(edgeproxy=[1.0])
    missed.notes = ["haproxy is not installed"] * 2
    missed.rounds["edgeproxy"].append(Sample(1.0, errors=3))
    missed.profile = "the profile"
    said = markdown([missed], ABOUT)
    assert said.count("haproxy is not installed") == 1
    assert "3 requests failed" in said
    assert "the profile" in said
    assert "- cores: 2" in said


def test_writes_json_and_a_plot_beside_the_report(tmp_path: Path) -> None:
    outcomes = [
        outcome(edgeproxy=[90.0], haproxy=[100.0]),
        Outcome("start", "start <first>", "s", figure=0.25, is_ratio=False),
        outcome("bulk", figure=None),
    ]
    write(tmp_path, outcomes, ABOUT)
    rows = json.loads((tmp_path / "report.json").read_text())["rows"]
    assert [row["row"] for row in rows] == ["k64", "start", "bulk"]
    assert rows[0]["rounds"]["edgeproxy"][0]["figure"] == 90.0
    assert rows[2]["verdict"] == "not measured"
    image = ET.fromstring((tmp_path / "report.svg").read_text())
    texts = [each.text for each in image.iter("{http://www.w3.org/2000/svg}text")]
    assert "start <first>" in texts
    assert "0.25" in texts
    assert "keep-alive" in texts
    assert (tmp_path / "report.md").read_text().startswith("# Benchmark")


def test_in_the_plot_longer_is_better_for_figures_of_which_less_is_better(tmp_path: Path) -> None:
    write(
        tmp_path,
        [Outcome("start", "slow", "s", figure=0.6), Outcome("start", "fast", "s", figure=0.3)],
        ABOUT,
    )
    image = ET.fromstring((tmp_path / "report.svg").read_text())
    _, slow, fast = (
        float(each.get("width", "").rstrip("%")) for each in image.iter("{http://www.w3.org/2000/svg}rect")
    )
    assert fast == pytest.approx(2 * slow, rel=0.01)
