"""When to turn to the nodes that were named in the configuration.

At first, and whenever nobody else is left: again and again, ever more seldom, for ever. Otherwise now and
then, because a cluster that fell into two halves, each of which has forgotten the other, finds together by
that only.
"""

from __future__ import annotations

from typing import Final

MAX_DELAY_INTERVALS: Final = 10.0
"""Between two attempts of a node that is alone."""
COMPANY_INTERVALS: Final = 60.0
"""Between two attempts of a node that is not."""


class Joining:
    """Times of attempts, in seconds of a clock that nobody sets. Draws are from 0 up to 1."""

    def __init__(self, interval_s: float, now_s: float) -> None:
        self._interval_s = interval_s
        self._due_s = now_s
        self._attempts = 0
        self._is_alone = True

    def is_due(self, now_s: float, draw: float, *, is_alone: bool) -> bool:
        """Whether to try now; if so, the next attempt is later by up to a half than it need be."""
        if is_alone and not self._is_alone:
            self._attempts, self._due_s = 0, now_s
        self._is_alone = is_alone
        if now_s < self._due_s:
            return False
        delay = min(MAX_DELAY_INTERVALS, 2.0 ** min(self._attempts, 16)) if is_alone else COMPANY_INTERVALS
        self._attempts += 1
        self._due_s = now_s + delay * self._interval_s * (1 + draw / 2)
        return True
