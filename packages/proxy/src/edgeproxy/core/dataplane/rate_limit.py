"""How many connections may one client open? A token bucket.

A bucket holds ``burst`` tokens at most and is filled at a steady rate; each connection takes one. It is kept
as its level and the time at which the level was that. The level is a real number and time is only ever
subtracted from time, so no fraction of a token is lost however often somebody asks, and a burst is exact on
any clock.
(Keeping only the time at which the bucket will be full again says the same in one number, but adds up
fractions of a second on a clock that may be years from zero: the last token of a burst would be lost now
and then.)
"""

from __future__ import annotations

import msgspec

from edgeproxy.core.dataplane.affinity import TAG_BITS

_TAG_MASK = (1 << TAG_BITS) - 1

_ROUNDING_TOKENS = 1e-3
"""So many tokens may be missing, or a client that comes back when its token is due would find 0.9999999."""


class TokenBucket(msgspec.Struct, frozen=True):
    """The terms of every client's bucket. All times are on the caller's clock, in seconds."""

    burst: float
    """Tokens that a full bucket holds, as that of a new client does."""
    per_s: float
    """Tokens that come back each second."""

    @property
    def fill_s(self) -> float:
        """How long an empty bucket takes to fill; what has not been touched for so long is as good as new."""
        return self.burst / self.per_s

    def level(self, tokens: float, at_s: float, now_s: float) -> float:
        """What a bucket that held ``tokens`` at ``at_s`` holds at ``now_s``, which must not be earlier."""
        return min(self.burst, tokens + (now_s - at_s) * self.per_s)

    def allows(self, level: float, cost: float) -> bool:
        """Whether ``cost`` tokens may be taken out of a bucket with this ``level``."""
        return level + _ROUNDING_TOKENS >= cost


def client_tag(secret: int, network: int) -> int:
    """Where the bucket of a client network is kept; never 0, which marks a free place.

    Like the tags of affinity it is hashed with the segment's secret: who could choose networks that meet in
    one place could crowd others out of the table.
    """
    return hash((secret, network)) & _TAG_MASK or 1
