"""What the proxy is held to, in one place.

Below the floor is a defect; between floor and goal the report says by how much, and where the time goes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Verdict(StrEnum):
    REACHED = "reached"
    BELOW_GOAL = "below the goal"
    BELOW_FLOOR = "below the floor"
    UNKNOWN = "not measured"


@dataclass(frozen=True, slots=True)
class Goal:
    """The bounds of one figure."""

    floor: float
    goal: float
    more_is_better: bool = True

    def judge(self, figure: float | None) -> Verdict:
        """How a figure, ``None`` for one that could not be had, stands to the bounds."""
        if figure is None:
            return Verdict.UNKNOWN
        sign = 1 if self.more_is_better else -1
        if sign * figure < sign * self.floor:
            return Verdict.BELOW_FLOOR
        return Verdict.REACHED if sign * figure >= sign * self.goal else Verdict.BELOW_GOAL

    def shortfall(self, figure: float) -> float:
        """By what share of the goal the figure misses it; 0 or less when it does not."""
        missing = self.goal - figure if self.more_is_better else figure - self.goal
        return missing / self.goal


GOALS: Final = {
    # Ratios to HAProxy in the same round.
    "k64": Goal(0.95, 1.05),
    "c1": Goal(1.9, 1.3, more_is_better=False),
    "kernel-c1": Goal(0.5, 0.25, more_is_better=False),
    "kernel-k64": Goal(0.95, 1.05),
    "conn": Goal(0.80, 1.0),
    "bulk": Goal(1.0, 1.15),
    "idle": Goal(0.5, 0.35, more_is_better=False),
    "tls-k64": Goal(0.85, 1.0),
    "tls-conn": Goal(0.9, 1.0),
    "tls-bulk": Goal(1.1, 1.3),
    # Microseconds.
    "choosing": Goal(10.0, 3.0, more_is_better=False),
    # Ratio to the same load without changes.
    "changes": Goal(3.0, 1.5, more_is_better=False),
    # Seconds.
    "start": Goal(0.6, 0.3, more_is_better=False),
}
"""By row of the report."""
