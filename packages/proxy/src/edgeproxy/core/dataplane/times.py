"""How long something took, many times over: a histogram that workers send as it is.

Noting one costs a search among a dozen bounds.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

import msgspec

BOUNDS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds of the classes of the histogram, each included; one class more is for all that took longer.

From a connect to a backend in the same rack to one on the other side of the world that lost a SYN, up to
the default time for a connect, or in the queue.
"""


class Times(msgspec.Struct, kw_only=True):
    """How many there were, in each class, and what they took together."""

    seconds_sum: float = 0.0
    counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    """Those in each class, the one without an upper bound last."""

    def note(self, seconds: float) -> None:
        """One more took ``seconds``."""
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.seconds_sum += seconds

    def merge(self, other: Times) -> None:
        """Take in what somebody else counted."""
        self.counts = [ours + theirs for ours, theirs in zip(self.counts, other.counts, strict=True)]
        self.seconds_sum += other.seconds_sum

    @property
    def count(self) -> int:
        return sum(self.counts)
