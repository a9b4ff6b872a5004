"""What was refused of peers, and by them, counted by reason; and when to say so."""

from __future__ import annotations

from collections import Counter
from typing import Final

from edgeproxy.core.replication.handshake import Refused

TOLD_EVERY_S: Final = 60.0
"""The same is not told again before. A peer with a wrong key comes back every few seconds."""
LINES: Final = 20
"""So many are told in that time, of whomever: senders of datagrams can be invented, and a line for each would
fill the disk."""
_REMEMBERED: Final = 1_024
"""Anybody can send datagrams, so what is remembered of them is bounded."""


class Telling:
    """When to say what happens again and again. ``now_s`` is a clock that nobody sets."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str], tuple[float, int]] = {}
        self._began_s = -TOLD_EVERY_S
        self._lines = 0

    def may_tell(self, what: str, who: str, now_s: float) -> int | None:
        """Return how many like it went untold, when it is time to tell of them."""
        told_s, untold = self._told.get((what, who), (-TOLD_EVERY_S, 0))
        if now_s - told_s < TOLD_EVERY_S:
            self._told[what, who] = told_s, untold + 1
            return None
        if now_s - self._began_s >= TOLD_EVERY_S:
            self._began_s, self._lines = now_s, 0
        if self._lines >= LINES:
            return None
        self._lines += 1
        self._told.pop((what, who), None)
        if len(self._told) >= _REMEMBERED:
            self._told.pop(next(iter(self._told)))
        self._told[what, who] = now_s, 0
        return untold


class Refusals(Telling):
    """Counts since the start."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter(dict.fromkeys(map(str, Refused), 0))

    def note(self, reason: Refused, who: str, now_s: float) -> int | None:
        """Count one; return as :meth:`may_tell` does.

        ``who`` is an address without port, since each attempt has a port of its own.
        """
        self.counts[reason] += 1
        return self.may_tell(reason, who, now_s)
