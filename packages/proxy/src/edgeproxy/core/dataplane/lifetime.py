"""How long a connection may be silent, and how old it may grow.

Nobody is told of each byte: a connection is looked at :data:`LOOKS` times within the shortest of its
limits, and one that has moved no byte since the last look is silent. A limit of T is therefore kept to
between T and 1.25 T: up to one look passes before the silence is seen to have begun, and up to one more
after it has lasted long enough.
"""

from __future__ import annotations

import msgspec

from edgeproxy.core.dataplane.session import Event

LOOKS = 8

UNLIMITED_LOOK_INTERVAL_S = 60.0
"""Without a limit connections are looked at all the same, as one may be set while they are open."""


class Lifetimes(msgspec.Struct, frozen=True):
    """The limits, in seconds; 0 is none."""

    idle_s: float = 3_600.0
    """Longest silence in both directions."""
    half_close_s: float = 300.0
    """Longest silence of the direction that is left when the other has ended."""
    max_age_s: float = 0.0
    """Counted from the accept."""

    @property
    def look_interval_s(self) -> float:
        """Time between two looks at a connection."""
        limits = [limit for limit in (self.idle_s, self.half_close_s, self.max_age_s) if limit]
        return min(limits) / LOOKS if limits else UNLIMITED_LOOK_INTERVAL_S

    def verdict(self, is_half_closed: bool, silent_s: float, age_s: float) -> Event | None:
        """What ends the connection now, if anything does."""
        if self.max_age_s and age_s >= self.max_age_s:
            return Event.MAX_AGE
        if is_half_closed and self.half_close_s and silent_s >= self.half_close_s:
            return Event.HALF_CLOSE_TIMEOUT
        if self.idle_s and silent_s >= self.idle_s:
            return Event.IDLE_TIMEOUT  # feature: relay.lifetimes
        return None
