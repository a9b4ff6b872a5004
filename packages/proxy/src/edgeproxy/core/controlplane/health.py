"""Is a backend well? One backend's checks, and when the next one is due.

A status changes only after several results in a row that say so (*rise* and *fall*), so that one lost
packet takes nobody out of rotation. While results contradict the status, or nothing is known yet, checks
come at the shorter interval: it is then that a minute of clients depends on the answer.
"""

from __future__ import annotations

from enum import StrEnum

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

    __slots__ = ("_run", "settings", "status", "why")

    def __init__(self, settings: HealthSettings) -> None:
        self.settings = settings
        """May be replaced; holds from the next check on."""
        self._run = 0
        """Results of one kind in a row: so many good ones, or below zero, so many bad ones."""
        self.status = Status.UNKNOWN
        self.why = ""
        """What the last bad check said."""

    def checked(self, why: str | None) -> bool:
        """Take in one result, ``None`` for a good check, else what was wrong; whether the status changed."""
        if why is None:  # feature: health.checks
            self._run = max(self._run, 0) + 1
            reached = self._run >= self.settings.healthy_threshold
            status = Status.HEALTHY
        else:
            self.why = why
            self._run = min(self._run, 0) - 1
            reached = -self._run >= self.settings.unhealthy_threshold
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
        nominal_s = self.settings.interval_s
        if self.is_changing:
            nominal_s = min(nominal_s, self.settings.fast_interval_s)
        return nominal_s * (_SHORTEST + (1 - _SHORTEST) * draw)
