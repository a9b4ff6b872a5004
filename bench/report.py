"""The outcome as a table for the terminal, as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench.goals import GOALS, Verdict
from bench.peers import DIRECT, HAPROXY, NGINX, OURS
from bench.plot import plot
from bench.samples import Outcome, ratio

_HEADINGS = (
    "what", "unit", "direct", "haproxy", "nginx", "edgeproxy", "ours / haproxy", "ours / direct", "floor",
    "goal", "verdict", "CPU haproxy", "CPU nginx", "CPU ours",
)  # fmt: skip


def table(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    """One line for each row, headings first; ``-`` stands for what is not known."""
    return [_HEADINGS, *(_line(outcome) for outcome in outcomes)]


def _line(outcome: Outcome) -> tuple[str, ...]:
    goal = GOALS[outcome.row]
    return (
        outcome.what,
        outcome.unit,
        *(_number(outcome.typical(target)) for target in (DIRECT, HAPROXY, NGINX, OURS)),
        _number(outcome.figure, 2) if outcome.is_ratio else "-",
        _number(ratio(outcome.rounds, OURS, DIRECT), 2),
        _number(goal.floor),
        _number(goal.goal),
        _verdict(outcome),
        *(_number(outcome.cpu(target)) for target in (HAPROXY, NGINX, OURS)),
    )


def _verdict(outcome: Outcome) -> str:
    goal = GOALS[outcome.row]
    verdict = goal.judge(outcome.figure)
    if outcome.figure is None or verdict is Verdict.REACHED:
        return verdict.value
    return f"{verdict.value} (by {goal.shortfall(outcome.figure):.0%})"


def terminal(outcomes: Sequence[Outcome]) -> str:
    """The table in columns."""
    lines = table(outcomes)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index in (0, 1, 10) else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def markdown(outcomes: Sequence[Outcome], about: dict[str, str]) -> str:
    """The whole report."""
    headings, *lines = table(outcomes)
    parts = ["# Benchmark\n", *(f"- {key}: {value}" for key, value in about.items())]
    parts += [
        "",
        "Every ratio is the median over the rounds of the ratio within one round. CPU is the processor time,",
        "in seconds, of a proxy's processes for 100,000 of what the row counts, or for what its note says.",
        "",
        f"| {' | '.join(headings)} |",
        "|" + "---|" * len(headings),
        *(f"| {' | '.join(line)} |" for line in lines),
        "",
        "![ratios](report.svg)",
        "",
    ]
    for outcome in outcomes:
        notes = list(dict.fromkeys(outcome.notes))
        if outcome.errors:
            notes.append(f"{outcome.errors} requests failed, over all targets")
        if notes or outcome.profile:
            parts += [f"## {outcome.what}", "", *(f"- {note}" for note in notes), ""]
        if outcome.profile:
            parts += [outcome.profile]
    return "\n".join(parts)


def write(folder: Path, outcomes: Sequence[Outcome], about: dict[str, str]) -> None:
    """Write ``report.md``, ``report.json`` and ``report.svg``."""
    (folder / "report.md").write_text(markdown(outcomes, about), encoding="utf-8")
    everything = {
        "about": about,
        "rows": [{**asdict(outcome), "verdict": _verdict(outcome)} for outcome in outcomes],
    }
    (folder / "report.json").write_text(json.dumps(everything, indent=1), encoding="utf-8")
    (folder / "report.svg").write_text(plot(outcomes), encoding="utf-8")


def _number(value: float | None, places: int | None = None) -> str:
    if value is None:
        return "-"
    if places is not None:
        return f"{value:.{places}f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
