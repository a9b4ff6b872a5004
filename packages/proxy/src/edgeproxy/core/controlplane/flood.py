"""A limit on how many requests one client may make, with a memory that does not grow.

The generic cell rate algorithm: a token bucket that keeps one number per client, the time at which its bucket
will be full again. Nothing is rounded and nothing needs refilling.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

CLIENTS_MAX: Final = 10_000


class FloodLimit:
    """Lets each client make ``burst`` requests at once and ``per_s`` a second in the long run.

    When ``clients_max`` are known, a new one takes the place of the one that was admitted longest ago,
    whose bucket is the most likely to be full.
    """

    def __init__(self, per_s: float, burst: int, clients_max: int = CLIENTS_MAX) -> None:
        self._interval_s = 1.0 / per_s
        self._burst = burst
        self._clients_max = clients_max
        self._full_at_s: OrderedDict[int, float] = OrderedDict()

    def wait_s(self, client: int, now_s: float) -> float:
        """Count a request of ``client``, a number that stands for it.

        0.0 admits it; else it is refused, and may be repeated after so many seconds.
        """
        full_at_s = max(self._full_at_s.get(client, now_s), now_s) + self._interval_s
        wait_s = full_at_s - now_s - self._burst * self._interval_s
        # Sums of decimal fractions miss by some 1e-16, which is no reason to refuse.
        if wait_s > 1e-9:
            return wait_s
        self._full_at_s[client] = full_at_s
        self._full_at_s.move_to_end(client)
        if len(self._full_at_s) > self._clients_max:
            self._full_at_s.popitem(last=False)
        return 0.0
