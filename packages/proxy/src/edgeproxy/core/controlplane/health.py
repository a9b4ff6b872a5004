"""Is a backend well? One backend's checks, and when the next one is due.

A status changes only after several results in a row that say so (*rise* and *fall*), so that one lost
packet takes nobody out of rotation. While results contradict the status, or nothing is known yet, checks
come at the shorter interval: it is then that a minute of clients depends on the answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from heapq import heappop, heappush

import msgspec

_SHORTEST = 0.9
"""Intervals are drawn from this share of the nominal one upwards, so that backends which were checked
together drift apart. Never above it, for "out after fall times interval" is a promise."""


class Status(StrEnum):
    UNKNOWN = "unknown"
    """Not enough checks yet to say anything; it takes clients."""
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class HealthSettings(msgspec.Struct, frozen=True):
    """How often to check, and how many results in a row change the status."""

    interval_s: float = 5.0
    fast_interval_s: float = 1.0
    """While the status is changing; never longer than ``interval_s``."""
    healthy_threshold: int = 2
    unhealthy_threshold: int = 3


class Health:
    """One backend as its checks see it."""

    __slots__ = ("_run", "_settings", "status", "why")

    def __init__(self, settings: HealthSettings) -> None:
        self._settings = settings
        self._run = 0
        """Results of one kind in a row: so many good ones, or below zero, so many bad ones."""
        self.status = Status.UNKNOWN
        self.why = ""
        """What the last bad check said."""

    def checked(self, why: str | None) -> bool:
        """Take in one result, ``None`` for a good check, else what was wrong; whether the status changed."""
        if why is None:
            self._run = max(self._run, 0) + 1
            reached = self._run >= self._settings.healthy_threshold
            status = Status.HEALTHY
        else:
            self.why = why
            self._run = min(self._run, 0) - 1
            reached = -self._run >= self._settings.unhealthy_threshold
            status = Status.UNHEALTHY
        if not reached or status is self.status:
            return False
        self.status = status
        return True

    @property
    def is_changing(self) -> bool:
        """Whether the last result contradicts the status, or nothing is known yet."""
        match self.status:
            case Status.HEALTHY:
                return self._run < 0
            case Status.UNHEALTHY:
                return self._run > 0
            case _:
                return True

    def next_interval_s(self, draw: float) -> float:
        """Time from the beginning of one check to that of the next; ``draw`` is uniform in [0, 1)."""
        nominal_s = self._settings.interval_s
        if self.is_changing:
            nominal_s = min(nominal_s, self._settings.fast_interval_s)
        return nominal_s * (_SHORTEST + (1 - _SHORTEST) * draw)


class CheckSchedule:
    """Which backend is to be checked when. A backend under check has no time until it is put again."""

    def __init__(self) -> None:
        self._at_s: dict[str, float] = {}
        self._queue: list[tuple[float, str]] = []

    def put(self, backend_id: str, at_s: float) -> None:
        """Check this backend at ``at_s``, and no more at the time that was set before."""
        self._at_s[backend_id] = at_s
        heappush(self._queue, (at_s, backend_id))

    def discard(self, backend_id: str) -> None:
        """Check it no more; unknown ones are ignored."""
        self._at_s.pop(backend_id, None)

    def next_at_s(self) -> float | None:
        """When the next check is due, ``None`` without any."""
        while self._queue:
            at_s, backend_id = self._queue[0]
            if self._at_s.get(backend_id) == at_s:
                return at_s
            heappop(self._queue)
        return None

    def due(self, now_s: float) -> Iterator[str]:
        """Take out those that are due, the one that has waited longest first."""
        while (at_s := self.next_at_s()) is not None and at_s <= now_s:
            backend_id = heappop(self._queue)[1]
            del self._at_s[backend_id]
            yield backend_id
