"""A hybrid logical clock: close to wall time, and later than every stamp that it has seen.

A write that was made by somebody who had seen another therefore bears the greater stamp, however wrong the
clocks of the two are. A clock that runs ahead would win for ever and drag all others along; so stamps too far
ahead of the wall clock are not to be taken in the first place (:func:`ahead_ms`), and never reach a clock.
"""

from __future__ import annotations

from typing import Final

from edgeproxy.core.replication.model import Stamp

MAX_AHEAD_MS: Final = 60_000
"""How far a stamp may be ahead of this node's wall clock. POPs with NTP are apart by milliseconds; one
that is a minute ahead is broken, and what it writes is not taken until that minute has passed here."""
RESERVED_MS: Final = 10_000
"""The high-water mark is written so far ahead, so that it is written seldom."""


class Clock:
    """The clock of one node. ``high_water_ms`` is what was last written down of it, 0 for a new one.

    After a restart stamps begin above the mark, even when the wall clock was set back meanwhile.
    """

    def __init__(self, node: str, high_water_ms: int = 0) -> None:
        self._node = node
        self._wall_ms = high_water_ms
        self._counter = 0
        self.high_water_ms = high_water_ms
        """No stamp given reaches beyond. Whenever :meth:`rises` says so, it has to be written down before the
        stamp is used."""

    def stamp(self, wall_ms: int) -> Stamp:
        """A stamp for a write that is made now, greater than all before."""
        if wall_ms > self._wall_ms:
            self._wall_ms, self._counter = wall_ms, 0
        else:
            self._counter += 1
        return Stamp(self._wall_ms, self._counter, self._node)

    def saw(self, stamp: Stamp) -> None:
        """Be later than this one from now on."""
        if (stamp.wall_ms, stamp.counter) > (self._wall_ms, self._counter):
            self._wall_ms, self._counter = stamp.wall_ms, stamp.counter

    def rises(self) -> bool:
        """Raise the high-water mark if stamps have come up to it; true when it has to be written down."""
        if self._wall_ms < self.high_water_ms:
            return False
        self.high_water_ms = self._wall_ms + RESERVED_MS
        return True


def ahead_ms(stamp: Stamp, wall_ms: int) -> int:
    """How far beyond what is allowed a stamp is ahead of the wall clock; 0 when it is not."""
    ahead = stamp.wall_ms - wall_ms
    return ahead if ahead > MAX_AHEAD_MS else 0
