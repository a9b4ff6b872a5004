"""A limit on how many requests one client may make, with a memory that does not grow.

The generic cell rate algorithm: a token bucket that keeps one number per client, the time at which its bucket
will be full again. Nothing is rounded and nothing needs refilling.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

CLIENTS_MAX: Final = 65_536

# Sums of decimal fractions miss by some 1e-16, which is no reason to refuse.
_ROUNDING_S: Final = 1e-9


class FloodLimit:
    """Lets each client make ``burst`` requests at once and ``per_s`` a second in the long run.

    Clients are numbers that stand for them. When ``clients_max`` are known, a new one takes the place of the
    one that was admitted longest ago, whose bucket is the most likely to be full.
    """

    def __init__(self, per_s: float, burst: int, clients_max: int = CLIENTS_MAX) -> None:
        """``per_s`` 0 is no limit."""
        self.change(per_s, burst)
        self._clients_max = clients_max
        self._full_at_s: OrderedDict[int, float] = OrderedDict()

    def change(self, per_s: float, burst: int) -> None:
        """Limit by these from now on. What clients have used up stays used up."""
        self._interval_s = 1.0 / per_s if per_s else 0.0
        self._burst = burst

    def wait_s(self, client: int, now_s: float) -> float:
        """Count a request of ``client``.

        0.0 admits it; else it is refused, costs nothing, and may be repeated after so many seconds.
        """
        full_at_s, wait_s = self._look(client, now_s)
        if not wait_s:
            self._store(client, full_at_s)
        return wait_s

    def delay_s(self, client: int, now_s: float) -> float:
        """Count a request of ``client`` in any case; return how long its answer has to wait."""
        full_at_s, wait_s = self._look(client, now_s)
        self._store(client, full_at_s)
        return wait_s

    def _look(self, client: int, now_s: float) -> tuple[float, float]:
        """When the bucket will be full with one more request, and how long that is too early."""
        if not self._interval_s:
            return now_s, 0.0
        full_at_s = max(self._full_at_s.get(client, now_s), now_s) + self._interval_s
        wait_s = full_at_s - now_s - self._burst * self._interval_s
        return full_at_s, wait_s if wait_s > _ROUNDING_S else 0.0

    def _store(self, client: int, full_at_s: float) -> None:
        self._full_at_s[client] = full_at_s
        self._full_at_s.move_to_end(client)
        if len(self._full_at_s) > self._clients_max:
            self._full_at_s.popitem(last=False)
