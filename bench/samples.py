"""What was measured, and how figures of several rounds become one.

Rates on a shared machine change from minute to minute, so figures are compared only within a round, in which
all targets had their turn one after the other; the ratio that is reported is the median of the rounds' own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median


@dataclass(frozen=True, slots=True)
class Sample:
    """One target under one load, once."""

    figure: float
    """In the unit of its row."""
    cpu_s_per_1e5: float | None = None
    """Processor time of the target's processes for 100,000 of what the row counts."""
    details: dict[str, float] = field(default_factory=dict)
    errors: int = 0


@dataclass(slots=True)
class Outcome:
    """Everything that is known of one row."""

    row: str
    what: str
    unit: str
    rounds: dict[str, list[Sample]] = field(default_factory=dict)
    """Samples by target, one a round."""
    figure: float | None = None
    """What is held against the goal: a ratio, or a figure of ours where the goal is absolute."""
    is_ratio: bool = True
    notes: list[str] = field(default_factory=list)
    profile: str = ""
    """Where the time goes, when the goal was missed."""

    def typical(self, target: str) -> float | None:
        """Median figure of a target."""
        samples = self.rounds.get(target)
        return median(sample.figure for sample in samples) if samples else None

    def cpu(self, target: str) -> float | None:
        """Median processor time of a target for 100,000."""
        known = [each.cpu_s_per_1e5 for each in self.rounds.get(target, ()) if each.cpu_s_per_1e5 is not None]
        return median(known) if known else None

    @property
    def errors(self) -> int:
        return sum(sample.errors for samples in self.rounds.values() for sample in samples)


def ratio(
    rounds: dict[str, list[Sample]],
    ours: str,
    peer: str,
    figure: Callable[[Sample], float | None] = lambda sample: sample.figure,
) -> float | None:
    """Median over the rounds of ``ours`` divided by ``peer``; ``None`` when no round has both."""
    return _median_ratio(
        [(figure(a), figure(b)) for a, b in zip(rounds.get(ours, ()), rounds.get(peer, ()), strict=False)]
    )


def added_ratio(rounds: dict[str, list[Sample]], ours: str, peer: str, direct: str) -> float | None:
    """The same for what each adds to ``direct``; rounds in which the peer added nothing tell nothing."""
    return _median_ratio(
        [
            (a.figure - base.figure, b.figure - base.figure)
            for a, b, base in zip(
                rounds.get(ours, ()), rounds.get(peer, ()), rounds.get(direct, ()), strict=False
            )
        ]
    )


def _median_ratio(pairs: Sequence[tuple[float | None, float | None]]) -> float | None:
    ratios = [a / b for a, b in pairs if a is not None and b is not None and b > 0]
    return median(ratios) if ratios else None
