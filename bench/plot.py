"""One bar for each row: how near its figure comes to the goal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from xml.sax.saxutils import escape

from bench.goals import GOALS, Verdict
from bench.samples import Outcome

_LEFT, _WIDTH, _ROW, _TOP = 330, 420, 34, 50
_MOST: Final = 1.6
"""Beyond so many times the goal a bar is cut off."""
_COLOURS: Final = {
    Verdict.REACHED: "#2e7d32",
    Verdict.BELOW_GOAL: "#f9a825",
    Verdict.BELOW_FLOOR: "#c62828",
}


def plot(outcomes: Sequence[Outcome]) -> str:
    """An SVG in which longer is better and the goal is the same line for all rows."""
    measured = [(outcome, outcome.figure) for outcome in outcomes if outcome.figure]
    height = _TOP + _ROW * len(measured) + 20
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 90}" height="{height}" '
            'font-family="sans-serif" font-size="13">'
        ),
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_LEFT}" y="20">share of the goal reached; line: the goal, dashes: the floor</text>',
    ]
    for index, (outcome, figure) in enumerate(measured):
        goal = GOALS[outcome.row]
        top = _TOP + _ROW * index
        share = _share(figure, goal.goal, goal.more_is_better)
        floor = _LEFT + _x(_share(goal.floor, goal.goal, goal.more_is_better))
        parts += [
            f'<text x="{_LEFT - 10}" y="{top + 17}" text-anchor="end">{escape(outcome.what)}</text>',
            (
                f'<rect x="{_LEFT}" y="{top + 3}" width="{_x(share):.1f}" height="20" '
                f'fill="{_COLOURS[goal.judge(figure)]}"/>'
            ),
            f'<text x="{_LEFT + _x(share) + 6:.1f}" y="{top + 17}">{figure:.2f}</text>',
            (
                f'<line x1="{floor:.1f}" x2="{floor:.1f}" y1="{top}" y2="{top + 26}" stroke="black" '
                'stroke-dasharray="3"/>'
            ),
        ]
    x = _LEFT + _x(1.0)
    parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 8}" y2="{height - 12}" stroke="black"/>')
    return "\n".join([*parts, "</svg>", ""])


def _share(figure: float, goal: float, more_is_better: bool) -> float:
    return figure / goal if more_is_better else goal / figure


def _x(share: float) -> float:
    return min(share, _MOST) / _MOST * _WIDTH
