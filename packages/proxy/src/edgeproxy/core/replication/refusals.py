"""What was refused of peers, and by them, counted by reason; and when to say so."""

from __future__ import annotations

from collections import Counter
from typing import Final

from edgeproxy.core.replication.handshake import Refused

TOLD_EVERY_S: Final = 60.0
"""The same is not told again before. A peer with a wrong key comes back every few seconds."""
_REMEMBERED: Final = 1_024
"""Anybody can send datagrams, so what is remembered of them is bounded."""


class Refusals:
    """Counts since the start. ``now_s`` is a clock that nobody sets."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter(dict.fromkeys(map(str, Refused), 0))
        self._told: dict[tuple[str, str], tuple[float, int]] = {}

    def note(self, reason: Refused, who: str, now_s: float) -> int | None:
        """Count one; return how many like it went untold, when it is time to tell of them.

        ``who`` is an address without port, since each attempt has a port of its own.
        """
        self.counts[reason] += 1
        return self.may_tell(reason, who, now_s)

    def may_tell(self, what: str, who: str, now_s: float) -> int | None:
        """As :meth:`note`, for what is no refusal of ours."""
        told_s, untold = self._told.get((what, who), (-TOLD_EVERY_S, 0))
        if now_s - told_s < TOLD_EVERY_S:
            self._told[what, who] = told_s, untold + 1
            return None
        self._told.pop((what, who), None)
        if len(self._told) >= _REMEMBERED:
            self._told.pop(next(iter(self._told)))
        self._told[what, who] = now_s, 0
        return untold
